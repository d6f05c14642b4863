"""What a party hears, to the millisecond; and what it never hears after an interruption."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from switchhook.domain import ports
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Heard
from switchhook.media.playout import MAX_QUEUED_BYTES, Playout, PlayoutOverflow

SILENCE = 0xFF


class Line:
    """Asks a playout for a frame each 20 ms, as the pacer does, and keeps what was heard."""

    def __init__(self) -> None:
        self.now = 100.0
        self.talks = 0
        self.drained: list[float] = []
        self.frames: list[bytes | None] = []
        self.playout = Playout(Encoding.PCMU, on_talk=self._talk, on_drained=lambda: self.drained.append(self.now))
        self._next = 0.0

    def _talk(self) -> None:
        self.talks += 1
        self.frames.append(self.playout.next_frame(self.now))
        self._next = self.now + 0.02

    def run(self, until: float) -> None:
        while self._next <= until + 1e-9:
            self.now = max(self.now, self._next)
            self.frames.append(self.playout.next_frame(self._next))
            self._next += 0.02
        self.now = until

    def put(self, key: str, payload: bytes) -> None:
        self.playout.enqueue(key, payload, self.now)

    @property
    def sound(self) -> bytes:
        return b"".join(frame for frame in self.frames if frame is not None)


def port(playout: Playout) -> ports.Playout:
    """The playout is what the domain asks for; the type checker says so."""
    return playout


def test_it_begins_at_once_and_is_drained_when_the_last_sample_was_heard() -> None:
    line = Line()
    line.put("a", b"\x01" * 480)
    line.playout.finish("a", line.now)
    assert line.frames == [b"\x01" * 160]
    assert not port(line.playout).idle
    line.run(100.0599)
    assert line.drained == []
    line.run(101.0)
    assert line.sound == b"\x01" * 480
    assert line.drained == [pytest.approx(100.06)]
    assert line.playout.idle
    assert line.talks == 1


def test_heard_is_exact_within_the_frame_that_plays() -> None:
    line = Line()
    line.put("a", b"\x01" * 800)
    assert [line.playout.heard_ms("a", 100.0 + ms / 1000) for ms in (0, 1, 7, 19, 20)] == [0, 1, 7, 19, 20]
    line.run(100.05)
    assert line.playout.heard_ms("a", 100.05) == 50
    line.run(101.0)
    assert line.playout.heard_ms("a", 101.0) == 100
    assert line.playout.heard_ms("nobody", 101.0) == 0


def test_several_short_utterances_share_a_frame_in_order() -> None:
    line = Line()
    line.put("a", b"\x01" * 200)
    line.put("b", b"\x02" * 40)
    line.put("c", b"\x03" * 80)
    for key in "abc":
        line.playout.finish(key, line.now)
    line.run(100.03)
    assert line.sound == b"\x01" * 200 + b"\x02" * 40 + b"\x03" * 80
    # 10 ms into the frame: a's last 5 ms and b's 5 ms are over, c's 10 ms are to come.
    assert [line.playout.heard_ms(key, 100.03) for key in "abc"] == [25, 5, 0]
    line.run(100.04)
    assert [line.playout.heard_ms(key, 100.04) for key in "abc"] == [25, 5, 10]


def test_a_finished_utterance_pads_its_last_frame() -> None:
    line = Line()
    line.put("a", b"\x01" * 200)
    line.playout.finish("a", line.now)
    line.run(101.0)
    assert line.sound == b"\x01" * 200 + bytes([SILENCE]) * 120
    assert line.playout.heard_ms("a", 101.0) == 25
    assert line.drained == [pytest.approx(100.04)]


def test_a_partial_frame_waits_40_ms_for_the_rest() -> None:
    line = Line()
    line.put("a", b"\x01" * 200)
    line.run(100.03)
    assert line.sound == b"\x01" * 160
    line.put("a", b"\x02" * 120)
    line.run(100.2)
    assert line.sound == b"\x01" * 200 + b"\x02" * 120
    line = Line()
    line.put("a", b"\x01" * 200)
    line.run(100.2)
    assert line.frames[:3] == [b"\x01" * 160, None, b"\x01" * 40 + bytes([SILENCE]) * 120]
    assert len(line.drained) == 1


@pytest.mark.parametrize("cut_ms", [*range(0, 221, 20), *range(1, 220, 13)])
def test_after_an_interruption_nothing_of_the_old_epoch_plays(cut_ms: int) -> None:
    line = Line()
    line.put("old", b"\x01" * 1500)
    line.run(100 + cut_ms / 1000)
    before = len(line.frames)
    heard = line.playout.interrupt(line.now)
    assert heard == [Heard("old", min(cut_ms, 187), 187)]
    assert line.playout.epoch == 1
    line.put("old", b"\x01" * 1600)  # a delta that was under way
    line.put("new", b"\x02" * 320)
    line.playout.finish("new", line.now)
    line.run(102.0)
    assert set(b"".join(frame for frame in line.frames[before:] if frame is not None)) == {2}
    assert line.playout.heard_ms("old", 102.0) == min(cut_ms, 187)
    assert line.playout.heard_ms("new", 102.0) == 40
    assert line.playout.idle


def test_an_interrupted_talkspurt_is_drained_once_the_frame_in_the_air_is_over() -> None:
    line = Line()
    line.put("a", b"\x01" * 1600)
    line.run(100.05)
    line.playout.interrupt(line.now)
    assert line.drained == []
    line.run(101.0)
    assert line.drained == [pytest.approx(100.06)]


def test_an_interruption_tells_only_of_what_was_not_finished_and_heard() -> None:
    line = Line()
    line.put("whole", b"\x01" * 160)
    line.playout.finish("whole", line.now)
    line.put("open", b"\x02" * 160)
    line.put("waiting", b"\x03" * 160)
    line.playout.finish("waiting", line.now)
    line.run(100.039)
    assert line.playout.interrupt(line.now) == [Heard("open", 19, 20), Heard("waiting", 0, 20)]
    assert line.playout.interrupt(line.now) == []


def test_an_underrun_ends_the_talkspurt_and_the_rest_is_another() -> None:
    line = Line()
    line.put("a", b"\x01" * 160)
    line.run(100.5)
    line.put("a", b"\x01" * 160)
    line.playout.finish("a", line.now)
    line.run(101.0)
    assert line.talks == 2
    assert line.drained == [pytest.approx(100.02), pytest.approx(100.52)]
    assert line.playout.heard_ms("a", 101.0) == 40


def test_sound_queued_on_drained_goes_out_on_the_same_beat() -> None:
    line = Line()
    line.playout.on_drained = lambda: line.put("b", b"\x02" * 160) if len(line.frames) < 3 else None
    line.put("a", b"\x01" * 160)
    line.run(100.05)
    assert line.frames[:2] == [b"\x01" * 160, b"\x02" * 160]
    assert line.talks == 1


def test_on_hold_sound_waits_and_the_frame_in_the_air_ends() -> None:
    line = Line()
    line.put("a", b"\x01" * 320)
    line.playout.rest(100.02)
    line.playout.rest(100.04)
    assert line.playout.heard_ms("a", 100.5) == 20
    assert not line.playout.idle
    line.run(101.0)
    assert line.sound == b"\x01" * 320
    assert len(line.drained) == 1


def test_ten_minutes_are_the_most_that_is_queued() -> None:
    playout = Playout()
    playout.enqueue("a", bytes(MAX_QUEUED_BYTES), 0.0)
    with pytest.raises(PlayoutOverflow):
        playout.enqueue("a", b"\x01", 0.0)
    assert playout.queued_ms == 600_000
    assert playout.interrupt(0.0) == [Heard("a", 0, 600_000)]
    playout.enqueue("b", b"\x01", 0.0)


def test_memory_is_bounded_for_tiny_pieces_and_for_many_keys() -> None:
    playout = Playout()
    with pytest.raises(PlayoutOverflow):
        for _ in range(100_000):
            playout.enqueue("a", b"\x01", 0.0)
    playout.interrupt(0.0)
    for number in range(10_000):
        playout.enqueue(f"k{number}", b"\x01" * 160, number * 0.02)
        playout.finish(f"k{number}", number * 0.02)
        playout.next_frame(number * 0.02)
    assert playout.heard_ms("k9998", 1000.0) == 20
    assert playout.heard_ms("k1", 1000.0) == 0  # forgotten


def test_large_pieces_cost_no_more_a_frame_than_small_ones() -> None:
    playout = Playout()
    playout.enqueue("a", bytes(MAX_QUEUED_BYTES), 0.0)
    frames = 0
    while playout.next_frame(frames * 0.02) is not None:
        frames += 1
    assert frames == 30_000  # quadratic work would not end within the test's time


class PlayoutHouse(RuleBasedStateMachine):
    """Any order of inputs: no byte plays twice, none of an old epoch plays, heard never exceeds queued, talkspurts end once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.beat_at = 0.0
        self.talks = 0
        self.ends = 0
        self.keys: dict[str, int] = {}
        self.epoch_keys: set[str] = set()
        self.queued = 0
        self.played = 0
        self.playout = Playout(Encoding.PCMU, self._talk, self._end)

    def _talk(self) -> None:
        self.talks += 1
        self.beat_at = self.now
        self._beat()

    def _end(self) -> None:
        self.ends += 1
        assert self.playout.idle

    def _beat(self) -> None:
        frame = self.playout.next_frame(self.beat_at)
        self.beat_at += 0.02
        if frame is not None:
            assert len(frame) == 160
            self.played += sum(byte != SILENCE for byte in frame)
            assert all(byte == SILENCE or byte == self.playout.epoch % 200 for byte in frame)

    @rule(key=st.sampled_from("abcd"), size=st.integers(0, 900))
    def enqueue(self, key: str, size: int) -> None:
        key = f"{key}{self.playout.epoch}"
        self.keys[key] = self.keys.get(key, 0) + size
        self.epoch_keys.add(key)
        self.queued += size
        self.playout.enqueue(key, bytes([self.playout.epoch % 200]) * size, self.now)

    @rule(key=st.sampled_from("abcd"))
    def finish(self, key: str) -> None:
        self.playout.finish(f"{key}{self.playout.epoch}", self.now)

    @rule(key=st.sampled_from("abcd"), size=st.integers(1, 900))
    def a_late_delta(self, key: str, size: int) -> None:
        old = f"{key}{self.playout.epoch - 1}"
        if self.playout.epoch and self.keys.get(old, 0) and self.playout.heard_ms(old, self.now) * 8 + 8 <= self.keys[old]:
            self.playout.enqueue(old, b"\xfe" * size, self.now)

    @rule()
    def interrupt(self) -> None:
        told = self.playout.interrupt(self.now)
        for heard in told:
            assert 0 <= heard.heard_ms <= heard.queued_ms == self.keys[heard.key] // 8
            assert self.playout.heard_ms(heard.key, self.now) == heard.heard_ms
        assert {heard.key for heard in told} <= self.epoch_keys
        self.epoch_keys.clear()
        self.played, self.queued = 0, 0

    @rule(ms=st.integers(1, 90))
    def wait(self, ms: int) -> None:
        until = self.now + ms / 1000
        while self.beat_at <= until:
            self.now = self.beat_at
            self._beat()
        self.now = until

    @rule()
    def hold(self) -> None:
        self.playout.rest(self.now)

    @invariant()
    def heard_never_exceeds_queued(self) -> None:
        heard = 0
        for key, queued in self.keys.items():
            assert self.playout.heard_ms(key, self.now) <= queued // 8
            if key in self.epoch_keys:
                heard += self.playout.heard_ms(key, self.now) * 8
        assert heard <= self.played <= self.queued
        assert self.talks - self.ends in (0, 1) or self.ends > self.talks

    def teardown(self) -> None:
        self.wait(10_000)
        assert self.playout.idle
        assert self.played == self.queued
        assert self.ends >= self.talks


TestPlayoutHouse = PlayoutHouse.TestCase


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=10))
def test_the_frames_together_are_what_was_queued(sizes: list[int]) -> None:
    playout = Playout(Encoding.PCMU)
    sound = b""
    for at, size in enumerate(sizes):
        piece = bytes([at + 1]) * size
        playout.enqueue("a", piece, 0.0)
        sound += piece
    playout.finish("a", 0.0)
    frames, now = [], 0.0
    while (frame := playout.next_frame(now)) is not None:
        frames.append(frame)
        now += 0.02
    assert b"".join(frames) == sound + bytes([SILENCE]) * (-len(sound) % 160)
    assert playout.heard_ms("a", now) == len(sound) // 8

"""Two clocks that differ, a network that is unsteady, and a party that hears speech whole and not late."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.model import Encoding
from switchhook.domain.ports import SoundSource
from switchhook.media import g711, tones
from switchhook.media.jitter_buffer import MAX_HELD_SAMPLES, JitterBuffer

FRAME_S = 0.020
ULAW = Encoding.PCMU
SILENCE = b"\xff" * 160
LOUD = tones.tone((440,), 10_000, ULAW)[800:-800]


def speech(number: int) -> bytes:
    """A loud frame that is like no other: its first bytes are its number."""
    return bytes([0x10 + (number >> 12 & 0x3F), 0x10 + (number >> 6 & 0x3F), 0x10 + (number & 0x3F)]) + LOUD[:157]


def number(frame: bytes) -> int:
    return (frame[0] - 0x10 << 12) + (frame[1] - 0x10 << 6) + frame[2] - 0x10


class Network:
    """A sender whose clock is `ppm` fast, packets that are late by `lateness_s()` at times, and a listener's beat."""

    def __init__(self, ppm: float = 0.0, lateness_s: Callable[[], float] = lambda: 0.0, phase_s: float = 0.007) -> None:
        self.buffer = JitterBuffer(ULAW)
        self.beat = phase_s
        self.frames: list[bytes | None] = []
        self.longest_held_ms = 0.0
        self._pace = 1 - ppm * 1e-6
        self._lateness_s = lateness_s
        self._sent = 0
        self._arrives = 0.0

    def run(self, seconds: float, payload: Callable[[int], bytes]) -> None:
        """`payload(n)` is the n-th packet; an empty one is not sent."""
        until = self.beat + seconds
        while self.beat < until:
            while self._arrives <= self.beat:
                sound = payload(self._sent)
                if sound:
                    self.buffer.push(sound, self._arrives)
                self._sent += 1
                due = self._sent * FRAME_S * self._pace + self._lateness_s()
                self._arrives = max(self._arrives, due)
            self.frames.append(self.buffer.next_frame(self.beat))
            self.longest_held_ms = max(self.longest_held_ms, self.buffer.held_ms)
            self.beat += FRAME_S

    @property
    def heard(self) -> bytes:
        return b"".join(frame or SILENCE for frame in self.frames)


def source(buffer: JitterBuffer) -> SoundSource:
    """The buffer is what a playout asks; the type checker says so."""
    return buffer


def test_sound_begins_after_40_ms_and_goes_through_as_it_is() -> None:
    network = Network()
    network.run(2.0, speech)
    first = next(at for at, frame in enumerate(network.frames) if frame is not None)
    assert 0.040 <= 0.007 + first * FRAME_S < 0.060
    assert [number(frame) for frame in network.frames[first:] if frame] == list(range(len(network.frames) - first))


def test_nobody_who_spoke_is_silence() -> None:
    assert source(JitterBuffer(ULAW)).next_frame(5.0) is None


@given(
    sizes=st.lists(st.sampled_from([80, 160, 240, 320, 480, 13, 161]), min_size=1, max_size=6),
    lateness_ms=st.lists(st.floats(0, 5), min_size=1, max_size=20),
    phase_ms=st.floats(0, 20),
)
def test_without_drift_nothing_is_lost_or_made_up_whatever_the_length_of_packets(
    sizes: list[int], lateness_ms: list[float], phase_ms: float
) -> None:
    buffer = JitterBuffer(ULAW)
    sent = heard = b""
    starts = 0.0
    beat = phase_ms / 1000
    number = 0
    frames: list[bytes] = []
    while beat < 8.0:
        while (arrives := starts + lateness_ms[number % len(lateness_ms)] / 1000) <= beat:
            size = sizes[number % len(sizes)]
            payload = (LOUD * 2)[number % 5000 : number % 5000 + size]
            buffer.push(payload, arrives)
            sent += payload
            number += 1
            starts += size / 8000
        frame = buffer.next_frame(beat)
        if frame is not None:
            frames.append(frame)
        beat += FRAME_S
    heard = b"".join(frames)
    assert len(heard) > 7.8 * 8000
    assert sent.startswith(heard)
    assert buffer.dropped_samples == buffer.repeated_samples == buffer.concealed_samples == 0


@pytest.mark.parametrize("ppm", [200, -200])
def test_an_hour_of_drift_costs_no_speech_when_there_are_pauses(ppm: int) -> None:
    dice = random.Random(1)
    network = Network(ppm, lambda: dice.random() * 0.005)
    talks = lambda n: speech(n) if n // 50 % 2 else SILENCE  # noqa: E731 - one second of each in turn
    network.run(3600, talks)
    heard = [number(frame) for frame in network.frames if frame is not None and frame != SILENCE]
    assert len(heard) > 89_900
    assert heard == [n for n in range(200_000) if n // 50 % 2][: len(heard)]
    buffer = network.buffer
    corrected = buffer.dropped_samples if ppm > 0 else buffer.repeated_samples
    assert corrected == pytest.approx(3600 * 200e-6 * 8000, abs=480)  # 0.72 s, a frame at a time
    assert buffer.concealed_samples == 0
    assert network.longest_held_ms <= 100


@pytest.mark.parametrize("ppm", [200, -200])
def test_an_hour_of_drift_in_a_sound_without_pauses_is_bounded_and_corrected_by_single_frames(ppm: int) -> None:
    network = Network(ppm)
    network.run(3600, lambda n: LOUD[n % 400 * 160 :][:160])
    buffer = network.buffer
    corrected = buffer.dropped_samples if ppm > 0 else buffer.concealed_samples
    assert corrected == pytest.approx(3600 * 200e-6 * 8000, abs=480)
    assert network.longest_held_ms <= 100
    assert None not in network.frames[5:]
    samples = tones.samples_of(network.heard[-80_000:], ULAW)
    assert min(tones.power(samples[at : at + 160], 440) for at in range(0, 78_000, 160)) > 1e6  # no hole, no frame of noise


def test_the_buffer_grows_with_lateness_and_shrinks_when_the_network_is_steady_again() -> None:
    dice = random.Random(3)
    late_s = [0.0]
    network = Network(lateness_s=lambda: dice.random() * late_s[0])
    network.run(20, speech)
    assert network.buffer.target_ms == pytest.approx(20, abs=1)
    late_s[0] = 0.080
    network.run(20, speech)
    concealed = network.buffer.concealed_samples
    assert 90 <= network.buffer.target_ms <= 101
    network.run(40, speech)
    assert network.buffer.concealed_samples == concealed  # once is learnt
    late_s[0] = 0.0
    network.run(60, lambda n: speech(n) if n % 50 else SILENCE)
    assert network.buffer.target_ms == pytest.approx(20, abs=1)
    assert network.buffer.held_ms <= 60


def test_what_is_late_is_concealed_and_then_silence() -> None:
    network = Network()
    network.run(1.0, speech)
    network.run(0.5, lambda n: b"")
    gap = network.frames[-25:]
    assert [frame is None for frame in gap[-18:]] == [True] * 18
    made_up = [frame for frame in gap if frame is not None]
    levels = [g711.level(frame, ULAW) for frame in made_up]
    assert levels == sorted(levels, reverse=True)
    assert network.buffer.concealed_samples == 480


def test_minutes_of_nothing_leave_no_delay_behind() -> None:
    network = Network()
    network.run(5.0, speech)
    network.run(180, lambda n: b"")
    network.frames.clear()
    before = network.buffer.dropped_samples
    network.run(2.0, speech)
    first = next(at for at, frame in enumerate(network.frames) if frame is not None)
    assert first <= 4
    assert network.buffer.target_ms <= 40
    assert network.buffer.dropped_samples == before


def test_silence_that_a_line_fills_a_pause_with_is_no_delay() -> None:
    network = Network()
    network.run(5.0, speech)
    network.run(0.1, lambda n: b"")
    network.buffer.push(SILENCE * 4, network.beat)  # what the line found missing, all at once
    network.run(5.0, lambda n: SILENCE)
    network.run(5.0, speech)
    assert network.buffer.held_ms <= 60
    assert network.buffer.target_ms <= 60


def test_who_does_not_listen_for_minutes_hears_what_is_said_then() -> None:
    network = Network()
    network.run(2.0, speech)
    for n in range(9000):
        network.buffer.push(speech(n), network.beat + n * FRAME_S)
        assert network.buffer.held_ms <= MAX_HELD_SAMPLES / 8
    frame = network.buffer.next_frame(network.beat + 180)
    assert frame is not None
    assert number(frame) >= 8997  # at most 60 ms ago


def test_of_a_burst_the_newest_is_kept() -> None:
    buffer = JitterBuffer(ULAW)
    for n in range(100):
        buffer.push(speech(n), 1.0)
    assert buffer.held_ms <= 400
    frames = [buffer.next_frame(1.0 + at * FRAME_S) for at in range(40)]
    heard = [number(frame) for frame in frames if frame in {speech(n) for n in range(100)}]
    assert heard[-1] == 99
    assert heard == sorted(heard)


@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "ask"]), st.integers(0, 2000), st.floats(0, 3)),
        max_size=200,
    )
)
def test_whatever_comes_whenever_it_is_bounded_and_in_order(moves: list[tuple[str, int, float]]) -> None:
    buffer = JitterBuffer(ULAW)
    now = 50.0
    heard: list[bytes] = []
    for count, (move, size, wait_s) in enumerate(moves):
        now += wait_s / 50
        if move == "push":
            buffer.push(speech(count) * (size // 160) + LOUD[: size % 160], now)
        else:
            frame = buffer.next_frame(now)
            assert frame is None or len(frame) == 160
            heard += [] if frame is None else [frame]
        assert buffer.held_ms <= MAX_HELD_SAMPLES / 8
        assert 20 <= buffer.target_ms <= 120
    exact = {speech(n): n for n in range(len(moves))}
    numbers = [exact[frame] for frame in heard if frame in exact]
    assert all(a <= b for a, b in pairwise(numbers))


@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA])
def test_both_flavours_are_quiet_where_nothing_is_said(encoding: Encoding) -> None:
    buffer = JitterBuffer(encoding)
    buffer.push(encoding.silence * 160, 1.0)
    assert buffer.held_ms == 0
    buffer.push(tones.tone((440,), 40, encoding), 1.0)
    assert buffer.next_frame(1.05) is not None

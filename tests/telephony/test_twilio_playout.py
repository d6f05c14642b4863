"""What a party on a Media Stream hears, to the millisecond: marks, `clear`, sources, tones and what the recorder gets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.domain import ports
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Heard, PlayoutDrained
from switchhook.media import tones
from switchhook.media.playout import MAX_QUEUED_BYTES, PlayoutOverflow
from switchhook.telephony.twilio_playout import LEAD_S, TwilioPlayout
from tests.peers.virtual_loop import run_virtual
from tests.telephony.twilio_carrier import Line, Stream


def run(work: Coroutine[Any, Any, None]) -> None:
    run_virtual(work)


def port(playout: TwilioPlayout) -> ports.Playout:
    """The playout is what the domain asks for; the type checker says so."""
    return playout


def sound(stream: Stream) -> bytes:
    return b"".join(piece for _, piece in stream.heard())


def drained(line: Line) -> list[float]:
    return [at for at, event in zip(line.told_at, line.events, strict=True) if isinstance(event, PlayoutDrained)]


def test_sound_is_played_at_once_and_whole_and_its_end_is_told() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk(delay_s=0.03)
        said = bytes(index % 251 for index in range(20_000))
        began = line.loop.time()
        for at in range(0, 20_000, 1_600):
            line.leg.playout.enqueue("a", said[at : at + 1_600], line.loop.time())
            await asyncio.sleep(0.01)
        line.leg.playout.finish("a", line.loop.time())
        assert not port(line.leg.playout).idle
        await asyncio.sleep(5)
        assert sound(stream) == said
        assert stream.heard()[0][0] == pytest.approx(began + 0.03, abs=1e-5)
        assert drained(line) == [pytest.approx(began + 0.03 + 2.5 + 0.03, abs=0.002)]
        assert line.leg.playout.idle

    run(call())


def test_no_more_is_sent_ahead_than_a_second() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        line.leg.playout.enqueue("a", b"\x11" * 80_000, line.loop.time())
        for _ in range(110):
            await asyncio.sleep(0.1)
            assert stream.ahead_s <= LEAD_S
            assert stream.ahead_s > 0.3 or line.loop.time() > 9
        assert len(sound(stream)) == 80_000
        starts = [at for at, _ in stream.heard()]
        assert starts == pytest.approx([starts[0] + 0.2 * index for index in range(len(starts))], abs=1e-6)

    run(call())


@pytest.mark.parametrize("after_ms", [0, 1, 137, 200, 455, 999, 1_234])
def test_an_interruption_tells_what_was_heard_to_the_millisecond(after_ms: int) -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        line.leg.playout.enqueue("done", b"\x01" * 1_600, line.loop.time())
        line.leg.playout.finish("done", line.loop.time())
        line.leg.playout.enqueue("cut", b"\x02" * 40_000, line.loop.time())
        await asyncio.sleep(0.0001)
        began = stream.heard()[0][0] if stream.heard() else line.loop.time()
        await asyncio.sleep(max(0.0, began + 0.2 + after_ms / 1000 + 0.0005 - line.loop.time()))
        assert line.leg.playout.heard_ms("cut", line.loop.time()) == after_ms
        assert line.leg.playout.interrupt(line.loop.time()) == [Heard("cut", after_ms, 5_000)]
        assert line.leg.playout.idle
        await asyncio.sleep(0.001)
        assert stream.clears == 1
        line.leg.playout.enqueue("cut", b"\x03" * 160, line.loop.time())
        await asyncio.sleep(3)
        assert stream.heard_bytes() == pytest.approx(1_600 + after_ms * 8, abs=16)
        assert b"\x03" not in sound(stream)
        assert len(drained(line)) == 1
        assert line.leg.playout.heard_ms("cut", line.loop.time()) == after_ms
        assert line.leg.playout.heard_ms("nobody's", line.loop.time()) == 0

    run(call())


@settings(max_examples=60, deadline=None)
@given(
    delay_ms=st.integers(0, 150),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("say"), st.integers(1, 6_000)),
            st.tuples(st.just("wait"), st.integers(1, 700)),
            st.tuples(st.just("interrupt"), st.just(0)),
            st.tuples(st.just("key"), st.just(0)),
        ),
        max_size=14,
    ),
)
def test_never_more_is_said_to_be_heard_than_was(delay_ms: int, steps: list[tuple[str, int]]) -> None:
    """Over any line and in any order; what is recorded is what was heard, and in the end everything is told."""

    async def call() -> None:
        line = Line()
        stream = await line.talk(delay_s=delay_ms / 1000)
        recorded: list[tuple[bytes, float]] = []
        line.leg.playout.on_heard = lambda payload, at: recorded.append((payload, at))
        playout, counted, keys = line.leg.playout, 0, 0
        for number, (what, amount) in enumerate(steps):
            now = line.loop.time()
            if what == "say":
                playout.enqueue(f"u{number}", bytes([number + 1]) * amount, now)
                playout.finish(f"u{number}", now)
            elif what == "key":
                playout.play_tone(b"\xee" * 800, now)
                keys += 1
            elif what == "interrupt":
                playout.interrupt(now)
            else:
                await asyncio.sleep(amount / 1000)
            heard = sum(playout.heard_ms(f"u{key}", line.loop.time()) for key in range(len(steps)))
            recorded_ms = sum(len(payload) for payload, _ in recorded) // 8
            assert heard <= stream.heard_bytes() / 8 + 1
            assert recorded_ms <= stream.heard_bytes() / 8 + 1
            assert stream.ahead_s <= LEAD_S + 0.5
            counted = max(counted, heard)
        await asyncio.sleep(60)
        assert playout.idle
        assert not line.leg.playout._timer
        ends = [at + len(payload) / 8_000 for payload, at in recorded]
        assert all(later[1] >= end - 1e-9 for end, later in zip(ends, recorded[1:], strict=False))
        heard_tones = sum(payload.count(0xEE) for _, payload in stream.heard())
        assert heard_tones >= keys * 320, "a pressed key survives an interruption"

    run(call())


def test_a_new_talkspurt_is_counted_from_when_it_began() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk(delay_s=0.05)
        playout = line.leg.playout
        playout.enqueue("a", b"\x01" * 800, line.loop.time())
        await asyncio.sleep(7.0)
        playout.enqueue("b", b"\x02" * 8_000, line.loop.time())
        await asyncio.sleep(0.02)
        assert playout.heard_ms("b", line.loop.time()) == 0, "it is still on its way"
        await asyncio.sleep(0.28)
        assert playout.heard_ms("b", line.loop.time()) == pytest.approx(200, abs=1), "0.3 s, less there and back"
        assert stream.heard_bytes() - 800 == pytest.approx(2_000, abs=9)

    run(call())


def test_marks_that_never_come_back_do_not_hold_the_call_up() -> None:
    async def call() -> None:
        line = Line()
        await line.talk(echoes=False)
        line.leg.playout.enqueue("a", b"\x01" * 4_000, line.loop.time())
        line.leg.playout.finish("a", line.loop.time())
        await asyncio.sleep(1)
        assert not drained(line)
        await asyncio.sleep(4)
        assert len(drained(line)) == 1
        assert line.leg.playout.heard_ms("a", line.loop.time()) == 500

    run(call())


def test_echoes_of_nobody_and_of_an_older_epoch_say_nothing() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk(delay_s=0.2)
        playout = line.leg.playout
        playout.enqueue("a", b"\x01" * 8_000, line.loop.time())
        await asyncio.sleep(0.7)
        assert playout.epoch == 0
        playout.interrupt(line.loop.time())
        assert playout.epoch == 1
        playout.enqueue("b", b"\x02" * 8_000, line.loop.time())
        for name in ("", "x", "²", "9" * 5_000, "99", "-1"):
            line.leg.on_mark(name)
        await asyncio.sleep(0.25)  # the cleared marks of "a" come back
        assert playout.heard_ms("b", line.loop.time()) == 0
        await asyncio.sleep(5)
        assert playout.heard_ms("b", line.loop.time()) == 1_000
        assert len(sound(stream)) > 8_000

    run(call())


def test_ten_minutes_are_the_most_that_is_queued() -> None:
    async def call() -> None:
        line = Line()
        playout = line.leg.playout
        playout.enqueue("a", bytes(MAX_QUEUED_BYTES), line.loop.time())
        with pytest.raises(PlayoutOverflow):
            playout.enqueue("a", b"x", line.loop.time())
        assert playout.queued_ms == 600_000
        playout.close()

    run(call())


def test_a_choked_socket_gets_no_more_sound_until_it_takes_it_again() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        line.leg.playout.enqueue("a", b"\x01" * 16_000, line.loop.time())
        line.leg.on_choked(True)
        await asyncio.sleep(3)
        assert stream.heard_bytes() == 8_000
        line.leg.on_choked(False)
        await asyncio.sleep(3)
        assert stream.heard_bytes() == 16_000

    run(call())


class Counting:
    """A source whose frames are numbered."""

    def __init__(self) -> None:
        self.asked = 0

    def next_frame(self, now: float) -> bytes | None:
        self.asked += 1
        return bytes([self.asked % 200]) * 160 if self.asked % 3 else None


def test_a_source_plays_whenever_nothing_is_queued() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        source = Counting()
        line.leg.playout.play_from(source)
        await asyncio.sleep(3.0)
        assert source.asked in (149, 150)
        assert stream.heard_bytes() == pytest.approx(source.asked * 160 * 2 / 3, abs=320)
        assert line.leg.playout.idle
        assert line.leg.playout.interrupt(line.loop.time()) == []
        before = source.asked
        line.leg.playout.enqueue("a", b"\xf0" * 8_000, line.loop.time())
        await asyncio.sleep(1.0)
        assert source.asked - before <= 4, "what is queued goes first"
        await asyncio.sleep(1.0)
        assert source.asked - before == pytest.approx(50, abs=5)
        played = sound(stream)
        assert b"\xf0" * 8_000 in played
        line.leg.playout.play_from(None)
        count = len(stream.frames)
        await asyncio.sleep(1)
        assert len(stream.frames) == count
        assert len(line.pacer._ring) == 0

    run(call())


def test_digits_are_tones_before_what_waits_and_outlive_an_interruption() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        line.leg.playout.enqueue("a", b"\xff" * 16_000, line.loop.time())
        await asyncio.sleep(0.3)
        line.leg.send_digit("5")
        line.leg.send_digit("9")
        line.leg.playout.interrupt(line.loop.time())
        await asyncio.sleep(2)
        heard = sound(stream)[2_400:]
        assert tones.dtmf_digit(heard[:1_280], Encoding.PCMU) == "5"
        assert tones.dtmf_digit(heard[1_760:3_040], Encoding.PCMU) == "9"
        with pytest.raises(ValueError, match="no DTMF digit"):
            line.leg.send_digit("x")

    run(call())


def test_ten_seconds_of_waiting_digits_are_the_most() -> None:
    async def call() -> None:
        line = Line()
        with pytest.raises(ValueError, match="ten seconds"):
            for _ in range(60):
                line.leg.send_digit("1")
        line.leg.close()

    run(call())


def test_what_waits_before_the_stream_opens_is_played_then() -> None:
    async def call() -> None:
        line = Line()
        line.leg.answer()
        line.leg.playout.enqueue("a", b"\x01" * 800, line.loop.time())
        await asyncio.sleep(1)
        assert not line.leg.playout.idle
        stream = line.open()
        await asyncio.sleep(1)
        assert len(sound(stream)) == 800
        assert len(drained(line)) == 1

    run(call())

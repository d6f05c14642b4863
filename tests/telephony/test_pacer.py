"""The pacer: beats 20 ms apart and true to time, however late the loop is."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.pacer import CATCH_UP_TICKS, FRAME_TICKS, Pacer, Ring


class Line:
    """Writes its beats down, but for those that come within a frame of its last."""

    def __init__(self, ring: Ring | None = None, rejoin_at: int | None = None, last: int = 0) -> None:
        self.ticks: list[int] = []
        self.last = last
        self._ring = ring
        self._rejoin_at = rejoin_at

    def beat(self, tick: int) -> None:
        if tick - self.last < FRAME_TICKS:
            return
        self.last = tick
        self.ticks.append(tick)
        if self._ring is not None and tick == self._rejoin_at:
            self._ring.leave(self, tick)
            self.last = tick + 2
            self._ring.join(self, tick + 2)


class Broken:
    """Fails on each beat."""

    def beat(self, tick: int) -> None:
        raise RuntimeError("broken")


def test_each_line_keeps_its_own_phase() -> None:
    ring, one, two = Ring(), Line(last=100), Line(last=102)
    ring.join(one, 100)
    ring.join(two, 102)
    while (due := ring.due) is not None and due <= 122:
        ring.serve(due)
    assert one.ticks == [105, 110, 115, 120]
    assert two.ticks == [107, 112, 117, 122]


def test_a_late_loop_catches_up_in_order_of_time() -> None:
    ring, one, two = Ring(), Line(last=100), Line(last=103)
    ring.join(one, 100)
    ring.join(two, 103)
    assert ring.serve(100 + CATCH_UP_TICKS) == 0
    assert one.ticks == list(range(105, 151, FRAME_TICKS))
    assert two.ticks == list(range(108, 151, FRAME_TICKS))


def test_a_very_late_loop_skips_whole_frames_and_bursts_nothing() -> None:
    ring, line = Ring(), Line()
    ring.join(line, 100)
    assert ring.serve(1003) == 180
    assert line.ticks == []  # the frame of tick 1000 is among the skipped ones
    ring.serve(1011)
    assert line.ticks == [1005, 1010]


def test_a_line_that_leaves_is_left_alone_and_an_empty_ring_has_nothing_due() -> None:
    ring, line = Ring(), Line()
    ring.join(line, 100)
    ring.leave(Line(), 100)
    assert len(ring) == 1
    ring.leave(line, 105)
    ring.leave(line, 105)
    assert len(ring) == 0
    assert ring.due is None
    ring.serve(200)
    assert line.ticks == []


def test_a_line_may_change_its_phase_on_its_own_beat() -> None:
    ring = Ring()
    mover, stayer = Line(ring, 105), Line()
    ring.join(mover, 100)
    ring.join(stayer, 100)
    for tick in range(100, 120):
        ring.serve(tick)
    assert mover.ticks == [105, 112, 117]
    assert stayer.ticks == [105, 110, 115]


def test_a_line_that_fails_does_not_silence_the_others(caplog: pytest.LogCaptureFixture) -> None:
    ring, line = Ring(), Line()
    ring.join(Broken(), 100)
    ring.join(line, 100)
    with caplog.at_level(logging.ERROR):
        ring.serve(110)
    assert line.ticks == [105, 110]
    assert len(ring) == 1
    assert caplog.messages == ["a line failed on its beat and is taken off the pacer"]


@given(
    st.lists(st.integers(0, FRAME_TICKS - 1), min_size=1, max_size=8),
    st.lists(st.integers(1, CATCH_UP_TICKS - FRAME_TICKS), max_size=20),
)
def test_within_the_catch_up_no_beat_is_ever_lost(phases: list[int], wake_ups: list[int]) -> None:
    ring, lines = Ring(), [Line(last=1000 + phase) for phase in phases]
    for line, phase in zip(lines, phases, strict=True):
        ring.join(line, 1000 + phase)
    now = 1000 + max(phases)
    for pause in wake_ups:
        now += pause
        ring.serve(now)
    for line, phase in zip(lines, phases, strict=True):
        assert line.ticks == list(range(1000 + phase + FRAME_TICKS, now + 1, FRAME_TICKS))


async def test_on_a_real_loop_the_beats_follow_the_clock() -> None:
    pacer, line = Pacer(), Line()
    start = pacer.tick()
    pacer.join(line, start)
    async with asyncio.timeout(20):
        while len(line.ticks) < 10:  # noqa: ASYNC110 - a line tells nobody
            await asyncio.sleep(0.01)
    pacer.close()
    end = pacer.tick()
    assert all((tick - start) % FRAME_TICKS == 0 and start < tick <= end for tick in line.ticks)
    assert line.ticks == sorted(set(line.ticks))
    count = len(line.ticks)
    pacer.join(Line(), end)
    await asyncio.sleep(0.03)
    assert len(line.ticks) == count

"""The clock of every leg's RTP: one loop timer gives each line its beat, 20 ms after the one before.

Time is cut into ticks of 4 ms, and a line beats in one of five slots: tick modulo five. Lines of one slot share a wake-up, so
there are never more than 250 a second, however many lines there are (a grid of 1 ms cost a seventh more CPU at 100 lines, one of
2 ms a twentieth, and neither kept time better). A beat carries its tick, and everything that a line derives from it (RTP
timestamp, position, heard milliseconds) is true however late the loop was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger(__name__)

TICKS_PER_S = 250
FRAME_TICKS = 5
CATCH_UP_TICKS = 50
"""A loop that was late no longer than 200 ms catches up on every beat; after that it skips whole frames: nothing bursts."""
_EPSILON_TICKS = 0.005
"""Floating-point room."""
_EARLY_S = 0.0005
"""Timers of the loop are whole milliseconds: a beat that is nearer than half of one is given, not waited for."""


class Beating(Protocol):
    """What the pacer drives."""

    def beat(self, tick: int) -> None:
        """One frame is due. `tick` is `FRAME_TICKS` after the last, or later by whole frames that were skipped.

        A line that has just joined may be called sooner than that after its last beat: it passes that call over.
        """


class Ring:
    """The slots and whose turn it is, on ticks alone."""

    __slots__ = ("_lines", "_next_tick", "_slots")

    def __init__(self) -> None:
        # A slot's list is replaced, never changed, so that a line may come or go while its slot is being served.
        self._slots: list[list[Beating]] = [[] for _ in range(FRAME_TICKS)]
        self._next_tick = 0
        self._lines = 0

    def __len__(self) -> int:
        return self._lines

    def join(self, line: Beating, tick: int) -> None:
        """The line's last beat was at `tick`; the next is due a frame later."""
        if not self._lines:
            self._next_tick = tick + 1
        slot = tick % FRAME_TICKS
        self._slots[slot] = [*self._slots[slot], line]
        self._lines += 1

    def leave(self, line: Beating, tick: int) -> None:
        """Take the line out of the slot of `tick`; a line that is not there is left alone."""
        slot = tick % FRAME_TICKS
        rest = [other for other in self._slots[slot] if other is not line]
        self._lines -= len(self._slots[slot]) - len(rest)
        self._slots[slot] = rest

    @property
    def due(self) -> int | None:
        """The next tick at which a line beats."""
        if self._lines:
            for tick in range(self._next_tick, self._next_tick + FRAME_TICKS):
                if self._slots[tick % FRAME_TICKS]:
                    return tick
        return None

    def serve(self, now_tick: int) -> int:
        """Give every beat that is due and return the frames that were skipped, in all lines alike, because the loop was late."""
        late = now_tick - self._next_tick
        skipped = late // FRAME_TICKS if late > CATCH_UP_TICKS else 0
        self._next_tick += skipped * FRAME_TICKS
        while self._next_tick <= now_tick:
            tick = self._next_tick
            self._next_tick = tick + 1
            for line in self._slots[tick % FRAME_TICKS]:
                try:
                    line.beat(tick)
                except Exception:  # noqa: BLE001 — the edge between calls: one that fails must not silence the others
                    _log.exception("a line failed on its beat and is taken off the pacer")
                    self.leave(line, tick)
        return skipped


class Pacer:
    """Runs a ring on the loop's timer. One for each process, made on its loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.skipped_frames = 0
        """Frames that no line sent because the loop was more than 200 ms late."""
        self._ring = Ring()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def tick(self) -> int:
        """The tick that is now."""
        return int(self.clock() * TICKS_PER_S + _EPSILON_TICKS)

    def join(self, line: Beating, tick: int) -> None:
        """The line's last beat was at `tick`; it beats each 20 ms from there on."""
        self._ring.join(line, tick)
        if self._timer is None and not self._closed:
            self._arm()

    def leave(self, line: Beating, tick: int) -> None:
        """The line whose beats fall in the slot of `tick` stops."""
        self._ring.leave(line, tick)

    def close(self) -> None:
        """Stop for good; idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        due = self._ring.due
        if due is None or self._closed:
            self._timer = None
            return
        delay = due / TICKS_PER_S - self.clock()
        self._timer = self._loop.call_later(max(0.001, delay), self._wake)

    def _wake(self) -> None:
        now_tick = int((self.clock() + _EARLY_S) * TICKS_PER_S + _EPSILON_TICKS)
        self.skipped_frames += self._ring.serve(now_tick)
        self._arm()

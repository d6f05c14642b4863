"""A timer of the kernel's own resolution on the loop (timerfd_create(2)).

The loop's timers are whole milliseconds, which makes a packet each 20 ms come up to one early or late.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from struct import Struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ITIMERSPEC = Struct("@qqqq")
"""Interval and first expiry, each in seconds and nanoseconds."""
_NS_PER_S = 1_000_000_000
_NO_TIMER = -1


class Alarm:
    """Calls `on_due` once after each `set`. Off Linux it is a timer of the loop. Raises OSError when no descriptor is left."""

    __slots__ = ("_fd", "_handle", "_loop", "_on_due")

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fd = _open_timer()
        if self._fd != _NO_TIMER:
            self._loop.add_reader(self._fd, self._expired)

    def set(self, delay_s: float) -> None:
        """Be due after so long; takes the place of what was set before."""
        if self._fd != _NO_TIMER:
            # A delay of zero would stop the timer.
            first = divmod(max(1, int(delay_s * _NS_PER_S)), _NS_PER_S)
            _LIBC.timerfd_settime(self._fd, 0, _ITIMERSPEC.pack(0, 0, *first), None)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0.0, delay_s), self._on_due)

    def close(self) -> None:
        """Stop for good and give the descriptor back; idempotent."""
        if self._fd != _NO_TIMER:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = _NO_TIMER
        if self._handle is not None:
            self._handle.cancel()

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set again before the loop came here
            return
        self._on_due()


def _open_timer() -> int:
    if sys.platform != "linux":
        return _NO_TIMER
    fd: int = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no timer descriptor")
    return fd

"""A pytest plugin that finds tests which take an order between connections for granted: `pytest -p tests.withheld tests/server`.

At random a stream socket of the test's own process that has something to read is passed over for up to `WITHHELD_MAX_S` (0.2 s),
as on a busy machine, while the other connections go on. `WITHHELD_SHARE` (0.4) is how often, `WITHHELD_SEED` makes it the same
again. A test that fails so, and not without, asserts something that is still on its way.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import socket
import stat
import time
from selectors import SelectorKey

_SHARE = float(os.environ.get("WITHHELD_SHARE", "0.4"))
_MAX_S = float(os.environ.get("WITHHELD_MAX_S", "0.2"))
_NAP_S = 0.002
_random = random.Random(os.environ.get("WITHHELD_SEED"))


class WithholdingSelector(selectors.DefaultSelector):
    """Tells late, now and then, that a TCP connection can be read. `share` of them 0 to 1, each up to `longest_s`."""

    def __init__(self, share: float = _SHARE, longest_s: float = _MAX_S) -> None:
        super().__init__()
        self._share = share
        self._longest_s = longest_s
        self._until: dict[int, float] = {}
        self._streams: dict[int, bool] = {}

    def unregister(self, fileobj: int | socket.socket) -> SelectorKey:  # type: ignore[override]  # all that asyncio gives
        key = super().unregister(fileobj)
        self._until.pop(key.fd, None)
        self._streams.pop(key.fd, None)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ends = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            left = ends - time.monotonic()
            ready = super().select(None if timeout is None else max(0.0, left))
            told = [(key, mask) for key, mask in ready if not mask & selectors.EVENT_READ or not self._withheld(key.fd)]
            left = ends - time.monotonic()
            if told or not ready or left <= 0:
                return told
            time.sleep(min(_NAP_S, left))  # what is withheld is ready all the while: the kernel would not wait

    def _withheld(self, fd: int) -> bool:
        if not self._is_stream(fd):
            return False
        until = self._until.get(fd)
        if until is None and _random.random() < self._share:
            self._until[fd] = time.monotonic() + _random.uniform(0, self._longest_s)
            return True
        if until is not None and time.monotonic() < until:
            return True
        self._until.pop(fd, None)
        return False

    def _is_stream(self, fd: int) -> bool:
        if fd not in self._streams:
            self._streams[fd] = False
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as looked_at:
                    internet = looked_at.family in (socket.AF_INET, socket.AF_INET6)
                    self._streams[fd] = internet and looked_at.type == socket.SOCK_STREAM
        return self._streams[fd]


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(WithholdingSelector())


def pytest_configure() -> None:
    """Every loop of the process withholds from here on."""
    asyncio.set_event_loop_policy(_Policy())

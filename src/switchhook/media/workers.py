"""Worker processes: whatever computes runs there, never beside the sound."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

_PR_SET_PDEATHSIG = 1


def _prepare(parent: int) -> None:
    """A worker leaves Ctrl-C to its parent, yields to it, and dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class Workers:
    """A pool of `count` processes, started when the first job comes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a top-level function in a worker. A job whose worker died is tried once more."""
        loop = asyncio.get_running_loop()
        pool = self._opened()
        try:
            return await loop.run_in_executor(pool, function, *args)
        except BrokenProcessPool:
            if self._pool is pool:
                pool.shutdown(wait=False)
                self._pool = None
            return await loop.run_in_executor(self._opened(), function, *args)

    async def close(self) -> None:
        """End the workers; jobs not begun are dropped."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, initializer=_prepare, initargs=(os.getpid(),))
        return self._pool

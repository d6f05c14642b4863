"""Worker processes: whatever computes (encoders, local speech) runs here, never on the event loop that paces sound.

A job is a top-level function with arguments and a result that can be pickled. Processes are spawned at the first job, run at
low priority, ignore the terminal's interrupt and die with the server.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NICENESS = 10
_JOBS_PER_PROCESS = 2
"""One runs, one is at hand; further jobs wait in `run`, so their number is bounded by that of their callers."""
_PR_SET_PDEATHSIG = 1
"""linux/prctl.h."""


class WorkersClosed(Exception):
    """The workers are closed."""


class Workers:
    """A pool of `count` processes, started lazily.

    A process that dies breaks the pool: it is made again and each job it had is run once more, so a job must bear running twice.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("count must be at least 1")
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._slots = asyncio.Semaphore(count * _JOBS_PER_PROCESS)
        self._closed = False

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job and return its result, or raise its error.

        Raises BrokenProcessPool when the job killed two processes, WorkersClosed when `close` came first. Cancelling the caller
        forgets the job; one that has begun runs to its end.
        """
        async with self._slots:
            pool = self._alive(None)
            try:
                return await _submit(pool, function, *args, **kwargs)
            except BrokenProcessPool:
                return await _submit(self._alive(pool), function, *args, **kwargs)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._closed and task is not None and not task.cancelling():
                    raise WorkersClosed from None  # it was the job that `close` cancelled, not the caller
                raise

    async def close(self, grace_s: float = 2.0) -> None:
        """Forget waiting jobs, let the processes go, and kill what is left after `grace_s`. Idempotent."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is None:
            return
        # The executor has no public way to end a process in the midst of a job before Python 3.14.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(_end, processes, grace_s)

    def _alive(self, broken: ProcessPoolExecutor | None) -> ProcessPoolExecutor:
        if self._closed:
            raise WorkersClosed
        if self._pool is None or self._pool is broken:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, _enter, (os.getpid(),))
        return self._pool


async def _submit(pool: Executor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))


def _end(processes: Sequence[BaseProcess], grace_s: float) -> None:
    sentinels = [process.sentinel for process in processes]
    deadline = monotonic() + grace_s
    while sentinels and (left_s := deadline - monotonic()) > 0:
        gone = wait(sentinels, left_s)
        sentinels = [sentinel for sentinel in sentinels if sentinel not in gone]
    for process in processes:
        process.kill()


def _enter(parent: int) -> None:
    """The first thing a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

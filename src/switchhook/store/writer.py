"""The one writer: many callers' changes in one transaction.

A caller gives a unit of work and how long it may wait for company; the transaction starts when the first of them may wait no
longer, or when enough have come. When it fails, each unit is tried alone, so that a bad one fails alone. While the database
cannot be reached nothing fails: the writer goes on trying and callers wait (they may have time limits of their own).
A unit may therefore run more than once, and must come to the same rows each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from switchhook.domain.errors import StoreUnavailable
from switchhook.store.database import Database, passes

logger = logging.getLogger(__name__)

T = TypeVar("T")

GROUP_S = 0.05
"""How long a change waits for company when its caller does not say."""
QUEUE_UNITS = 2_000
"""More callers than this wait for room."""
BATCH_UNITS = 200
TIMER_GRAIN_S = 0.001
"""What is due within this is due: a loop's timer may ring so much early, and waiting again for the rest would be a spin."""
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 2.0
CLOSING_S = 5.0
"""How long a closing writer goes on trying a database that cannot be reached."""


@dataclass(slots=True)
class _Job:
    unit: Callable[[Connection], Any]
    done: asyncio.Future[Any]


class Writer:
    """Commits what callers submit; `run` is the task that does it and must be running."""

    def __init__(self, database: Database, queue_units: int = QUEUE_UNITS) -> None:
        self._database = database
        self._jobs: list[_Job] = []
        self._due = 0.0
        self._room = asyncio.Semaphore(queue_units)
        self._wake = asyncio.Event()
        self._closing_at: float | None = None
        self._over = False
        self._stopped = asyncio.Event()
        self._stopped.set()
        self.commits = 0
        """Transactions so far."""
        self.units = 0
        """Units in them."""

    @property
    def waiting(self) -> int:
        """Units that are not yet in a transaction."""
        return len(self._jobs)

    async def submit(self, unit: Callable[[Connection], T], within_s: float = GROUP_S) -> T:
        """Run the unit in the next transaction and return its result once that is committed.

        `within_s`: how long it may wait for company. Raises what the unit raises, or StoreUnavailable when the writer closes.
        """
        async with self._room:
            if self._over:
                raise StoreUnavailable("the database is closed")
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()
            due = loop.time() + within_s
            earlier = not self._jobs or due < self._due
            self._jobs.append(_Job(unit, done))
            if earlier:
                self._due = due
            if earlier or len(self._jobs) == BATCH_UNITS:
                self._wake.set()
            return await done

    async def run(self) -> None:
        """Commit until `close`."""
        self._stopped.clear()
        try:
            while await self._something_due():
                batch, self._jobs = self._jobs[:BATCH_UNITS], self._jobs[BATCH_UNITS:]
                await self._commit([job for job in batch if not job.done.done()])
        finally:
            self._over = True
            for job in self._jobs:
                _fail(job, StoreUnavailable("the database is closed"))
            self._stopped.set()

    async def close(self) -> None:
        """Commit what was submitted, then let `run` return; at once when it does not run."""
        self._closing_at = asyncio.get_running_loop().time()
        self._wake.set()
        await self._stopped.wait()

    async def _something_due(self) -> bool:
        loop = asyncio.get_running_loop()
        while self._closing_at is None:
            if self._jobs and (len(self._jobs) >= BATCH_UNITS or self._due <= loop.time() + TIMER_GRAIN_S):
                return True
            self._wake.clear()
            timer = loop.call_at(self._due, self._wake.set) if self._jobs else None
            await self._wake.wait()
            if timer is not None:
                timer.cancel()
        return bool(self._jobs)

    async def _commit(self, batch: list[_Job]) -> None:
        if not batch:
            return
        try:
            results = await self._transact(batch)
        except asyncio.CancelledError:
            for job in batch:
                _fail(job, StoreUnavailable("the database is closed"))
            raise
        except Exception as error:  # noqa: BLE001 - a unit may raise anything; it goes to whoever submitted it
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for job in batch:
                await self._commit([job])
        else:
            for job, result in results:
                if not job.done.done():
                    job.done.set_result(result)

    async def _transact(self, batch: list[_Job]) -> list[tuple[_Job, Any]]:
        """One transaction; tried again while the database is away, without those who have given up meanwhile."""

        def work(connection: Connection) -> list[tuple[_Job, Any]]:
            return [(job, job.unit(connection)) for job in batch if not job.done.done()]

        pause = RETRY_FIRST_S
        while True:
            try:
                results = await self._database.transact(work)
            except Exception as error:
                if not passes(error):
                    raise
                if self._past_closing():
                    raise StoreUnavailable("the database cannot be reached") from error
                logger.warning("the database is away, trying again in %.1f s", pause, exc_info=error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_LONGEST_S)
            else:
                self.commits += 1
                self.units += len(results)
                return results

    def _past_closing(self) -> bool:
        return self._closing_at is not None and asyncio.get_running_loop().time() - self._closing_at > CLOSING_S


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)

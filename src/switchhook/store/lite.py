"""SQLite: one thread writes, two read; write-ahead log, so that readers and the writer do not wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

T = TypeVar("T")

READERS = 2
BUSY_TIMEOUT_MS = 5_000
"""How long a statement waits for another process, such as `switchhook apply`."""
CACHE_KIB = 512
"""Pages that each connection keeps. The kernel has them, too, and a call touches few; SQLite's own 2 MiB would all be filled."""


class Lite:
    """The database in one file, which is made readable for its owner alone; implements `Backend`."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would make the file readable for others; its journal files take the mode of the file.
        path.touch(mode=0o600, exist_ok=True)
        self._writing = _engine(path, 1, options)
        self._reading = _engine(path, READERS, {**options, "isolation_level": "AUTOCOMMIT"})
        _begin_by_hand(self._writing)
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run statements that change nothing."""

        def run() -> T:
            with self._reading.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run the work in one transaction and commit."""

        def run() -> T:
            with self._writing.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._writer, run)

    async def close(self) -> None:
        """Wait for what runs and close."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._writing.dispose()
        self._reading.dispose()


def _engine(path: Path, size: int, options: Mapping[str, Any]) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return=None,
        connect_args={"check_same_thread": False},
        **options,
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # The driver would begin a transaction by itself, at the first change and not at the first statement.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{CACHE_KIB}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _begin_by_hand(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # With a deferred BEGIN two processes that both read first and then write would fail at once instead of waiting.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

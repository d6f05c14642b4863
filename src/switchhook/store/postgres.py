"""PostgreSQL over asyncpg: one connection writes, a few read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import create_async_engine

T = TypeVar("T")

READERS = 4


class Postgres:
    """Implements `Backend`."""

    def __init__(self, url: URL, options: Mapping[str, Any]) -> None:
        self._writing = create_async_engine(url, pool_size=1, max_overflow=0, **options)
        self._reading = create_async_engine(
            url,
            pool_size=READERS,
            max_overflow=0,
            pool_pre_ping=True,
            pool_reset_on_return=None,
            isolation_level="AUTOCOMMIT",
            **options,
        )

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run statements that change nothing."""
        async with self._reading.connect() as connection:
            return await connection.run_sync(work)

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run the work in one transaction and commit; a connection that broke is replaced at the next."""
        async with self._writing.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """Close."""
        await self._writing.dispose()
        await self._reading.dispose()

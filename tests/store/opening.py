"""Databases for tests: migrated once for the session, then copied."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from switchhook.store.database import Database
from switchhook.store.opened import Store
from switchhook.store.secrets import SecretBox
from tests.peers.postgres import postgres_server

KEY = bytes(range(32))
NODE = "test-node"


class SqliteFiles:
    """Copies of a migrated file."""

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        asyncio.run(_migrate(f"sqlite:///{self._template}"))

    async def fresh(self, folder: Path) -> str:
        """URL of a database of one's own."""
        path = folder / "switchhook.db"
        shutil.copyfile(self._template, path)
        return f"sqlite:///{path}"


class PostgresDatabases:
    """Copies of a migrated database."""

    def __init__(self, server: str) -> None:
        self._server = make_url(server).set(drivername="postgresql+asyncpg")
        self._numbers = itertools.count()
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        await self._administer("DROP DATABASE IF EXISTS migrated", "CREATE DATABASE migrated")
        await _migrate(self._url("migrated"))

    async def fresh(self, folder: Path) -> str:
        """URL of a database of one's own."""
        name = f"copy_{next(self._numbers)}"
        await self._administer(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} TEMPLATE migrated")
        return self._url(name)

    async def empty(self) -> str:
        """URL of a database without a table."""
        name = f"empty_{next(self._numbers)}"
        await self._administer(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return self._server.set(database=name).render_as_string(hide_password=False)

    async def _administer(self, *statements: str) -> None:
        engine = create_async_engine(self._server, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()


@contextmanager
def postgres_databases() -> Iterator[PostgresDatabases]:
    """A server for the session."""
    with postgres_server() as url:
        yield PostgresDatabases(url)


async def _migrate(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await database.close()


@asynccontextmanager
async def running_store(url: str, node: str = NODE, key: bytes = KEY) -> AsyncIterator[Store]:
    """A store that writes; closed in good order."""
    store = Store(url, SecretBox(key), node)
    await store.open()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def killed_store(url: str, node: str = NODE) -> AsyncIterator[Store]:
    """A store whose process dies at the end of the block: nothing is flushed, nobody is told."""
    store = Store(url, SecretBox(KEY), node)
    running = asyncio.ensure_future(store.run())
    try:
        yield store
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()

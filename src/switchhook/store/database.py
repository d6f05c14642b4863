"""The database: SQLite in a file, or PostgreSQL; the same statements on both.

One connection writes (the writer's), a few read. Work is a plain function of a synchronous SQLAlchemy `Connection`, run on the
asynchronous driver: one greenlet for a whole transaction instead of one for each statement.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Insert, Table, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from switchhook.domain.errors import MissingExtra, SettingError, StoreUnavailable
from switchhook.store.schema import REVISION

T = TypeVar("T")

READERS = 3
BUSY_TIMEOUT_MS = 5_000
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_SQLITE_PASSES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")
# SQLSTATE of PostgreSQL that passes: connection, resources, intervention (shutdown), serialization and deadlock, standby.
_POSTGRES_PASSES = ("08", "53", "57", "40", "25006")


class Database:
    """Connections to one database. `url` is in SQLAlchemy's form; its driver may be left out."""

    def __init__(self, url: str) -> None:
        self.url = _usable_url(url)
        self._writing = _engine(self.url, 1, for_reading=False)
        self._reading = _engine(self.url, READERS, for_reading=True)

    async def migrate(self) -> None:
        """Bring the tables to the revision that the code needs. Raises StoreUnavailable.

        Alembic runs in a process of its own: it is needed once, and would stay in memory.
        """
        found = await self.read(_revision)
        if found == REVISION:
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "switchhook.store.migrate", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate(self.url.render_as_string(hide_password=False).encode())
        if process.returncode != 0:
            lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise StoreUnavailable(f"the database could not be brought from revision {found} to {REVISION}: {lines[-1]}")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run statements that change nothing, each in a transaction of its own. Raises StoreUnavailable."""
        try:
            async with self._reading.connect() as connection:
                return await connection.run_sync(work)
        except (DBAPIError, OSError, PoolTimeoutError) as error:
            if not passes(error):
                raise
            raise StoreUnavailable(f"the database cannot be read: {_short(error)}") from error

    async def connect(self) -> AsyncConnection:
        """The connection that writes; there is one."""
        return await self._writing.connect()

    async def close(self) -> None:
        """Close every connection."""
        await self._reading.dispose()
        await self._writing.dispose()


def passes(error: BaseException) -> bool:
    """Whether the error comes from the database's state, not from the statement: trying again can help."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or isinstance(error, InterfaceError):
            return True
        origin: Any = error.orig
        name = getattr(origin, "sqlite_errorname", None)
        state = getattr(origin, "sqlstate", None)
        return (name or "").startswith(_SQLITE_PASSES) or (state or "").startswith(_POSTGRES_PASSES)
    return isinstance(error, OSError | PoolTimeoutError)


def insert_missing(table: Table) -> Callable[[Connection], Insert]:
    """An INSERT that leaves a row alone that is there; the function picks the dialect's form."""
    forms: dict[str, Insert] = {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
    }
    return lambda connection: forms[connection.dialect.name]


def _usable_url(text_url: str) -> URL:
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise SettingError("SWITCHHOOK_DATABASE_URL is not an SQLAlchemy URL such as sqlite:///data/switchhook.db") from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _DRIVERS.values():
        raise SettingError(f"SWITCHHOOK_DATABASE_URL: {url.drivername} is not served; use sqlite or postgresql")
    if url.drivername == "postgresql+asyncpg" and find_spec("asyncpg") is None:
        raise MissingExtra("PostgreSQL needs the extra: pip install 'switchhook[postgres]'")
    if url.drivername == "sqlite+aiosqlite":
        if url.database in (None, "", ":memory:"):
            raise SettingError(
                "SWITCHHOOK_DATABASE_URL: a database in memory is not served; name a file: sqlite:///data/switchhook.db"
            )
        _private_file(Path(str(url.database)))
    return url


def _private_file(path: Path) -> None:
    """SQLite would make the file readable for others; its journal files take the mode of the file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)


def _engine(url: URL, size: int, for_reading: bool) -> AsyncEngine:
    lite = url.get_backend_name() == "sqlite"
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        # Values never show in an error: they may be secrets.
        hide_parameters=True,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
        **({"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if for_reading else {}),
        **({} if lite else {"pool_pre_ping": for_reading}),
    )
    if lite:
        _tune_sqlite(engine, for_reading)
    return engine


def _tune_sqlite(engine: AsyncEngine, for_reading: bool) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # The driver's own BEGIN is deferred: two writers would meet at the first write and one fail at once. We say when.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"query_only={int(for_reading)}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    if not for_reading:

        @event.listens_for(engine.sync_engine, "begin")
        def _on_begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _short(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    return f"{type(origin).__name__}: {origin}".splitlines()[0]

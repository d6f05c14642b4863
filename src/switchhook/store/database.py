"""The database: SQLite in a file, or PostgreSQL; the same statements on both.

Work is a plain function of a synchronous SQLAlchemy `Connection`. On SQLite a whole piece of work runs in a thread: through an
asynchronous driver each statement costs four thread hops, three times the CPU of the statement. On PostgreSQL it runs on the
asynchronous driver, in one greenlet.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Insert, Table, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from switchhook.domain.errors import MissingExtra, SettingError, StoreUnavailable
from switchhook.store.schema import REVISION

T = TypeVar("T")

LOCKED_PAUSES_S = (0.1, 0.3, 1.0)
"""Between the looks at a database that cannot be read when we start."""

_BACKENDS = {
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_SQLITE_PASSES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")
# SQLSTATE of PostgreSQL that passes: connection, resources, intervention (shutdown), serialization and deadlock, standby.
_POSTGRES_PASSES = ("08", "53", "57", "40", "25006")


class Backend(Protocol):
    """Connections to one database: one that writes, a few that read."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run statements that change nothing, each a transaction of its own."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run the work in one transaction and commit; on an error nothing of it stays."""

    async def close(self) -> None:
        """Close every connection."""


class Database:
    """One database. `url` is in SQLAlchemy's form; its driver may be left out."""

    def __init__(self, url: str) -> None:
        self._url = _usable_url(url)
        self._backend = _backend(self._url)

    async def migrate(self) -> None:
        """Bring the tables to the revision that the code needs. Raises StoreUnavailable.

        Alembic runs in a process of its own: it is needed once, and would stay in memory.
        """
        found = await self._revision()
        if found == REVISION:
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "switchhook.store.migrate", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate(self._url.render_as_string(hide_password=False).encode())
        if process.returncode != 0:
            lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise StoreUnavailable(f"the database could not be brought from revision {found} to {REVISION}: {lines[-1]}")

    async def _revision(self) -> str | None:
        """What the tables are at. Another process that makes a SQLite file at this moment has it locked; that passes."""
        for pause_s in LOCKED_PAUSES_S:
            try:
                return await self.read(_revision)
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
        return await self.read(_revision)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run statements that change nothing, each a transaction of its own. Raises StoreUnavailable."""
        try:
            return await self._backend.read(work)
        except (DBAPIError, OSError, PoolTimeoutError) as error:
            if not passes(error):
                raise
            raise StoreUnavailable(f"the database cannot be read: {_short(error)}") from error

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run the work in one transaction and commit; on an error nothing of it stays. One at a time."""
        return await self._backend.transact(work)

    async def close(self) -> None:
        """Close every connection."""
        await self._backend.close()


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


def engine_options() -> dict[str, Any]:
    """What every engine has in common."""
    return {
        # Values never show in an error: they may be secrets.
        "hide_parameters": True,
        "json_serializer": lambda value: msgspec.json.encode(value).decode(),
        "json_deserializer": msgspec.json.decode,
    }


def _usable_url(text_url: str) -> URL:
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise SettingError("SWITCHHOOK_DATABASE_URL is not an SQLAlchemy URL such as sqlite:///data/switchhook.db") from None
    driver = _BACKENDS.get(url.drivername)
    if driver is None:
        raise SettingError(f"SWITCHHOOK_DATABASE_URL: {url.drivername} is not served; use sqlite or postgresql")
    if driver == "sqlite" and url.database in (None, "", ":memory:"):
        raise SettingError(
            "SWITCHHOOK_DATABASE_URL: a database in memory is not served; name a file: sqlite:///data/switchhook.db"
        )
    return url.set(drivername=driver)


def _backend(url: URL) -> Backend:
    """The driver of one database alone is imported."""
    if url.drivername == "sqlite":
        from switchhook.store.lite import Lite

        return Lite(Path(str(url.database)), engine_options())
    if find_spec("asyncpg") is None:
        raise MissingExtra("PostgreSQL needs the extra: pip install 'switchhook[postgres]'")
    from switchhook.store.postgres import Postgres

    return Postgres(url, engine_options())


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _short(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    return f"{type(origin).__name__}: {origin}".splitlines()[0]

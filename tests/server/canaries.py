"""Where a secret may have been written down: files, and the rows of a database server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

DATABASE_PASSWORD = "canary-database-9f3c2ab7"


def singing(canaries: Mapping[str, str], data: bytes) -> list[str]:
    """Names of the secrets that are in it, as they are or as hexadecimal digits."""
    return [name for name, secret in canaries.items() if secret.encode() in data or secret.encode().hex().encode() in data]


def singing_files(canaries: Mapping[str, str], folder: Path) -> set[str]:
    """The same for all files below a folder, in which a server may be at work."""
    found = set()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        with contextlib.suppress(FileNotFoundError):  # what was removed meanwhile holds nothing
            found |= {f"{name} in {path.name}" for name in singing(canaries, path.read_bytes())}
    return found


async def singing_rows(canaries: Mapping[str, str], url: str) -> set[str]:
    """The same for all rows of a PostgreSQL database."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    found = set()
    async with engine.connect() as connection:
        tables = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        for table in tables.scalars().all():
            rows = await connection.execute(text(f'SELECT one::text FROM "{table}" AS one'))
            found |= {f"{name} in {table}" for row in rows.scalars() for name in singing(canaries, row.encode())}
    await engine.dispose()
    return found


def with_password(url: str) -> str:
    """The same database; the password in its URL is a secret, too."""
    return make_url(url).set(password=DATABASE_PASSWORD).render_as_string(hide_password=False)


def check_log(canaries: Mapping[str, str], log: bytes) -> None:
    """A log that says something, and nothing that it should not."""
    assert log
    assert singing(canaries, log) == []
    assert b"Traceback" not in log
    assert all(json.loads(line)["level"] != "error" for line in log.splitlines() if line.startswith(b"{"))

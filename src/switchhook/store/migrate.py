"""`python -m switchhook.store.migrate`: bring the database whose URL is on standard input to the newest revision.

The URL holds a password, so it comes neither as an argument nor in the environment.
"""

from __future__ import annotations

import asyncio
import sys

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from switchhook.domain.errors import SwitchhookError
from switchhook.store.database import Database

# Of two servers that start together on PostgreSQL the second waits (SQLite's BEGIN IMMEDIATE does the same).
_LOCK = 0x5357_4848


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    config.set_main_option("script_location", "switchhook.store:migrations")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Run every migration that is missing."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    command.upgrade(alembic_config(connection), "head")


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        await database.transact(upgrade)
    finally:
        await database.close()


def main() -> int:
    """Exit code 0, or 1 with the reason as the last line on standard error."""
    try:
        asyncio.run(_migrate(sys.stdin.read().strip()))
    except (SwitchhookError, CommandError, SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        sys.stderr.write(f"{type(reason).__name__}: {reason}".replace("\n", " ") + "\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

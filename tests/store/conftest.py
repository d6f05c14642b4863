"""Every test of the store runs on SQLite, and on PostgreSQL where that is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from switchhook.store.opened import Store
from tests.store.opening import PostgresDatabases, SqliteFiles, postgres_databases, running_store


@pytest.fixture(scope="session")
def sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    return SqliteFiles(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))])
def databases(request: pytest.FixtureRequest) -> SqliteFiles | PostgresDatabases:
    found: SqliteFiles | PostgresDatabases = request.getfixturevalue("sqlite_files" if request.param == "sqlite" else "postgres")
    return found


@pytest.fixture
async def url(databases: SqliteFiles | PostgresDatabases, tmp_path: Path) -> str:
    """A migrated, empty database."""
    return await databases.fresh(tmp_path)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with running_store(url) as opened:
        yield opened

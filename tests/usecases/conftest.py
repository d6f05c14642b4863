"""A store on a real file, a customer, a clock that is told when to move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from switchhook.domain.records import AccountSettings, DirectoryUpdate
from switchhook.store.opened import Store
from tests.store.opening import SqliteFiles, running_store
from tests.usecases.fakes import NUMBER, Customer, PlainContract, SteppedClock


@pytest.fixture(scope="session")
def sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    return SqliteFiles(tmp_path_factory.mktemp("template"))


@pytest.fixture
async def url(sqlite_files: SqliteFiles, tmp_path: Path) -> str:
    """A database that knows one number."""
    made = await sqlite_files.fresh(tmp_path)
    async with running_store(made) as store:
        await store.directory.write(
            DirectoryUpdate(accounts=(AccountSettings("acme"), AccountSettings("other")), numbers=(NUMBER,))
        )
    return made


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with running_store(url) as opened:
        yield opened


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def customer() -> Customer:
    return Customer()


@pytest.fixture
def contract() -> PlainContract:
    return PlainContract()

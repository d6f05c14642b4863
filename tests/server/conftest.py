"""One server for all tests that change nothing about it; each test has its own model and its own callers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server.exchange import Exchange, open_exchange
from tests.server.house import House, open_house


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Starts with the first test that needs it and lives to the last."""
    folder = tmp_path_factory.mktemp("house")
    async with open_house(folder, SWITCHHOOK_DRAIN_S="1", SWITCHHOOK_MEDIA_TIMEOUT_S="5") as house:
        yield house


@pytest_asyncio.fixture(loop_scope="session")
async def house(shared_house: House) -> AsyncIterator[House]:
    """The shared house, with the customer's backend as new."""
    _renew(shared_house)
    yield shared_house


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """The same for calls out and transfers."""
    folder = tmp_path_factory.mktemp("exchange")
    async with open_exchange(folder, SWITCHHOOK_DRAIN_S="1") as exchange:
        yield exchange


@pytest_asyncio.fixture(loop_scope="session")
async def exchange(shared_exchange: Exchange) -> AsyncIterator[Exchange]:
    """The shared exchange with the customer's backend as new; afterwards nothing of any call may be left."""
    _renew(shared_exchange)
    yield shared_exchange
    await shared_exchange.all_given_back()


def _renew(house: House) -> None:
    backend = house.backend
    backend.requests.clear()
    backend.end_statuses.clear()
    backend.start_status, backend.start_reply = 200, {}
    backend.tool_reply = lambda got: {"ok": True}
    backend.start_gate.set()
    backend.tool_gate.set()

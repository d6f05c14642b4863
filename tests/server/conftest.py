"""One server for all tests that change nothing about it; each test has its own model and its own callers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server.exchange import Exchange, open_exchange
from tests.server.house import House, Opener, open_house
from tests.server.policies import open_policies
from tests.server.secure_house import SecureHouse, open_secure
from tests.server.veevo_house import VeevoHouse, pricing
from tests.server.veevo_house import house as open_veevo


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Starts with the first test that needs it and lives to the last."""
    folder = tmp_path_factory.mktemp("house")
    async with open_house(folder, SWITCHHOOK_DRAIN_S="1", SWITCHHOOK_MEDIA_TIMEOUT_S="5") as house:
        yield house


@pytest_asyncio.fixture(loop_scope="session")
async def house(shared_house: House) -> AsyncIterator[House]:
    """The shared house, with the customer's backend as new; afterwards nothing of any call is still on its way."""
    shared_house.renew()
    yield shared_house
    await shared_house.idle()


@pytest.fixture
def opener() -> Opener:
    """Opens a house of its own for a test."""
    return open_house


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """The same for calls out and transfers."""
    folder = tmp_path_factory.mktemp("exchange")
    async with open_exchange(folder, SWITCHHOOK_DRAIN_S="1") as exchange:
        yield exchange


@pytest_asyncio.fixture(loop_scope="session")
async def exchange(shared_exchange: Exchange) -> AsyncIterator[Exchange]:
    """The shared one."""
    async with shared_exchange.as_new():
        yield shared_exchange


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_policies(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """A server whose accounts each have a dialling rule or a kind of trunk of their own."""
    folder = tmp_path_factory.mktemp("policies")
    async with open_policies(folder, SWITCHHOOK_DRAIN_S="1") as exchange:
        yield exchange


@pytest_asyncio.fixture(loop_scope="session")
async def policies(shared_policies: Exchange) -> AsyncIterator[Exchange]:
    """The same, as new."""
    async with shared_policies.as_new():
        yield shared_policies


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecureHouse]:
    """A server whose accounts differ in what they encrypt."""
    async with open_secure(tmp_path_factory.mktemp("secure")) as secure:
        yield secure


@pytest_asyncio.fixture(loop_scope="session")
async def secure(shared_secure: SecureHouse) -> AsyncIterator[SecureHouse]:
    """The same, as new."""
    async with shared_secure.exchange.as_new():
        yield shared_secure


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_veevo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VeevoHouse]:
    """A Veevo customer's server, with prices that change with the day and names of models that are replaced."""
    folder = tmp_path_factory.mktemp("veevo")
    async with open_veevo(folder, SWITCHHOOK_DRAIN_S="1", **pricing(folder)) as home:
        yield home


@pytest_asyncio.fixture(loop_scope="session")
async def veevo(shared_veevo: VeevoHouse) -> AsyncIterator[VeevoHouse]:
    """The same with backend and model as new; no onCallEnd of one test comes in the next."""
    shared_veevo.renew()
    yield shared_veevo
    await shared_veevo.idle()

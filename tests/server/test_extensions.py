"""Extensions of the account's own phone system: by the agent's transfer, by order, by the phone system's REFER, and explained."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.peers.ports import free_port
from tests.peers.server import Server
from tests.peers.vns_backend import VnsBackend
from tests.server.exchange import (
    DESTINATION_HZ,
    Exchange,
    agent_is_heard,
    conversation,
    destination_tone,
    exchange_config,
    hears,
    transfer_of,
)
from tests.server.listening import CALLER_HZ, caller_tone
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")
EXTENSION = "1001"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_branch(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """A server whose account has a carrier, which is asked first, and a phone system with extensions."""
    port, second_port = free_port(), free_port()
    async with VnsBackend({}) as backend:
        content = exchange_config(backend, port, second_port)
        content["trunks"][0]["priority"] = 1
        content["trunks"].append(
            {"name": "office", "account": "acme", "address": f"sip:127.0.0.1:{second_port}", "extensions": ["1000-1999"]}
        )
        async with Server(tmp_path_factory.mktemp("branch"), content, SWITCHHOOK_DRAIN_S="1") as server:
            yield Exchange(server, backend, port=port, second_port=second_port)


@pytest_asyncio.fixture(loop_scope="session")
async def branch(shared_branch: Exchange) -> AsyncIterator[Exchange]:
    """The same, as new."""
    async with shared_branch.as_new():
        yield shared_branch


@pytest.mark.parametrize("written", [EXTENSION, f"sip:{EXTENSION}@127.0.0.1"])
async def test_the_agent_puts_the_caller_through_to_an_extension(branch: Exchange, written: str) -> None:
    async with (
        conversation(branch) as (caller, _),
        branch.party(EXTENSION, second=True) as office,
        branch.party(EXTENSION) as carrier,
    ):
        caller.transfers(written)
        call = await office.call()
        assert call.invite_got is not None
        assert call.invite_got.uri == f"sip:{EXTENSION}@127.0.0.1:{branch.second_port}"
        call.answer()
        call.start_saying(destination_tone(10_000))
        caller.call.start_saying(caller_tone(10_000))
        await hears(caller.call, DESTINATION_HZ)
        await hears(call, CALLER_HZ)
        await call.hang_up()
        assert await caller.call.ended() == "them"
        transfer = transfer_of(await caller.end())
        assert (transfer["transferCallResult"], transfer["transferCalledNumber"]) == ("Connected", written)
        assert not carrier.taken


async def test_a_customer_orders_a_call_to_an_extension(branch: Exchange) -> None:
    async with Model() as model, branch.party(EXTENSION, second=True) as office:
        branch.answer_with(model)
        guid = await branch.place(calledNumber=EXTENSION)
        call = await office.call()
        call.answer()
        session = await model.session()
        await session.got("response.create")
        await agent_is_heard(call, session)
        await call.hang_up()
        end = await branch.end_of(guid)
        assert (end["calledNumber"], end["outboundCallResult"]) == (EXTENSION, "Connected")


@pytest.mark.parametrize("written", ["2001", f"sip:{EXTENSION}@203.0.113.9", "911"])
async def test_what_is_no_extension_is_not_dialled(branch: Exchange, written: str) -> None:
    async with conversation(branch) as (caller, _), branch.party(EXTENSION, second=True) as office, branch.party() as carrier:
        caller.transfers(written)
        output = json.loads(await caller.session.output_of("call_t"))
        assert output["reason"] == "Calls to this number are not allowed."
        assert not office.taken
        assert not carrier.taken
        await caller.call.hang_up()
        assert any("number:" in line for line in (await caller.end())["logInformation"])


async def test_a_phone_system_moves_its_party_to_an_extension(branch: Exchange) -> None:
    async with conversation(branch) as (caller, _), branch.party(EXTENSION, second=True) as office:
        assert await caller.call.refer(f"sip:{EXTENSION}@127.0.0.1:{branch.second_port}") == 202
        call = await office.call()
        call.ring()
        call.answer()
        assert await caller.call.ended() == "them"
        assert [line.split()[1] for line in caller.call.told()][-1] == "200"
        await agent_is_heard(call, caller.session, "Hello again!")
        await call.hang_up()
        await caller.end()


async def test_the_policy_explains_an_extension(branch: Exchange, tmp_path: Path) -> None:
    for written in (EXTENSION, f"sip:{EXTENSION}@127.0.0.1"):
        code, told = await branch.server.run("policy", "explain", written, "--account", "acme")
        assert code == 0, told
        assert f"allowed: sip:{EXTENSION}@127.0.0.1:{branch.second_port}" in told
        assert "in extensions of the trunk office" in told
    code, told = await branch.server.run("policy", "explain", EXTENSION, "--account", "twice")
    assert code == 1
    assert "when extensions of its trunk names it" in told

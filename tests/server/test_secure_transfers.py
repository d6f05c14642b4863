"""Callers put through where only one side, or both, must encrypt: caller, agent and destination judged by frequency."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.peers.baresip import BaresipLine
from tests.peers.party import Party
from tests.server.exchange import (
    CALLED,
    DESTINATION_HZ,
    LONG_MS,
    agent_is_heard,
    conversation,
    destination_tone,
    hears,
    model_hears,
    transfer_of,
)
from tests.server.listening import CALLER_HZ, caller_tone
from tests.server.secure_house import CAN, MUST, PLAIN, PLAIN_SECURE_HOST, SECURE_HOST, SecureHouse
from tests.server.telephones import encrypts, telephone_at, telephone_talks
from tests.server.test_transfers_baresip import talk_together, telephone_hears

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("baresip")]


async def test_a_plain_caller_and_a_destination_that_encrypts(secure: SecureHouse, tmp_path: Path) -> None:
    async with (
        telephone_at(secure.exchange, tmp_path, parameters=MUST) as destination,
        conversation(secure.exchange) as (caller, _),
    ):
        await agent_is_heard(caller.call, caller.session)
        caller.call.start_saying(caller_tone(LONG_MS))
        await model_hears(caller.session, CALLER_HZ)
        caller.transfers()
        await destination.until_event("CALL_ESTABLISHED", 20)
        await asyncio.gather(hears(caller.call, DESTINATION_HZ), telephone_hears(destination, CALLER_HZ))
        assert encrypts(destination)
        destination.command("hangup")
        assert await caller.call.ended() == "them"
        end = await caller.end()
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (0, "Connected")


async def test_a_caller_who_encrypts_and_a_plain_destination(secure: SecureHouse, tmp_path: Path) -> None:
    exchange = secure.exchange
    line = BaresipLine(exchange.new_caller(), PLAIN_SECURE_HOST, parameters=MUST)
    async with (
        telephone_talks(exchange, tmp_path, line, exchange.uri(PLAIN)) as caller,
        Party(user=CALLED, port=secure.port, answers=True) as party,
    ):
        assert encrypts(caller.phone)
        caller.transfers()
        call = await party.call()
        call.start_saying(destination_tone(LONG_MS))
        await asyncio.gather(telephone_hears(caller.phone, DESTINATION_HZ), hears(call, CALLER_HZ))
        await call.hang_up()
        await caller.phone.until_event("CALL_CLOSED", 20)
        end = await exchange.end_of(caller.guid)
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (0, "Connected")


@pytest.mark.parametrize("mode", [MUST, CAN])
async def test_both_encrypt(secure: SecureHouse, tmp_path: Path, mode: str) -> None:
    """With keys of their own on each side."""
    exchange = secure.exchange
    line = BaresipLine(exchange.new_caller(), SECURE_HOST, parameters=mode)
    async with (
        telephone_talks(exchange, tmp_path, line, exchange.uri()) as caller,
        telephone_at(exchange, tmp_path, parameters=mode) as destination,
    ):
        caller.transfers()
        await destination.until_event("CALL_ESTABLISHED", 20)
        await talk_together(caller.phone, destination)
        assert encrypts(caller.phone) and encrypts(destination)
        caller.phone.command("hangup")
        await destination.until_event("CALL_CLOSED", 20)
        end = await exchange.end_of(caller.guid)
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (0, "Connected")


async def test_a_destination_that_will_not_encrypt(secure: SecureHouse, tmp_path: Path) -> None:
    """488: the caller stays with the agent, encrypted as before."""
    exchange = secure.exchange
    line = BaresipLine(exchange.new_caller(), SECURE_HOST, parameters=MUST)
    async with (
        telephone_talks(exchange, tmp_path, line, exchange.uri()) as caller,
        telephone_at(exchange, tmp_path),
    ):
        caller.transfers()
        assert "Failed" in await caller.session.output_of("call_t")
        heard = len(caller.session.audio)
        await caller.session.hears(lambda sound: len(sound) > heard + 8000, "a second of the caller")
        await model_hears(caller.session, CALLER_HZ)
        caller.phone.command("hangup")
        end = await exchange.end_of(caller.guid)
    assert (end["status"], end["callReferredOut"], transfer_of(end)["transferCallResult"]) == (0, False, "Failed")

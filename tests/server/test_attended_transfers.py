"""Attended transfers from the first word to the record: how a destination takes the caller, and every way in which it does not.

The 60 s that a destination has to decide are the product's own: they are waited for once, by two destinations at the same time.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from switchhook_demo.sound import tone
from tests.peers.flite import spoken
from tests.peers.party import PartyCall
from tests.server.call_end import log_texts, spoken_lines
from tests.server.exchange import (
    DESTINATION,
    LONG_MS,
    TRANSFER,
    Caller,
    Exchange,
    agent_is_heard,
    conversation,
    hears,
    latest,
    model_hears,
    talking,
    transfer_of,
)
from tests.server.listening import AGENT_HZ, CALLER_HZ, caller_tone, linear, loud_part, share_at
from tests.server.model import Model
from tests.server.waiting import DEADLINE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONSULT_S = 60.0
"""What a destination has from its answer to its decision."""


async def consulted(caller: Caller, call: PartyCall) -> None:
    """The destination answers, and the agent briefs it."""
    call.ring()
    call.answer()
    [briefing] = await caller.session.until(
        lambda: [text for role, text in caller.session.texts() if role == "system"], "the briefing"
    )
    assert caller.number in briefing
    await caller.session.got("response.create", 2)
    caller.session.speaks(tone(AGENT_HZ, 500), "There is a caller for you. Will you take the call?")
    await hears(call, AGENT_HZ)


async def waits(call: PartyCall) -> None:
    """The caller hears a melody, which is not the agent."""

    def melody() -> bool:
        signal = linear(latest(call, 400))
        return len(loud_part(signal, quiet_rms=60)) > 1600 and share_at(signal, AGENT_HZ) < 0.3

    await call.ear.until(melody, DEADLINE_S, "hold sound")


async def record_of(exchange: Exchange, caller: Caller) -> dict[str, Any]:
    """The only transfer of the call's row."""
    [record] = json.loads(await exchange.row("transfers", "call_id = ?", caller.guid))
    found: dict[str, Any] = record
    return found


async def returned(exchange: Exchange, caller: Caller, output: str, evidence: tuple[str, int | None]) -> dict[str, Any]:
    """The agent was told `output` and talks with the caller again; gives the CallEnd, with which log and row agree."""
    told = json.loads(await caller.session.output_of("call_t"))
    assert (told["status"], told["transferCallResult"]) == ("failed", output)
    await agent_is_heard(caller.call, caller.session, "They are not there.")
    caller.call.start_saying(caller_tone(600))
    await model_hears(caller.session, CALLER_HZ)
    await caller.call.hang_up()
    end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["status"]) == (output, 0)
    record = await record_of(exchange, caller)
    assert (record["result"], record["sip_status"], record["connected_at"]) == (*evidence, None)
    return end


# -- taken ------------------------------------------------------------------------------------------------------------


@pytest.mark.peer("flite")
async def test_the_destination_says_yes(exchange: Exchange) -> None:
    """Its words reach the agent and stand in the transcript as its own; with complete_transfer the two are connected."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        await consulted(caller, call)
        before = len(caller.session.audio)
        yes = spoken("Yes, put her through please.")
        await call.say(yes)
        await caller.session.hears(lambda sound: len(loud_part(linear(sound[before:]))) > len(yes) // 3, "the destination's yes")
        caller.session.caller_spoke("Yes, put her through please.")
        caller.session.calls_tool("call_c", "complete_transfer", {})
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        await talking(caller.call, call)
        await call.hang_up()
        assert await caller.call.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"
    assert "User: [transfer destination] Yes, put her through please." in spoken_lines(end)
    record = await record_of(exchange, caller)
    assert (record["result"], record["sip_status"], record["referred"]) == ("connected", 200, False)
    assert record["started_at"] < record["connected_at"] < record["ended_at"]


async def test_the_destination_presses_one(exchange: Exchange) -> None:
    """The agent need not understand: the key alone connects. Keys before it mean nothing, keys after it are the caller's."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        await consulted(caller, call)
        await call.press("7")
        await waits(caller.call)
        assert not caller.session.closed
        call.line.press("1")
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        await talking(caller.call, call)
        call.line.hush()
        await call.press("1")
        await caller.call.ear.until(lambda: caller.call.ear.digits == ["1"], DEADLINE_S, "the key at the caller")
        await caller.call.hang_up()
        assert await call.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"
    assert (await record_of(exchange, caller))["result"] == "connected"


# -- not taken --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "output", "evidence"),
    [
        ("declined", "Failed", ("declined", 200)),
        ("voicemail", "MachineDetected", ("voicemail", 200)),
        ("key", "Failed", ("declined", 200)),
        ("hang-up", "Failed", ("dropped", 200)),
    ],
)
async def test_the_destination_does_not_take_the_caller(
    exchange: Exchange, how: str, output: str, evidence: tuple[str, int | None]
) -> None:
    """By the agent's cancel_transfer, with key 2, or by hanging up while it is briefed: told apart in the record."""
    async with conversation(exchange) as (caller, model), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        await consulted(caller, call)
        if how == "key":
            call.line.press("2")
        elif how == "hang-up":
            await call.hang_up()
        else:
            caller.session.calls_tool("call_c", "cancel_transfer", {"reason": how})
        assert await call.ended() == ("us" if how == "hang-up" else "them")
        end = await returned(exchange, caller, output, evidence)
        assert len(model.sessions) == 1
    assert any(line.startswith(f"Transfer: {evidence[0]} (200): ") for line in log_texts(end))


@pytest.mark.parametrize("answered", [False, True])
async def test_the_caller_does_not_wait(exchange: Exchange, answered: bool) -> None:
    """CANCEL or BYE lets the destination go, and the record says that the caller left."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        if answered:
            await consulted(caller, call)
        else:
            call.ring()
            await waits(caller.call)
        await caller.call.hang_up()
        assert await call.ended() == "them"
        assert call.cancelled.is_set() is not answered
        end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["status"]) == ("Failed", 0)
    record = await record_of(exchange, caller)
    assert (record["result"], record["detail"]) == ("cancelled", "the caller hung up")


@pytest.mark.timeout(150)
async def test_a_destination_that_does_not_decide(exchange: Exchange) -> None:
    """60 s after its answer it is let go, silent or talking; the caller, on hold until then, is the agent's again."""
    async with Model() as model, exchange.party(DESTINATION) as party, AsyncExitStack() as stack:
        exchange.answer_with(model, [TRANSFER])
        now = asyncio.get_running_loop().time
        talks: list[tuple[Caller, PartyCall, float]] = []
        for count in (1, 2):
            caller = await stack.enter_async_context(exchange.caller(model))
            caller.session.speaks(tone(AGENT_HZ, 100), "Hello!")
            caller.transfers(attended=True)
            call = await party.call(count)
            await consulted(caller, call)
            talks.append((caller, call, call.answered_at or 0.0))
        silent, talkative = talks
        talkative[1].start_saying(tone(900, 2 * LONG_MS))
        for _, call, answered_at in talks:
            await call.ear.until(lambda since=answered_at: now() > since + CONSULT_S - 8, 60, "the end is near")  # type: ignore[misc]
            assert call.ended_at is None
        for caller, _, _ in talks:
            await waits(caller.call)
        for caller, call, answered_at in (silent, talkative):
            assert await call.ended(30) == "them"
            assert call.ended_at is not None
            assert CONSULT_S - 1 < call.ended_at - answered_at < CONSULT_S + 15
            end = await returned(exchange, caller, "Failed", ("declined", 200))
            assert any("did not take the call in time" in line for line in log_texts(end))

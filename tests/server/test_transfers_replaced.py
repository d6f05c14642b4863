"""What becomes of a transfer when another line takes a party's place (RFC 3891), and whose words the transcript holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from switchhook_demo.phone import CallRefusedError
from tests.peers.party import PartyCall
from tests.server.call_end import spoken_lines
from tests.server.exchange import (
    DESTINATION,
    DESTINATION_HZ,
    REFERRING,
    REFERRING_HOST,
    Caller,
    Exchange,
    agent_is_heard,
    conversation,
    destination_tone,
    model_hears,
    talking,
    transfer_of,
)
from tests.server.listening import linear
from tests.server.model import Model
from tests.server.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def in_the_place_of(exchange: Exchange, old: PartyCall) -> AsyncIterator[PartyCall]:
    """A call from another telephone of the same phone system that has taken the place of `old`."""
    async with exchange.party_caller() as telephone:
        call = await telephone.dial(exchange.uri(), {"Replaces": old.replaces})
        await call.answered()
        assert await old.ended() == "them"
        yield call


# -- the destination's line is replaced -------------------------------------------------------------------------------


async def test_an_invite_takes_the_destinations_place(exchange: Exchange) -> None:
    """Somebody else of the destination's phone system goes on with the caller: no new CallStart, one transfer, one CallEnd."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.transfers()
        old = await party.call()
        await talking(caller.call, old)
        async with in_the_place_of(exchange, old) as new:
            await talking(caller.call, new)
            await new.hang_up()
            assert await caller.call.ended() == "them"
        end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["status"]) == ("Connected", 0)
    assert len(exchange.backend.of("/callstart")) == len(exchange.ends_of(caller.guid)) == 1


async def test_another_accounts_phone_system_takes_nobodys_place(exchange: Exchange) -> None:
    """403, and the two talk on."""
    async with (
        conversation(exchange) as (caller, _),
        exchange.party(DESTINATION, answers=True) as party,
        exchange.party_caller(REFERRING_HOST) as stranger,
    ):
        caller.transfers()
        call = await party.call()
        await talking(caller.call, call)
        with pytest.raises(CallRefusedError, match="403"):
            await (await stranger.dial(exchange.uri(), {"Replaces": call.replaces})).answered()
        await talking(caller.call, call)
        await call.hang_up()
        assert transfer_of(await caller.end())["transferCallResult"] == "Connected"


async def test_an_invite_takes_the_place_of_a_destination_that_is_being_briefed(exchange: Exchange) -> None:
    """The agent begins again with whoever is there, and the caller is put through to that one."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.transfers(attended=True)
        old = await party.call()
        await caller.session.got("response.create", 2)
        await agent_is_heard(old, caller.session, "Can I put a caller through?")
        async with in_the_place_of(exchange, old) as new:
            await caller.session.got("response.create", 3)
            new.start_saying(destination_tone(1000))
            await model_hears(caller.session, DESTINATION_HZ)
            await agent_is_heard(new, caller.session, "A caller wants to talk with you.")
            new.line.press("1")
            await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
            await talking(caller.call, new)
            await caller.call.hang_up()
            assert await new.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"


# -- an attended REFER whose peer leaves at once ----------------------------------------------------------------------


@asynccontextmanager
async def _handed_over(exchange: Exchange) -> AsyncIterator[tuple[Caller, PartyCall]]:
    """The caller's line takes the REFER and hangs up before its new call has come; (caller, destination's call)."""
    async with (
        conversation(exchange, REFERRING, REFERRING_HOST) as (caller, _),
        exchange.party(DESTINATION, answers=True) as party,
    ):
        caller.transfers(attended=True)
        call = await party.call()
        await caller.session.got("response.create", 2)
        caller.session.calls_tool("call_c", "complete_transfer", {})
        await asyncio.wait_for(caller.call.referred.wait(), DEADLINE_S)
        await caller.call.hang_up()
        assert (await call.reinvite("sendrecv")).status == 200
        assert call.ended_at is None
        yield caller, call


async def test_the_destination_waits_for_the_call_that_takes_its_place(exchange: Exchange) -> None:
    """Its phone ends our call when the new one is there; CallEnd tells that the caller was referred out."""
    async with _handed_over(exchange) as (caller, call):
        await call.hang_up()
        end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["callReferredOut"], end["status"]) == ("Successful", True, 0)


async def test_the_destination_does_not_wait_for_ever(exchange: Exchange) -> None:
    """No call takes its place: it is let go, and CallEnd does not say that anybody was connected."""
    async with _handed_over(exchange) as (caller, call):
        assert await call.ended() == "them"
        end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["callReferredOut"], end["status"]) == ("Failed", False, 0)
    assert end["callEnd"] < transfer_of(end)["transferCallEnd"], "the caller's call was over before"


# -- the transcript of a consultation ---------------------------------------------------------------------------------


async def test_what_the_destination_tells_the_agent_is_not_the_callers(exchange: Exchange) -> None:
    """Under the label that contract §1.8 has for it, and marked; in the live delivery, too."""
    talk = conversation(exchange, logTranscription=True, transcriptionToolName="transcript")
    async with talk as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.session.caller_spoke("Sales, please.")
        caller.transfers(attended=True)
        call = await party.call()
        await caller.session.got("response.create", 2)
        caller.session.caller_spoke("Not today.")
        caller.session.calls_tool("call_c", "cancel_transfer", {"reason": "declined"})
        assert await call.ended() == "them"
        caller.session.caller_spoke("What a pity.")

        async def told() -> list[str] | None:
            live = [got.json["text"] for got in exchange.backend.of("/tools") if got.json["speaker"] == "User"]
            return live if len(live) == 3 else None

        live = await eventually(told, "three lines of users")
        await caller.call.hang_up()
        end = await caller.end()
    users = [line for line in spoken_lines(end) if line.startswith("User: ")]
    assert users == ["User: Sales, please.", "User: [transfer destination] Not today.", "User: What a pity."]
    assert live == [line.removeprefix("User: ") for line in users]


# -- a message under way ----------------------------------------------------------------------------------------------


def _voiced_s(call: PartyCall) -> float:
    """From the first loud sample to the last."""
    loud = np.flatnonzero(np.abs(linear(call.ear.ulaw())) > 300)
    return float(loud[-1] - loud[0]) / 8000 if len(loud) else 0.0


async def test_a_message_goes_on_at_the_line_that_takes_the_callers_place(exchange: Exchange) -> None:
    """The model cannot be reached; half of the message is heard on the one line and half on the other, and then the call ends."""
    message = "We are sorry, nobody can take your call at the moment. Please call again between nine and five. " * 2
    async with Model(refuse_with=401) as model, exchange.party_caller() as telephone:
        exchange.answer_with(model, messageToPlayOnFailure=message)
        whole = await telephone.dial(exchange.uri())
        await whole.answered()
        assert await whole.ended() == "them"
        caller = await telephone.dial(exchange.uri())
        await caller.answered()
        await caller.ear.until(lambda: _voiced_s(caller) > 3, 20, "a part of the message")
        async with in_the_place_of(exchange, caller) as new:
            assert await new.ended(25) == "them"
            assert abs(_voiced_s(caller) + _voiced_s(new) - _voiced_s(whole)) < 1
            assert _voiced_s(new) > 3

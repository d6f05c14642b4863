"""Callers who are put through by their own line (REFER), and lines that move a call themselves (REFER, Replaces)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest

from switchhook_demo.sip_text import address_uri
from switchhook_demo.sound import tone
from tests.peers.sipp import SippRun, messages
from tests.server.exchange import (
    CALLED,
    DESTINATION,
    DESTINATION_HZ,
    REFERRING,
    REFERRING_HOST,
    TRANSFER,
    Exchange,
    agent_is_heard,
    conversation,
    model_hears,
    talking,
    transfer_of,
)
from tests.server.house import NUMBER
from tests.server.listening import CALLER_HZ, NEAR_HZ, caller_tone, loud_part, peak_hz, recorded
from tests.server.model import LiveSession, Model
from tests.server.waiting import DEADLINE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")


# -- by the caller's line ---------------------------------------------------------------------------------------------


@pytest.mark.peer("sipp")
@pytest.mark.parametrize(
    ("scenario", "outcome", "result", "referred"),
    [
        ("uac_takes_refer_and_is_let_go", "", "Connected", True),
        ("uac_takes_refer", "486 Busy Here", "Busy", False),
        ("uac_takes_refer_and_leaves", "", "Successful", True),
    ],
)
async def test_the_line_makes_the_connection(
    exchange: Exchange, tmp_path: Path, scenario: str, outcome: str, result: str, referred: bool
) -> None:
    """202, NOTIFY, BYE: `callReferredOut` is true when the caller left us so; a destination that is busy there is told."""
    async with Model(_transfers_at_once) as model, exchange.party() as party:
        exchange.answer_with(model, [TRANSFER])
        remote = ("127.0.0.1", exchange.server.sip_port)
        keys = {"outcome": outcome or "100 Trying"}
        run = SippRun(scenario, remote, tmp_path, service=REFERRING, keys=keys, host=REFERRING_HOST)
        async with run.process() as sipp:
            done = await sipp.finished(25)
        assert done.returncode == 0, done.output + messages(tmp_path)
        [start] = exchange.backend.of("/callstart")
        end = await exchange.end_of(start.json["sessionGuid"])
        assert not party.taken
    transfer = transfer_of(end)
    assert (transfer["transferCallResult"], transfer["transferCalledNumber"]) == (result, CALLED)
    assert (end["callReferredOut"], end["status"]) == (referred, 0)


async def _transfers_at_once(session: LiveSession) -> None:
    await session.got("response.create")
    session.calls_tool("call_t", TRANSFER, {"transferNumber": CALLED})


async def test_a_line_that_refuses_to_make_it(exchange: Exchange) -> None:
    """603 to our REFER: we bridge, and nobody notices."""
    async with (
        conversation(exchange, REFERRING, REFERRING_HOST) as (caller, _),
        exchange.party(DESTINATION, answers=True) as party,
    ):
        caller.call.refer_answer = 603
        caller.transfers()
        await asyncio.wait_for(caller.call.referred.wait(), DEADLINE_S)
        call = await party.call()
        await talking(caller.call, call)
        await call.hang_up()
        assert await caller.call.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"
    assert end["callReferredOut"] is False


@pytest.mark.parametrize("status", [200, 503])
async def test_an_attended_transfer_by_the_line(exchange: Exchange, status: int) -> None:
    """REFER with Replaces names our leg to the destination. When the line cannot, the two are bridged here."""
    async with conversation(exchange, REFERRING, REFERRING_HOST) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        call.answer()
        await caller.session.got("response.create", 2)
        caller.session.calls_tool("call_c", "complete_transfer", {})
        await asyncio.wait_for(caller.call.referred.wait(), DEADLINE_S)
        [refer] = [request for request in caller.call.requests if request.method == "REFER"]
        target = unquote(address_uri(refer.get("refer-to")))
        assert target.startswith(f"sip:{DESTINATION}@127.0.0.1:{exchange.port}")
        assert f"Replaces={call.call_id}" in target
        await caller.call.notify(100, over=False)
        await caller.call.notify(status, over=True)
        if status == 200:
            await call.hang_up()  # its place was taken
            assert await caller.call.ended() == "them"
        else:
            await talking(caller.call, call)
            await caller.call.hang_up()
            assert await call.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"
    assert end["callReferredOut"] is (status == 200)


# -- by a phone system ------------------------------------------------------------------------------------------------


async def test_a_phone_system_moves_its_party(exchange: Exchange) -> None:
    """REFER from the caller's side: the new party talks with the same agent, the old line is let go; one call, one CallEnd."""
    async with Model() as model, exchange.party(DESTINATION) as party:
        exchange.answer_with(model, [TRANSFER], recordCall=True, recordCallFormat="wav")
        async with exchange.caller(model) as caller:
            await agent_is_heard(caller.call, caller.session)
            caller.call.start_saying(caller_tone(600))
            await model_hears(caller.session, CALLER_HZ)
            assert await caller.call.refer(f"sip:{DESTINATION}@127.0.0.1:{exchange.port}") == 202
            call = await party.call()
            assert call.caller == NUMBER
            call.ring()
            call.answer()
            assert await caller.call.ended() == "them"
            assert [line.split()[1] for line in caller.call.told()][-1] == "200"
            call.start_saying(tone(DESTINATION_HZ, 1000))
            await model_hears(caller.session, DESTINATION_HZ)
            await agent_is_heard(call, caller.session, "Hello again!")
            await call.hang_up()
            end = await caller.end()
        assert len(model.sessions) == 1
    assert (end["status"], end["callReferredOut"], end["transfers"]) == (0, False, None)
    assert len(exchange.ends_of(caller.guid)) == 1
    left, _, _ = recorded(await exchange.recording(caller.guid, "wav"))
    loud = loud_part(left)
    assert abs(peak_hz(loud[:4000]) - CALLER_HZ) < NEAR_HZ
    assert abs(peak_hz(loud[-4000:]) - DESTINATION_HZ) < NEAR_HZ


@pytest.mark.parametrize(("target", "refusal", "told"), [(DESTINATION, 486, "486"), ("+442079460000", None, "403")])
async def test_a_phone_system_that_cannot_move_its_party(exchange: Exchange, target: str, refusal: int | None, told: str) -> None:
    """Busy there, or not allowed by the account's policy: NOTIFY says so, and the caller talks on."""
    async with Model() as model, exchange.party(DESTINATION) as party:
        exchange.answer_with(model)
        async with exchange.caller(model) as caller:
            await caller.call.refer(f"sip:{target}@127.0.0.1:{exchange.port}")
            if refusal is not None:
                (await party.call()).refuse(refusal)
            await caller.call.ear.until(
                lambda: len(caller.call.told()) > 0 and told in caller.call.told()[-1], DEADLINE_S, f"NOTIFY {told}"
            )
            await agent_is_heard(caller.call, caller.session)
            await caller.call.hang_up()
            assert (await caller.end())["status"] == 0
        assert len(party.taken) == (refusal is not None)


async def test_an_invite_takes_the_callers_place(exchange: Exchange) -> None:
    """Replaces: the new line gets the agent, the old one BYE; no new CallStart."""
    async with Model() as model, exchange.party_caller() as other:
        exchange.answer_with(model)
        async with exchange.caller(model) as caller:
            await agent_is_heard(caller.call, caller.session)
            call = await other.dial(exchange.uri(), {"Replaces": caller.call.replaces})
            await call.answered()
            assert await caller.call.ended() == "them"
            call.start_saying(caller_tone(1000))
            await model_hears(caller.session, CALLER_HZ)
            await agent_is_heard(call, caller.session, "Hello again!")
            await call.hang_up()
            end = await caller.end()
        assert len(model.sessions) == len(exchange.backend.of("/callstart")) == 1
    assert end["status"] == 0


async def test_a_destination_is_moved_by_its_phone_system(exchange: Exchange) -> None:
    """The colleague who took the call hands it on by REFER: the caller talks with the third party."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.transfers()
        call = await party.call()
        await caller.session.until(lambda: caller.session.closed, "put through")
        assert await call.refer(f"sip:{CALLED}@127.0.0.1:{exchange.port}") == 202
        third = await party.call(2)
        assert await call.ended() == "them"
        await talking(caller.call, third)
        await caller.call.hang_up()
        assert await third.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"

"""Callers who are put through by the gateway: blind and attended bridges (contract §1.10 C, D, E, F)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from switchhook_demo.sound import tone
from tests.peers.baresip import baresip
from tests.peers.outgoing_call import content
from tests.peers.party import PartyCall
from tests.peers.sound import write_wav
from tests.server.call_end import TICKS
from tests.server.exchange import (
    CALLED,
    DESTINATION,
    DESTINATION_HZ,
    LONG_MS,
    TRANSFER,
    UNRECORDED,
    WHOLE_CALL,
    Caller,
    Exchange,
    agent_is_heard,
    conversation,
    destination_tone,
    hears,
    hears_ringback,
    latest,
    model_hears,
    talking,
    transfer_of,
)
from tests.server.house import NUMBER
from tests.server.listening import (
    AGENT_HZ,
    CALLER_HZ,
    NEAR_HZ,
    caller_tone,
    linear,
    loud_part,
    mono,
    peak_hz,
    recorded,
    share_at,
)
from tests.server.model import Model
from tests.server.waiting import DEADLINE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")


def connected(end: dict[str, Any], **other: Any) -> None:
    """One transfer that connected the caller with DESTINATION; the fields that differ are `other`."""
    transfer = transfer_of(end)
    times = [transfer.pop("transferCallStart"), transfer.pop("transferCallEnd")]
    assert all(TICKS.fullmatch(time) for time in times)
    assert end["callConnected"] < times[0] < times[1] <= end["callEnd"]
    assert transfer == {
        "transferCalledNumber": DESTINATION,
        "transferCallerId": other.pop("caller"),
        "transferCallerIdName": None,
        "transferCallResult": "Connected",
    }
    told = {name: end[name] for name in ("status", "errorMessage", "callReferredOut", "outboundCallResult")}
    expected = {"status": 0, "errorMessage": "No Errors", "callReferredOut": False, "outboundCallResult": "N/A"}
    assert told == expected | other


@pytest.mark.peer("baresip")
async def test_a_blind_transfer_to_a_telephone(exchange: Exchange, tmp_path: Path) -> None:
    """Ringback, then the destination; the model is closed when it answers, not before; the recording has both."""
    write_wav(tmp_path / "source.wav", DESTINATION_HZ, 30_000)
    async with (
        conversation(exchange, recordCall=True, recordCallFormat="wav") as (caller, _),
        baresip(tmp_path / "phone", tmp_path / "source.wav", sip_port=exchange.port, answers=False) as phone,
    ):
        caller.transfers()
        await phone.until_event("CALL_INCOMING")
        await hears_ringback(caller.call)
        assert not caller.session.closed
        phone.command("accept")
        await phone.until_event("CALL_ESTABLISHED")
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        caller.call.start_saying(caller_tone(2000))
        await hears(caller.call, DESTINATION_HZ, 1000)
        await caller.call.line.said()
        phone.command("hangup")
        assert await caller.call.ended() == "them"
        end = await caller.end()
        heard = loud_part(mono(phone.heard))
    connected(end, caller=caller.number)
    assert abs(peak_hz(heard) - CALLER_HZ) < NEAR_HZ
    assert share_at(heard, CALLER_HZ) > 0.8
    left, right, _ = recorded(await exchange.recording(caller.guid, "wav"))
    assert abs(peak_hz(loud_part(left)) - CALLER_HZ) < NEAR_HZ
    assert abs(peak_hz(loud_part(right)[-8000:]) - DESTINATION_HZ) < NEAR_HZ
    assert share_at(loud_part(left), DESTINATION_HZ) < 0.01


@pytest.mark.parametrize(
    ("status", "result", "reason"),
    [
        (486, "Busy", None),
        (480, "NoAnswer", None),
        (603, "Failed", "The person there did not take the call."),
        (404, "OperatorIntercept", None),
        (500, "Failed", "The number could not be reached for technical reasons."),
    ],
)
@pytest.mark.parametrize("attended", [False, True])
async def test_a_transfer_that_fails_returns_to_the_agent(
    exchange: Exchange, status: int, result: str, reason: str | None, attended: bool
) -> None:
    """The model is told what came of it and talks on with the caller; the attempt is in `transfers`."""
    async with conversation(exchange) as (caller, model), exchange.party(DESTINATION) as party:
        caller.transfers(attended=attended)
        call = await party.call()
        call.ring()
        if not attended:
            await hears_ringback(caller.call)
        call.refuse(status)
        output = json.loads(await caller.session.output_of("call_t"))
        assert output == {"status": "failed", "transferCallResult": result} | ({"reason": reason} if reason else {})
        await caller.session.got("response.create", 2)
        await agent_is_heard(caller.call, caller.session, "I am sorry.")
        caller.call.start_saying(caller_tone(600))
        await model_hears(caller.session, CALLER_HZ)
        await caller.call.hang_up()
        end = await caller.end()
        assert len(model.sessions) == 1
    transfer = transfer_of(end)
    assert (transfer["transferCallResult"], transfer["transferCalledNumber"]) == (result, DESTINATION)
    assert (end["status"], end["callReferredOut"]) == (0, False)


@pytest.mark.peer("sipp")
async def test_a_carrier_says_busy(exchange: Exchange, tmp_path: Path) -> None:
    async with conversation(exchange) as (caller, _), exchange.sipp("uas_busy", tmp_path) as carrier:
        caller.transfers()
        assert json.loads(await caller.session.output_of("call_t"))["transferCallResult"] == "Busy"
        await content(carrier, tmp_path)
        await caller.call.hang_up()
        assert transfer_of(await caller.end())["transferCallResult"] == "Busy"


async def test_destinations_that_ring_on(exchange: Exchange) -> None:
    """Nobody answers within 30 s, blind and attended: the INVITE is cancelled, the agent is told NoAnswer."""
    async with Model() as model, exchange.party(DESTINATION) as party:
        exchange.answer_with(model, [TRANSFER])
        async with exchange.caller(model) as blind, exchange.caller(model) as attended:
            for number, caller in enumerate((blind, attended), 1):
                caller.session.speaks(tone(AGENT_HZ, 100), "Hello!")
                caller.transfers(attended=caller is attended)
                (await party.call(number)).ring()
            for caller in (blind, attended):
                output = await caller.session.until(lambda at=caller: at.session.calls.get("call_t"), "the output", 45)  # type: ignore[misc]
                assert json.loads(output)["transferCallResult"] == "NoAnswer"
                await caller.call.hang_up()
                assert transfer_of(await caller.end())["transferCallResult"] == "NoAnswer"
        for call in party.taken:
            await asyncio.wait_for(call.cancelled.wait(), DEADLINE_S)


async def test_a_number_that_the_policy_refuses(exchange: Exchange) -> None:
    """Nothing is dialled; the model is told so, the record is kept, and the talk goes on."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers("+442079460000")
        output = json.loads(await caller.session.output_of("call_t"))
        assert output == {"status": "failed", "transferCallResult": "Failed", "reason": "Calls to this number are not allowed."}
        await caller.session.got("response.create", 2)
        await agent_is_heard(caller.call, caller.session)
        assert not party.taken
        await caller.call.hang_up()
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Failed"
    assert any("country" in line for line in end["logInformation"])


@pytest.mark.parametrize("ours", [False, True])
async def test_the_number_that_the_destination_is_shown(exchange: Exchange, ours: bool) -> None:
    """The caller's, or with useVnsNumberAsCallerId the number that was called."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.transfers(useVnsNumberAsCallerId=ours)
        call = await party.call()
        shown = NUMBER if ours else caller.number
        assert call.caller == shown
        await caller.session.until(lambda: caller.session.closed, "put through")
        await call.hang_up()
        assert await caller.call.ended() == "them"
        connected(await caller.end(), caller=shown)


async def test_keys_hold_and_hang_up_of_two_who_were_put_through(exchange: Exchange) -> None:
    """DTMF goes both ways, hold by either side survives, and the caller's hang-up ends both."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.transfers()
        call = await party.call()
        await talking(caller.call, call)
        caller.call.line.hush()
        call.line.hush()
        await caller.call.press("19#")
        await call.press("5*")
        await call.ear.until(lambda: call.ear.digits == ["1", "9", "#"], DEADLINE_S, "the caller's keys at the destination")
        keys = caller.call.ear.digits
        await caller.call.ear.until(lambda: keys == ["5", "*"], DEADLINE_S, "the destination's keys at the caller")
        for holder in (caller.call, call):
            await holder.hold()
            await holder.resume()
            await talking(caller.call, call)
        await caller.call.hang_up()
        assert await call.ended() == "them"
        connected(await caller.end(), caller=caller.number)


async def test_what_the_destination_plays_before_it_answers_is_heard(exchange: Exchange) -> None:
    """Early media takes the place of our ringback."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers()
        call = await party.call()
        call.ring(183, early=True)
        call.start_saying(destination_tone(LONG_MS))
        await hears(caller.call, DESTINATION_HZ)
        assert not caller.session.closed
        call.answer()
        await talking(caller.call, call)
        await call.hang_up()
        assert await caller.call.ended() == "them"
        connected(await caller.end(), caller=caller.number)


async def test_the_caller_gives_up_while_it_rings(exchange: Exchange) -> None:
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers()
        call = await party.call()
        call.ring()
        await hears_ringback(caller.call)
        await caller.call.hang_up()
        await asyncio.wait_for(call.cancelled.wait(), DEADLINE_S)
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Failed"
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")


# -- attended ---------------------------------------------------------------------------------------------------------


async def briefed(caller: Caller, call: PartyCall) -> None:
    """The destination answers: it talks with the agent, and the caller hears neither."""
    await hold_sound_is_heard(caller.call)
    call.answer()
    [briefing] = await caller.session.until(
        lambda: [text for role, text in caller.session.texts() if role == "system"], "the briefing"
    )
    assert caller.number in briefing
    await caller.session.got("response.create", 2)
    caller.session.speaks(tone(AGENT_HZ, 800), "There is a caller for you.")
    call.start_saying(destination_tone(1000))
    caller.call.start_saying(caller_tone(1000))
    await asyncio.gather(hears(call, AGENT_HZ), model_hears(caller.session, DESTINATION_HZ), hold_sound_is_heard(caller.call))


async def hold_sound_is_heard(call: PartyCall) -> None:
    """Something is played that is neither the agent nor the destination."""

    def melody() -> bool:
        signal = linear(latest(call, 400))
        loud = loud_part(signal, quiet_rms=60)
        foreign = max(share_at(signal, hz) for hz in (AGENT_HZ, DESTINATION_HZ)) if len(signal) == 3200 else 1
        return len(loud) > 1600 and foreign < 0.3

    await call.ear.until(melody, DEADLINE_S, "hold sound")


@pytest.mark.parametrize("how", ["complete_transfer", "key"])
async def test_an_attended_transfer_that_is_taken(exchange: Exchange, how: str) -> None:
    """By the agent's word or with key 1: the two are connected, the agent leaves."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        await briefed(caller, call)
        if how == "key":
            call.line.press("1")
        else:
            caller.session.calls_tool("call_c", how, {})
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        await talking(caller.call, call)
        await call.hang_up()
        assert await caller.call.ended() == "them"
        connected(await caller.end(), caller=caller.number)


@pytest.mark.parametrize(
    ("how", "result"),
    [("declined", "Failed"), ("voicemail", "MachineDetected"), ("key", "Failed"), ("hang-up", "Failed")],
)
async def test_an_attended_transfer_that_is_not_taken(exchange: Exchange, how: str, result: str) -> None:
    """Declined by word or with key 2, a voicemail, or the destination hangs up: the caller returns to the same agent."""
    async with conversation(exchange) as (caller, model), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        await briefed(caller, call)
        if how == "key":
            call.line.press("2")  # the call may end before the key is up
        elif how == "hang-up":
            await call.hang_up()
        else:
            caller.session.calls_tool("call_c", "cancel_transfer", {"reason": how})
        output = json.loads(await caller.session.output_of("call_t"))
        assert (output["status"], output["transferCallResult"]) == ("failed", result)
        await call.ended()
        await caller.session.until(lambda: caller.session.requests > 2, "the agent goes on")
        await agent_is_heard(caller.call, caller.session, "They are not there.")
        caller.call.start_saying(caller_tone(600))
        await model_hears(caller.session, CALLER_HZ)
        await caller.call.hang_up()
        assert transfer_of(await caller.end())["transferCallResult"] == result
        assert len(model.sessions) == 1


@pytest.mark.parametrize("answered", [False, True])
async def test_a_caller_who_does_not_wait(exchange: Exchange, answered: bool) -> None:
    """The caller hangs up on hold: the destination is let go, whether it rings or is being briefed."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers(attended=True)
        call = await party.call()
        call.ring()
        if answered:
            await briefed(caller, call)
        await caller.call.hang_up()
        await call.ended()
        assert call.cancelled.is_set() is not answered
        end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["status"]) == ("Failed", 0)


@pytest.mark.parametrize("attended", [False, True])
async def test_the_model_is_lost_during_a_transfer(exchange: Exchange, attended: bool) -> None:
    """The transfer goes on without the agent: whoever answers gets the caller."""
    async with conversation(exchange) as (caller, model), exchange.party(DESTINATION) as party:
        caller.transfers(attended=attended)
        call = await party.call()
        call.ring()
        model.refuse_with = 401
        caller.session.die()
        await caller.session.until(lambda: caller.session.closed, "the model is gone")
        call.answer()
        await talking(caller.call, call)
        await call.hang_up()
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"


# -- E, F and recordings ----------------------------------------------------------------------------------------------


async def test_the_number_for_the_case_that_the_agent_fails(exchange: Exchange) -> None:
    """routeToNumberOnFailure: the caller is put through, shown as itself; CallEnd has status 2 and the transfer."""
    async with Model(refuse_with=401) as model, exchange.party(DESTINATION) as party, exchange.party_caller() as telephone:
        exchange.answer_with(model, routeToNumberOnFailure=DESTINATION)
        call = await telephone.dial(exchange.uri())
        await call.answered()
        other = await party.call()
        assert other.caller == telephone.user
        other.ring()
        await hears_ringback(call)
        other.answer()
        await talking(call, other)
        await other.hang_up()
        assert await call.ended() == "them"
        end = await exchange.end_of((await exchange.start_of(telephone.user))["sessionGuid"])
    connected(end, caller=telephone.user, status=2, errorMessage=end["errorMessage"])
    assert end["errorMessage"] != "No Errors"


async def test_recording_stops_when_the_number_says_so(exchange: Exchange) -> None:
    """record_transfers: false. Nothing of what the two said is in the file."""
    talk = conversation(exchange, UNRECORDED, recordCall=True, recordCallFormat="wav")
    async with talk as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        await caller.call.heard(0)
        caller.transfers()
        call = await party.call()
        await talking(caller.call, call)
        await call.hang_up()
        await caller.end()
    left, right, _ = recorded(await exchange.recording(caller.guid, "wav"))
    assert len(loud_part(left)) == 0
    assert share_at(loud_part(right), DESTINATION_HZ) < 0.01


@pytest.mark.parametrize(("number", "ends"), [(WHOLE_CALL, True), (NUMBER, False)])
async def test_the_time_limit_and_a_transferred_talk(exchange: Exchange, number: str, ends: bool) -> None:
    """max_seconds_scope: `call` ends two people who were put through, `ai` lets them talk on."""
    async with conversation(exchange, number, maxSeconds=5) as (caller, _), exchange.party(DESTINATION, answers=True) as party:
        caller.transfers()
        call = await party.call()
        await talking(caller.call, call)
        if ends:
            assert await caller.call.ended() == "them"
            assert await call.ended() == "them"
        else:
            assert caller.call.answered_at is not None
            until = caller.call.answered_at + 5.6
            now = asyncio.get_running_loop().time
            await caller.call.ear.until(lambda: now() > until, DEADLINE_S, "the limit is past")
            await talking(caller.call, call)
            await call.hang_up()
        end = await caller.end()
    connected(end, caller=caller.number, errorMessage="Maximum call duration reached" if ends else "No Errors")


async def test_a_party_that_we_called_is_put_through(exchange: Exchange) -> None:
    """Of an outbound call the destination is shown the party, or our own number."""
    async with Model() as model, exchange.party(CALLED) as party:
        exchange.answer_with(model, [TRANSFER])
        guid = await exchange.place()
        call = await party.call()
        call.answer()
        session = await model.session()
        await session.got("response.create")
        session.calls_tool("call_t", TRANSFER, {"transferNumber": DESTINATION})
        other = await party.call(2)
        assert other.caller == CALLED
        other.answer()
        await talking(call, other)
        await other.hang_up()
        assert await call.ended() == "them"
        connected(await exchange.end_of(guid), caller=CALLED, outboundCallResult="Connected")

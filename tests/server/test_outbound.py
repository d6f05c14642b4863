"""Calls that a customer orders: from makecall to CallEnd, with sipp and baresip as carriers (contract §1.10 B)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from switchhook_demo.sound import tone
from tests.peers.baresip import baresip
from tests.peers.flite import spoken
from tests.peers.outgoing_call import content
from tests.peers.party import Party
from tests.peers.sound import write_ulaw, write_wav
from tests.server.call_end import FIELDS, TICKS, log_texts, spoken_lines
from tests.server.exchange import (
    CALLED,
    DESTINATION,
    DESTINATION_HZ,
    LEAVES_MESSAGES,
    PASSWORD,
    RATED,
    RINGS_SHORTLY,
    TWO_TRUNKS,
    Exchange,
    agent_is_heard,
    model_hears,
)
from tests.server.house import NUMBER
from tests.server.listening import AGENT_HZ, CALLER_HZ, NEAR_HZ, caller_tone, heard_tone, loud_part, mono, peak_hz, recorded
from tests.server.model import LiveSession, Model
from tests.server.waiting import DEADLINE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")
SIPP = pytest.mark.peer("sipp")


async def test_an_ordered_call_from_makecall_to_call_end(exchange: Exchange) -> None:
    """CallStart is answered before anything is dialled; the model gets ready while it rings and speaks after the answer only."""
    exchange.backend.start_gate.clear()
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model, customerCallId=None, recordCall=True, recordCallFormat="wav")
        status, body, _ = await exchange.ask()
        guid = body["sessionGuid"]
        assert (status, body) == (
            200,
            {"status": 0, "errorMessage": "Success", "sessionGuid": guid, "customerCallId": "order-7"},
        )
        [start] = await exchange.backend.wait_for("/callstart")
        told = {name: start.json[name] for name in ("sessionGuid", "calledNumber", "callerId", "callerIdName", "customerCallId")}
        assert told == {
            "sessionGuid": guid,
            "calledNumber": CALLED.removeprefix("+1"),
            "callerId": NUMBER.removeprefix("+1"),
            "callerIdName": "Acme",
            "customerCallId": "order-7",
        }
        assert start.json["outboundTriggered"] is True
        await exchange.metrics()  # the server has had its turns
        assert not party.taken
        assert not model.sessions
        exchange.backend.start_gate.set()

        call = await party.call()
        assert call.caller == NUMBER
        assert call.invite_got is not None
        assert call.invite_got.uri.startswith(f"sip:{CALLED}@")
        call.ring()
        session = await model.session()
        await session.got("session.update")
        await exchange.metrics()
        assert not session.sent("response.create")
        assert not session.audio
        call.answer()
        await session.got("response.create")
        await agent_is_heard(call, session)
        call.start_saying(caller_tone(800))
        await model_hears(session, CALLER_HZ)
        await call.quiet(200)
        await call.hang_up()
        end = await exchange.end_of(guid)
    _check_end(end, guid)
    left, right, _ = recorded(await exchange.recording(guid, "wav"))
    assert abs(peak_hz(loud_part(left)) - CALLER_HZ) < NEAR_HZ
    assert abs(peak_hz(loud_part(right)) - AGENT_HZ) < NEAR_HZ
    assert len(exchange.ends_of(guid)) == 1


def _check_end(end: dict[str, Any], guid: str) -> None:
    assert tuple(end) == FIELDS
    assert all(TICKS.fullmatch(end[name]) for name in ("callStart", "callConnected", "callEnd"))
    assert end["callStart"] < end["callConnected"] < end["callEnd"]
    exact = {name: end[name] for name in FIELDS if name not in ("callStart", "callConnected", "callEnd", "logInformation")}
    assert exact == {
        "sessionGuid": guid,
        "calledNumber": CALLED.removeprefix("+1"),
        "callerId": NUMBER.removeprefix("+1"),
        "callerIdName": "Acme",
        "status": 0,
        "errorMessage": "No Errors",
        "outboundTriggered": True,
        "outboundCallResult": "Connected",
        "customerCallId": "order-7",
        "callReferredOut": False,
        "transfers": None,
        "transcription": end["transcription"],
    }
    assert spoken_lines(end) == ["AI : Hello!"]
    assert log_texts(end)[0] == "Logging Started."


@pytest.mark.peer("baresip")
async def test_a_telephone_is_called_and_talks_with_the_agent(exchange: Exchange, tmp_path: Path) -> None:
    """baresip: both hear each other, by frequency; the agent hangs up."""
    write_wav(tmp_path / "source.wav", DESTINATION_HZ, 30_000)
    async with Model() as model, baresip(tmp_path / "phone", tmp_path / "source.wav", sip_port=exchange.port) as phone:
        exchange.answer_with(model, ["vns_end_conversation"])
        guid = await exchange.place(calledNumber=DESTINATION)
        session = await model.session()
        await session.got("response.create")
        session.speaks(tone(AGENT_HZ, 1500), "Hello!")
        await model_hears(session, DESTINATION_HZ)
        await _farewell(session)
        await phone.until_event("CALL_CLOSED")
        end = await exchange.end_of(guid)
        heard = loud_part(mono(phone.heard))
    assert abs(peak_hz(heard) - AGENT_HZ) < NEAR_HZ
    assert len(heard) / 8 > 1000
    assert (end["status"], end["outboundCallResult"]) == (0, "Connected")


@SIPP
@pytest.mark.parametrize(
    ("scenario", "number", "result"), [("uas_busy", NUMBER, "Busy"), ("uas_rings", RINGS_SHORTLY, "NoAnswer")]
)
async def test_a_carrier_that_connects_nobody(
    exchange: Exchange, tmp_path: Path, scenario: str, number: str, result: str
) -> None:
    """486, and ringing that nobody answers: the INVITE is cancelled. The model's session is closed without a word."""
    async with Model() as model, exchange.sipp(scenario, tmp_path) as carrier:
        exchange.answer_with(model)
        end = await exchange.end_of(await exchange.place(number))
        await content(carrier, tmp_path)
        for session in model.sessions:
            await session.until(lambda session=session: session.closed, "the model's socket is closed")  # type: ignore[misc]
            assert not session.sent("response.create")
    _check_unanswered(end, result)


def _check_unanswered(end: dict[str, Any], result: str, status: int = 0) -> None:
    told = (end["status"], end["outboundCallResult"], end["callConnected"], end["transcription"], end["outboundTriggered"])
    assert told == (status, result, None, [], True)
    assert (end["errorMessage"] == "No Errors") == (status == 0)


@pytest.mark.parametrize(("status", "result"), [(404, "OperatorIntercept"), (603, "Failed"), (480, "NoAnswer")])
async def test_a_party_that_refuses(exchange: Exchange, status: int, result: str) -> None:
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model)
        guid = await exchange.place()
        call = await party.call()
        call.ring()
        call.refuse(status)
        _check_unanswered(await exchange.end_of(guid), result)
        await asyncio.wait_for(call.acknowledged.wait(), DEADLINE_S)


@SIPP
async def test_early_media_then_the_answer(exchange: Exchange, tmp_path: Path) -> None:
    """183 with sound, which is not the party's: the model hears none of it and waits. After the answer sipp echoes the agent."""
    write_ulaw(tmp_path / "early.ul", CALLER_HZ, 800)
    async with Model() as model, exchange.sipp("uas_early_media", tmp_path, "-rtp_echo") as carrier:
        exchange.answer_with(model, ["vns_end_conversation"])
        guid = await exchange.place()
        session = await model.session()
        await session.got("response.create")
        session.speaks(tone(AGENT_HZ, 1000), "Hello!")
        await model_hears(session, AGENT_HZ)
        await _farewell(session)
        end = await exchange.end_of(guid)
        await content(carrier, tmp_path)
        assert not heard_tone(bytes(session.audio), CALLER_HZ, 20)
    assert (end["status"], end["outboundCallResult"]) == (0, "Connected")


async def _farewell(session: LiveSession) -> None:
    """The agent hangs up."""
    asked = len(session.sent("response.create"))
    session.calls_tool("call_1", "vns_end_conversation", {"user_input": "bye"})
    await session.got("response.create", asked + 1)
    session.speaks(tone(AGENT_HZ, 100), "Bye.")


@SIPP
@pytest.mark.parametrize(("scenario", "number"), [("uas_digest", PASSWORD), ("uas_slow_prack", NUMBER), ("uas_answers", NUMBER)])
async def test_a_carrier_that_wants_more(exchange: Exchange, tmp_path: Path, scenario: str, number: str) -> None:
    """401 then 200, and reliable provisional answers whose PRACK is answered slowly: the call is as any other."""
    async with Model() as model, exchange.sipp(scenario, tmp_path) as carrier:
        exchange.answer_with(model, ["vns_end_conversation"])
        guid = await exchange.place(number)
        session = await model.session()
        await session.got("response.create")
        await _farewell(session)
        end = await exchange.end_of(guid)
        await content(carrier, tmp_path)
    assert (end["status"], end["outboundCallResult"], end["errorMessage"]) == (0, "Connected", "No Errors")


@SIPP
async def test_a_callee_who_hangs_up(exchange: Exchange, tmp_path: Path) -> None:
    async with Model() as model, exchange.sipp("uas_hangs_up", tmp_path) as carrier:
        exchange.answer_with(model)
        end = await exchange.end_of(await exchange.place())
        await content(carrier, tmp_path)
    assert (end["status"], end["outboundCallResult"]) == (0, "Connected")
    assert end["callConnected"] is not None


@SIPP
async def test_the_answer_crosses_our_cancel(exchange: Exchange, tmp_path: Path) -> None:
    """A 200 that comes after the CANCEL is acknowledged and hung up at once; the call was not answered."""
    async with Model() as model, exchange.sipp("uas_cancel_race", tmp_path) as carrier:
        exchange.answer_with(model)
        end = await exchange.end_of(await exchange.place(RINGS_SHORTLY))
        await content(carrier, tmp_path)
    _check_unanswered(end, "NoAnswer")


@SIPP
async def test_the_second_trunk_carries_what_the_first_cannot(exchange: Exchange, tmp_path: Path) -> None:
    """503 from the trunk of the first priority: the party is reached over the other, and nobody notices."""
    (tmp_path / "first").mkdir()
    async with (
        Model() as model,
        exchange.sipp("uas_unavailable", tmp_path / "first") as carrier,
        exchange.party(answers=True, second=True) as party,
    ):
        exchange.answer_with(model)
        guid = await exchange.place(TWO_TRUNKS)
        call = await party.call()
        session = await model.session()
        await session.got("response.create")
        await agent_is_heard(call, session)
        await call.hang_up()
        end = await exchange.end_of(guid)
        await content(carrier, tmp_path / "first")
    assert (end["status"], end["outboundCallResult"]) == (0, "Connected")
    assert len(exchange.backend.of("/callstart")) == 1


async def test_every_trunk_fails(exchange: Exchange) -> None:
    """5xx everywhere: the call could not be placed, which is not the party's doing."""
    async with Model() as model, exchange.party() as party, exchange.party(second=True) as other:
        exchange.answer_with(model)
        guid = await exchange.place(TWO_TRUNKS)
        # Which is asked first depends on what happened to it before.
        await asyncio.gather(_refuse(party, 500), _refuse(other, 503))
        end = await exchange.end_of(guid)
    _check_unanswered(end, "Failed", 4)


async def _refuse(party: Party, status: int) -> None:
    (await party.call()).refuse(status)


@pytest.mark.parametrize("status", [500, 200])
async def test_a_call_start_that_fails_dials_nobody(exchange: Exchange, status: int) -> None:
    """HTTP 500, and a reply without aiUrl: CallEnd has status 1 and `Error`."""
    async with exchange.party() as party:
        exchange.backend.start_status = status
        exchange.backend.start_reply = {"type": "session.update", "session": {}}
        end = await exchange.end_of(await exchange.place())
        await exchange.metrics()
        assert not party.taken
    assert (end["status"], end["outboundCallResult"], end["callConnected"]) == (1, "Error", None)
    assert end["errorMessage"] != "No Errors"


@pytest.mark.parametrize(
    ("called", "rule"),
    [
        ("+442079460000", "country"),
        ("+17205557001", "deny-prefix"),
        ("+17205550666", "do-not-call"),
        ("12", "number"),
        ("+19005550100", "premium"),
    ],
)
async def test_a_number_that_the_policy_never_allows(exchange: Exchange, called: str, rule: str) -> None:
    """400, and a record that names the rule; no webhook, nothing dialled."""
    async with exchange.party() as party:
        status, body, headers = await exchange.ask(calledNumber=called)
        assert (status, body["status"]) == (400, 400)
        assert body["errorMessage"].startswith("calledNumber: ")
        assert "Retry-After" not in headers
        assert await exchange.row("reason", "called = ?", called) == f"policy-{rule}"
        assert await exchange.row("direction", "called = ?", called) == "outbound"
        assert not party.taken
    assert not exchange.backend.requests


async def test_calls_beyond_the_accounts_rate_are_told_to_wait(exchange: Exchange) -> None:
    """429 with Retry-After; the call that was within the rate is unharmed."""
    async with Model() as model, exchange.party(answers=True) as party:
        exchange.answer_with(model)
        told = [await exchange.ask(RATED, customerCallId=f"order-{number}") for number in range(3)]
        assert [status for status, _, _ in told] == [200, 429, 429]
        assert told[1][1]["status"] == 429
        assert int(told[1][2]["Retry-After"]) > 0
        call = await party.call()
        await asyncio.wait_for(call.acknowledged.wait(), DEADLINE_S)
        await call.hang_up()
        end = await exchange.end_of(told[0][1]["sessionGuid"])
    assert (end["customerCallId"], end["outboundCallResult"]) == ("CallId-001", "Connected")
    assert await exchange.row("reason", "customer_call_id = ?", "order-1") == "policy-rate"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"calledNumber": None}, "calledNumber: is missing"),
        ({"callerId": "+17205550000"}, "callerId: is no number of this account"),
        ({"callerId": TWO_TRUNKS}, "callerId: is no number of this account"),
    ],
)
async def test_a_request_that_is_wrong_names_the_field(exchange: Exchange, fields: dict[str, Any], complaint: str) -> None:
    status, body, _ = await exchange.ask(**fields)
    assert (status, body["status"]) == (400, 400)
    assert body["errorMessage"].startswith(complaint)


async def test_the_agent_cannot_be_reached_while_it_rings(exchange: Exchange) -> None:
    """The handshake is refused: nobody is disturbed for nothing, or is told the failure; CallEnd has status 2 either way."""
    async with Model(refuse_with=401) as model, exchange.party() as party:
        exchange.answer_with(model)
        began = time.monotonic()
        guid = await exchange.place()
        call = await party.call()
        call.ring()
        end = await exchange.end_of(guid)
        await asyncio.wait_for(call.cancelled.wait(), DEADLINE_S)
    assert end["status"] == 2
    assert end["callConnected"] is None
    assert time.monotonic() - began < 30  # it might ring for 45 s


async def test_keys_and_hold_of_a_called_party(exchange: Exchange) -> None:
    """A party that was called presses keys, puts us on hold and comes back, as one that has called."""
    async with Model() as model, exchange.party(answers=True) as party:
        exchange.answer_with(model)
        guid = await exchange.place()
        call, session = await party.call(), await model.session()
        await session.got("response.create")
        await agent_is_heard(call, session)
        await call.hold()
        await call.resume()
        await call.press("42#")
        await session.got("response.create", 2)
        assert [text for _, text in session.texts()] == ["DTMF: 42"]
        await agent_is_heard(call, session, "Forty-two.")
        call.start_saying(caller_tone(600))
        await model_hears(session, CALLER_HZ)
        await call.hang_up()
        assert (await exchange.end_of(guid))["status"] == 0


@pytest.mark.peer("flite")
async def test_a_message_is_left_after_the_beep(exchange: Exchange) -> None:
    """answer_detection: leave_message. A greeting, then the beep: nothing of ours is heard before its end, all of it after."""
    greeting = spoken("You have reached Ann. I cannot come to the phone right now. Please leave a message after the tone.")
    async with Model() as model, exchange.party(answers=True) as party:
        exchange.answer_with(model)
        guid = await exchange.place(LEAVES_MESSAGES)
        call = await party.call()
        await call.say(b"\xff" * 2400 + greeting + b"\xff" * 4000 + tone(1000, 400))
        began = await call.ear.voice(0, DEADLINE_S)
        beeped = call.line.sent_voice_at
        assert beeped is not None
        assert began >= beeped
        assert await call.ended(30) == "them"
        end = await exchange.end_of(guid)
        assert sum(packet.voiced for packet in call.ear.packets) * 20 > 1000
    assert (end["outboundCallResult"], end["status"]) == ("MachineDetected", 0)
    assert any(line.startswith("Answer: voicemail") for line in log_texts(end))


@pytest.mark.peer("flite")
async def test_a_person_is_not_taken_for_a_machine(exchange: Exchange) -> None:
    """A hello and a pause: the agent talks with the party, and the result says that it is a person."""
    async with Model() as model, exchange.party(answers=True) as party:
        exchange.answer_with(model)
        guid = await exchange.place(LEAVES_MESSAGES)
        call, session = await party.call(), await model.session()
        await session.got("response.create")
        await call.say(spoken("Hello?"), b"\xff" * 16_000)
        await agent_is_heard(call, session)
        await call.hang_up()
        end = await exchange.end_of(guid)
    assert (end["outboundCallResult"], end["status"]) == ("HumanDetected", 0)

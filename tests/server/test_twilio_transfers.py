"""Transfers and outbound calls over Twilio: what the parties hear, and what the customer is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from switchhook_demo.sound import tone
from tests.peers.twilio_party import Party
from tests.peers.twilio_service import AUTH_TOKEN, Callee
from tests.server.exchange import LONG_MS
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone, caller_tone, heard_tone
from tests.server.model import Model
from tests.server.twilio_house import TwilioHouse, TwilioTalk, open_twilio_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

DESTINATION = "+12025550147"
CALLEE_HZ = 1000.0
TRANSFER = "vns_transfer_call"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwilioHouse]:
    settings = {"SWITCHHOOK_DRAIN_S": "1", "SWITCHHOOK_MEDIA_TIMEOUT_S": "5"}
    async with open_twilio_house(tmp_path_factory.mktemp("twilio"), settings) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def there(open_one: TwilioHouse) -> AsyncIterator[TwilioHouse]:
    open_one.twilio.callees.clear()
    open_one.twilio.orders.clear()
    open_one.house.backend.requests.clear()
    yield open_one
    await open_one.house.idle()


def callee(there: TwilioHouse, does: str, sip_code: int | None = None) -> Callee:
    there.twilio.callees[DESTINATION] = Callee(does, sip_code)
    return there.twilio.callees[DESTINATION]


async def ask_for_transfer(talk: TwilioTalk, **arguments: Any) -> None:
    await talk.session.got("response.create")
    talk.session.speaks(agent_tone(100), "One moment.")
    talk.session.calls_tool("call_1", TRANSFER, {"transferNumber": DESTINATION, **arguments})


async def reached(there: TwilioHouse, called: Callee) -> Party:
    return await there.twilio.until(lambda: called.parties[0] if called.parties else None, "somebody answers the transfer")


@pytest.mark.parametrize("ours_is_shown", [True, False])
async def test_a_blind_transfer_leaves_the_caller_with_the_carrier(there: TwilioHouse, ours_is_shown: bool) -> None:
    called = callee(there, "answer")
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        async with there.talk(model) as talk:
            await ask_for_transfer(talk, useVnsNumberAsCallerId=ours_is_shown)
            party = await reached(there, called)
            shown = "+17206999999" if ours_is_shown else talk.party.number
            child = next(call for call in there.twilio.calls.values() if call.party is party)
            assert child.form["From"] == shown
            await talk.session.until(lambda: talk.session.closed, "the agent is released as soon as there is an answer")
            assert not talk.party.over
            party.hang_up()
            await talk.party.ended()
        end = await there.house.end_of(talk.guid)
        [transfer] = end["transfers"]
        assert transfer["transferCallResult"] == "Connected"
        assert end["status"] == 0
        assert end["callReferredOut"] is False


@pytest.mark.parametrize(("does", "result"), [("busy", "Busy"), ("no-answer", "NoAnswer")])
async def test_a_blind_transfer_that_fails_returns_to_the_agent(there: TwilioHouse, does: str, result: str) -> None:
    callee(there, does)
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        async with there.talk(model) as talk:
            await ask_for_transfer(talk)
            output = json.loads(await talk.session.output_of("call_1"))
            assert output["transferCallResult"] == result
            talk.session.speaks(agent_tone(600), "Nobody is there.")
            heard = len(talk.party.heard)
            await there.hears(talk.party, lambda sound: heard_tone(sound[heard:], AGENT_HZ, 560), "the agent again")
            first, second = talk.call.streams
            assert first.parameters == second.parameters
            before = len(talk.session.audio)
            talk.party.say(caller_tone(600))
            await talk.session.hears(lambda sound: heard_tone(sound[before:], CALLER_HZ, 560), "the caller again")
        end = await there.house.end_of(talk.guid)
        assert [one["transferCallResult"] for one in end["transfers"]] == [result]


async def test_a_dial_of_the_backends_rings_as_long_as_it_says(there: TwilioHouse) -> None:
    """A backend redirects its call on our REST surface: what Twilio is asked keeps the timeout."""
    called = callee(there, "answer")
    async with Model() as model:
        there.house.answer_with(model)
        async with there.talk(model) as talk:
            account = there.twilio.account_sid
            pair = {"Authorization": aiohttp.encode_basic_auth(account, AUTH_TOKEN)}
            url = f"{there.house.server.http_url}/2010-04-01/Accounts/{account}/Calls/{talk.call.sid}.json"
            order = {"Twiml": f'<Response><Dial timeout="12">{DESTINATION}</Dial></Response>'}
            async with aiohttp.ClientSession(headers=pair) as http, asyncio.timeout(20):
                while True:  # until the call is in progress on our side, too
                    async with http.post(url, data=order) as reply:
                        if reply.status == 200:
                            break
                        assert (await reply.json())["code"] == 21220
                    await asyncio.sleep(0.1)
            await reached(there, called)
            assert {form["Timeout"][0] for path, form in there.twilio.orders if path.endswith("/Calls.json")} == {"12"}


async def test_the_caller_hangs_up_while_the_carrier_dials(there: TwilioHouse) -> None:
    callee(there, "rings")
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        caller = there.house.new_caller()
        async with there.talk(model, caller) as talk:
            await ask_for_transfer(talk)
            await there.twilio.until(lambda: len(talk.call.twiml) > 1 or None, "the carrier was asked to dial")
            talk.party.hang_up()
        end = await there.house.end_of(talk.guid)
        assert len(end["transfers"]) == 1
        assert await there.house.record_of(caller) == ("success", "caller-hung-up")


async def test_an_attended_transfer_is_bridged_here(there: TwilioHouse) -> None:
    """The destination gets a stream of its own; the parties hear each other through us, and one's end is the other's."""
    called = callee(there, "answer")
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        async with there.talk(model) as talk:
            await ask_for_transfer(talk, attended=True)
            party = await reached(there, called)
            await talk.session.got("session.update", 2)
            party.press("1")
            await talk.session.until(lambda: talk.session.closed, "the agent is released")
            talk.party.say(caller_tone(LONG_MS))
            party.say(tone(CALLEE_HZ, LONG_MS))
            await there.hears(party, lambda sound: heard_tone(sound[-16_000:], CALLER_HZ, 700), "the caller")
            await there.hears(talk.party, lambda sound: heard_tone(sound[-16_000:], CALLEE_HZ, 700), "the destination")
            party.hang_up()
            await talk.party.ended()
        [transfer] = (await there.house.end_of(talk.guid))["transfers"]
        assert transfer["transferCallResult"] == "Connected"
        # Twilio lets nobody be called from a number that is not the account's: after its no, ours was shown.
        froms = [form["From"][0] for path, form in there.twilio.orders if path.endswith("/Calls.json")]
        assert froms == [talk.party.number, "+17206999999"]


async def test_an_attended_transfer_that_is_declined_returns(there: TwilioHouse) -> None:
    called = callee(there, "answer")
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        async with there.talk(model) as talk:
            await ask_for_transfer(talk, attended=True, useVnsNumberAsCallerId=True)
            party = await reached(there, called)
            await talk.session.got("session.update", 2)
            party.press("2")
            assert json.loads(await talk.session.output_of("call_1"))["status"] == "failed"
            await party.ended()
            assert not talk.party.over


async def make_call(there: TwilioHouse) -> str:
    """Order a call out; gives its sessionGuid."""
    order = {"calledNumber": DESTINATION, "callerId": "7206999999", "customerCallId": "out-1"}
    url = f"{there.house.server.http_url}/api/customer/makecall"
    async with aiohttp.ClientSession() as http, http.post(url, json=order, headers={"Token": "secret-token"}) as reply:
        assert reply.status == 200, await reply.text()
        guid: str = (await reply.json())["sessionGuid"]
        return guid


async def test_an_outbound_call_is_answered(there: TwilioHouse) -> None:
    called = callee(there, "answer")
    async with Model() as model:
        there.house.answer_with(model)
        guid = await make_call(there)
        party = await reached(there, called)
        session = await model.session(1)
        await session.got("response.create")
        session.speaks(agent_tone(600), "Hello!")
        await there.hears(party, lambda sound: heard_tone(sound, AGENT_HZ, 560), "the agent")
        party.say(caller_tone(600))
        await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 560), "the called party")
        party.hang_up()
        end = await there.house.end_of(guid)
    assert (end["outboundTriggered"], end["outboundCallResult"], end["status"]) == (True, "Connected", 0)


@pytest.mark.parametrize(
    ("does", "code", "result"),
    [("busy", 486, "Busy"), ("no-answer", None, "NoAnswer"), ("failed", 404, None), ("failed", None, None)],
)
async def test_an_outbound_call_that_nobody_takes(there: TwilioHouse, does: str, code: int | None, result: str | None) -> None:
    callee(there, does, code)
    async with Model() as model:
        there.house.answer_with(model)
        end = await there.house.end_of(await make_call(there))
    assert end["callConnected"] is None
    assert end["outboundCallResult"] not in ("Connected", "N/A")
    if result is not None:
        assert end["outboundCallResult"] == result


async def test_too_many_requests_are_tried_once_more(there: TwilioHouse) -> None:
    called = callee(there, "answer")
    there.twilio.overloaded = 1
    async with Model() as model:
        there.house.answer_with(model)
        guid = await make_call(there)
        party = await reached(there, called)
        party.hang_up()
        assert (await there.house.end_of(guid))["status"] is not None


async def test_no_secret_is_written_down(there: TwilioHouse) -> None:
    """The canary of the account's auth token, after all the calls before."""
    assert AUTH_TOKEN not in there.house.server.log.read_text()

"""A call that Twilio carries, steered over our own REST surface by the official client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from switchhook_demo.sound import tone
from tests.peers.twilio_party import Party
from tests.peers.twilio_service import Callee
from tests.server.listening import caller_tone, heard_tone
from tests.server.rest_house import (
    ACCOUNT_PAIR,
    CALL_PAIRS,
    CALLED,
    NUMBER,
    PARTY_HZ,
    PLAY_HZ,
    RestHouse,
    do,
    open_house,
    refused,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY = "+17205550198"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[ACCOUNT_PAIR, CALL_PAIRS[0]], ids=["account", "call"])
async def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    """Once Twilio is that of the account, once that of the pair which the start webhook gives."""
    async with open_house(tmp_path_factory.mktemp("leg"), request.param) as opened:
        yield opened


@pytest.fixture
def pair(house: RestHouse) -> tuple[str, str]:
    """What the client is given."""
    assert house.twilio is not None
    return house.twilio.account_sid, house.twilio.auth_token


async def hears(party: Party, frequency_hz: float, since: int = 0) -> None:
    """Wait until the party hears this tone and nothing else for 400 ms."""
    what = f"{frequency_hz:g} Hz at {party.number}"
    await party.until(lambda: heard_tone(bytes(party.heard[max(since, len(party.heard) - 3200) :]), frequency_hz, 340), what)


async def talk(one: Party, other: Party) -> None:
    """Each hears the other."""
    one.say(caller_tone(2500))
    other.say(tone(PARTY_HZ, 2500))
    await asyncio.gather(hears(other, 440.0), hears(one, PARTY_HZ))


async def test_it_is_read_redirected_and_goes_on(house: RestHouse, pair: tuple[str, str]) -> None:
    page = house.play()
    page.pause(length=600)
    house.customer.pages["next"] = page
    house.customer.got.clear()
    client = house.client(pair)
    async with house.ring() as (call, session):
        seen = await do(lambda: client.calls(call.sid).fetch())
        assert (seen.sid, seen.account_sid, seen.status, seen.direction) == (call.sid, pair[0], "in-progress", "inbound")
        assert (seen._from, seen.to) == ("+19805551234", NUMBER)
        assert [one.sid for one in await do(lambda: client.calls.list(status="in-progress"))] == [call.sid]
        await do(lambda: client.calls(call.sid).update(url=f"{house.customer.url}/next"))
        await session.until(lambda: session.closed, "the agent's socket is closed")
        await hears(call.party, PLAY_HZ)
        [form] = house.customer.told("next")
        assert (form["CallSid"], form["AccountSid"], form["From"]) == (call.sid, pair[0], "+19805551234")
        assert house.customer.all_signed_by(pair[1])
        assert (await do(lambda: client.calls(call.sid).update(status="completed"))).status == "completed"
        await call.party.ended()
        assert call.status == "completed"
    ended = await house.over(call.sid, pair)
    assert (ended.sid, ended.direction) == (call.sid, "inbound")
    assert int(ended.duration) >= 0
    assert await refused(lambda: client.calls(call.sid).update(status="completed")) == (400, 21220)
    assert call.sid in [one.sid for one in await do(lambda: client.calls.list(status="completed"))]
    await house.end_of(call.sid)


async def test_it_is_dialled_on_and_comes_back(house: RestHouse, pair: tuple[str, str]) -> None:
    """First to a number that is busy, then to one that answers; each time the `action` decides what follows."""
    assert house.twilio is not None
    callee = house.twilio.callees[CALLED] = Callee()
    house.twilio.callees[BUSY] = Callee("busy")
    once_more = VoiceResponse()
    once_more.append(_dial(house, CALLED, "after"))
    house.customer.pages |= {"busy": once_more, "after": house.play()}
    house.customer.got.clear()
    client = house.client(pair)
    async with house.ring() as (call, _):
        twiml = VoiceResponse()
        twiml.append(_dial(house, BUSY, "busy"))
        await do(lambda: client.calls(call.sid).update(twiml=twiml))
        await house.twilio.until(lambda: callee.parties, "the other party answers")
        [other] = callee.parties
        await talk(call.party, other)
        [form] = house.customer.told("busy")
        assert (form["CallSid"], form["DialCallStatus"], form["DialBridged"]) == (call.sid, "busy", "false")
        since = len(call.party.heard)
        other.hang_up()
        await hears(call.party, PLAY_HZ, since)
        await call.party.ended()
    [form] = house.customer.told("after")
    assert (form["DialCallStatus"], form["DialBridged"]) == ("completed", "true")
    assert int(form["DialCallDuration"]) >= 0
    assert house.customer.all_signed_by(pair[1])


def _dial(house: RestHouse, number: str, after: str) -> Dial:
    dial = Dial(caller_id=NUMBER, timeout=20, action=f"{house.customer.url}/{after}")
    dial.number(number)
    return dial


async def test_a_redirect_takes_it_out_of_a_dial(house: RestHouse, pair: tuple[str, str]) -> None:
    assert house.twilio is not None
    callee = house.twilio.callees[CALLED] = Callee()
    client = house.client(pair)
    async with house.ring() as (call, _):
        twiml = VoiceResponse()
        twiml.append(_dial(house, CALLED, "after"))
        await do(lambda: client.calls(call.sid).update(twiml=twiml))
        await house.twilio.until(lambda: callee.parties, "the other party answers")
        [other] = callee.parties
        await talk(call.party, other)
        since = len(call.party.heard)
        await do(lambda: client.calls(call.sid).update(twiml=house.play()))
        await other.ended()
        await hears(call.party, PLAY_HZ, since)
        await call.party.ended()


async def test_a_bot_takes_it(house: RestHouse, pair: tuple[str, str]) -> None:
    house.customer.bot_heard.clear()
    connect = Connect()
    connect.stream(url=f"{house.customer.url.replace('http', 'ws')}/bot")
    twiml = VoiceResponse()
    twiml.append(connect)
    client = house.client(pair)
    async with house.ring() as (call, _):
        await do(lambda: client.calls(call.sid).update(twiml=twiml))
        await hears(call.party, PLAY_HZ)
        await call.party.ended()
    start = house.customer.bot_heard[1]["start"]
    assert (start["callSid"], start["accountSid"]) == (call.sid, pair[0])


async def test_it_is_recorded(house: RestHouse, pair: tuple[str, str]) -> None:
    client = house.client(pair)
    async with house.ring() as (call, _):
        made = await do(lambda: client.calls(call.sid).recordings.create())
        assert (made.call_sid, made.status) == (call.sid, "in-progress")
        assert (await do(lambda: client.recordings(str(made.sid)).fetch())).call_sid == call.sid
        call.party.say(caller_tone(1000))
        heard = len(call.party.heard)
        await call.party.until(lambda: len(call.party.heard) >= heard + 12_000, "a second and a half")
    await house.over(call.sid, pair)

    found = await do(lambda: client.calls(call.sid).recordings.list())
    assert [(one.sid, one.call_sid) for one in found] == [(made.sid, call.sid)]
    assert (await do(lambda: client.recordings(str(made.sid)).fetch())).call_sid == call.sid


async def test_the_pair_of_one_call_ends_with_it(house: RestHouse, pair: tuple[str, str]) -> None:
    """The account's pair sees every call; that of a call sees those that gave it, and nobody else's pair sees any."""
    async with house.ring() as (call, _):
        for known in {pair, ACCOUNT_PAIR}:
            client = house.client(known)
            assert (await do(lambda client=client: client.calls(call.sid).fetch())).sid == call.sid  # type: ignore[misc]
        for stranger, refusal in (((pair[0], "wrong"), (401, 20003)), (("AC" + "9" * 32, "of-somebody-else"), (404, 20404))):
            client = house.client(stranger)
            assert await refused(lambda client=client: client.calls(call.sid).fetch()) == refusal  # type: ignore[misc]
            assert (await refused(lambda client=client: client.calls(call.sid).update(status="completed"))) == refusal  # type: ignore[misc]
        assert call.status == "in-progress"
        if pair != ACCOUNT_PAIR:
            own = house.client(pair)
            assert await refused(lambda: own.calls.create(to=CALLED, from_=NUMBER, twiml="<Response/>")) == (403, 20403)
    assert (await house.over(call.sid, pair)).status == "completed", "it may still read its call"


async def test_the_pair_of_one_call_is_good_for_no_other(house: RestHouse, pair: tuple[str, str]) -> None:
    """Two calls at a time, carried by two accounts of Twilio's, each with the pair that its start webhook gave."""
    twilio, other_pair = house.twilio, CALL_PAIRS[1]
    assert twilio is not None
    one, other = house.client(pair), house.client(other_pair)
    twilio.status_url, told = None, twilio.status_url
    try:
        async with house.ring() as (first, _):
            twilio.account_sid, twilio.auth_token = other_pair
            async with house.ring() as (second, _):
                assert (await do(lambda: other.calls(second.sid).fetch())).account_sid == other_pair[0]
                assert await refused(lambda: other.calls(first.sid).fetch()) == (404, 20404)
                assert await refused(lambda: other.calls(first.sid).update(status="completed")) == (404, 20404)
                assert await refused(lambda: other.calls(first.sid).recordings.create()) == (404, 20404)
                assert [call.sid for call in await do(lambda: other.calls.list(status="in-progress"))] == [second.sid]
                if pair != ACCOUNT_PAIR:
                    assert await refused(lambda: one.calls(second.sid).fetch()) == (404, 20404)
                assert first.status == second.status == "in-progress"
                await do(lambda: other.calls(second.sid).update(twiml="<Response><Hangup/></Response>"))
                await second.party.ended()
            assert (await house.over(second.sid, other_pair)).status == "completed", "it may still read its call"
            assert await refused(lambda: other.calls(first.sid).fetch()) == (404, 20404)
            assert (await do(lambda: one.calls(first.sid).fetch())).status == "in-progress"
    finally:
        (twilio.account_sid, twilio.auth_token), twilio.status_url = pair, told

"""Veevo over Twilio: the customer's start webhook brings the credentials, and they are the proof of the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio

from tests.peers.twilio_service import AUTH_TOKEN
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone, caller_tone, heard_tone
from tests.server.veevo_house import NUMBER
from tests.server.veevo_twilio_house import VeevoHouseOverTwilio, open_veevo_over_twilio, without_pair

CALLER = "+14155550100"


@pytest_asyncio.fixture
async def there(tmp_path: Path) -> AsyncIterator[VeevoHouseOverTwilio]:
    """The server and the three around it."""
    async with open_veevo_over_twilio(tmp_path, without_pair, status=None) as there:
        there.prove_calls()
        yield there


async def test_a_call_is_proven_by_what_the_start_webhook_brings(there: VeevoHouseOverTwilio) -> None:
    call = there.twilio.ring(CALLER, NUMBER)
    session = await there.model.session(1)
    await session.got("response.create")
    session.speaks(agent_tone(600), "Hi!")
    await call.party.until(lambda: heard_tone(bytes(call.party.heard), AGENT_HZ, 560), "the agent")
    call.party.say(caller_tone(600))
    await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 560), "the caller")
    call.party.hang_up()
    [end] = await there.backend.wait_for("end")
    [start] = there.backend.of("start")
    assert start.json["callSid"] == end.json["callSid"] == call.sid
    assert start.json["callerNumber"] == CALLER
    assert not there.backend.unsigned
    assert AUTH_TOKEN not in there.server.log.read_text()
    assert AUTH_TOKEN not in end.body.decode()
    for path in there.server.data_dir.rglob("*"):
        if path.is_file():
            assert AUTH_TOKEN.encode() not in path.read_bytes(), path.name


async def test_a_call_that_the_reply_does_not_prove_goes_no_further(there: VeevoHouseOverTwilio) -> None:
    there.backend.start_reply["twilioAuthToken"] = "another"
    call = there.twilio.ring(CALLER, NUMBER)
    await call.party.ended()
    assert there.twilio.complaints == ["the voice webhook got 403"]
    there.twilio.complaints.clear()
    await there.backend.wait_for("start")
    assert not call.streams
    assert not there.model.sessions
    assert not there.backend.of("end")


async def test_calls_that_nothing_proves_are_few(there: VeevoHouseOverTwilio) -> None:
    """Without a signature the customer is not asked at all; with a made-up one only at a bounded rate."""
    form = {"CallSid": "CA1", "To": NUMBER, "From": CALLER, "AccountSid": "AC1", "Direction": "inbound"}
    url = f"{there.server.http_url}/voice"
    async with aiohttp.ClientSession() as http:
        async with http.post(url, data=form) as reply:
            assert reply.status == 403
        assert not there.backend.of("start")

        async def made_up(number: int) -> int:
            headers = {"X-Twilio-Signature": "A" * 28}
            async with http.post(url, data={**form, "CallSid": f"CA{number}"}, headers=headers) as reply:
                return reply.status

        statuses = await asyncio.gather(*map(made_up, range(60)))
    assert set(statuses) == {403, 429}
    assert len(there.backend.of("start")) == statuses.count(403)
    assert not there.model.sessions

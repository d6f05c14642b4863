"""Veevo over Twilio: the customer's start webhook brings the credentials, and they are the proof of the call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.peers.server import Server, config
from tests.peers.twilio_service import AUTH_TOKEN, TwilioService
from tests.peers.veevo_backend import VeevoBackend
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone, caller_tone, heard_tone
from tests.server.model import Model
from tests.server.twilio_house import PUBLIC, PUBLIC_MEDIA

NUMBER = "+15551234567"
CALLER = "+14155550100"


def start_reply(twilio: TwilioService, **fields: Any) -> dict[str, Any]:
    return {
        "twilioAccountSid": twilio.account_sid,
        "twilioAuthToken": twilio.auth_token,
        "openaiApiKey": "canary-openai-key",
        "systemPrompt": "You are a helpful assistant.",
        "tools": [],
        **fields,
    }


def content(backend: VeevoBackend, model: Model) -> dict[str, Any]:
    """An account without Twilio credentials."""
    made = config(backend.url)
    made["trunks"] = []
    made["accounts"][0]["veevo"] = {"webhook_secret": "canary-secret", "management_key": "rtk_canary"}
    made["numbers"] = [
        {
            "number": NUMBER,
            "account": "acme",
            "contract": "veevo",
            "on_call_start": {"url": f"{backend.url}/calls/start"},
            "on_call_end": {"url": f"{backend.url}/calls/end"},
            "openai_url": model.url.partition("?")[0],
        }
    ]
    return made


class VeevoOverTwilio:
    """The server and the three around it."""

    def __init__(self, server: Server, twilio: TwilioService, backend: VeevoBackend, model: Model) -> None:
        self.server, self.twilio, self.backend, self.model = server, twilio, backend, model


@pytest_asyncio.fixture
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VeevoOverTwilio]:
    async with TwilioService() as twilio, Model() as model, VeevoBackend("canary-secret", start_reply(twilio)) as backend:
        public = {"SWITCHHOOK_PUBLIC_URL": PUBLIC, "SWITCHHOOK_PUBLIC_MEDIA_URL": PUBLIC_MEDIA}
        settings = {**public, "SWITCHHOOK_TWILIO_REST_URL": twilio.url, "SWITCHHOOK_DRAIN_S": "1"}
        async with Server(tmp_path_factory.mktemp("veevo"), content(backend, model), **settings) as server:
            twilio.routes = {PUBLIC: server.http_url, PUBLIC_MEDIA: f"http://127.0.0.1:{server.media_port}"}
            twilio.voice_url = f"{PUBLIC}/voice"
            yield VeevoOverTwilio(server, twilio, backend, model)


async def test_a_call_is_proven_by_what_the_start_webhook_brings(there: VeevoOverTwilio) -> None:
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


async def test_a_call_that_the_reply_does_not_prove_goes_no_further(there: VeevoOverTwilio) -> None:
    there.backend.start_reply["twilioAuthToken"] = "another"
    call = there.twilio.ring(CALLER, NUMBER)
    await call.party.ended()
    assert there.twilio.complaints == ["the voice webhook got 403"]
    there.twilio.complaints.clear()
    await there.backend.wait_for("start")
    assert not call.streams
    assert not there.model.sessions
    assert not there.backend.of("end")


async def test_calls_that_nothing_proves_are_few(there: VeevoOverTwilio) -> None:
    """Without a signature the customer is not asked at all; with a made-up one only at a bounded rate."""
    form = {"CallSid": "CA1", "To": NUMBER, "From": CALLER, "AccountSid": "AC1", "Direction": "inbound"}
    url = f"{there.server.http_url}/voice"
    async with aiohttp.ClientSession() as http:
        async with http.post(url, data=form) as reply:
            assert reply.status == 403
        assert not there.backend.of("start")
        statuses = []
        for number in range(30):
            made_up = {"X-Twilio-Signature": "A" * 28}
            async with http.post(url, data={**form, "CallSid": f"CA{number}"}, headers=made_up) as reply:
                statuses.append(reply.status)
    assert set(statuses) == {403, 429}
    assert len(there.backend.of("start")) == statuses.count(403)
    assert not there.model.sessions

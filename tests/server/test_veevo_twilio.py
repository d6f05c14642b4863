"""What a Veevo reply makes of a call over Twilio: not taken, greeted, ended by silence, and paid."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.media.test_decode import sound_file
from tests.peers.server import Server
from tests.peers.twilio_service import TwilioService
from tests.peers.veevo_backend import VeevoBackend
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone
from tests.server.model import Model
from tests.server.twilio_house import PUBLIC, PUBLIC_MEDIA
from tests.server.veevo_house import CANARIES, NUMBER, USAGE, VeevoHouse, content, reply
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "+14155550100"
GREETING_HZ = 620.0


@dataclass(frozen=True)
class There:
    """A house that Twilio reaches."""

    house: VeevoHouse
    twilio: TwilioService

    @property
    def backend(self) -> VeevoBackend:
        """The customer."""
        return self.house.backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[There]:
    async with (
        TwilioService() as twilio,
        Model() as model,
        VeevoBackend(CANARIES["secret"], reply()) as backend,
    ):
        made = content(backend, model)
        made["trunks"] = []
        del made["accounts"][0]["twilio"]  # all credentials come with the call
        public = {"SWITCHHOOK_PUBLIC_URL": PUBLIC, "SWITCHHOOK_PUBLIC_MEDIA_URL": PUBLIC_MEDIA}
        settings = {**public, "SWITCHHOOK_TWILIO_REST_URL": twilio.url, "SWITCHHOOK_DRAIN_S": "1"}
        async with Server(tmp_path_factory.mktemp("veevo"), made, **settings) as server:
            twilio.routes = {PUBLIC: server.http_url, PUBLIC_MEDIA: f"http://127.0.0.1:{server.media_port}"}
            twilio.voice_url = f"{PUBLIC}/voice"
            yield There(VeevoHouse(server, backend, model), twilio)


@pytest_asyncio.fixture(loop_scope="module")
async def there(open_one: There) -> AsyncIterator[There]:
    open_one.house.renew()
    pair = {"twilioAccountSid": open_one.twilio.account_sid, "twilioAuthToken": open_one.twilio.auth_token}
    open_one.backend.start_reply |= pair
    yield open_one


@pytest.mark.parametrize(
    ("answer", "status", "busy"),
    [
        ({"reject": True}, 200, False),
        ({"status": "rejected", "reason": "busy"}, 200, True),
        ({"model": "gpt-realtime"}, 200, False),
        (b"no JSON", 200, False),
        ({}, 503, False),
    ],
)
async def test_a_call_that_is_not_taken_is_rejected_before_it_costs(there: There, answer: Any, status: int, busy: bool) -> None:
    there.backend.start_reply, there.backend.start_status = answer, status
    call = there.twilio.ring(CALLER, NUMBER)
    await call.party.ended()
    assert not call.streams
    [text] = call.twiml
    assert "<Reject" in text
    assert ('reason="busy"' in text) is busy
    assert there.backend.of("end") == []


async def test_the_greeting_the_talk_and_the_end_by_silence(there: There) -> None:
    """The greeting is heard before the AI is there; what the call cost counts unrounded seconds."""
    there.backend.greeting = sound_file("MP3", 44_100, GREETING_HZ)
    there.backend.start_reply |= {"greetingUrl": f"{there.backend.url}/hello", "inactivityTimeoutMs": 1500}
    model = there.house.model
    model.update_gate.clear()
    count = len(model.sessions) + 1
    call = there.twilio.ring(CALLER, NUMBER)
    heard = call.party.heard
    await call.party.until(lambda: heard_tone(bytes(heard), GREETING_HZ, 950), "the greeting")
    session = await model.session(count)
    model.update_gate.set()
    session.caller_spoke("Hello?")
    before = len(heard)
    item = session.begins(agent_tone(600))
    session.end_speech(item, "Good morning.")
    session.finish(usage=USAGE)
    await call.party.until(lambda: heard_tone(bytes(heard[before:]), AGENT_HZ, 560), "the agent")
    await call.party.ended()
    [end] = await there.backend.wait_for("end")
    assert session.sent("response.create") == []
    told = json.loads(end.body, parse_float=Decimal)
    assert [(line["role"], line["content"]) for line in told["transcript"]] == [
        ("user", "Hello?"),
        ("assistant", "Good morning."),
    ]
    assert told["callSid"] == call.sid
    costs = told["costBreakdown"]
    assert 0 < costs["costTwilio"] < Decimal("0.0085")
    assert costs["totalCost"] == Decimal("0.012036") + costs["costTwilio"]

    async def ended() -> bool:
        return call.status == "completed"

    await eventually(ended, "Twilio's call is over")
    assert there.backend.unsigned == []

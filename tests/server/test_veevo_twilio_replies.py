"""What a Veevo reply makes of a call over Twilio: not taken, greeted, ended by silence, and paid."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.media.test_decode import sound_file
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone
from tests.server.veevo_house import NUMBER, USAGE
from tests.server.veevo_twilio_house import VeevoHouseOverTwilio, open_veevo_over_twilio, without_pair
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "+14155550100"
GREETING_HZ = 620.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VeevoHouseOverTwilio]:
    async with open_veevo_over_twilio(tmp_path_factory.mktemp("veevo"), without_pair, status=None) as there:
        yield there


@pytest_asyncio.fixture(loop_scope="module")
async def there(open_one: VeevoHouseOverTwilio) -> AsyncIterator[VeevoHouseOverTwilio]:
    open_one.renew()
    open_one.prove_calls()
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
async def test_a_call_that_is_not_taken_is_rejected_before_it_costs(
    there: VeevoHouseOverTwilio, answer: Any, status: int, busy: bool
) -> None:
    there.backend.start_reply, there.backend.start_status = answer, status
    call = there.twilio.ring(CALLER, NUMBER)
    await call.party.ended()
    assert not call.streams
    [text] = call.twiml
    assert "<Reject" in text
    assert ('reason="busy"' in text) is busy
    assert there.backend.of("end") == []


async def test_the_greeting_the_talk_and_the_end_by_silence(there: VeevoHouseOverTwilio) -> None:
    """The greeting is heard before the AI is there; what the call cost counts unrounded seconds."""
    there.backend.greeting = sound_file("MP3", 44_100, GREETING_HZ)
    there.backend.start_reply |= {"greetingUrl": f"{there.backend.url}/hello", "inactivityTimeoutMs": 2500}
    model = there.model
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

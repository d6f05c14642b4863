"""One suite, two legs, for Veevo: the tests over SIP once more over Twilio, and what those cannot say of a Twilio call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server import test_veevo_configuration, test_veevo_costs, test_veevo_dialects
from tests.server.one_suite import both_legs, left_out_in_vain
from tests.server.veevo_house import VeevoHouse, VeevoTalk, greeted, pricing
from tests.server.veevo_twilio_house import VeevoHouseOverTwilio, open_veevo_over_twilio
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE_LEG = {
    "test_every_way_not_to_take_a_call": "tells statuses of SIP; its like is in test_veevo_twilio_replies",
    "test_a_refusal_with_a_message_is_spoken": "it brings no credentials, and a call that nothing proves is not answered",
    "test_without_the_setting_no_name_is_replaced": "of a setting, no line takes part",
    "test_a_vns_call_has_its_costs_in_its_record": "of another contract, and the price of a SIP minute",
}
"""Tests that know their leg, and why."""
MEDIA_TIMEOUT_S = 5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_veevo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VeevoHouseOverTwilio]:
    """Lives as long as this module's tests; prices and names of models as over SIP."""
    folder = tmp_path_factory.mktemp("veevo")
    async with open_veevo_over_twilio(folder, **pricing(folder)) as veevo:
        yield veevo


@pytest_asyncio.fixture(loop_scope="session")
async def veevo(shared_veevo: VeevoHouseOverTwilio) -> AsyncIterator[VeevoHouseOverTwilio]:
    """Backend and model as new; no onCallEnd of one test comes in the next."""
    shared_veevo.renew()
    yield shared_veevo
    await shared_veevo.leave()
    await shared_veevo.idle()


SUITE = (test_veevo_configuration, test_veevo_costs, test_veevo_dialects)
globals().update(both_legs(ONE_LEG, *SUITE))


async def test_no_test_is_left_out_in_vain() -> None:
    assert left_out_in_vain(ONE_LEG, *SUITE) == set()


async def _costs(veevo: VeevoHouse, talk: VeevoTalk) -> Any:
    return json.loads((await veevo.end_of(talk.sid)).body, parse_float=Decimal)["costBreakdown"]


async def test_a_call_from_start_to_end(veevo: VeevoHouseOverTwilio) -> None:
    """The customer knows the call by Twilio's own name of it; the tool's result reaches the model; the sum is the true one."""
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        talk.session.caller_spoke("I need two units delivered Friday.")
        talk.session.calls_tool("call_1", "check_availability", {"date": "April 15, 2026"})
        assert await talk.session.output_of("call_1") == "done"
        await talk.call.hang_up()
    told = (await veevo.end_of(talk.sid)).json
    [carried] = [call for call in veevo.twilio.calls.values() if call.form["From"] == talk.caller]
    assert talk.sid == told["callSid"] == carried.sid
    [tool] = veevo.backend.of("tool")
    assert tool.json["arguments"] == {"date": "April 15, 2026"}
    assert [(line["role"], line["content"]) for line in told["transcript"]] == [
        ("assistant", "Hi, how can I help?"),
        ("user", "I need two units delivered Friday."),
    ]
    costs = await _costs(veevo, talk)
    figures = ("costInputText", "costInputAudio", "costOutputText", "costOutputAudio")
    assert [str(costs[name]) for name in figures] == ["0.00146", "0.00288", "0.00072", "0.006976"]
    assert costs["totalCost"] == sum(costs[name] for name in (*figures, "costTwilio"))
    assert 0 < costs["costTwilio"] < Decimal("0.0085")
    assert veevo.backend.unsigned == []


@pytest.mark.peer("flite")
async def test_an_ai_that_cannot_be_reached_is_apologised_for(veevo: VeevoHouseOverTwilio) -> None:
    """It is tried once more; the end is told with what the line cost, and nothing else."""
    before, caller = veevo.model.handshakes, veevo.new_caller()
    veevo.model.refuse_with = 503
    call = veevo.ring(caller)
    await call.answered()
    assert await call.ended(30) == "them"
    [end] = await veevo.backend.wait_for("end")
    assert veevo.model.handshakes == before + 2
    assert 20 * sum(packet.voiced for packet in call.ear.packets) > 700, "the apology"
    costs = json.loads(end.body, parse_float=Decimal)["costBreakdown"]
    assert (end.json["transcript"], [costs[name] for name in costs if name.endswith("Tokens")]) == ([], [0] * 6)
    assert costs["totalCost"] == costs["costTwilio"] > 0


async def test_a_line_that_goes_dead_ends_the_call(veevo: VeevoHouseOverTwilio) -> None:
    """Twilio is told to hang up, too."""
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        talk.call.line.sending = False
        assert await talk.call.ended(MEDIA_TIMEOUT_S + 20) == "them"
    assert (await veevo.end_of(talk.sid)).json["transcript"][0]["content"] == "Hi, how can I help?"
    assert (await veevo.row("reason", talk.caller)) == ("media-timeout",)


async def test_after_a_crash_the_end_is_told_once(tmp_path: Path) -> None:
    """With the call's metadata and a signature; what it cost is not known."""
    async with open_veevo_over_twilio(tmp_path) as veevo:
        async with veevo.talk() as talk:
            await greeted(talk.session, talk.call)

            async def written() -> bool:
                return veevo.asked("SELECT customer_call_id FROM calls") != [(None,)]

            await eventually(written, "the call's progress in the database")
            await veevo.server.kill()
            assert await talk.call.ended() == "them", "the TwiML behind the stream hangs up"
        await veevo.server.start()
        end = await veevo.end_of(talk.sid)
        assert b'"metadata":{"customerId": "cust_123", "weight": 1.0}' in end.body
        assert end.json["costBreakdown"]["totalCost"] is None
        async with veevo.talk() as after:
            await greeted(after.session, after.call)
            await after.call.hang_up()
        await veevo.end_of(after.sid)
        await veevo.idle()
        assert len(veevo.ends_of(talk.sid)) == 1
        assert veevo.backend.unsigned == []

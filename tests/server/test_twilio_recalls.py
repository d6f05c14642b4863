"""A customer redirects, on our REST surface, a call that Twilio has been asked to dial on for: the caller is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.peers.twilio_service import AUTH_TOKEN, Callee
from tests.server.exchange import LONG_MS
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone
from tests.server.model import Model
from tests.server.twilio_house import TwilioHouse, TwilioTalk, open_twilio_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

DESTINATION = "+12025550147"
OTHER = "+12025550148"
TRANSFER = "vns_transfer_call"
DIAL = f'<Response><Dial callerId="+17206999999">{OTHER}</Dial></Response>'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwilioHouse]:
    async with open_twilio_house(tmp_path_factory.mktemp("twilio"), {"SWITCHHOOK_DRAIN_S": "1"}) as house:
        yield house


async def ask_for_transfer(talk: TwilioTalk) -> None:
    await talk.session.got("response.create")
    talk.session.speaks(agent_tone(100), "One moment.")
    talk.session.calls_tool("call_1", TRANSFER, {"transferNumber": DESTINATION})


async def steer(there: TwilioHouse, talk: TwilioTalk, **order: str) -> None:
    account = there.twilio.account_sid
    url = f"{there.house.server.http_url}/2010-04-01/Accounts/{account}/Calls/{talk.call.sid}.json"
    headers = {"Authorization": aiohttp.encode_basic_auth(account, AUTH_TOKEN)}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url, data=order) as reply:
        assert reply.status == 200, await reply.text()


@pytest.mark.parametrize("does", ["rings", "answer"])
async def test_a_redirect_takes_the_caller_back_from_whom_twilio_dials(there: TwilioHouse, does: str) -> None:
    """While it rings and while the two talk, far from us: the new flow puts the caller through to somebody else, and is heard."""
    called, other = Callee(does), Callee()
    there.twilio.callees = {DESTINATION: called, OTHER: other}
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        async with there.talk(model) as talk:
            await ask_for_transfer(talk)
            await there.twilio.until(lambda: len(talk.call.twiml) > 1 or None, "the carrier was asked to dial")
            if does == "answer":
                await talk.session.until(lambda: talk.session.closed, "the agent is released")
            await steer(there, talk, Twiml=DIAL)
            party = await there.twilio.until(lambda: other.parties[0] if other.parties else None, "the other destination answers")
            if called.parties:
                await called.parties[0].ended()
            party.say(agent_tone(LONG_MS))  # the first of it may be said while the caller is still on the way back
            await there.hears(talk.party, lambda sound: heard_tone(sound[-16_000:], AGENT_HZ, 700), "the other destination")
            party.hang_up()
            await talk.party.ended()
        results = [one["transferCallResult"] for one in (await there.house.end_of(talk.guid))["transfers"]]
    assert len(results) == 2
    assert results[1] == "Connected"


async def test_a_hang_up_ends_a_call_that_twilio_has_put_through(there: TwilioHouse) -> None:
    called = there.twilio.callees[DESTINATION] = Callee()
    async with Model() as model:
        there.house.answer_with(model, [TRANSFER])
        async with there.talk(model) as talk:
            await ask_for_transfer(talk)
            await talk.session.until(lambda: talk.session.closed, "the agent is released")
            await steer(there, talk, Status="completed")
            await talk.party.ended()
            await called.parties[0].ended()
            assert len(talk.call.twiml) == 2, "it was not taken back first"

"""Calls that come over Twilio, with everything that the caller, the model and the customer notice of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from xml.etree import ElementTree

import pytest
import pytest_asyncio

from tests.peers.twilio_service import AUTH_TOKEN
from tests.server.call_end import spoken_lines
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone, caller_tone, heard_tone, linear, loud_part
from tests.server.model import Model
from tests.server.twilio_house import PUBLIC, TwilioHouse, open_twilio_house
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwilioHouse]:
    settings = {"SWITCHHOOK_DRAIN_S": "1", "SWITCHHOOK_MEDIA_TIMEOUT_S": "5", "SWITCHHOOK_MAX_CALLS": "2"}
    async with open_twilio_house(tmp_path_factory.mktemp("twilio"), settings) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def there(open_one: TwilioHouse) -> AsyncIterator[TwilioHouse]:
    yield open_one
    await open_one.house.idle()


async def test_caller_and_agent_hear_each_other(there: TwilioHouse) -> None:
    async with Model() as model:
        there.house.answer_with(model)
        caller = there.house.new_caller()
        async with there.talk(model, caller, name="Ada Caller") as talk:
            await talk.session.got("response.create")
            talk.session.speaks(agent_tone(800), "Hello!")
            await there.hears(talk.party, lambda sound: heard_tone(sound, AGENT_HZ, 780), "the greeting")
            talk.party.say(caller_tone(800))
            await talk.session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 760), "the caller's tone")
            talk.session.caller_spoke("When do you open?")
            talk.session.speaks(agent_tone(400), "At nine.")
            await there.hears(talk.party, lambda sound: heard_tone(sound, AGENT_HZ, 1160), "the answer")
            talk.party.hang_up()
        start = await there.house.start_of(caller)
        assert (start["calledNumber"], start["callerIdName"]) == ("7206999999", "Ada Caller")
        end = await there.house.end_of(talk.guid)
        assert spoken_lines(end) == ["AI : Hello!", "User: When do you open?", "AI : At nine."]
        assert await there.house.record_of(caller) == ("success", "caller-hung-up")


async def test_barge_in_silences_the_agent_at_once(there: TwilioHouse) -> None:
    async with Model() as model:
        there.house.answer_with(model)
        async with there.talk(model) as talk:
            await talk.session.got("response.create")
            item = talk.session.begins(agent_tone(10_000))
            await there.hears(talk.party, lambda sound: heard_tone(sound, AGENT_HZ, 400), "the greeting begins")
            talk.session.speech_started()
            cut = await talk.session.got("conversation.item.truncate")
            assert cut[0]["item_id"] == item
            [stream] = talk.call.streams
            await talk.party.until(lambda: stream.cleared, "what the carrier holds is cleared")
            heard = len(talk.party.heard)
            await talk.party.until(lambda: len(talk.party.heard) >= heard + 8000, "a second more")
            assert not heard_tone(bytes(talk.party.heard[heard:]), AGENT_HZ, 40)
            assert stream.cleared == 1
            spoken_ms = len(loud_part(linear(bytes(talk.party.heard)))) // 8
            assert 300 <= cut[0]["audio_end_ms"] <= spoken_ms + 40, "the model is told no more than was heard"


async def test_the_agent_hangs_up(there: TwilioHouse) -> None:
    async with Model() as model:
        there.house.answer_with(model, ["vns_end_conversation"])
        caller = there.house.new_caller()
        async with there.talk(model, caller) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(agent_tone(100), "Hello!")
            talk.session.calls_tool("call_1", "vns_end_conversation", {"user_input": "bye"})
            await talk.session.got("response.create", 2)
            talk.session.speaks(agent_tone(200), "Goodbye.")
            await talk.party.ended()
            assert talk.call.status == "completed"
        assert (await there.house.end_of(talk.guid))["status"] == 0


async def test_a_carrier_that_does_not_hang_up_is_told_over_rest(there: TwilioHouse) -> None:
    """The customer has its CallEnd at once; who stays on the line is let go by an order."""
    there.twilio.lets_go = False
    try:
        async with Model() as model:
            there.house.answer_with(model, maxSeconds=1)
            async with there.talk(model) as talk:
                assert (await there.house.end_of(talk.guid))["errorMessage"] == "Maximum call duration reached"
                assert not talk.party.over
                await talk.party.ended(30)
                assert talk.party.let_go
                forms = [form for path, form in there.twilio.orders if path.endswith(f"/Calls/{talk.call.sid}.json")]
                assert forms == [{"Status": ["completed"]}]
    finally:
        there.twilio.lets_go = True


async def test_the_media_connection_breaks(there: TwilioHouse) -> None:
    """The call ends there as here, and its end is told."""
    async with Model() as model:
        there.house.answer_with(model)
        caller = there.house.new_caller()
        async with there.talk(model, caller) as talk:
            await talk.session.got("response.create")
            await talk.call.streams[0].tear()
            end = await there.house.end_of(talk.guid)
            assert end["status"] == 0
        assert (await there.house.record_of(caller))[1] == "caller-hung-up"


async def test_over_capacity_the_caller_hears_busy(there: TwilioHouse) -> None:
    async with Model() as model:
        there.house.answer_with(model)
        async with there.talk(model) as one, there.talk(model) as other:
            third = there.house.new_caller()
            call = there.twilio.ring(third, "+17206999999")
            await call.party.ended()
            assert call.status == "busy"
            [reject] = ElementTree.fromstring(call.twiml[0])
            assert (reject.tag, reject.attrib) == ("Reject", {"reason": "busy"})
            assert await there.house.record_of(third) == ("client-error", "over-capacity")
            assert not one.party.over and not other.party.over


async def test_an_unknown_number_is_rejected_unanswered(there: TwilioHouse) -> None:
    caller = there.house.new_caller()
    call = there.twilio.ring(caller, "+17205550001")
    await call.party.ended()
    assert call.status == "no-answer"
    assert not call.streams
    assert await there.house.record_of(caller) == ("client-error", "unknown-number")


@pytest.mark.parametrize("path", ["/twilio/voice", "/voice", "/twilio/status", "/twilio/dial", "/twilio/dial/answered"])
async def test_what_is_not_signed_is_refused(there: TwilioHouse, path: str) -> None:
    requests = len(there.house.backend.requests)
    call = there.twilio.ring(there.house.new_caller(), "+17205550001")
    await call.party.ended()
    assert (await there.twilio.ask(call, f"{PUBLIC}{path}", {"To": "+17206999999"}, sign=False))[0] == 403
    there.twilio.auth_token = "another"
    try:
        assert (await there.twilio.ask(call, f"{PUBLIC}{path}", {"To": "+17206999999"}))[0] == 403
    finally:
        there.twilio.auth_token = AUTH_TOKEN
    assert len(there.house.backend.requests) == requests


async def test_the_same_webhook_again_gets_the_same_answer(there: TwilioHouse) -> None:
    async with Model() as model:
        there.house.answer_with(model)
        caller = there.house.new_caller()
        async with there.talk(model, caller) as talk:
            again = await asyncio.gather(*(there.twilio.ask(talk.call, there.twilio.voice_url) for _ in range(3)))
            assert {text for _, text in again} == {talk.call.twiml[0]}
            shown = caller.removeprefix("+1")
            starts = [got for got in there.house.backend.of("/callstart") if got.json["callerId"] == shown]
            assert len(starts) == 1


async def test_an_unsigned_stream_is_refused(there: TwilioHouse) -> None:
    import aiohttp

    async with Model() as model, aiohttp.ClientSession() as http:
        there.house.answer_with(model)
        async with there.talk(model):
            url = f"http://127.0.0.1:{there.house.server.media_port}/twilio/media"
            for headers in ({}, {"X-Twilio-Signature": "A" * 28}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(url, headers=headers)
                assert refused.value.status == 403


async def test_check_names_the_addresses_for_twilio(there: TwilioHouse) -> None:
    _, told = await there.house.server.run("check")
    assert f"Twilio: voice webhook {PUBLIC}/twilio/voice, status callback {PUBLIC}/twilio/status" in told


async def test_streams_are_counted(there: TwilioHouse) -> None:
    async with Model() as model:
        there.house.answer_with(model)
        async with there.talk(model):

            async def counted() -> bool:
                return (await there.house.metrics())["switchhook_twilio_streams"] == 1

            await eventually(counted, "one stream is open")


async def test_no_secret_is_written_down(there: TwilioHouse) -> None:
    """The canary of the account's auth token, after all the calls before."""
    assert AUTH_TOKEN not in there.house.server.log.read_text()
    for got in there.house.backend.requests:
        assert AUTH_TOKEN not in got.body.decode()
    for path in there.house.server.data_dir.rglob("*"):
        if path.is_file():
            assert AUTH_TOKEN.encode() not in path.read_bytes(), path.name

"""What each verb of a customer's TwiML does to a SIP call that the official client redirects to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from twilio.twiml.voice_response import VoiceResponse

from switchhook_demo.phone import Call
from tests.peers.flite import spoken
from tests.server.exchange import hears
from tests.server.listening import linear, loud_part, share_at
from tests.server.rest_house import CALL_PAIRS, PLAY_HZ, RestHouse, do, open_house, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOUND_MS = 1500
"""Of the customer's sound file."""
OTHER_WORDS = "We are open from nine to five. Please leave your name and your telephone number after the tone."
WORDS = "Good morning. Thank you for calling Acme. All our lines are busy at the moment."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    async with open_house(tmp_path_factory.mktemp("verbs")) as opened:
        yield opened


async def redirect(house: RestHouse, sid: str, twiml: VoiceResponse) -> None:
    """By the official client, with the call's own pair."""
    client = house.client(CALL_PAIRS[0])
    seen = await do(lambda: client.calls(sid).update(twiml=twiml))
    assert (seen.sid, seen.status) == (sid, "in-progress")


def voiced_s(call: Call) -> float:
    """How long anything was heard."""
    return len(loud_part(linear(call.ear.ulaw()))) / 8000


def sound_times(call: Call) -> list[tuple[float, float]]:
    """(begin, end) of each stretch of sound, seconds on the sender's clock; stretches are apart by half a second at least."""
    found: list[tuple[float, float]] = []
    for packet in call.ear.packets:
        at = packet.timestamp / 8000
        if packet.voiced and found and at - found[-1][1] < 0.5:
            found[-1] = (found[-1][0], at)
        elif packet.voiced:
            found.append((at, at))
    return found


async def test_play_is_heard_as_often_as_it_says(house: RestHouse) -> None:
    async with house.talk() as (call, session, sid):
        twiml = VoiceResponse()
        twiml.play(f"{house.customer.url}/sound.wav", loop=2)
        await redirect(house, sid, twiml)
        await session.until(lambda: session.closed, "the agent's socket is closed")
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
        assert 1.8 * SOUND_MS / 1000 < voiced_s(call) < 2.2 * SOUND_MS / 1000
        assert share_at(loud_part(linear(call.ear.ulaw())), PLAY_HZ) > 0.8


async def test_play_presses_digits(house: RestHouse) -> None:
    async with house.talk() as (call, _, sid):
        twiml = VoiceResponse()
        twiml.play(digits="4w2#")
        await redirect(house, sid, twiml)
        assert await call.ended() == "them"
        assert call.ear.digits == ["4", "2", "#"]


def loudness(ulaw: bytes) -> NDArray[np.float64]:
    """Of each 20 ms, from the first that is not quiet."""
    signal = linear(ulaw)
    frames: NDArray[np.float64] = np.sqrt((signal[: len(signal) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1))
    return frames[int(np.argmax(frames > 300)) :]


def alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How well the rise and fall of two sounds fit, -1 to 1; the second may begin up to 100 ms earlier or later."""
    size = min(len(one), len(other)) - 5
    shifts = [(one[at : at + size], other[:size]) for at in range(6)] + [(one[:size], other[at : at + size]) for at in range(6)]
    return max(float(np.corrcoef(left, right)[0, 1]) for left, right in shifts)


@pytest.mark.peer("flite")
async def test_say_speaks_the_words(house: RestHouse) -> None:
    """What is heard rises and falls as these words do when they are spoken elsewhere, and not as others do."""
    async with house.talk() as (call, _, sid):
        twiml = VoiceResponse()
        twiml.say(WORDS, voice="alice", language="en-US")
        await redirect(house, sid, twiml)
        assert await call.ended() == "them"
    heard = loudness(call.ear.ulaw())
    assert alike(heard, loudness(spoken(WORDS, "slt"))) > 0.9
    assert alike(heard, loudness(spoken(OTHER_WORDS, "slt"))) < 0.6


async def test_pause_is_silence_of_its_length(house: RestHouse) -> None:
    async with house.talk() as (call, _, sid):
        twiml = house.play()
        twiml.pause(length=2)
        twiml.play(f"{house.customer.url}/sound.wav")
        await redirect(house, sid, twiml)
        assert await call.ended() == "them"
        first, second = sound_times(call)
        assert 1.9 < second[0] - first[1] < 5


@pytest.mark.parametrize("verb", ["hangup", "reject"])
async def test_hangup_and_reject_end_the_call(house: RestHouse, verb: str) -> None:
    """The call is answered: a rejection is a hang-up, too. What follows in the document is not done."""
    async with house.talk() as (call, _, sid):
        twiml = VoiceResponse()
        getattr(twiml, verb)()
        twiml.play(f"{house.customer.url}/sound.wav")
        await redirect(house, sid, twiml)
        assert await call.ended() == "them"
        assert [request.method for request in call.requests] == ["BYE"]
        assert voiced_s(call) == 0
    assert (await house.over(sid)).status == "completed"
    await house.end_of(sid)
    assert len(house.ends_of(sid)) == 1


async def test_redirect_asks_the_next_page_with_a_signed_request(house: RestHouse) -> None:
    """An absolute address by POST, then one relative to it by GET."""
    house.customer.got.clear()
    onwards = VoiceResponse()
    onwards.redirect("second?step=2", method="GET")
    house.customer.pages |= {"first": onwards, "second": house.play()}
    async with house.talk() as (call, _, sid):
        twiml = VoiceResponse()
        twiml.redirect(f"{house.customer.url}/first")
        twiml.say("This is never said.")
        await redirect(house, sid, twiml)
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
    (first_url, form, _), (second_url, nothing, _) = house.customer.got
    assert first_url == f"{house.customer.url}/first"
    assert (form["CallSid"], form["AccountSid"], form["CallStatus"]) == (sid, CALL_PAIRS[0][0], "in-progress")
    assert second_url.startswith(f"{house.customer.url}/second?step=2&CallSid={sid}")
    assert nothing == {}
    assert house.customer.all_signed_by(CALL_PAIRS[0][1])


async def test_a_page_that_cannot_be_used_ends_the_call_with_an_apology(house: RestHouse) -> None:
    house.customer.troubles["gone"] = [500]
    async with house.talk() as (call, _, sid):
        twiml = VoiceResponse()
        twiml.redirect(f"{house.customer.url}/gone")
        await redirect(house, sid, twiml)
        assert await call.ended() == "them"
        assert voiced_s(call) > 1, "an apology was heard"


async def test_a_fallback_is_asked_instead_and_told_why(house: RestHouse) -> None:
    house.customer.got.clear()
    house.customer.troubles["broken"] = [500]
    house.customer.pages["instead"] = house.play()
    async with house.talk() as (call, _, sid):
        client = house.client(CALL_PAIRS[0])
        pages = {
            "url": f"{house.customer.url}/broken",
            "fallback_url": f"{house.customer.url}/instead",
            "fallback_method": "POST",
        }
        await do(lambda: client.calls(sid).update(**pages))
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
    [form] = house.customer.told("instead")
    assert (form["CallSid"], form["ErrorCode"], form["ErrorUrl"]) == (sid, "11200", f"{house.customer.url}/broken")
    assert house.customer.all_signed_by(CALL_PAIRS[0][1])


async def test_verbs_follow_one_another_and_another_redirect_stops_them(house: RestHouse) -> None:
    async with house.talk() as (call, _, sid):
        waiting = VoiceResponse()
        waiting.play(f"{house.customer.url}/sound.wav", loop=0)
        await redirect(house, sid, waiting)
        await hears(call, PLAY_HZ)
        ending = VoiceResponse()
        ending.pause(length=1)
        ending.say("Goodbye.")
        began = asyncio.get_running_loop().time()
        await redirect(house, sid, ending)
        assert await call.ended() == "them"
        assert asyncio.get_running_loop().time() - began > 0.9
        last = call.ear.ulaw(call.ear.packets[-1].at - 0.5)
        assert share_at(linear(last), PLAY_HZ) < 0.5, "the sound went on after the second redirect"


@pytest.mark.parametrize(
    ("document", "code", "named"),
    [
        ("<Response><Gather/></Response>", 12200, "Gather"),
        ("<Response><Say>Hello</Say><Enqueue>sales</Enqueue></Response>", 12200, "Enqueue"),
        ("<Response><Dial><Conference>room</Conference></Dial></Response>", 13215, "Conference"),
        ('<Response><Dial record="true">+17205550199</Dial></Response>', 12200, "record"),
        ("<Response><Play>relative.wav</Play></Response>", 11100, "Play"),
        ("<Reply/>", 12102, "Response"),
        ("<Response><Say></Response>", 12100, "line 1"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name_and_the_call_goes_on(
    house: RestHouse, document: str, code: int, named: str
) -> None:
    async with house.talk() as (call, session, sid):
        client = house.client(CALL_PAIRS[0])
        error = await refusal(lambda: client.calls(sid).update(twiml=document))
        assert (error.status, error.code) == (400, code)
        assert named in error.msg
        assert (await do(lambda: client.calls(sid).fetch())).status == "in-progress"
        assert not session.closed
        await call.hang_up()

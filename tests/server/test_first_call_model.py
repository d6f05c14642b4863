"""What the model's side does in the course of a call: other names, an hour that is over, refusals, half-open sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from switchhook_demo.phone import Phone
from tests.server.call_end import log_texts, spoken_lines
from tests.server.house import House, ear_has, greeted
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone, caller_tone, heard_tone, of_turn, speech
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")

FLAT = {
    "instructions": "You are a friendly agent.",
    "modalities": ["audio", "text"],
    "voice": "alloy",
    "input_audio_format": "g711_ulaw",
    "output_audio_format": "g711_ulaw",
    "input_audio_transcription": {"model": "whisper-1"},
    "turn_detection": {"type": "server_vad"},
}
"""A session as it was written before the names changed."""


async def test_a_server_with_the_retired_names(house: House) -> None:
    """An `aiUrl` of another maker: `response.audio.delta` is heard, `response.audio_transcript.done` is told."""
    async with Model(beta=True) as model:
        reply = house.answer_with(model)
        reply["session"] = FLAT
        reply["VoiceElements_Instructions"]["aiUrl"]["headers"] = {"api-key": "azure", "OpenAI-Beta": "realtime=v1"}
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            assert session.sent("session.update")[0]["session"] == FLAT
            assert (session.headers["api-key"], session.headers["OpenAI-Beta"]) == ("azure", "realtime=v1")
            await session.got("response.create")
            session.speaks(agent_tone(600), "Hello!")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 580), 20, "the greeting")
            await call.say(caller_tone(600))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 580), "the caller's tone")
            session.caller_spoke("Hi.")
            session.speaks(speech(200), "How are you?")
            await ear_has(call, 10)
            await call.hang_up()
        end = await house.end_of(talk.guid)
    assert spoken_lines(end) == ["AI : Hello!", "User: Hi.", "AI : How are you?"]


async def test_the_hour_of_a_session_ends_in_the_midst_of_a_call(house: House) -> None:
    """A new session with the text so far takes over; the caller stays on the line and is neither greeted nor forgotten."""
    async with Model() as model:
        reply = house.answer_with(model)
        async with house.talk(model) as talk:
            first = talk.session
            await first.got("response.create")
            first.speaks(speech(200, turn=1), "Hello Ada!")
            await ear_has(talk.call, 10, turn=1)
            first.caller_spoke("I am Ada.")
            first.speaks(speech(200, turn=2), "So you are.")
            await ear_has(talk.call, 10, turn=2)
            first.emit("error", error={"type": "invalid_request_error", "code": "session_expired", "message": "60 minutes"})
            second = await model.session(2)
            [update] = await second.got("session.update")
            assert update["session"] == reply["session"]
            talked = [("assistant", "Hello Ada!"), ("user", "I am Ada."), ("assistant", "So you are.")]
            await second.until(lambda: second.texts()[-3:] == talked, "the talk so far")
            await talk.call.say(caller_tone(400))
            await second.hears(lambda sound: heard_tone(sound, CALLER_HZ, 380), "the caller's tone")
            second.caller_spoke("Still there?")
            second.speaks(speech(200, turn=3), "Always.")
            await ear_has(talk.call, 10, turn=3)
            assert not second.sent("response.create")
            await first.until(lambda: first.closed, "the old session's socket is closed")
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    assert spoken_lines(end) == ["AI : Hello Ada!", "User: I am Ada.", "AI : So you are.", "User: Still there?", "AI : Always."]


async def test_a_model_that_refuses_the_session(house: House) -> None:
    """`error` instead of `session.updated`: nothing is heard, status 2, and the reason is in the log without the key."""
    async with Model() as model:
        reply = house.answer_with(model)
        reply["session"]["audio"]["output"]["format"] = {"type": "audio/telegraph"}
        end = await house.dropped_call()
        assert all([str(refusal) for refusal in session.errors] == ["output format"] for session in model.sessions)
        for session in model.sessions:
            session.errors.clear()
    assert (end["status"], end["transcription"]) == (2, [])
    assert any("output format" in text for text in log_texts(end))
    assert "secret-token" not in str(end)


async def test_a_half_open_model_is_found_by_its_silence(house: House) -> None:
    """The socket lives and TCP acknowledges, but nothing comes although the caller waits: another session answers."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            first = talk.session
            await first.got("response.create")
            first.silent = True
            second = await model.until(lambda: model.sessions[1] if len(model.sessions) > 1 else None, "a second session", 60)
            await greeted(second, talk.call)
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    assert (end["status"], spoken_lines(end)) == (0, ["AI : Hello!"])


async def test_the_model_server_is_away_for_a_moment(house: House) -> None:
    """A handshake that fails with 503 is tried once more, and the caller's words of that time are not lost."""
    async with Model(refuse_with=503) as model:
        house.answer_with(model)
        caller = house.new_caller()
        async with Phone(user=caller) as phone:
            call = await phone.dial(house.uri())
            await model.until(lambda: model.handshakes, "the first handshake")
            model.refuse_with = None
            await call.answered()
            await call.say(caller_tone(400))
            session = await model.session()
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 380), "what the caller said early")
            session.speaks(speech(200), "Hello!")
            await ear_has(call, 10)
            assert of_turn(call.ear.packets, 0) == list(range(10))
            await call.hang_up()
        assert (await house.end_of((await house.start_of(caller))["sessionGuid"]))["status"] == 0


async def test_who_speaks_only_when_spoken_to(house: House) -> None:
    """What the customer's session says of turn detection stays as it is: no `response.create` of ours after a spoken turn."""
    async with Model() as model:
        reply = house.answer_with(model)
        detection: dict[str, Any] = {
            "type": "semantic_vad",
            "eagerness": "low",
            "create_response": True,
            "interrupt_response": True,
        }
        reply["session"]["audio"]["input"]["turn_detection"] = detection
        async with house.talk(model) as talk:
            session = talk.session
            assert session.session["audio"]["input"]["turn_detection"] == detection
            await greeted(session, talk.call, turn=1)
            session.caller_spoke("Hi.")
            session.speaks(speech(200, turn=2), "How are you?")
            await ear_has(talk.call, 10, turn=2)
            assert len(session.sent("response.create")) == 1
            await talk.call.hang_up()
        await house.end_of(talk.guid)


async def test_a_digit_is_not_a_turn_until_it_is_quiet(house: House) -> None:
    """1.5 s after the last key, not after the first; `#` at once."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session, loop = talk.call, talk.session, asyncio.get_running_loop()
            await session.got("response.create")
            session.speaks(speech(100), "Your number?")
            await ear_has(call, 5)
            await call.press("1")
            await call.say(b"\xff" * 8 * 500)
            last = loop.time()
            await call.press("2")
            await session.until(lambda: [text for role, text in session.texts() if role == "user"], "the number")
            assert 1.2 < loop.time() - last < 15
            await session.got("response.create", 2)
            session.speaks(speech(100, turn=1), "And the other?")
            await ear_has(call, 5, turn=1)
            await call.press("34#")
            await session.until(lambda: len([1 for role, _ in session.texts() if role == "user"]) == 2, "the other number")
            assert [text for role, text in session.texts() if role == "user"] == ["DTMF: 12", "DTMF: 34"]
            await session.got("response.create", 3)
            await call.hang_up()
        end = await house.end_of(talk.guid)
    assert "User: DTMF: 12" in spoken_lines(end)

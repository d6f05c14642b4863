"""What the reply to onCallStart makes of a call over SIP: every default, every field, every way not to take it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from switchhook_demo.phone import CallRefusedError, Phone
from tests.server.house import ear_has, function
from tests.server.listening import caller_tone, speech
from tests.server.veevo_house import BRIEF, VeevoHouse, VeevoTalk, greeted, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUIRED = ("twilioAccountSid", "twilioAuthToken", "openaiApiKey", "systemPrompt", "onToolCallUrl")


def _session(**fields: Any) -> dict[str, Any]:
    """The documented defaults, some of them replaced."""
    told = {"model": "gpt-realtime-1.5", "voice": "marin", "eagerness": "high", "noise": "near_field", "tools": [], **fields}
    line = {"type": "audio/pcmu"}
    turns = {"type": "semantic_vad", "eagerness": told["eagerness"], "create_response": True, "interrupt_response": True}
    heard = {
        "format": line,
        "noise_reduction": {"type": told["noise"]},
        "turn_detection": turns,
        "transcription": {"model": "gpt-4o-mini-transcribe"},
    }
    return {
        "type": "realtime",
        "model": told["model"],
        "instructions": "You are a helpful assistant.",
        "output_modalities": ["audio"],
        "audio": {"input": heard, "output": {"format": line, "voice": told["voice"]}},
        "tools": told["tools"],
        "tool_choice": "auto",
    }


def _sent(talk: VeevoTalk) -> Any:
    [update] = talk.session.sent("session.update")
    return update["session"]


async def test_the_required_fields_are_enough(veevo: VeevoHouse) -> None:
    """All else has the documented default; without metadata no callback has any."""
    veevo.backend.start_reply = {name: veevo.backend.start_reply[name] for name in REQUIRED}
    async with veevo.talk() as talk:
        assert talk.session.model_name == "gpt-realtime-1.5"
        assert _sent(talk) == _session()
        await greeted(talk.session, talk.call)
        talk.session.calls_tool("call_1", "anything", {})
        await talk.session.output_of("call_1")
        await talk.call.hang_up()
    end = await veevo.end_of(talk.sid)
    assert "metadata" not in veevo.backend.of("tool")[0].json
    assert "metadata" not in end.json


async def test_every_field_is_followed(veevo: VeevoHouse) -> None:
    """Voices and models that nobody has heard of pass; a tool of Chat Completions becomes one of the Realtime API."""
    schema = {"type": "object", "properties": {"n": {"type": "number", "maximum": 1.0}}}
    nested = {"type": "function", "function": {"name": "order", "description": "Orders.", "parameters": schema}}
    veevo.backend.start_reply |= {
        "model": "gpt-realtime-2",
        "voice": "a-new-voice",
        "vadEagerness": "low",
        "noiseReduction": "far_field",
        "tools": [function("book"), nested],
        "metadata": None,
    }
    tools = [function("book"), {"type": "function", "name": "order", "description": "Orders.", "parameters": schema}]
    async with veevo.talk() as talk:
        assert talk.session.model_name == "gpt-realtime-2"
        wanted = _session(model="gpt-realtime-2", voice="a-new-voice", eagerness="low", noise="far_field", tools=tools)
        assert _sent(talk) == wanted
        await talk.call.hang_up()
    assert (await veevo.end_of(talk.sid)).json["metadata"] is None


async def test_what_cannot_be_read_gets_the_default(veevo: VeevoHouse) -> None:
    wrong = {
        "model": 5,
        "voice": "",
        "vadEagerness": "eager",
        "noiseReduction": 1,
        "inactivityTimeoutMs": "soon",
        "tools": "book",
    }
    veevo.backend.start_reply |= {**wrong, "greetingUrl": "hello.mp3", "surprise": True}
    async with veevo.talk() as talk:
        assert _sent(talk) == _session()
        await greeted(talk.session, talk.call)
        await talk.call.hang_up()
    await veevo.end_of(talk.sid)


REFUSALS: list[tuple[Any, int, int]] = [
    ({"reject": True}, 200, 603),
    ({"rejected": True, "reason": "other"}, 200, 603),
    ({"action": "reject"}, 200, 603),
    ({"status": "reject"}, 200, 603),
    ({"status": "rejected", "reason": "busy"}, 201, 486),
    ({"reject": True, "reason": "busy"}, 200, 486),
    (b"<Response/>", 200, 480),
    (b"", 200, 480),
    ([], 200, 480),
    (reply(onToolCallUrl="http://127.0.0.1:9/"), 500, 480),
    *(({**reply(onToolCallUrl="http://127.0.0.1:9/"), name: None}, 200, 480) for name in REQUIRED),
]


async def test_every_way_not_to_take_a_call(veevo: VeevoHouse) -> None:
    """It is never answered, no AI is asked, and the customer hears no more of it."""
    before = veevo.model.handshakes
    for answer, http_status, sip_status in REFUSALS:
        veevo.backend.start_reply, veevo.backend.start_status = answer, http_status
        caller = veevo.new_caller()
        async with Phone(user=caller) as telephone:
            call = await veevo.dial(telephone)
            with pytest.raises(CallRefusedError) as refused:
                await call.answered()
        assert refused.value.status == sip_status, answer
        (ending,) = await veevo.row("ending", caller)
        assert ending == ("rejected" if sip_status != 480 else "call-start-failed"), answer
    assert len(veevo.backend.of("start")) == len(REFUSALS), "onCallStart is not tried again"
    assert veevo.model.handshakes == before
    await veevo.idle()
    assert veevo.backend.of("end") == []


@pytest.mark.peer("flite")
async def test_a_refusal_with_a_message_is_spoken(veevo: VeevoHouse) -> None:
    before = veevo.model.handshakes
    veevo.backend.start_reply = {"reject": True, "message": "We are closed today."}
    caller = veevo.new_caller()
    async with Phone(user=caller) as telephone:
        call = await veevo.dial(telephone)
        await call.answered()
        assert await call.ended(30) == "them"
    assert 20 * sum(packet.voiced for packet in call.ear.packets) > 500, "the message"
    assert (await veevo.row("ending", caller)) == ("rejected",)
    assert veevo.model.handshakes == before
    assert veevo.backend.of("end") == []


async def test_only_silence_of_both_sides_ends_a_call(veevo: VeevoHouse) -> None:
    """The caller's words, the agent's, and a tool under way each begin the time anew."""
    limit_ms, longer_ms = 2400, 3200
    veevo.backend.start_reply["inactivityTimeoutMs"] = limit_ms
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        veevo.backend.tool_gate.clear()
        talk.session.calls_tool("call_1", "check_availability", {})
        await veevo.backend.wait_for("tool")
        await talk.call.say(b"\xff" * 8 * longer_ms)
        veevo.backend.tool_gate.set()
        await talk.session.output_of("call_1")
        talk.session.speaks(speech(longer_ms, turn=1), "One moment, please.")
        await ear_has(talk.call, longer_ms // 20, turn=1)
        item = talk.session.speech_started()
        await talk.call.say(caller_tone(longer_ms))
        talk.session.speech_stopped(item)
        talk.session.transcribed(item, "Thank you.")
        spoke_at = asyncio.get_running_loop().time()
        talk.session.speaks(speech(400, turn=2), "You are welcome.")
        await ear_has(talk.call, 20, turn=2)
        assert await talk.call.ended(30) == "them"
        assert talk.call.ended_at is not None
        assert talk.call.ended_at - spoke_at > (400 + limit_ms) / 1000 - 0.3
    end = (await veevo.end_of(talk.sid)).json
    assert end["durationSeconds"] >= (3 * longer_ms + limit_ms) // 1000
    assert [line["role"] for line in end["transcript"]] == ["assistant", "assistant", "user", "assistant"]
    assert await veevo.row("outcome, reason", talk.caller) == ("success", "silence")


async def test_a_greeting_that_cannot_be_had_leaves_the_first_word_to_the_agent(veevo: VeevoHouse) -> None:
    """It is missing, or is no sound."""
    for greeting in (b"", b"<html>not an MP3</html>"):
        veevo.backend.greeting = greeting
        veevo.backend.start_reply["greetingUrl"] = f"{veevo.backend.url}/hello?of={len(greeting)}"
        async with veevo.talk() as talk:
            await greeted(talk.session, talk.call)
            await talk.call.hang_up()
        end = (await veevo.end_of(talk.sid)).json
        assert [line["content"] for line in end["transcript"]] == ["Hi, how can I help?"]
    assert veevo.backend.greeted == 2


async def test_a_number_may_have_a_shorter_limit(veevo: VeevoHouse) -> None:
    """The call ends when it is reached, however much is said, and its end is told as any."""
    dialled_at = asyncio.get_running_loop().time()
    async with veevo.talk(BRIEF) as talk:
        await greeted(talk.session, talk.call)
        talk.session.speaks(speech(60_000, turn=1), "A long story.")
        assert await talk.call.ended(30) == "them"
        assert talk.call.ended_at is not None
        assert talk.call.ended_at - dialled_at > 1.9
    end = (await veevo.end_of(talk.sid)).json
    assert end["durationSeconds"] >= 2
    assert end["metadata"] == reply()["metadata"]
    assert await veevo.row("outcome, reason", talk.caller) == ("success", "max-duration")

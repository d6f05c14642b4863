"""Turn-taking at the telephone: interruptions, keys, the farewell and the built-in tools."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from switchhook_demo.phone import Call
from tests.server.call_end import spoken_lines
from tests.server.house import House, ear_has, greeted
from tests.server.listening import FRAME_MS, frames_heard, of_turn, speech
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SPOKEN_MS = 3200
"""So long a reply would be that is interrupted."""


async def _interrupted_turn(session: LiveSession, call: Call, turn: int, after_ms: int) -> str:
    """The model speaks, the caller cuts in after so much was heard; gives the item's id."""
    item_id = session.begins(speech(SPOKEN_MS, turn), WORDS)
    await ear_has(call, after_ms // FRAME_MS, turn)
    caller_item_id = f"caller_{turn}"
    session.emit("input_audio_buffer.speech_started", item_id=caller_item_id, audio_start_ms=0)
    session.speak(item_id, "", sound=speech(400, turn, first=SPOKEN_MS // FRAME_MS))  # what a real model still has in flight
    session.end_speech(item_id, WORDS)
    session.finish("cancelled", "turn_detected")
    await session.got("conversation.item.truncate", turn)
    session.speech_stopped(caller_item_id)
    session.transcribed(caller_item_id, f"Stop {turn}!")
    return item_id


async def test_nothing_of_an_interrupted_reply_plays_on(house: House) -> None:
    """At several offsets: what was heard is a clean beginning, and truncate says its length to the frame."""
    offsets_ms = (0, 20, 130, 470, 1010)
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            items = [await _interrupted_turn(session, call, turn, ms) for turn, ms in enumerate(offsets_ms, start=1)]
            last = len(offsets_ms) + 1
            session.speaks(speech(200, last), "At your service.")
            await ear_has(call, 10, last)
            await call.hang_up()
        end = await house.end_of(talk.guid)
    heard = frames_heard(call.ear.packets)
    assert heard == sorted(heard)  # no frame twice, none out of order, none of an earlier turn after a later one
    truncations = session.sent("conversation.item.truncate")
    assert [event["item_id"] for event in truncations] == items
    for turn, event in enumerate(truncations, start=1):
        frames = of_turn(call.ear.packets, turn)
        assert frames == list(range(len(frames)))
        slack_ms = house.cut_slack_frames * FRAME_MS
        assert abs(event["audio_end_ms"] - len(frames) * FRAME_MS) <= slack_ms, (turn, event, len(frames))
    assert of_turn(call.ear.packets, last) == list(range(10))
    _check_cut_line(spoken_lines(end), truncations[-1]["audio_end_ms"])


def _check_cut_line(lines: list[str], heard_ms: int) -> None:
    """The line of the last interrupted reply ends near the share that was heard; the others follow in order."""
    assert [line for line in lines if line.startswith("User:")] == [f"User: Stop {turn}!" for turn in range(1, 6)]
    assert lines[-2:] == ["User: Stop 5!", "AI : At your service."]
    said = lines[-3].removeprefix("AI : ").split()
    assert said == WORDS.split()[: len(said)]
    # What was in flight came after the interruption and does not count as sound of the reply.
    assert abs(len(" ".join(said)) - heard_ms / SPOKEN_MS * len(WORDS)) <= len("thirteen")


async def test_interruptions_can_be_switched_off(house: House) -> None:
    """`interrupt_response: false`: speech_started neither flushes nor cancels."""
    async with Model() as model:
        reply = house.answer_with(model)
        reply["session"]["audio"]["input"]["turn_detection"]["interrupt_response"] = False
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            item_id = session.begins(speech(1000))
            await ear_has(call, 5)
            session.speech_started()
            session.ends(item_id, "All of it.")
            await ear_has(call, 50)
            assert not session.sent("conversation.item.truncate")
            assert not session.sent("response.cancel")
            await call.hang_up()
        assert spoken_lines(await house.end_of(talk.guid)) == ["AI : All of it."]


def _typed(session: LiveSession) -> list[str]:
    """Texts that the client put in the caller's mouth."""
    return [text for role, text in session.texts() if role == "user"]


async def test_keys_become_a_turn_of_the_caller(house: House) -> None:
    """`#` or a pause ends the number; the first one interrupts."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await greeted(session, call, turn=1)
            await call.press("123#")
            await session.until(lambda: len(_typed(session)) == 1, "the first number")
            await session.got("response.create", 2)
            item_id = session.speaks(speech(3000), WORDS)
            await ear_has(call, 10)
            await call.press("45")
            await session.until(lambda: len(_typed(session)) == 2, "the second number")
            assert _typed(session) == ["DTMF: 123", "DTMF: 45"]
            await session.got("response.create", 3)
            [truncated] = [e for e in session.sent("conversation.item.truncate") if e["item_id"] == item_id]
            heard = of_turn(call.ear.packets, 0)
            assert abs(truncated["audio_end_ms"] - len(heard) * FRAME_MS) <= house.cut_slack_frames * FRAME_MS
            assert len(heard) < 100
            await call.hang_up()
        await house.end_of(talk.guid)


async def test_keys_that_come_by_events_and_by_info_count_once(house: House) -> None:
    """RFC 4733 and INFO; a digit that comes by both is one, and INFO alone is enough."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await greeted(session, call, turn=1)
            for digit in "123":
                await call.press(digit)
                await call.press(digit, method="info")
            await call.press("#")
            await session.until(lambda: len(_typed(session)) == 1, "the first number")
            await session.got("response.create", 2)
            await call.press("45", method="info")
            await session.until(lambda: len(_typed(session)) == 2, "the second number")
            assert _typed(session) == ["DTMF: 123", "DTMF: 45"]
            await call.hang_up()
        await house.end_of(talk.guid)


async def test_the_farewell_is_heard_in_full(house: House) -> None:
    """vns_end_conversation: the caller's own words do not cut the goodbye, and the line ends after its last sample."""
    async with Model() as model:
        house.answer_with(model, ["vns_end_conversation"])
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await greeted(session, call, turn=1)
            session.calls_tool("call_1", "vns_end_conversation", {"user_input": "bye", "farewell": "So long, Ada."})
            assert json.loads(await session.output_of("call_1")) == {"status": "ending"}
            wish = (await session.got("response.create", 2))[-1]["response"]
            assert "So long, Ada." in wish["instructions"]
            assert wish.get("tools") == [] or wish.get("tool_choice") == "none"
            session.speaks(speech(1200, turn=2), "So long, Ada.")
            await ear_has(call, 10, turn=2)
            session.speech_started()
            assert await call.ended() == "them"
        assert of_turn(call.ear.packets, 2) == list(range(60))
        end = await house.end_of(talk.guid)
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    assert spoken_lines(end)[-1] == "AI : So long, Ada."
    assert not house.backend.of("/tools")


async def test_tools_of_the_gateway(house: House) -> None:
    """They are answered here; a tool that the customer did not list goes to the customer, whatever its name."""
    async with Model() as model:
        house.answer_with(model, ["vns_get_call_info", "vns_get_utc_datetime", "vns_transfer_call"])
        async with house.talk(model, display_name="Ada") as talk:
            session = talk.session
            await session.got("response.create")
            told: dict[str, Any] = {}
            names = ("vns_get_call_info", "vns_get_utc_datetime", "vns_transfer_call", "vns_end_conversation")
            for number, name in enumerate(names, start=2):
                session.calls_tool(name, name, {"transferNumber": "+441632960123"})  # abroad: the policy refuses at once
                told[name] = json.loads(await session.output_of(name))
                await session.got("response.create", number)
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    start = house.backend.of("/callstart")[0].json
    fields = ("calledNumber", "callerId", "callerIdName", "callStart", "outboundTriggered", "sessionGuid")
    assert told["vns_get_call_info"] == {name: start[name] for name in fields} | {"customerCallId": "CallId-001"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["vns_get_utc_datetime"]["utcDateTime"])
    assert told["vns_transfer_call"]["status"] == "failed"
    assert told["vns_end_conversation"] == {"ok": True}
    assert [got.json["VoiceElements_InvokeTool"]["toolName"] for got in house.backend.of("/tools")] == ["vns_end_conversation"]
    assert end["status"] == 0


async def test_a_tool_outlives_an_interruption_and_the_call(house: House) -> None:
    """It runs once: its result reaches the model after a barge-in, and CallEnd waits for one that still runs."""
    house.backend.tool_gate.clear()
    async with Model() as model:
        house.answer_with(model, ["book"])
        async with house.talk(model) as talk:
            session = talk.session
            await session.got("response.create")
            session.calls_tool("call_1", "book", {"table": 1})
            await house.backend.wait_for("/tools", 1)
            session.caller_spoke("Hurry up!")
            house.backend.tool_gate.set()
            assert json.loads(await session.output_of("call_1")) == {"ok": True}
            house.backend.tool_gate.clear()
            await session.got("response.create", 2)
            session.calls_tool("call_2", "book", {"table": 2})
            await house.backend.wait_for("/tools", 2)
            await talk.call.hang_up()
        assert not house.ends_of(talk.guid)
        house.backend.tool_gate.set()
        end = await house.end_of(talk.guid)
    assert [got.json["table"] for got in house.backend.of("/tools")] == [1, 2]
    assert len([line for line in end["logInformation"] if "Tool Reply: book 200" in line]) == 2

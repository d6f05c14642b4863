"""What happens in the same moment: the caller speaks, a tool runs, the model is lost, somebody hangs up."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.server.call_end import spoken_lines
from tests.server.house import House, ear_has, greeted
from tests.server.listening import AGENT_HZ, CALLER_HZ, FRAME_MS, caller_tone, heard_tone, of_turn, pcm24_tone, speech
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SPOKEN_MS = 3200
SLACK_CHARS = len("thirteen thirteen")
"""A line is cut at a word, and a telephone hears a frame or two of what is told as not heard."""


def _check_share(text: str, heard_frames: int) -> None:
    """The text is a beginning of WORDS, as long as the share of the sound that was heard."""
    said = text.split()
    assert said == WORDS.split()[: len(said)]
    assert 0 < len(said) < len(WORDS.split())
    assert abs(len(text) - heard_frames * FRAME_MS / SPOKEN_MS * len(WORDS)) <= SLACK_CHARS


async def test_a_caller_who_speaks_before_the_replys_first_sound_hears_nothing_of_it(house: House) -> None:
    """The reply is begun but silent: what of it comes afterwards is neither played nor told."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            session = talk.session
            await session.got("response.create")
            item_id = session.begins(b"")
            session.emit("input_audio_buffer.speech_started", item_id="caller_1", audio_start_ms=0)
            session.speak(item_id, WORDS, sound=speech(600, turn=1))
            session.end_speech(item_id, WORDS)
            session.finish("cancelled", "turn_detected")
            session.speech_stopped("caller_1")
            session.transcribed("caller_1", "Wait.")
            session.speaks(speech(400, turn=2), "I wait.")
            await ear_has(talk.call, 20, turn=2)
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    assert of_turn(talk.call.ear.packets, 1) == []
    assert of_turn(talk.call.ear.packets, 2) == list(range(20))
    assert spoken_lines(end) == ["User: Wait.", "AI : I wait."]


async def test_a_caller_who_hangs_up_in_the_midst_of_a_reply(house: House) -> None:
    """The model had said all of it; the transcript ends where the caller heard no more."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(speech(SPOKEN_MS), WORDS)
            await ear_has(talk.call, 60)
            await talk.call.hang_up()
            heard = len(of_turn(talk.call.ear.packets, 0))
        [line] = spoken_lines(await house.end_of(talk.guid))
    _check_share(line.removeprefix("AI : "), heard)


async def test_the_next_model_is_told_what_was_heard(house: House) -> None:
    """Of a reply that was cut off it gets the beginning; one whose sound was all there when the model was lost plays on."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            item_id = session.begins(speech(SPOKEN_MS), WORDS)
            session.end_speech(item_id, WORDS)
            await ear_has(call, 60)
            session.caller_spoke("Stop.")
            await session.got("conversation.item.truncate")
            session.speaks(speech(1200, turn=1), "As you like.")
            await ear_has(call, 10, turn=1)
            session.die()
            second = await model.session(2)
            told = await second.until(lambda: second.texts() if len(second.texts()) == 3 else None, "the talk so far")
            await ear_has(call, 60, turn=1)
            second.speaks(speech(200, turn=2), "Go on.")
            await ear_has(call, 10, turn=2)
            await call.hang_up()
        end = await house.end_of(talk.guid)
    cut = told[0][1]
    _check_share(cut, len(of_turn(call.ear.packets, 0)))
    assert told == [("assistant", cut), ("user", "Stop."), ("assistant", "As you like.")]
    assert of_turn(call.ear.packets, 1) == list(range(60))
    assert spoken_lines(end) == [f"AI : {cut}", "User: Stop.", "AI : As you like.", "AI : Go on."]


async def test_the_talk_goes_on_while_a_tool_runs(house: House) -> None:
    """The model hears the caller and the caller hears the model, who fills the time; the late result is spoken of."""
    house.backend.tool_gate.clear()
    async with Model() as model:
        house.answer_with(model, ["find"])
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            session.calls_tool("call_1", "find", {})
            await house.backend.wait_for("/tools", 1)
            session.speaks(speech(400, turn=1), "One moment, I am looking.")
            await call.say(caller_tone(600))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 580), "the caller's tone")
            await ear_has(call, 20, turn=1)
            assert session.calls["call_1"] is None
            house.backend.tool_gate.set()
            assert json.loads(await session.output_of("call_1")) == {"ok": True}
            await session.got("response.create", 2)
            session.speaks(speech(400, turn=2), "Found it.")
            await ear_has(call, 20, turn=2)
            await call.hang_up()
        end = await house.end_of(talk.guid)
    assert spoken_lines(end) == ["AI : One moment, I am looking.", "AI : Found it."]
    assert [of_turn(call.ear.packets, turn) for turn in (1, 2)] == [list(range(20))] * 2


async def test_a_tool_under_way_when_the_model_is_lost(house: House) -> None:
    """It is not run again: the next session is told its result, and asked to go on."""
    house.backend.tool_gate.clear()
    async with Model() as model:
        house.answer_with(model, ["book"])
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.calls_tool("call_1", "book", {"table": 1})
            await house.backend.wait_for("/tools", 1)
            talk.session.die()
            second = await model.session(2)
            await second.got("session.update")
            house.backend.tool_gate.set()

            def told() -> list[str]:
                return [text for _, text in second.texts() if "book" in text and '{"ok": true}' in text]

            assert len(await second.until(told, "the result of the tool")) == 1
            await second.got("response.create")
            second.speaks(speech(200), "Booked.")
            await ear_has(talk.call, 10)
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    assert [got.json["table"] for got in house.backend.of("/tools")] == [1]
    assert (end["status"], spoken_lines(end)) == (0, ["AI : Booked."])


async def test_a_goodbye_that_is_never_said_ends_the_call(house: House) -> None:
    """The model wants to end the talk and then says nothing more: the line does not stay open."""
    async with Model() as model:
        house.answer_with(model, ["vns_end_conversation"])
        async with house.talk(model) as talk:
            session = talk.session
            await greeted(session, talk.call)
            session.calls_tool("call_1", "vns_end_conversation", {"farewell": "Goodbye."})
            await session.got("response.create", 2)
            session.silent = True
            assert await talk.call.ended(40) == "them"
        end = await house.end_of(talk.guid)
    assert (end["status"], spoken_lines(end)) == (0, ["AI : Hello!"])


async def test_a_model_whose_host_hangs_while_nothing_is_asked_of_it(house: House) -> None:
    """No error, no close, and nobody waits for an answer: it is found all the same, and another session talks on."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            first = talk.session
            await greeted(first, talk.call)
            first.freeze()
            second = await model.until(lambda: model.sessions[1] if len(model.sessions) > 1 else None, "a second session", 60)
            await second.until(lambda: ("assistant", "Hello!") in second.texts(), "the talk so far")
            await talk.call.say(caller_tone(600))
            await second.hears(lambda sound: heard_tone(sound, CALLER_HZ, 580), "the caller's tone")
            second.caller_spoke("Are you there?")
            second.speaks(speech(200, turn=1), "I am.")
            await ear_has(talk.call, 10, turn=1)
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    assert (end["status"], spoken_lines(end)) == (0, ["AI : Hello!", "User: Are you there?", "AI : I am."])


async def _in_odd_pieces(session: LiveSession, sound: bytes) -> None:
    """A reply in pieces that are neither frames nor samples."""
    session.respond()
    item_id = session.add_item({"type": "message", "role": "assistant", "content": []})
    session.sound_ms[item_id] = 0
    for start in range(0, len(sound), 4_801):
        session.speak(item_id, "", sound=sound[start : start + 4_801])
    session.ends(item_id, "All of it.")


async def test_a_reply_in_odd_pieces_is_one_even_tone(house: House) -> None:
    """16-bit samples cut in halves: no click, no gap, and packets at the pace of speech although the reply came at once."""
    async with Model() as model:
        reply = house.answer_with(model)
        for direction in ("input", "output"):
            reply["session"]["audio"][direction]["format"] = {"type": "audio/pcm", "rate": 24000}
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            await _in_odd_pieces(session, pcm24_tone(AGENT_HZ, 1600))
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 1560), 20, "the reply")
            await call.hang_up()
        assert (await house.end_of(talk.guid))["status"] == 0
    packets = [packet for packet in call.ear.packets if packet.voiced]
    assert 78 <= len(packets) <= 82
    steps = itertools.pairwise((packet.timestamp, packet.sequence) for packet in packets)
    assert {((later - sooner) % (1 << 32), (follows - goes) % (1 << 16)) for (sooner, goes), (later, follows) in steps} == {
        (160, 1)
    }
    assert packets[-1].at - packets[0].at > 1.0  # all at once would be a moment

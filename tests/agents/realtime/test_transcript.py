"""What the record and the next model are told of lines whose text, sound or session ended early."""

from __future__ import annotations

import base64
import json

from tests.agents.realtime.talk import Talk

LINE = "one two three four five six seven eight nine ten"


def test_words_that_come_after_the_agent_was_cut_off_are_told_at_the_end() -> None:
    talk = Talk().start()
    response = talk.does(lambda model: model.respond())
    at = {"response_id": response, "item_id": "spoken"}
    sound = base64.b64encode(b"\x55" * 8000).decode()
    talk.frame(json.dumps({"type": "response.output_audio.delta", "delta": sound} | at).encode())
    talk.wait(0.5)
    talk.does(lambda model: model.speech_started())
    for word in LINE.split():
        words = {"type": "response.output_audio_transcript.delta", "delta": f"{word} "}
        talk.frame(json.dumps(words | at).encode())
    talk.feed(talk.agent.stop)
    talk.wait(4)  # the caller's words never come
    assert talk.transcript() == [("agent", "one two three four five")]


def test_words_of_a_lost_model_that_were_heard_are_in_the_transcript() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=400, done=False)))
    talk.lose()
    talk.wait(2)
    talk.feed(talk.agent.stop)
    assert talk.transcript() == [("agent", LINE)]


def test_the_next_model_is_told_no_words_that_were_cut_off() -> None:
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=2000), model.finish()))
    talk.wait(1.001)
    talk.does(lambda model: model.speech_started())
    assert talk.lines == [], "the caller's first words are not known yet"
    talk.lose()
    assert talk.model.texts() == [("assistant", "one two three four five")]

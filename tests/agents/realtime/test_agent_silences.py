"""Every way into dead air that was found, and the way out of it: the caller gets an answer, or the call its failure path."""

from __future__ import annotations

import json

from switchhook.agents.conversation import ConversationFailed, ConversationOver, FailureKind
from tests.agents.realtime.talk import Talk, session_update


def turn(talk: Talk, text: str = "hello") -> str:
    """The caller says something and is done."""
    item = str(talk.does(lambda model: model.speech_started()))
    talk.wait(1)
    talk.does(lambda model: model.speech_stopped(item))
    return item


def error(talk: Talk, code: str, event_id: str | None = None) -> None:
    talk.frame(json.dumps({"type": "error", "error": {"code": code, "message": "no", "event_id": event_id}}).encode())


def test_a_turn_that_was_owed_when_the_socket_died_is_asked_of_the_new_session() -> None:
    talk = Talk().start()
    turn(talk)
    talk.lose()
    assert len(talk.sessions) == 2
    assert talk.model.requests == 1


def test_a_turn_that_was_owed_when_the_model_hung_is_asked_of_the_new_session() -> None:
    talk = Talk().start()
    turn(talk)
    talk.wait(11)
    assert len(talk.sessions) == 2
    assert talk.model.requests == 1


def test_a_roll_over_does_not_swallow_what_the_caller_has_just_said() -> None:
    talk = Talk(roll_over_after_ms=60_000).start()
    talk.wait(59)
    item = talk.does(lambda model: model.speech_started())
    talk.wait(5)
    talk.does(lambda model: model.speech_stopped(item))
    assert len(talk.sessions) == 1, "the caller's turn is not over"
    talk.does(lambda model: (model.respond(), model.say("Yes", ms=400), model.finish()))
    talk.wait(2)
    talk.does(lambda model: model.transcribed(item, "is anybody there"))
    talk.wait(1)
    assert len(talk.sessions) == 2
    assert ("user", "is anybody there") in talk.model.texts()


def test_a_request_that_collides_with_the_models_own_response_is_made_again() -> None:
    talk = Talk(speaks_first=True).start()
    request = talk.model.sent("response.create")[0]
    talk.does(lambda model: model.respond())
    error(talk, "conversation_already_has_active_response", request["event_id"])
    talk.does(lambda model: (model.say("Mine", ms=200), model.finish()))
    talk.wait(3)
    assert talk.model.requests == 2


def test_a_goodbye_that_keeps_failing_ends_the_call_after_one_more_try() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.call("hang_up"), model.finish()))
    assert talk.model.requests == 1
    for _ in range(2):
        talk.wait(1)
        if talk.model.requests and not talk.ends:
            talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(1)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    assert talk.model.requests == 2


def test_a_goodbye_that_is_refused_ends_the_call_within_fifteen_seconds() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.call("hang_up"), model.finish()))
    for _ in range(20):
        requests = talk.model.sent("response.create")
        error(talk, "insufficient_quota", requests[-1]["event_id"])
        talk.wait(1)
    assert [type(end) for end in talk.ends] == [ConversationOver]


def test_a_model_that_fails_every_response_is_lost() -> None:
    talk = Talk(speaks_first=True).start()
    talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(1)
    talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(1)
    assert [type(end) for end in talk.ends] == [ConversationFailed]
    assert isinstance(talk.ends[0], ConversationFailed)
    assert talk.ends[0].kind is FailureKind.LOST


def test_a_turn_taken_over_a_speech_that_may_not_be_interrupted_is_answered_after_it() -> None:
    update = session_update({"type": "server_vad", "create_response": True, "interrupt_response": False})
    talk = Talk(interrupt_response=False, session_update=update).start()
    talk.does(lambda model: (model.respond(), model.say("A long speech", ms=2000, done=False)))
    turn(talk)
    talk.wait(12)
    assert len(talk.sessions) == 1, "a session that speaks is not dead"
    talk.does(lambda model: model.finish())
    talk.wait(3)
    assert talk.model.requests == 1


def test_a_server_that_never_says_that_the_caller_stopped_still_answers_keys() -> None:
    talk = Talk().start()
    item = talk.does(lambda model: model.speech_started())
    talk.frame(json.dumps({"type": "input_audio_buffer.committed", "item_id": item}).encode())
    talk.press("5#")
    talk.wait(2)
    assert talk.model.requests == 1


def test_keys_pressed_while_a_reply_is_on_its_way_take_it_back() -> None:
    talk = Talk(speaks_first=True).start()
    talk.press("5#")
    talk.does(lambda model: model.respond())
    assert talk.model.sent("response.cancel")
    talk.does(lambda model: model.finish("cancelled"))
    talk.wait(2)
    assert talk.model.requests == 2


def test_words_that_were_never_sounded_are_neither_told_nor_in_the_way() -> None:
    talk = Talk().start()
    response = talk.does(lambda model: model.respond())
    delta = {"type": "response.output_audio_transcript.delta", "response_id": response, "item_id": "m1", "delta": "Never heard"}
    talk.frame(json.dumps(delta).encode())
    item = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.finish("cancelled", "turn_detected"))
    talk.does(lambda model: model.speech_stopped(item))
    talk.does(lambda model: model.transcribed(item, "wait"))
    assert [line.text for line in talk.lines] == ["wait"]
    talk.lose()
    assert all("Never heard" not in text for _, text in talk.model.texts())


def test_two_deadlines_at_one_instant_do_not_stumble_over_each_other() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.call("hang_up"), model.finish()))
    talk.agent._deadlines = dict.fromkeys(("farewell", "ask", "answer"), talk.now + 1)
    talk.wait(2)
    assert [type(end) for end in talk.ends] == [ConversationOver]

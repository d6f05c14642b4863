"""What the caller notices of a model that is lost, stuck, or at the end of its session."""

from __future__ import annotations

import pytest

from switchhook.agents.conversation import ConversationFailed, FailureKind
from tests.agents.realtime.talk import LINE, Talk, well_behaved
from tests.peers.model import ModelSession


def say(talk: Talk, text: str) -> None:
    talk.does(lambda model: (model.respond(), model.say(text, ms=200), model.finish()))
    talk.wait(0.4)


def test_a_lost_model_is_replaced_once_with_the_text_so_far() -> None:
    talk = Talk(speaks_first=True).start()
    say(talk, "Hello")
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: model.transcribed(turn, "Two seats"))
    say(talk, "Booked")
    talk.connects = False
    talk.lose()
    talk.hear(b"k" * 160)
    talk.connect()
    assert talk.model.texts() == [("assistant", "Hello"), ("user", "Two seats"), ("assistant", "Booked")]
    assert bytes(talk.model.audio) == b"k" * 160
    assert talk.model.requests == 0, "the greeting is not said twice"
    talk.lose()
    assert [type(end) for end in talk.ends] == [ConversationFailed]
    end = talk.ends[0]
    assert isinstance(end, ConversationFailed)
    assert end.kind is FailureKind.LOST
    well_behaved(talk)


def say_first_item(model: ModelSession) -> None:
    """Two seconds of an item that has the same name in each session."""
    model.respond()
    item_id = model.add_item({"id": "item_1", "type": "message", "role": "assistant", "content": []})
    model.sound_ms[item_id] = 0
    model.speak(item_id, LINE, 2_000)
    model.end_speech(item_id, LINE)


def test_a_server_that_counts_its_items_anew_in_each_session_is_understood() -> None:
    """The next one's items have the names of earlier ones whose sound was cut off, whose line was told, whose call was run."""
    talk = Talk().start()
    for session in ("first", "second", "third"):
        call = talk.does(lambda model: (model.respond(), model.call("book", call_id="call_1"), model.finish()))[1]
        talk.returns(call, "table 7")
        talk.does(say_first_item)
        talk.wait(0.5)
        heard = len(talk.sound.strip(b"\xff"))
        turn = talk.does(lambda model: model.speech_started())
        model = talk.model
        model.speech_stopped(turn)
        model.transcribed(turn, f"The {session}")
        say(talk, f"Yes, {session}")
        talk.wait(61)
        assert heard > 2_000, session
        talk.sound.clear()
        assert [line.text for line in talk.lines[-3:]] == [talk.lines[0].text, f"The {session}", f"Yes, {session}"]
        assert talk.model.calls[call] == "table 7"
        talk.lose()
    assert len(talk.tools) == 3
    well_behaved(talk)


def hear_frames(talk: Talk, frame: bytes, seconds: float) -> bytes:
    """The caller sounds like this for so long; gives the sound."""
    for _ in range(round(seconds * 50)):
        talk.hear(frame * 160)
    return frame * 160 * round(seconds * 50)


def test_a_turn_that_the_lost_model_had_not_heard_to_its_end_is_heard_by_the_next() -> None:
    talk = Talk().start()
    hear_frames(talk, b"q", 3)
    lead_in = hear_frames(talk, b"l", 1)
    talk.does(lambda model: model.speech_started())
    before = hear_frames(talk, b"b", 2)
    talk.connects = False
    talk.lose()
    meanwhile = hear_frames(talk, b"m", 0.5)
    talk.connect()
    after = hear_frames(talk, b"a", 0.5)
    assert bytes(talk.model.audio) == lead_in + before + meanwhile + after
    assert talk.model.requests == 0, "nobody has finished a question"
    well_behaved(talk)


def test_what_a_lost_model_heard_before_nobody_spoke_stays_with_it() -> None:
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    hear_frames(talk, b"b", 2)
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: (model.respond(), model.say("Yes"), model.finish()))
    hear_frames(talk, b"q", 1)
    talk.lose()
    hear_frames(talk, b"a", 0.5)
    assert bytes(talk.model.audio) == b"a" * 160 * 25


def test_ten_seconds_of_a_turn_are_kept_at_most() -> None:
    talk = Talk().start()
    talk.does(lambda model: model.speech_started())
    hear_frames(talk, b"b", 20)
    end = hear_frames(talk, b"e", 10)
    talk.lose()
    assert bytes(talk.model.audio) == end


def test_a_turn_outlives_two_sessions() -> None:
    talk = Talk(roll_over_after_ms=1_000).start()
    talk.does(lambda model: model.speech_started())
    turn = hear_frames(talk, b"b", 2)
    talk.wait(241.5)
    assert len(talk.sessions) == 2, "a moment that was never quiet"
    assert bytes(talk.model.audio) == turn
    talk.does(lambda model: model.speech_started())
    talk.lose()
    assert bytes(talk.model.audio) == turn


def test_a_reply_that_was_owed_is_asked_of_the_new_session() -> None:
    talk = Talk(speaks_first=True).start()
    talk.lose()
    assert talk.model.requests == 1


def test_what_is_playing_while_the_model_is_lost_is_heard_and_an_interruption_harms_nothing() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=2000), model.finish()))
    talk.wait(0.5)
    talk.lose()
    talk.wait(0.5)
    assert len(talk.sound) >= 7_900
    talk.does(lambda model: model.speech_started())
    talk.wait(1)
    assert not talk.model.sent("conversation.item.truncate"), "the new session does not know the item"
    well_behaved(talk)


@pytest.mark.parametrize("detail", ["asked", "turn over"])
def test_a_model_that_makes_no_progress_is_replaced(detail: str) -> None:
    talk = Talk(speaks_first=detail == "asked").start()
    talk.wait(5 if detail == "turn over" else 0)
    if detail == "turn over":
        talk.does(lambda model: model.emit("input_audio_buffer.speech_stopped", item_id="i", audio_end_ms=1))
    talk.wait(9)
    assert len(talk.sessions) == 1
    talk.wait(1.5)
    assert len(talk.sessions) == 2


def test_a_quiet_caller_is_no_reason_to_doubt_the_model() -> None:
    talk = Talk(roll_over_after_ms=None).start()
    talk.wait(3600)
    assert len(talk.sessions) == 1
    assert talk.ends == []


def test_the_session_rolls_over_at_a_quiet_moment() -> None:
    talk = Talk(roll_over_after_ms=60_000).start()
    say(talk, "Hello")
    talk.wait(58)
    talk.does(lambda model: (model.respond(), model.say("Still talking", ms=5000, done=True)))
    talk.wait(3)
    assert len(talk.sessions) == 1
    talk.does(lambda model: model.finish())
    talk.wait(1)
    assert len(talk.sessions) == 1, "the sound still plays"
    talk.wait(3)
    assert len(talk.sessions) == 2
    assert talk.model.texts() == [("assistant", "Hello"), ("assistant", "Still talking")]
    assert talk.model.requests == 0
    talk.wait(200)
    assert len(talk.sessions) == 5
    assert talk.ends == []
    well_behaved(talk)


def test_a_moment_that_is_never_quiet_is_taken_after_four_minutes() -> None:
    talk = Talk(roll_over_after_ms=60_000).start()
    talk.does(lambda model: model.speech_started())
    talk.wait(60 + 239)
    assert len(talk.sessions) == 1
    talk.wait(2)
    assert len(talk.sessions) == 2


def test_an_expired_session_is_replaced() -> None:
    talk = Talk().start()
    talk.wait(3000)
    talk.frame(b'{"type":"error","error":{"code":"session_expired","message":"60 minutes"}}')
    assert len(talk.sessions) == 2
    assert talk.ends == []


def test_a_call_runs_and_is_answered_while_one_of_the_same_name_of_an_earlier_session_still_runs() -> None:
    """On servers that count: the earlier one's output is told as text, the new one's as the answer to its call."""
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.call("book", "Paris", call_id="call_1"), model.finish()))
    talk.lose()
    talk.does(lambda model: (model.respond(), model.call("book", "Rome", call_id="call_1"), model.finish()))
    first, second = [tool.call for tool in talk.tools]
    assert (first.arguments, second.arguments) == ("Paris", "Rome")
    talk.returns(second.call_id, "table 9")
    talk.returns(first.call_id, "table 7")
    assert talk.model.calls["call_1"] == "table 9"
    assert any("Paris" in text and "table 7" in text for _, text in talk.model.texts())
    well_behaved(talk)


def test_what_an_earlier_session_did_not_write_down_holds_up_no_line() -> None:
    """Its texts cannot come any more: neither of what the caller said, nor the rest of what the agent did."""
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(say_first_half)
    talk.lose()
    say(talk, "Hello")
    talk.wait(0.5)
    assert [line.text for line in talk.lines] == ["The kitchen closes", "Hello"]


def say_first_half(model: ModelSession) -> None:
    """Sound and some of its words; the rest never comes."""
    model.respond()
    item_id = model.add_item({"id": "item_9", "type": "message", "role": "assistant", "content": []})
    model.sound_ms[item_id] = 0
    model.speak(item_id, "The kitchen closes", 200)


def test_a_request_for_approval_is_denied_in_each_session_that_makes_it() -> None:
    """On servers that count, another request has the name of one that was denied."""
    talk = Talk().start()
    for _ in range(2):
        talk.does(lambda model: model.add_item({"id": "item_1", "type": "mcp_approval_request", "name": "delete_all"}))
        answers = [event["item"] for event in talk.model.sent("conversation.item.create")]
        assert [answer["approval_request_id"] for answer in answers if "approve" in answer] == ["item_1"]
        say(talk, "I may not do that")
        talk.wait(61)
        talk.lose()
    well_behaved(talk)

"""The caller hangs up while the model still writes down what they said last."""

from __future__ import annotations

import json
from functools import partial

from switchhook.agents.conversation import ConversationOver
from switchhook.domain.model import Speaker
from tests.agents.realtime.talk import EPOCH, Talk, session_update
from tests.peers.model import ModelSession


def _listens(talk: Talk) -> bool:
    return talk.up


def _both_are_told(talk: Talk, first: str, second: str) -> None:
    """The second turn was cut short and is committed; the texts of both come, and nothing more is waited for."""
    assert len(talk.model.sent("input_audio_buffer.commit")) == 1
    talk.does(lambda model: model.transcribed(first, "Book it."))
    talk.does(lambda model: model.transcribed(second, "Bye"))
    assert [line.text for line in talk.lines] == ["Book it.", "Bye"]
    assert not _listens(talk)


def test_words_spoken_just_before_the_hang_up_are_told() -> None:
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.feed(talk.agent.stop)
    assert talk.lines == []
    assert _listens(talk)
    talk.wait(1)
    talk.does(lambda model: model.transcribed(turn, "Cancel it, please. Bye!"))
    assert [(line.speaker, line.text) for line in talk.lines] == [(Speaker.CALLER, "Cancel it, please. Bye!")]
    assert not _listens(talk)
    assert talk.agent.deadline is None
    assert talk.agent.usage["transcription_ms"] == 2000


def test_a_turn_that_the_hang_up_cut_short_is_committed_and_told() -> None:
    """No sound comes any more, so that turn detection would wait for ever."""
    talk = Talk().start()
    talk.hear(b"w" * 160)
    turn = talk.does(lambda model: model.speech_started())
    talk.feed(talk.agent.stop)
    assert len(talk.model.sent("input_audio_buffer.commit")) == 1
    talk.does(lambda model: model.transcribed(turn, "No, wait"))
    assert [line.text for line in talk.lines] == ["No, wait"]
    assert not _listens(talk)


def test_a_server_that_makes_another_item_of_the_committed_sound() -> None:
    """The line keeps the time at which the caller began to say it."""
    talk = Talk().start()
    talk.does(lambda model: model.speech_started())
    talk.wait(4)
    talk.model.speaking = ""
    talk.model.audio += b"w" * 160
    talk.feed(talk.agent.stop)
    committed = talk.model.order[-1]
    talk.does(lambda model: model.transcribed(committed, "Bye"))
    assert [(line.text, line.at) for line in talk.lines] == [("Bye", EPOCH)]
    assert not _listens(talk)


def test_an_error_about_something_else_ends_no_wait() -> None:
    """A truncation that crossed the hang-up is refused just after it."""
    talk = Talk().start()
    talk.hear(b"w" * 160)
    turn = talk.does(lambda model: model.speech_started())
    talk.model.silent = True
    talk.feed(talk.agent.stop)
    talk.model.silent = False
    talk.does(lambda model: model.emit("error", error={"code": "invalid_value", "message": "no", "event_id": "another"}))
    assert _listens(talk)
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: model.transcribed(turn, "Bye"))
    assert [line.text for line in talk.lines] == ["Bye"]


def test_a_word_that_the_model_notices_after_the_hang_up() -> None:
    talk = Talk().start()
    first = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(first))
    talk.hear(b"w" * 160)
    talk.feed(talk.agent.stop)
    second = talk.does(lambda model: model.speech_started())
    _both_are_told(talk, first, second)


def test_a_turn_that_was_thrown_away_is_not_waited_for() -> None:
    """Another party is on the line now; what the first was saying was cleared."""
    talk = Talk().start()
    talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.emit("input_audio_buffer.cleared"))
    talk.feed(talk.agent.stop)
    assert not _listens(talk)


def test_the_words_before_the_agent_hung_up_are_told() -> None:
    """The goodbye is short, and its end comes before the text of what it answers."""
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: model.respond())
    talk.does(lambda model: model.call("hang_up"))
    talk.does(lambda model: model.finish())
    talk.does(lambda model: model.respond())
    talk.does(lambda model: model.say("Bye!", ms=100))
    talk.does(lambda model: model.finish())
    talk.wait(0.5)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    talk.feed(talk.agent.stop)
    assert _listens(talk)
    talk.does(lambda model: model.transcribed(turn, "Cancel it, bye."))
    assert talk.transcript() == [("caller", "Cancel it, bye."), ("agent", "Bye!")]
    assert not _listens(talk)
    assert [type(end) for end in talk.ends] == [ConversationOver]


def test_a_sound_too_short_to_be_committed_is_not_waited_for() -> None:
    talk = Talk().start()
    talk.does(lambda model: model.speech_started())
    talk.model.speaking = ""
    talk.feed(talk.agent.stop)
    assert [error.code for error in talk.model.errors] == ["input_audio_buffer_commit_empty"]
    assert not _listens(talk)
    assert talk.lines == []


def test_a_text_that_never_comes_is_waited_for_three_seconds() -> None:
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.feed(talk.agent.stop)
    talk.wait(2.9)
    assert _listens(talk)
    talk.wait(0.2)
    assert not _listens(talk)
    assert talk.lines == []
    assert talk.agent.deadline is None


def test_a_transcription_that_fails_and_a_model_that_is_lost_end_the_wait() -> None:
    for end in ("fails", "lost", "stopped again"):
        talk = Talk().start()
        turn = talk.does(lambda model: model.speech_started())
        talk.does(partial(ModelSession.speech_stopped, item_id=turn))
        talk.feed(talk.agent.stop)
        if end == "fails":
            kind = "conversation.item.input_audio_transcription.failed"
            talk.does(partial(ModelSession.emit, kind=kind, item_id=turn, error={"type": "x"}))
        elif end == "lost":
            talk.lose(True)
        else:
            talk.feed(talk.agent.stop)
        assert talk.agent.deadline is None, end
        assert len(talk.opened) == 1, "nobody needs another session"


def test_nobody_is_answered_after_the_call() -> None:
    """The server answers each turn; that answer would cost the customer money and reach nobody."""
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    heard = len(talk.sound)
    talk.feed(talk.agent.stop)
    talk.does(lambda model: model.respond())
    assert talk.model.active is None
    usage = {"total_tokens": 9, "input_tokens": 9}
    talk.does(lambda model: model.emit("response.done", response={"id": "r", "status": "cancelled", "usage": usage}))
    talk.does(lambda model: model.say("Sure!", ms=400))
    talk.press("1")
    talk.does(lambda model: model.transcribed(turn, "Bye"))
    talk.wait(5)
    assert [line.text for line in talk.lines] == ["Bye"]
    assert not any(byte != 0xFF for byte in talk.sound[heard:])
    assert talk.agent.usage["total"] == 9
    assert talk.model.texts() == []


def test_the_tokens_of_the_reply_that_the_hang_up_cut_short_are_counted() -> None:
    talk = Talk().start()
    response = talk.does(lambda model: model.respond())
    talk.does(lambda model: model.say("A long story", ms=400, done=False))
    talk.model.silent = True  # it takes a moment
    talk.feed(talk.agent.stop)
    assert _listens(talk)
    talk.model.silent = False
    usage = {"total_tokens": 50, "output_tokens": 50}
    done = {"id": response, "status": "cancelled", "usage": usage}
    talk.does(lambda model: model.emit("response.done", response=done))
    assert not _listens(talk)
    assert talk.agent.usage["output"] == 50


def test_without_transcription_no_words_are_waited_for() -> None:
    update = json.loads(session_update())
    del update["session"]["audio"]["input"]["transcription"]
    talk = Talk(session_update=json.dumps(update).encode(), transcribes_caller=False).start()
    talk.hear(b"w" * 160)
    talk.does(lambda model: model.speech_started())
    talk.feed(talk.agent.stop)
    assert not _listens(talk)
    assert talk.model.sent("input_audio_buffer.commit") == []


def test_a_turn_that_began_while_an_earlier_one_was_being_answered() -> None:
    """The server's answer to the first comes in just after it noticed the second."""
    talk = Talk(interrupt_response=False).start()
    first = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(first))
    second = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.respond())
    talk.feed(talk.agent.stop)
    _both_are_told(talk, first, second)


def test_an_item_of_a_server_that_goes_on_after_it_was_cleared() -> None:
    """Its words are whose they are when they come."""
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.emit("input_audio_buffer.cleared"))
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: model.transcribed(turn, "Sales, hello?"))
    assert talk.transcript() == [("caller", "Sales, hello?")]


def test_what_a_lost_session_was_hearing_is_nothing_to_the_next() -> None:
    """It counts its items anew, and clears its buffer."""
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.lose(True)
    talk.does(lambda model: model.respond())
    talk.does(lambda model: model.add_item({"id": turn, "type": "message", "role": "assistant", "content": []}))
    talk.model.sound_ms[turn] = 0
    talk.does(lambda model: model.speak(turn, "Hello there", 200, None))
    talk.does(lambda model: model.emit("input_audio_buffer.cleared"))
    talk.does(lambda model: model.end_speech(turn, "Hello there"))
    talk.does(lambda model: model.finish())
    talk.wait(1)
    assert talk.transcript() == [("agent", "Hello there")]

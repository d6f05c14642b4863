"""The end of a conversation in which nobody speaks any more, on a virtual clock."""

from __future__ import annotations

from typing import Any

from switchhook.agents.conversation import ConversationOver
from tests.agents.realtime.talk import Talk

LIMIT_S = 60.0


def idle_talk(**spec: Any) -> Talk:
    return Talk(idle_hang_up_ms=60_000, **spec).start()


def ended(talk: Talk) -> bool:
    assert talk.ends in ([], [ConversationOver("silence")])
    return bool(talk.ends)


def test_silence_of_both_sides_ends_the_conversation() -> None:
    talk = idle_talk()
    talk.wait(LIMIT_S - 0.1)
    assert not ended(talk)
    talk.wait(0.2)
    assert ended(talk)
    assert not talk.up
    assert talk.agent.deadline is None


def test_without_a_limit_silence_goes_on() -> None:
    talk = Talk(roll_over_after_ms=None).start()
    talk.wait(3600)
    assert not ended(talk)


def test_the_callers_speech_starts_the_time_anew_when_it_stops() -> None:
    talk = idle_talk()
    talk.wait(50)
    item = talk.does(lambda model: model.speech_started())
    talk.wait(70)
    assert not ended(talk), "the caller still speaks"
    talk.does(lambda model: model.speech_stopped(item))
    talk.does(lambda model: (model.respond(), model.finish()))
    talk.wait(LIMIT_S - 0.5)
    assert not ended(talk)
    talk.wait(1)
    assert ended(talk)


def test_the_time_counts_from_when_the_agents_sound_was_heard() -> None:
    talk = idle_talk(speaks_first=True)
    talk.does(lambda model: (model.respond(), model.say("A long story", ms=30_000), model.finish()))
    talk.wait(30 + LIMIT_S - 1)
    assert not ended(talk)
    talk.wait(1.5)
    assert ended(talk)


def test_a_running_tool_is_no_silence() -> None:
    talk = idle_talk()
    talk.does(lambda model: (model.respond(), model.call("lookup", "{}", call_id="call_1"), model.finish()))
    assert talk.tools
    talk.wait(LIMIT_S + 20)
    assert not ended(talk)
    talk.returns("call_1", "{}")
    talk.does(lambda model: (model.respond(), model.finish()))
    talk.wait(LIMIT_S - 1)
    assert not ended(talk)
    talk.wait(2)
    assert ended(talk)


def test_a_key_starts_the_time_anew() -> None:
    talk = idle_talk()
    talk.wait(50)
    talk.press("5#")
    talk.does(lambda model: (model.respond(), model.finish()))
    talk.wait(LIMIT_S - 1)
    assert not ended(talk)
    talk.wait(2)
    assert ended(talk)


def test_a_paused_agent_waits_as_long_as_it_takes() -> None:
    talk = idle_talk()
    talk.feed(talk.agent.pause)
    talk.wait(300)
    assert not ended(talk)
    talk.feed(lambda now: talk.agent.resume(talk.playout, now))
    talk.wait(LIMIT_S + 1)
    assert ended(talk)


def test_sound_that_is_not_the_agents_is_no_silence_either() -> None:
    """A greeting plays in the same playout."""
    talk = Talk(idle_hang_up_ms=60_000)
    talk.playout.enqueue("greeting", b"\xff" * 8000 * 20, talk.now)
    talk.playout.finish("greeting", talk.now)
    talk.start()
    talk.wait(20 + LIMIT_S - 1)
    assert not ended(talk)
    talk.wait(1.5)
    assert ended(talk)


def test_an_agent_whose_greeting_could_not_be_played_speaks_first() -> None:
    talk = Talk(connects=False).start()
    talk.feed(talk.agent.speak_first)
    talk.connect()
    talk.feed(lambda now: None)
    assert talk.model.requests == 1


def test_after_a_greeting_the_agent_waits_for_the_caller() -> None:
    talk = Talk(speaks_first=False).start()
    talk.wait(10)
    assert talk.model.requests == 0


def test_the_model_is_told_once_that_the_call_will_end() -> None:
    talk = Talk(closing_note_after_ms=55 * 60_000, closing_note="Four minutes left.", roll_over_after_ms=None).start()
    talk.wait(55 * 60 - 1)
    assert talk.model.texts() == []
    talk.wait(600)
    assert talk.model.texts() == [("system", "Four minutes left.")]
    assert talk.model.requests == 0, "it is told, not asked"

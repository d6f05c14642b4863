"""The agent between two parties: what is said to one is not said to the other, nor heard from it."""

from __future__ import annotations

from typing import Any

from switchhook.agents.conversation import ConsultTool
from switchhook.domain.model import Encoding
from switchhook.domain.plan import BuiltinTool
from switchhook.media.playout import Playout
from tests.agents.realtime.talk import Talk

TOOLS = (ConsultTool("complete_transfer", "Put the caller through."),)


def consulting(**spec: Any) -> Talk:
    talk = Talk(**spec).start()
    talk.feed(talk.agent.pause)
    talk.feed(lambda now: talk.agent.consult(talk.playout, "This is the destination.", TOOLS, now))
    return talk


def names_of_tools(talk: Talk) -> list[str]:
    return [tool["name"] for tool in talk.model.session.get("tools", [])]


def test_a_turn_that_one_party_had_begun_is_not_finished_by_the_other() -> None:
    talk = consulting()
    assert len(talk.model.sent("input_audio_buffer.clear")) == 1
    talk.feed(lambda now: talk.agent.resume(talk.playout, now))
    assert len(talk.model.sent("input_audio_buffer.clear")) == 2


def test_sound_that_waits_for_a_model_is_not_heard_as_another_partys() -> None:
    talk = Talk().start()
    talk.connects = False
    talk.lose()
    talk.hear(b"\x11" * 160)
    talk.feed(talk.agent.pause)
    talk.feed(lambda now: talk.agent.consult(talk.playout, "This is the destination.", TOOLS, now))
    talk.hear(b"\x22" * 160)
    talk.connect()
    assert bytes(talk.model.audio) == b"\x22" * 160


def test_a_destination_that_says_nothing_does_not_end_the_talk_with_the_caller() -> None:
    talk = consulting(idle_hang_up_ms=10_000)
    talk.does(lambda model: (model.respond(), model.say("Good morning", ms=500), model.finish()))
    talk.wait(50)
    assert talk.ends == []


def test_a_model_that_is_replaced_learns_with_whom_it_talks_until_it_talks_with_the_caller_again() -> None:
    talk = consulting()
    talk.lose()
    assert ("system", "This is the destination.") in talk.model.texts()
    assert names_of_tools(talk) == ["complete_transfer"]
    talk.does(lambda model: (model.respond(), model.finish()))
    talk.feed(lambda now: talk.agent.resume(talk.playout, now))
    assert names_of_tools(talk) == []
    talk.wait(61)
    talk.lose()
    assert ("system", "This is the destination.") not in talk.model.texts()
    assert names_of_tools(talk) == []


def test_after_a_pause_the_agent_is_heard_on_the_line_that_the_party_is_on_now() -> None:
    talk = Talk().start()
    talk.feed(talk.agent.pause)
    moved = Playout(Encoding.PCMU)
    talk.feed(lambda now: talk.agent.resume(moved, now))
    talk.does(lambda model: (model.respond(), model.say("Here I am", ms=500), model.finish()))
    assert not moved.idle
    assert talk.playout.idle


def test_a_goodbye_that_nobody_would_hear_is_not_asked_for() -> None:
    talk = Talk(builtin_tools={"hang_up": BuiltinTool.END_CONVERSATION}).start()
    talk.does(lambda model: (model.respond(), model.call("hang_up", '{"farewell":"Bye"}')))
    talk.feed(talk.agent.pause)
    talk.does(lambda model: model.finish("cancelled"))
    talk.wait(100)
    assert talk.model.requests == 0
    assert talk.ends == []


def test_an_answer_that_begins_when_nobody_listens_is_given_when_the_pause_is_over() -> None:
    talk = Talk(speaks_first=False).start()
    talk.press("1#")
    assert len(talk.model.sent("response.create")) == 1
    talk.feed(talk.agent.pause)
    talk.does(lambda model: model.respond())
    assert len(talk.model.sent("response.cancel")) == 1
    talk.feed(lambda now: talk.agent.resume(talk.playout, now))
    assert len(talk.model.sent("response.create")) == 2

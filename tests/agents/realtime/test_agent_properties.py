"""Whatever arrives and in whatever order: nothing raises, the protocol is kept, tools are answered once, and stop is the end."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from switchhook.agents.conversation import ConsultTool, ConversationFailed, ConversationOver
from switchhook.domain.model import Speaker
from tests.agents.realtime.talk import EPOCH, Talk
from tests.peers.model import ModelSession

NAMES = st.sampled_from(["book", "clock", "hang_up", "hang_up"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("respond")),
        st.tuples(st.just("say"), st.integers(0, 1500), st.booleans()),
        st.tuples(st.just("call"), NAMES, st.booleans()),
        st.tuples(st.just("finish"), st.sampled_from(["completed", "cancelled", "failed", "incomplete"])),
        st.tuples(st.just("speech_started")),
        st.tuples(st.just("speech_stopped")),
        st.tuples(st.just("transcribed")),
        st.tuples(st.just("mcp")),
        st.tuples(st.just("press"), st.sampled_from("019*#")),
        st.tuples(st.just("returns"), st.integers(0, 5)),
        st.tuples(st.just("hear")),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.7, 2.0, 12.0, 70.0])),
        st.tuples(st.just("lose"), st.booleans()),
        st.tuples(st.just("connect")),
        st.tuples(st.sampled_from(["pause", "consult", "resume", "told"])),
        st.tuples(st.just("expire")),
        st.tuples(st.just("error"), st.sampled_from(["x", "conversation_already_has_active_response"])),
    ),
    max_size=60,
)


class Chaos:
    """Turns a list of steps into inputs; what is impossible at the moment (a second response) is left out."""

    def __init__(self, **spec: Any) -> None:
        self.talk = Talk(speaks_first=True, roll_over_after_ms=90_000, **spec).start()
        self.turns: list[str] = []

    def do(self, step: tuple[Any, ...]) -> None:
        talk, (kind, *values) = self.talk, step
        if kind in ("wait", "press", "hear", "lose", "connect", "returns"):
            self.outside(kind, values)
        elif kind in ("pause", "consult", "resume", "told"):
            self.turn(kind)
        elif talk.up:
            talk.does(lambda model: self.model(model, kind, values))

    def outside(self, kind: str, values: list[Any]) -> None:
        talk = self.talk
        if kind == "wait":
            talk.wait(values[0])
        elif kind == "press":
            talk.press(values[0])
        elif kind == "hear":
            talk.hear(b"\x33" * 160)
        elif kind == "lose" and talk.opened and talk.waits_for_socket:
            talk.lose(values[0])
        elif kind == "connect" and talk.waits_for_socket and not talk.up:
            talk.connect()
        elif kind == "returns" and talk.tools:
            talk.returns(talk.tools[values[0] % len(talk.tools)].call.call_id, "output")

    def turn(self, kind: str) -> None:
        """The call has somebody else for the agent to talk with, or nobody, or news."""
        talk, agent = self.talk, self.talk.agent
        if kind == "pause":
            talk.feed(agent.pause)
        elif kind == "consult":
            talk.feed(lambda now: agent.consult(talk.playout, "somebody else", (ConsultTool("take", "Take it."),), now))
        elif kind == "resume":
            talk.feed(lambda now: agent.resume(talk.playout, now))
        else:
            talk.feed(lambda now: agent.told("a voicemail", now))

    def model(self, model: ModelSession, kind: str, values: list[Any]) -> None:
        if kind == "respond" and model.active is None:
            model.respond()
        elif kind in ("say", "call") or (kind == "finish" and model.active is not None):
            self.speak(model, kind, values)
        elif kind == "speech_started":
            self.turns.append(model.speech_started())
        elif kind == "speech_stopped" and self.turns:
            model.speech_stopped(self.turns[-1])
        elif kind == "transcribed" and self.turns:
            model.transcribed(self.turns[-1], "the caller's words")
        elif kind == "mcp":
            model.emit("response.mcp_call.completed", item_id="m", output_index=0)
        elif kind == "expire":
            model.emit("error", error={"code": "session_expired", "message": "over"})
        elif kind == "error":
            model.emit("error", error={"code": values[0], "message": "no"})

    def speak(self, model: ModelSession, kind: str, values: list[Any]) -> None:
        if model.active is None:
            model.respond()
        if kind == "say":
            model.say("some words that are spoken", ms=values[0], done=values[1])
        elif kind == "call":
            model.call(values[0], tell=values[1])
        else:
            model.finish(values[0])


def refusals(talk: Talk) -> list[str]:
    """What the model refused, but for a cancel that crossed the end of its response."""
    return [
        str(refusal) for session in talk.sessions for refusal in session.errors if refusal.code != "response_cancel_not_active"
    ]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, interrupts=st.booleans(), connects=st.booleans())
@example(
    steps=[("speech_started",), ("speech_stopped",), ("respond",), ("say", 500, True), ("wait", 0.05)],
    interrupts=True,
    connects=True,
)
def test_any_order_of_inputs(steps: list[tuple[Any, ...]], interrupts: bool, connects: bool) -> None:
    chaos = Chaos(interrupt_response=interrupts, connects=connects)
    talk = chaos.talk
    for step in steps:
        chaos.do(step)
    assert len(talk.ends) <= 1
    run = Counter(effect.call.call_id for effect in talk.tools)
    assert not run or max(run.values()) == 1
    ended_before = bool(talk.ends)
    for effect in list(talk.tools):
        talk.returns(effect.call.call_id, "output")
    if not ended_before:
        answered_in_text = sum("[Result of the tool" in text for session in talk.sessions for _, text in session.texts())
        answered = sum(output is not None for session in talk.sessions for output in session.calls.values())
        if talk.up and talk.model.session and not talk.ends:
            assert answered + answered_in_text >= len(talk.tools)
    talk.feed(talk.agent.stop)
    stopped_at = EPOCH + timedelta(seconds=talk.now - 100.0)
    heard, lines, ends = len(talk.sound), len(talk.lines), len(talk.ends)
    for step in steps[:10]:
        chaos.do(step)
    talk.wait(200)
    assert talk.agent.deadline is None
    assert not talk.up
    assert all(line.speaker is Speaker.CALLER or line.at <= stopped_at for line in talk.lines[lines:]), "nothing is said any more"
    assert len(talk.ends) == ends
    assert not any(byte != 0xFF for byte in talk.sound[heard:])
    assert len({line.order for line in talk.lines}) == len(talk.lines)
    assert [type(end) for end in talk.ends] in ([], [ConversationOver], [ConversationFailed])
    assert refusals(talk) == []


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.floats(), st.lists))
)
def test_no_frame_raises(data: object) -> None:
    talk = Talk().start()
    talk.frame(data if isinstance(data, bytes) else json.dumps(data).encode())
    assert talk.ends == []


KINDS = st.sampled_from(
    [
        "session.updated",
        "error",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.created",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.input_audio_transcription.failed",
        "response.created",
        "response.done",
        "response.output_item.done",
        "response.audio.delta",
        "response.output_audio.done",
        "response.audio_transcript.delta",
        "response.output_audio_transcript.done",
        "response.mcp_call.failed",
    ]
)
FIELD_NAMES = """item item_id response response_id id type status output call_id name arguments usage error delta transcript
previous_item_id content_index session audio input format code message"""
FIELDS = st.sampled_from(FIELD_NAMES.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "i1", "r1", "AAAA", "completed", "function_call", "message"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(st.tuples(KINDS, st.dictionaries(FIELDS, VALUES, max_size=5)), max_size=8))
def test_no_field_of_an_event_raises(events: list[tuple[str, dict[str, object]]]) -> None:
    talk = Talk().start()
    for kind, fields in events:
        if talk.up:
            talk.frame(json.dumps(fields | {"type": kind}).encode())
    talk.wait(5)
    talk.feed(talk.agent.stop)
    talk.wait(5)
    assert talk.agent.deadline is None

"""Whatever a client sends is handled or answered with an error; the session never raises, and stays within its rules."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.agents.brain import Action, CallTool, Say
from switchhook.agents.realtime.endpoint.session import _HANDLERS
from tests.agents.realtime.endpoint_case import LOUD, QUIET, Case, ScriptedBrain

ANSWERS: list[list[Action]] = [[Say("Hello.", "Hello.")], [CallTool("f", "{}"), Say("One moment.", "One moment.")], []]
TYPES = sorted(_HANDLERS)
FIELDS = [
    *("audio", "item", "item_id", "session", "response", "response_id", "content_index", "audio_end_ms", "previous_item_id"),
    *("event_id", "type", "id", "role", "content", "text", "transcript", "call_id", "output", "name", "arguments", "format"),
    *("instructions", "tools", "tool_choice", "input", "turn_detection", "transcription", "output_modalities", "rate", "voice"),
    *("threshold", "silence_duration_ms", "prefix_padding_ms", "idle_timeout_ms", "create_response", "conversation", "metadata"),
]
WORDS = [
    *("message", "function_call", "function_call_output", "user", "assistant", "system", "input_text", "output_text", "text"),
    *("input_audio", "realtime", "audio/pcm", "audio/pcmu", "g711_ulaw", "server_vad", "semantic_vad", "auto", "none", "root"),
    *("item_1", "item_2", "call_1", "resp_1", "function", "f", "AAAA", "ÿ", ""),
]
LEAVES = st.none() | st.booleans() | st.integers(-5, 100_000) | st.floats(allow_nan=False) | st.sampled_from(WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.builds(
    lambda kind, fields: {**fields, "type": kind}, st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), VALUES)
)


@settings(deadline=None)
@given(st.lists(st.one_of(EVENTS, VALUES), max_size=15))
def test_any_json_is_handled_or_answered_with_an_error(events: list[Any]) -> None:
    case = Case(ScriptedBrain(*ANSWERS))
    for event in events:
        case.does(lambda session, event=event: session.receive(json.dumps(event).encode(), case.now))  # type: ignore[misc]  # the default binds
        case.pass_time(0.05)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_with_an_error(frame: bytes) -> None:
    case = Case(ScriptedBrain())
    case.does(lambda session: session.receive(frame, case.now))
    assert case.types() == ["error"] or json.loads(frame)["type"] in TYPES


def appended(frames: str) -> dict[str, Any]:
    sound = b"".join(LOUD if frame == "#" else QUIET for frame in frames)
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()}


STEPS = st.one_of(
    st.sampled_from(["#" * 10, "." * 30, "#" * 5 + "." * 15]).map(appended),
    st.sampled_from(["response.create", "response.cancel", "input_audio_buffer.commit", "input_audio_buffer.clear"]).map(
        lambda kind: {"type": kind}
    ),
    st.sampled_from(["understood", "spoken", "mute", "wait", "long wait"]),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=40), st.booleans(), st.booleans())
def test_in_any_order_one_response_is_active_at_a_time_and_each_one_ends(steps: list[Any], create: bool, interrupt: bool) -> None:
    turns = {"type": "server_vad", "create_response": create, "interrupt_response": interrupt, "idle_timeout_ms": 6000}
    case = Case(ScriptedBrain(*ANSWERS * 20), turn_detection=turns)
    for step in [*steps, *["understood", "spoken", "long wait"] * 3]:
        if isinstance(step, dict):
            case.send(**{"kind" if key == "type" else key: value for key, value in step.items()})
        elif step == "understood":
            for place in range(len(case.hearings)):
                case.understood("hello", place)
        elif step in ("spoken", "mute") and case.speeches:
            job = case.speeches[-1].job
            sound = b"\x55" * 8000 if step == "spoken" else None
            case.does(lambda session, job=job, sound=sound: session.synthesized(job, sound, case.now))  # type: ignore[misc]  # defaults bind
        else:
            case.pass_time(5 if step == "long wait" else 0.1)
    active = 0
    for event in case.events:
        active += (event["type"] == "response.created") - (event["type"] == "response.done")
        assert active in (0, 1)
    created = [event["response"]["id"] for event in case.of("response.created")]
    done = [event["response"]["id"] for event in case.of("response.done")]
    assert created[: len(done)] == done and len(created) - len(done) <= 1
    items = [event["item"]["id"] for event in case.of("conversation.item.added")]
    assert len(items) == len(set(items))

"""Our Realtime server's protocol on a virtual clock, as a client notices it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from switchhook.agents.brain import CallTool, Say
from switchhook.agents.realtime.endpoint.reply import MAX_INPUT_ITEMS
from switchhook.domain.model import Encoding
from tests.agents.realtime.endpoint_case import PCMU, Case, ScriptedBrain

HELLO = Say("Good morning, how can I help you?", "Good morning, how can I help you?")
LOOK_UP = CallTool("look_up", '{"day": "Tuesday"}')
VAD: dict[str, Any] = {"type": "server_vad", "prefix_padding_ms": 100, "silence_duration_ms": 500}


def greeted(*answers: Any, **session: Any) -> Case:
    """A session whose first response has been sent and heard."""
    case = Case(ScriptedBrain([HELLO], *answers), **session)
    case.send("response.create")
    case.spoken(1000)
    case.pass_time(3)
    case.events.clear()
    return case


def test_a_response_has_the_events_of_ga_in_order_and_its_sound_comes_in_bursts() -> None:
    case = Case(ScriptedBrain([HELLO]))
    case.send("response.create")
    assert case.types() == ["response.created"]
    assert case.speeches[0].text == HELLO.spoken and case.speeches[0].encoding is Encoding.PCMU
    case.spoken(1000)
    assert case.types()[1:] == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
    ]
    began = case.now
    case.pass_time(0.2)
    assert case.types()[-6:] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert case.now - began < 0.5, "faster than it is heard"
    sound = b"".join(base64.b64decode(event["delta"]) for event in case.of("response.output_audio.delta"))
    assert sound == b"\x55" * 8000
    assert "".join(event["delta"] for event in case.of("response.output_audio_transcript.delta")) == HELLO.text
    response = case.last("response.done")["response"]
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["transcript"] == HELLO.text
    assert response["usage"]["output_token_details"] == {"text_tokens": 9, "audio_tokens": 20}
    assert response["usage"]["total_tokens"] == response["usage"]["input_tokens"] + response["usage"]["output_tokens"]


def test_a_spoken_turn_is_committed_understood_and_answered() -> None:
    case = greeted([HELLO], turn_detection=VAD)
    case.audio("." * 20 + "#" * 20)
    (started,) = case.of("input_audio_buffer.speech_started")
    assert started["audio_start_ms"] == 300
    case.audio("." * 24)
    assert len(case.hearings) == 1, "recognition begins in the pause, before the turn is over"
    case.understood("hello")
    assert not case.of("conversation.item.input_audio_transcription.completed")
    case.audio(".")
    assert case.types()[1:] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
    ]
    assert case.last("input_audio_buffer.speech_stopped")["audio_end_ms"] == 1300
    completed = case.last("conversation.item.input_audio_transcription.completed")
    assert (completed["transcript"], completed["item_id"]) == ("hello", started["item_id"])
    assert case.brain.told[-2:] == [("heard", "hello"), ("respond", "", "no tools")]
    assert len(case.hearings) == 1


def test_a_response_waits_for_the_words_and_speech_that_goes_on_is_one_turn() -> None:
    case = greeted([HELLO], turn_detection=VAD)
    case.audio("#" * 10 + "." * 15 + "#" * 10)
    assert case.types() == ["input_audio_buffer.speech_started"]
    case.understood("half a", place=0)
    case.audio("." * 25)
    assert case.types()[-1] == "response.created" and len(case.speeches) == 1
    assert len(case.hearings[-1].sound) > len(case.hearings[0].sound)
    case.understood("")
    assert case.last("conversation.item.input_audio_transcription.completed")["transcript"] == "[unclear]"
    assert case.brain.told[-2:] == [("heard", ""), ("respond", "", "no tools")]
    assert len(case.speeches) == 2


def test_barge_in_cancels_the_response_and_truncation_follows_what_was_sent() -> None:
    case = Case(ScriptedBrain([HELLO]), turn_detection=VAD)
    case.send("response.create")
    case.spoken(10_000)
    item_id = case.last("response.output_item.added")["item"]["id"]
    case.audio("###")
    assert case.types()[-7:] == [
        "input_audio_buffer.speech_started",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    response = case.last("response.done")["response"]
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"
    assert HELLO.text.startswith(response["output"][0]["content"][0]["transcript"])
    sent_ms = sum(len(base64.b64decode(event["delta"])) for event in case.of("response.output_audio.delta")) // 8
    assert sent_ms < 2000
    case.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=sent_ms + 1, event_id="mine")
    error = case.error()
    assert (error["type"], error["param"], error["event_id"]) == ("invalid_request_error", "audio_end_ms", "mine")
    case.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=150)
    assert case.last("conversation.item.truncated")["audio_end_ms"] == 150
    count = len(case.events)
    case.pass_time(1)
    assert len(case.events) == count, "nothing of a cancelled response follows"


def test_without_interruption_the_response_goes_on_and_the_turn_is_answered_after_it() -> None:
    case = Case(ScriptedBrain([HELLO], [HELLO]), turn_detection={**VAD, "interrupt_response": False})
    case.send("response.create")
    case.spoken(20_000)
    case.audio("#" * 5 + "." * 25)
    case.understood("hello")
    assert case.of("input_audio_buffer.committed") and len(case.of("response.created")) == 1
    case.pass_time(3)
    assert case.of("response.done")[0]["response"]["status"] == "completed"
    assert len(case.of("response.created")) == 2


def test_without_create_response_the_client_asks() -> None:
    case = greeted([HELLO], turn_detection={**VAD, "create_response": False})
    case.audio("#" * 5 + "." * 25)
    case.understood("hello")
    assert not case.of("response.created")
    case.send("response.create")
    assert case.of("response.created")


def test_without_turn_detection_the_client_commits() -> None:
    case = greeted([HELLO], turn_detection=None)
    case.audio("....")
    case.send("input_audio_buffer.commit")
    assert case.error()["code"] == "input_audio_buffer_commit_empty"
    case.audio("#" * 20)
    case.send("input_audio_buffer.commit")
    assert case.types() == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert len(case.hearings[-1].sound) == 24 * 160
    case.audio("#" * 20)
    case.send("input_audio_buffer.clear")
    assert case.types()[-1] == "input_audio_buffer.cleared"
    case.send("input_audio_buffer.commit")
    assert case.error()["code"] == "input_audio_buffer_commit_empty"


def test_a_tool_is_called_its_output_told_and_the_answer_spoken() -> None:
    tool = {"type": "function", "name": "look_up", "description": "", "parameters": {"type": "object"}}
    case = Case(ScriptedBrain([LOOK_UP, HELLO], [HELLO]), tools=[tool])
    assert case.brain.tools == ["look_up"]
    case.send("response.create")
    assert case.types() == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    call = case.last("response.output_item.done")["item"]
    assert (call["name"], call["arguments"], call["status"]) == ("look_up", LOOK_UP.arguments, "completed")
    case.spoken(300)
    assert [item["type"] for item in case.last("response.done")["response"]["output"]] == ["function_call", "message"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"free": true}'}
    case.send("conversation.item.create", item=output)
    assert case.brain.told[-1] == ("tool", "look_up", '{"free": true}')
    case.send("conversation.item.create", item={**output, "call_id": "call_unknown"})
    assert case.error()["code"] == "invalid_tool_call_id"
    case.send("response.create")
    assert case.brain.told[-1] == ("respond", "", "tools")


@pytest.mark.parametrize("own", [{"tools": []}, {"tool_choice": "none"}])
def test_a_response_may_have_instructions_of_its_own_and_no_tools(own: dict[str, Any]) -> None:
    tool = {"type": "function", "name": "look_up"}
    case = Case(ScriptedBrain([HELLO]), tools=[tool])
    case.send("response.create", response={"instructions": 'Say exactly this: "Goodbye."', **own})
    assert case.brain.told[-1] == ("respond", 'Say exactly this: "Goodbye."', "no tools")


@pytest.mark.parametrize(
    ("given", "code"), [([{}] * (MAX_INPUT_ITEMS + 1), "array_above_max_length"), ({}, "invalid_type"), ("hello", "invalid_type")]
)
def test_an_input_that_is_no_list_or_too_long_is_refused_and_begins_no_response(given: Any, code: str) -> None:
    case = Case(ScriptedBrain([HELLO]))
    case.send("response.create", response={"input": given}, event_id="mine")
    assert case.types() == ["error"]
    error = case.error()
    assert (error["type"], error["param"], error["event_id"]) == ("invalid_request_error", "response.input", "mine")
    assert error["code"] == code


@pytest.mark.parametrize("given", [None, [], [{}] * MAX_INPUT_ITEMS])
def test_an_input_within_the_bound_begins_a_response(given: Any) -> None:
    case = Case(ScriptedBrain([HELLO]))
    case.send("response.create", response={"input": given})
    case.spoken(100)
    assert case.last("response.done")["response"]["status"] == "completed"


def test_a_second_response_is_refused_and_the_first_can_be_cancelled_once() -> None:
    case = Case(ScriptedBrain([HELLO], [HELLO]))
    case.send("response.cancel", event_id="early")
    assert case.error()["code"] == "response_cancel_not_active"
    case.send("response.create")
    case.send("response.create")
    assert case.error()["code"] == "conversation_already_has_active_response"
    case.send("response.cancel", response_id="resp_of_another")
    assert case.error()["code"] == "response_cancel_not_active"
    case.send("response.cancel")
    assert case.last("response.done")["response"]["status_details"]["reason"] == "client_cancelled"
    case.events.clear()
    case.spoken(500)
    assert case.events == [], "the sound of a cancelled response is dropped"
    case.send("response.create")
    case.spoken(100)
    assert case.last("response.done")["response"]["status"] == "completed"


def test_a_voice_that_fails_fails_the_response() -> None:
    case = Case(ScriptedBrain([HELLO]))
    case.send("response.create")
    case.does(lambda session: session.synthesized(case.speeches[0].job, None, case.now))
    response = case.last("response.done")["response"]
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["type"] == "server_error"


def test_text_only_sessions_get_text() -> None:
    case = Case(ScriptedBrain([HELLO]), output_modalities=["text"])
    case.send(
        "conversation.item.create", item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    )
    assert case.brain.told[-1] == ("typed", "Hi")
    case.send("response.create")
    assert case.last("response.output_text.done")["text"] == HELLO.text
    assert case.last("response.done")["response"]["output"][0]["content"] == [{"type": "output_text", "text": HELLO.text}]


def test_an_out_of_band_response_leaves_no_item() -> None:
    case = Case(ScriptedBrain([HELLO]))
    case.send("response.create", response={"conversation": "none", "metadata": {"a": "b"}})
    case.spoken(100)
    response = case.last("response.done")["response"]
    assert response["conversation_id"] is None and response["metadata"] == {"a": "b"}
    assert not case.of("conversation.item.added")
    case.send("conversation.item.retrieve", item_id=response["output"][0]["id"])
    assert case.error()["code"] == "item_not_found"


def test_items_can_be_placed_retrieved_and_deleted() -> None:
    case = Case(ScriptedBrain())
    for name, after in (("b", None), ("a", "root"), ("c", "b")):
        content = [{"type": "output_text", "text": name}]
        item = {"id": name, "type": "message", "role": "assistant", "content": content}
        case.send("conversation.item.create", item=item, previous_item_id=after)
    assert [event["previous_item_id"] for event in case.of("conversation.item.added")] == [None, None, "b"]
    case.send("conversation.item.retrieve", item_id="c")
    assert case.last("conversation.item.retrieved")["item"]["content"][0]["text"] == "c"
    case.send("conversation.item.delete", item_id="c")
    assert case.types()[-1] == "conversation.item.deleted"
    case.send("conversation.item.retrieve", item_id="c")
    assert case.error()["code"] == "item_not_found"
    item = {"id": "a", "type": "message", "role": "system", "content": []}
    case.send("conversation.item.create", item=item)
    assert case.error()["code"] == "item_exists"
    case.send("conversation.item.create", item={**item, "id": "d"}, previous_item_id="nowhere")
    assert case.error()["param"] == "previous_item_id"


def test_silence_after_what_was_heard_triggers_the_idle_timeout() -> None:
    case = Case(ScriptedBrain([HELLO], [HELLO]), turn_detection={**VAD, "idle_timeout_ms": 5000})
    case.send("response.create")
    case.spoken(4000)
    case.audio("." * 100)
    case.pass_time(6.9)
    assert not case.of("input_audio_buffer.timeout_triggered"), "it counts from the end of playing"
    case.pass_time(0.2)
    assert case.of("input_audio_buffer.timeout_triggered") and case.of("input_audio_buffer.committed")
    assert case.brain.told[-2:] == [("silent",), ("respond", "", "no tools")]


def test_speech_stops_the_idle_timeout() -> None:
    case = greeted([HELLO], turn_detection={**VAD, "idle_timeout_ms": 5000})
    case.audio("#" * 5)
    case.pass_time(20)
    assert not case.of("input_audio_buffer.timeout_triggered")


def test_after_an_hour_the_session_expires() -> None:
    case = Case(ScriptedBrain())
    case.pass_time(3599)
    assert not case.events
    case.pass_time(2)
    assert case.error()["code"] == "session_expired"
    assert case.closed is not None and case.closed.code == 1001
    case.send("response.create")
    assert case.events == [] and case.session.deadline is None


@pytest.mark.parametrize(
    ("session", "param"),
    [
        (None, "session"),
        ({"type": "transcription"}, "session.type"),
        ({"colour": 1}, "session.colour"),
        ({"instructions": 5}, "session.instructions"),
        ({"output_modalities": ["video"]}, "session.output_modalities"),
        ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
        ({"tools": [{"type": "web"}]}, "session.tools[0].type"),
        ({"tool_choice": "maybe"}, "session.tool_choice"),
        ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "session.audio.input.format.type"),
        ({"audio": {"output": {"format": {"type": "audio/pcm", "rate": 8000}}}}, "session.audio.output.format.rate"),
        ({"audio": {"input": {"turn_detection": {"type": "magic"}}}}, "session.audio.input.turn_detection.type"),
        ({"audio": {"input": {"turn_detection": {"threshold": 2}}}}, "session.audio.input.turn_detection.threshold"),
        (
            {"audio": {"input": {"turn_detection": {"create_response": "no"}}}},
            "session.audio.input.turn_detection.create_response",
        ),
        (
            {"audio": {"input": {"turn_detection": {"silence_duration_ms": -1}}}},
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        ({"audio": {"sideways": {}}}, "session.audio.sideways"),
    ],
)
def test_a_bad_session_update_names_the_field_and_changes_nothing(session: Any, param: str) -> None:
    case = Case(ScriptedBrain())
    case.send("session.update", session=session, event_id="e1")
    error = case.error()
    assert (error["type"], error["param"], error["event_id"]) == ("invalid_request_error", param, "e1")


def test_the_session_is_shown_as_it_was_set() -> None:
    case = Case(ScriptedBrain())
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
    audio = {
        "input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}, "noise_reduction": {"type": "near_field"}},
        "output": {"voice": "marin", "speed": 1.2},
    }
    case.send("session.update", session={"tools": [tool], "instructions": "Be kind.", "audio": audio, "tracing": "auto"})
    session = case.last("session.updated")["session"]
    assert session["tools"] == [tool] and session["instructions"] == "Be kind." and session["tracing"] == "auto"
    assert session["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert session["audio"]["input"]["format"] == PCMU
    assert session["audio"]["output"] == {"format": PCMU, "voice": "marin", "speed": 1.2}


def test_the_flat_names_of_beta_are_read() -> None:
    case = Case(ScriptedBrain())
    beta: dict[str, Any] = {
        "modalities": ["text", "audio"],
        "voice": "alloy",
        "input_audio_format": "g711_alaw",
        "output_audio_format": "pcm16",
    }
    beta |= {"turn_detection": None, "input_audio_transcription": {"model": "whisper-1"}, "temperature": 0.8}
    case.send("session.update", session=beta)
    audio = case.last("session.updated")["session"]["audio"]
    assert audio["input"]["format"] == {"type": "audio/pcma"} and audio["input"]["turn_detection"] is None
    assert audio["output"]["format"] == {"type": "audio/pcm", "rate": 24000} and audio["output"]["voice"] == "alloy"


def test_wideband_sound_is_heard_too() -> None:
    pcm = {"type": "audio/pcm", "rate": 24000}
    case = Case(ScriptedBrain([HELLO]), turn_detection=None)
    case.send("session.update", session={"audio": {"input": {"format": pcm}, "output": {"format": pcm}}})
    case.send("input_audio_buffer.append", audio=base64.b64encode(bytes(48 * 500 + 1)).decode())
    case.send("input_audio_buffer.commit")
    assert case.hearings[-1].encoding is Encoding.PCMU
    assert abs(len(case.hearings[-1].sound) - 8 * 500) <= 24
    case.send("response.create")
    case.understood("")
    case.spoken(100)
    sound = base64.b64decode(case.last("response.output_audio.delta")["delta"])
    assert len(sound) == 4800


def test_sound_inside_an_item_is_understood_before_the_answer() -> None:
    case = Case(ScriptedBrain([HELLO]), turn_detection=None)
    content = [{"type": "input_audio", "audio": base64.b64encode(b"\x55" * 4000).decode()}]
    case.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert "audio" not in case.last("conversation.item.added")["item"]["content"][0]
    case.send("response.create")
    assert not case.speeches
    case.understood("hello")
    assert case.speeches


def test_unknown_events_and_garbage_are_answered_with_an_error() -> None:
    case = Case(ScriptedBrain())
    for frame in (b"", b"{", b"[]", b"{}", b'{"type": 3}', b'{"type": "nope"}', b"\xff\xfe", b"[" * 100_000):
        case.does(lambda session, frame=frame: session.receive(frame, case.now))  # type: ignore[misc]  # a default argument is no part of the type
        assert case.error()["type"] == "invalid_request_error"
    case.does(lambda session: session.refuse_frame())
    assert case.error()["code"] == "invalid_json"

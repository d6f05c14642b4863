"""What the caller, the model and the customer's tools notice of the Realtime agent."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from switchhook.agents.conversation import ConversationFailed, ConversationOver, FailureKind
from switchhook.domain.model import Encoding
from tests.agents.realtime.talk import EPOCH, Talk, session_update
from tests.peers.model import ModelSession

LINE = "The kitchen closes at ten tonight so come early"


def well_behaved(talk: Talk) -> None:
    assert [str(error) for session in talk.sessions for error in session.errors] == []


# -- the session ---------------------------------------------------------------------------------


def test_the_session_goes_out_unchanged_and_the_agent_speaks_first() -> None:
    talk = Talk(speaks_first=True).start()
    assert talk.model.sent("session.update") == [json.loads(session_update())]
    assert len(talk.model.sent("response.create")) == 1
    assert talk.opened[0].headers["Authorization"] == "Bearer sk-secret-key"
    well_behaved(talk)


def test_the_caller_is_kept_until_the_session_is_ready_and_then_heard_in_order() -> None:
    talk = Talk(connects=False).start()
    spoken = [bytes([number]) * 160 for number in range(50)]
    for frame in spoken:
        talk.hear(frame)
    talk.connect()
    assert bytes(talk.model.audio) == b"".join(spoken)
    assert talk.model.appends == 5
    talk.hear(b"x" * 160)
    assert bytes(talk.model.audio[-160:]) == b"x" * 160


def test_a_greeting_is_asked_for_before_the_callers_early_words_arrive() -> None:
    talk = Talk(connects=False, speaks_first=True).start()
    talk.hear(b"h" * 160)
    order: list[str] = []
    talk.connects = True
    original = ModelSession.receive

    def noting(session: ModelSession, text: str | bytes) -> None:
        order.append(json.loads(text)["type"])
        original(session, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelSession, "receive", noting)
        talk.connect()
    assert order == ["session.update", "response.create", "input_audio_buffer.append"]


def test_a_minute_of_the_caller_is_kept_at_most() -> None:
    talk = Talk(connects=False).start()
    for number in range(3_100):
        talk.hear(bytes([number % 256]) * 160)
    talk.connect()
    assert len(talk.model.audio) == 60 * 8000
    assert talk.model.audio[-1] == 3_099 % 256
    assert any("oldest was dropped" in line for line in talk.logs)


@pytest.mark.parametrize(
    ("retryable", "opened"),
    [(True, 2), (False, 1)],
)
def test_a_model_that_cannot_be_reached_fails_the_conversation(retryable: bool, opened: int) -> None:
    talk = Talk(connects=False).start()
    for _ in range(opened):
        talk.lose(retryable)
    assert len(talk.opened) == opened
    assert isinstance(talk.ends[0], ConversationFailed)
    assert talk.ends[0].kind is FailureKind.NOT_ESTABLISHED


def test_a_session_that_is_never_updated_is_tried_twice() -> None:
    talk = Talk(connects=False).start()
    for _ in range(2):
        talk.up = True
        talk.sessions.append(ModelSession(lambda event: None))
        talk.feed(talk.agent.model_opened)
        talk.wait(6)
    assert len(talk.opened) == 2
    assert isinstance(talk.ends[0], ConversationFailed)
    assert talk.now - 100 < 15


@pytest.mark.parametrize(
    ("line", "asked", "echoed", "bytes_heard", "frames_played"),
    [
        (Encoding.PCMU, {"type": "audio/pcmu"}, None, 160, 20),
        (Encoding.PCMA, {"type": "audio/pcmu"}, None, 160, 20),
        (Encoding.PCMU, None, None, 960, 20),
        (Encoding.PCMU, {"type": "audio/pcmu"}, {"type": "audio/pcm", "rate": 24000}, 960, 20),
        (Encoding.PCMU, {"type": "audio/pcmu"}, {"type": "audio/opus"}, 160, 20),
    ],
)
def test_sound_is_transcoded_only_where_line_and_model_differ(
    line: Encoding, asked: dict[str, object] | None, echoed: dict[str, object] | None, bytes_heard: int, frames_played: int
) -> None:
    talk = Talk(encoding=line, session_update=session_update(heard=asked, spoken=asked), connects=False).start()
    talk.up = True
    talk.sessions.append(ModelSession(talk._from_model))
    if echoed is not None:
        talk.model.emit = lambda kind, **fields: None  # type: ignore[method-assign]  # this server tells its own formats
    talk.feed(talk.agent.model_opened)
    if echoed is not None:
        del talk.model.emit
        update = {"type": "session.updated", "session": {"audio": {"input": {"format": echoed}, "output": {"format": echoed}}}}
        if echoed["type"] == "audio/pcm":
            talk.model.session = update["session"]  # type: ignore[assignment]  # the test's own literal
        talk.frame(json.dumps(update).encode())
    talk.hear(b"\x7f" * 160)
    talk.hear(b"\x7f" * 160)
    assert abs(len(talk.model.audio) - 2 * bytes_heard) <= bytes_heard
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=400), model.finish()))
    talk.wait(1)
    assert abs(len(talk.sound) // 160 - frames_played) <= 1
    well_behaved(talk)


def test_beta_sessions_and_names_are_understood() -> None:
    update = {"session": {"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"}, "type": "session.update"}
    talk = Talk(session_update=json.dumps(update).encode(), beta=True).start()
    talk.hear(b"a" * 160)
    assert bytes(talk.model.audio) == b"a" * 160
    talk.does(lambda model: (model.respond(), model.say(LINE), model.finish()))
    talk.wait(1)
    assert talk.transcript() == [("agent", LINE)]
    assert bytes(talk.sound) == b"\x55" * 3200


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00\xff",
        b"[1]",
        b"null",
        b'{"type": 7}',
        b'{"type":"response.output_audio.delta"}',
        b'{"type":"response.output_audio.delta","delta":"!"}',
        b'{"type":"response.done"}',
        b'{"type":"response.done","response":{"id":[],"output":7,"usage":[]}}',
        b'{"type":"response.done","response":{"output":[{"type":"mcp_approval_request","id":{}}]}}',
        b'{"type":"response.created","response":"x"}',
        b'{"type":"input_audio_buffer.committed","item_id":"i","previous_item_id":{}}',
        b'{"type":"conversation.item.added","item":{"id":{}}}',
        b'{"type":"response.output_item.done","item":{"type":"function_call","status":"completed"}}',
        b'{"type":"error","error":"x"}',
        b'{"type":"error"}',
        b'{"type":"something.else.entirely"}',
        b'{"type":"response.output_audio_transcript.delta","item_id":"z","delta":"\\ud800"}',
        b'{"type":"x","y":' + b"[" * 100_000,
    ],
)
def test_garbage_from_the_model_changes_nothing(frame: bytes) -> None:
    talk = Talk().start()
    talk.frame(frame)
    talk.frame(frame)
    assert sum("could not be read" in line for line in talk.logs) <= 1
    talk.does(lambda model: (model.respond(), model.say(LINE), model.finish()))
    talk.wait(4)
    assert ("agent", LINE) in talk.transcript()


def test_a_sound_delta_without_a_response_id_is_heard() -> None:
    talk = Talk().start()
    talk.frame(b'{"type":"response.output_audio.delta","response_id":null,"item_id":"i","delta":"VVVV"}')
    talk.wait(0.2)
    assert len(talk.sound) == 160


def test_errors_are_logged_without_the_key() -> None:
    talk = Talk().start()
    talk.frame(b'{"type":"error","error":{"code":"invalid","message":"Incorrect API key provided: sk-secret-key."}}')
    assert any("invalid" in line for line in talk.logs)
    assert not any("sk-secret-key" in line for line in talk.logs)


# -- interruption --------------------------------------------------------------------------------


@pytest.mark.parametrize("heard_ms", range(0, 2000, 220))
def test_an_interruption_silences_truncates_and_cuts_the_line(heard_ms: int) -> None:
    talk = Talk().start()
    item = talk.does(lambda model: (model.respond(), model.say(LINE, ms=2000), model.finish()))[1]
    talk.wait(heard_ms / 1000 + 0.001)
    played = len(talk.sound)
    talk.does(lambda model: model.speech_started())
    talk.wait(1)
    assert len(talk.sound) == played
    truncated = talk.model.sent("conversation.item.truncate")
    assert [event["item_id"] for event in truncated] == [item]
    assert abs(truncated[0]["audio_end_ms"] - heard_ms) <= 20
    text = "".join(line.text for line in talk.lines)
    assert LINE.startswith(text)
    assert abs(len(text) - len(LINE) * heard_ms / 2000) <= 5
    assert all(line.interrupted for line in talk.lines)
    assert not talk.model.sent("response.cancel")
    well_behaved(talk)


def test_sound_of_an_interrupted_response_is_never_heard() -> None:
    talk = Talk().start()
    talk.does(lambda model: model.respond())
    item = talk.does(lambda model: model.say(LINE, ms=400, done=False))
    talk.wait(0.1)
    response = talk.model.active
    talk.does(lambda model: model.speech_started())
    played = len(talk.sound)
    late = {"type": "response.output_audio.delta", "response_id": response, "item_id": item, "delta": "VVVV" * 400}
    talk.frame(json.dumps(late).encode())
    talk.frame(json.dumps(late | {"item_id": "another"}).encode())
    talk.wait(1)
    assert len(talk.sound) == played


def test_what_was_heard_to_its_end_is_not_interrupted() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.say("First sentence", ms=400), model.say("And a second one", ms=2000)))
    talk.wait(0.6)
    talk.does(lambda model: model.speech_started())
    talk.wait(1)
    assert (talk.lines[0].text, talk.lines[0].interrupted) == ("First sentence", False)
    assert talk.lines[1].interrupted
    assert len(talk.model.sent("conversation.item.truncate")) == 1


def test_a_session_without_interruption_lets_the_agent_finish() -> None:
    detection = {"type": "server_vad", "interrupt_response": False}
    talk = Talk(session_update=session_update(detection), interrupt_response=False).start()
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=1000)))
    talk.wait(0.3)
    talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.finish())
    talk.wait(1)
    assert len(talk.sound) == 8000
    assert not talk.model.sent("conversation.item.truncate") + talk.model.sent("response.cancel")
    assert talk.transcript() == [("agent", LINE)]


def test_a_response_that_was_asked_for_as_the_caller_began_to_speak_is_taken_back() -> None:
    talk = Talk(speaks_first=True).start()
    talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.respond())
    assert len(talk.model.sent("response.cancel")) == 1
    talk.does(lambda model: model.speech_stopped("item_caller"))
    talk.does(lambda model: (model.respond(), model.say("Hello to you too"), model.finish()))
    talk.wait(4)
    assert talk.transcript() == [("agent", "Hello to you too")]
    assert len(talk.model.sent("response.create")) == 1
    well_behaved(talk)


# -- tools ---------------------------------------------------------------------------------------


def test_parallel_tools_run_at_once_and_are_followed_by_one_response() -> None:
    talk = Talk().start()
    first, second = talk.does(lambda model: (model.respond(), model.call("a", '{"x":1}'), model.call("b")))[1:]
    assert [tool.call.name for tool in talk.tools] == ["a", "b"]
    talk.returns(first, "one")
    talk.does(lambda model: model.finish())
    assert talk.model.requests == 0
    talk.returns(second, "two")
    talk.returns(second, "again")
    assert talk.model.calls == {first: "one", second: "two"}
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_quick_tool_does_not_ask_for_a_response_while_a_later_call_of_the_same_response_runs() -> None:
    talk = Talk().start()
    quick = talk.does(lambda model: (model.respond(), model.call("quick")))[1]
    talk.returns(quick, "done")
    slow = talk.does(lambda model: (model.call("slow"), model.finish()))[0]
    talk.wait(5)
    assert talk.model.requests == 0
    talk.returns(slow, "done too")
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_result_that_the_lost_model_never_spoke_of_is_told_to_the_next() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("book", '{"seats":2}'), model.finish()))[1]
    talk.returns(call, "table 7")
    talk.lose()
    assert any("table 7" in text for _, text in talk.model.texts())
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_runaway_model_gets_errors_instead_of_tools() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), [model.call("loop") for _ in range(40)], model.finish()))
    assert len(talk.tools) == 32
    assert sum("Too many" in (output or "") for output in talk.model.calls.values()) == 8
    well_behaved(talk)


def test_a_tools_output_with_half_a_surrogate_pair_is_delivered() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a"), model.finish()))[1]
    talk.returns(call, "smile \ud83d!")
    assert talk.model.calls[call] == "smile ?!"


@pytest.mark.parametrize("status", ["completed", "cancelled", "incomplete"])
@pytest.mark.parametrize("tell", [True, False])
def test_a_tool_runs_once_whatever_becomes_of_its_response(status: str, tell: bool) -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("book", tell=tell)))[1]
    talk.does(lambda model: model.finish(status))
    assert [tool.call.call_id for tool in talk.tools] == [call]
    talk.returns(call, "booked")
    assert talk.model.calls[call] == "booked"
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_call_that_was_not_finished_does_not_run() -> None:
    talk = Talk().start()
    item = {"type": "function_call", "call_id": "c", "name": "book", "arguments": '{"half', "status": "incomplete"}
    talk.frame(json.dumps({"type": "response.output_item.done", "response_id": "r", "item": item}).encode())
    assert talk.tools == []


def test_a_tools_answer_waits_for_the_response_that_asked() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a")))[1]
    talk.returns(call, "done")
    assert talk.model.requests == 0
    talk.does(lambda model: model.finish())
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_late_result_waits_for_the_caller_and_the_models_own_answer_is_enough() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a"), model.finish()))[1]
    turn = talk.does(lambda model: model.speech_started())
    talk.returns(call, "late")
    assert talk.model.calls[call] == "late"
    talk.wait(2)
    assert talk.model.requests == 0
    talk.does(lambda model: model.speech_stopped(turn))
    talk.wait(0.5)
    talk.does(lambda model: (model.respond(), model.say("Here it is"), model.finish()))
    talk.wait(5)
    assert talk.model.requests == 0


def test_a_server_that_never_names_our_items_is_not_asked_once_too_often() -> None:
    talk = Talk().start()
    talk.model.names_items = False
    talk.press("1#")
    talk.does(lambda model: (model.respond(), model.say("One"), model.finish()))
    assert talk.model.requests == 1
    talk.does(lambda model: model.emit("response.mcp_call.completed", item_id="m", output_index=0))
    talk.does(lambda model: (model.respond(), model.say("It goes on by itself"), model.finish()))
    talk.wait(5)
    assert talk.model.requests == 1


def test_a_late_result_is_spoken_of_when_the_model_does_not_answer_by_itself() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a"), model.finish()))[1]
    turn = talk.does(lambda model: model.speech_started())
    talk.returns(call, "late")
    talk.does(lambda model: model.speech_stopped(turn))
    talk.wait(0.9)
    assert talk.model.requests == 0
    talk.wait(0.2)
    assert talk.model.requests == 1


def test_a_result_that_comes_after_the_session_was_replaced_is_told_as_text() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("book"), model.finish()))[1]
    talk.lose()
    assert len(talk.sessions) == 2
    talk.returns(call, "table 7")
    assert any("table 7" in text for _, text in talk.model.texts())
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_refused_request_for_a_response_is_made_again_when_the_other_response_is_done() -> None:
    talk = Talk(speaks_first=True).start()
    request = talk.model.sent("response.create")[0]
    error = {"code": "conversation_already_has_active_response", "event_id": request.get("event_id"), "message": "busy"}
    talk.does(lambda model: model.respond())
    talk.frame(json.dumps({"type": "error", "error": error}).encode())
    talk.does(lambda model: model.finish())
    assert len(talk.sessions) == 1
    well_behaved(talk)


def test_a_request_refused_for_good_does_not_cost_the_session() -> None:
    talk = Talk(speaks_first=True).start()
    request = talk.model.sent("response.create")[0]
    talk.frame(json.dumps({"type": "error", "error": {"code": "nope", "event_id": request.get("event_id")}}).encode())
    talk.wait(60)
    assert len(talk.sessions) == 1
    assert talk.ends == []


def test_a_failed_response_that_said_nothing_is_tried_once_more() -> None:
    talk = Talk(speaks_first=True).start()
    talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(1)
    assert talk.model.requests == 2
    talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(5)
    assert talk.model.requests == 2
    well_behaved(talk)


# -- MCP -----------------------------------------------------------------------------------------


def test_mcp_approvals_are_denied_once() -> None:
    talk = Talk().start()
    request = {"id": "mcpr_1", "type": "mcp_approval_request", "name": "delete_all", "server_label": "s", "arguments": "{}"}
    talk.does(lambda model: model.add_item(request))
    done = {"type": "conversation.item.done", "item": request}
    talk.frame(json.dumps(done).encode())
    talk.frame(json.dumps({"type": "response.output_item.done", "response_id": "r", "item": request}).encode())
    answers = [event["item"] for event in talk.model.sent("conversation.item.create")]
    assert [(item["approval_request_id"], item["approve"]) for item in answers] == [("mcpr_1", False)]
    assert any("delete_all" in line for line in talk.logs)
    well_behaved(talk)


@pytest.mark.parametrize(("model_goes_on", "requests"), [(True, 0), (False, 1)])
def test_after_an_mcp_call_the_model_goes_on(model_goes_on: bool, requests: int) -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.finish()))
    talk.frame(b'{"type":"response.mcp_call.completed","item_id":"m","output_index":0}')
    if model_goes_on:
        talk.does(lambda model: (model.respond(), model.finish()))
    talk.wait(1.5)
    assert talk.model.requests == requests


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "told"), [("123#", "123"), ("42", "42"), ("*9#", "*9"), ("1" * 40, "1" * 32), ("#", "#")])
def test_keys_become_one_text(keys: str, told: str) -> None:
    talk = Talk().start()
    talk.press(keys)
    talk.wait(1.6)
    assert talk.model.texts()[0] == ("user", f"DTMF: {told}")
    assert talk.model.requests == 1
    assert ("caller", f"DTMF: {told}") in talk.transcript()
    well_behaved(talk)


def test_the_pause_between_keys_is_counted_from_the_last() -> None:
    talk = Talk().start()
    for key in "123":
        talk.press(key)
        talk.wait(1.2)
    assert talk.model.texts() == []
    talk.wait(0.4)
    assert talk.model.texts() == [("user", "DTMF: 123")]


def test_the_first_key_interrupts_and_the_model_is_asked_when_it_is_done() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=2000, done=False)))
    talk.wait(0.5)
    talk.press("1#")
    talk.wait(1)
    assert len(talk.model.sent("response.cancel")) == 1
    assert abs(talk.model.sent("conversation.item.truncate")[0]["audio_end_ms"] - 500) <= 20
    assert talk.model.requests == 1
    well_behaved(talk)


def test_keys_pressed_before_the_session_is_ready_are_not_lost() -> None:
    talk = Talk(connects=False, speaks_first=True).start()
    talk.press("5#")
    talk.connect()
    assert talk.model.texts() == [("user", "DTMF: 5")]
    assert talk.model.requests == 1


# -- the farewell --------------------------------------------------------------------------------


def ending(talk: Talk, arguments: str = '{"farewell":"So long"}') -> None:
    talk.does(lambda model: (model.respond(), model.call("hang_up", arguments), model.finish()))


def test_the_farewell_is_heard_in_full_before_the_call_ends() -> None:
    talk = Talk().start()
    ending(talk)
    assert talk.tools == []
    asked = talk.model.sent("response.create")[0]["response"]
    assert "So long" in asked["instructions"]
    assert (asked["tools"], asked["tool_choice"]) == ([], "none")
    talk.does(lambda model: (model.respond(), model.say("So long", ms=1000)))
    talk.does(lambda model: model.speech_started() if model.active is None else model.finish())
    talk.wait(1.2)
    assert talk.ends == [], "a phone plays the last of it a little later"
    talk.wait(0.2)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    assert len(talk.sound) == 8000
    assert talk.transcript() == [("agent", "So long")]
    well_behaved(talk)


def test_speech_during_the_farewell_does_not_cut_it() -> None:
    talk = Talk().start()
    ending(talk)
    talk.does(lambda model: (model.respond(), model.say("So long", ms=1000), model.finish()))
    talk.wait(0.4)
    talk.does(lambda model: model.speech_started())
    talk.hear(b"z" * 160)
    talk.press("1")
    talk.wait(1)
    assert len(talk.sound) == 8000
    assert not talk.model.sent("conversation.item.truncate")
    assert [type(end) for end in talk.ends] == [ConversationOver]


def test_a_farewell_that_was_cancelled_unheard_is_said_again() -> None:
    talk = Talk().start()
    ending(talk)
    talk.does(lambda model: model.respond())
    talk.does(lambda model: model.speech_started())
    assert talk.model.requests == 2
    talk.does(lambda model: (model.respond(), model.say("So long", ms=400), model.finish()))
    talk.wait(1)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    assert len(talk.sound) == 3200


def test_a_goodbye_is_never_waited_for_longer_than_fifteen_seconds() -> None:
    talk = Talk().start()
    ending(talk, "{broken")
    ending_at = talk.now
    talk.does(lambda model: model.respond())
    talk.wait(20)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    assert talk.now - ending_at <= 20.001


def test_long_speech_before_the_goodbye_does_not_cut_the_goodbye() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=14_000), model.call("hang_up"), model.finish()))
    talk.does(lambda model: (model.respond(), model.say("So long", ms=2000), model.finish()))
    talk.wait(20)
    assert len(talk.sound) == 16_000 * 8
    assert [type(end) for end in talk.ends] == [ConversationOver]


def test_the_models_own_answer_does_not_follow_the_goodbye() -> None:
    talk = Talk().start()
    ending(talk)
    talk.does(lambda model: (model.respond(), model.say("So long", ms=1000), model.finish()))
    talk.does(lambda model: model.respond())
    assert len(talk.model.sent("response.cancel")) == 1
    talk.wait(2)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    well_behaved(talk)


@pytest.mark.parametrize("heard_ms", [0, 1000])
def test_a_model_lost_during_the_farewell_ends_the_call_when_its_sound_was_heard(heard_ms: int) -> None:
    talk = Talk().start()
    ending(talk)
    if heard_ms:
        talk.does(lambda model: (model.respond(), model.say("So long", ms=heard_ms, done=False)))
    talk.lose()
    talk.wait(2)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    assert len(talk.sound) == heard_ms * 8
    assert len(talk.sessions) == 1


def test_ending_twice_ends_once() -> None:
    talk = Talk().start()
    calls = talk.does(lambda model: (model.respond(), model.call("hang_up"), model.call("hang_up"), model.finish()))
    assert [talk.model.calls[call] for call in calls[1:3]] == ['{"status":"ending"}'] * 2
    talk.does(lambda model: (model.respond(), model.say("Bye"), model.finish()))
    talk.wait(20)
    assert [type(end) for end in talk.ends] == [ConversationOver]
    assert talk.model.requests == 1


# -- the transcript ------------------------------------------------------------------------------


def test_lines_follow_the_conversation_although_transcriptions_come_late() -> None:
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.wait(1)
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: (model.respond(), model.say("Nine", ms=200), model.finish()))
    talk.wait(2)
    assert talk.lines == []
    talk.does(lambda model: model.transcribed(turn, "When do you open?"))
    talk.wait(0.1)
    assert talk.transcript() == [("caller", "When do you open?"), ("agent", "Nine")]
    assert talk.lines[0].at == EPOCH
    assert talk.lines[1].at == EPOCH + timedelta(seconds=1)


def test_a_transcription_that_never_comes_holds_a_line_three_seconds() -> None:
    talk = Talk().start()
    turn = talk.does(lambda model: model.speech_started())
    talk.does(lambda model: model.speech_stopped(turn))
    talk.does(lambda model: (model.respond(), model.say("Nine", ms=200), model.finish()))
    talk.wait(3.5)
    assert talk.transcript() == [("agent", "Nine")]
    talk.does(lambda model: (model.respond(), model.say("Ten", ms=200), model.finish()))
    talk.wait(0.5)
    assert talk.transcript() == [("agent", "Nine"), ("agent", "Ten")]
    talk.does(lambda model: model.transcribed(turn, "Open?"))
    assert talk.transcript()[0] == ("caller", "Open?")


def test_a_hang_up_closes_the_line_with_what_was_heard() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.say(LINE, ms=2000), model.finish()))
    talk.wait(1)
    talk.feed(talk.agent.stop)
    assert len(talk.lines) == 1
    assert LINE.startswith(talk.lines[0].text)
    assert abs(len(talk.lines[0].text) - len(LINE) / 2) <= 5
    assert not talk.up
    talk.feed(talk.agent.stop)
    talk.wait(100)
    assert talk.agent.deadline is None


def test_text_that_nobody_heard_is_no_line() -> None:
    talk = Talk().start()
    talk.does(lambda model: model.respond())
    for kind in ("response.output_text.delta", "response.output_text.done"):
        talk.frame(json.dumps({"type": kind, "item_id": "t", "delta": "hm", "text": "hm"}).encode())
    talk.does(lambda model: model.finish())
    talk.wait(5)
    talk.feed(talk.agent.stop)
    assert talk.lines == []


# -- loss, roll-over, watchdogs ------------------------------------------------------------------


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
    talk.wait(245)
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


# -- usage ---------------------------------------------------------------------------------------


def test_usage_is_summed_and_may_be_absent() -> None:
    talk = Talk().start()
    usage = {
        "total_tokens": 30,
        "input_tokens": 20,
        "output_tokens": 10,
        "input_token_details": {
            "text_tokens": 5,
            "audio_tokens": 15,
            "cached_tokens_details": {"text_tokens": 2, "audio_tokens": 3},
        },
        "output_token_details": {"text_tokens": 4, "audio_tokens": 6},
    }
    for given in (usage, None, usage, {"total_tokens": "x"}):
        talk.does(lambda model, given=given: (model.respond(), model.finish(usage=given)))  # type: ignore[misc]  # lambda default
    counted = talk.agent.usage
    assert (counted["total"], counted["input_text"], counted["input_audio"]) == (60, 10, 30)
    assert (counted["cached_text"], counted["cached_audio"]) == (4, 6)
    assert (counted["output_text"], counted["output_audio"]) == (8, 12)

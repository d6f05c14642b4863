"""What the caller, the model and the customer's tools notice of the Realtime agent."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from switchhook.agents.conversation import ConversationFailed, ConversationOver, FailureKind
from switchhook.domain.model import Encoding
from tests.agents.realtime.talk import EPOCH, LINE, Talk, session_update, well_behaved
from tests.peers.model import ModelSession

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

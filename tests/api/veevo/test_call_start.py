"""onCallStart: what is posted, and what each kind of reply becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.contract import BodySignature, HttpFailure, HttpOutcome, HttpReply
from switchhook.domain.model import CallId
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import Answer, BuiltinTool, CallPlan, CarrierCredentials, HangUp, Refusal, Say
from tests.api.veevo.cases import (
    SID,
    STARTED,
    VEEVO,
    attempt,
    configuration,
    conversation,
    number,
    plan_of,
    recorded,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = (
    *("twilioAccountSid", "twilioAuthToken", "openaiApiKey", "systemPrompt", "onToolCallUrl", "voice", "model"),
    *("vadEagerness", "noiseReduction", "inactivityTimeoutMs", "greetingUrl", "tools", "metadata"),
    *("reject", "rejected", "action", "status", "reason", "message"),
)


def posted(dialect: str, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VEEVO.start_request(number(dialect=dialect), attempt(**fields)).body)
    return found


def session_of(plan: CallPlan) -> dict[str, Any]:
    event = json.loads(conversation(plan).agent.session_update)
    assert event["type"] == "session.update"
    session: dict[str, Any] = event["session"]
    return session


def refused(outcome: HttpOutcome) -> Refusal:
    decision = VEEVO.read_start_outcome(number(), attempt(), outcome)
    assert isinstance(decision, Refusal)
    assert not decision.end_webhook_owed
    return decision


def test_the_request_is_the_documented_one_byte_for_byte() -> None:
    request = VEEVO.start_request(number(dialect="2026-04"), attempt())
    assert request.body == recorded("on_call_start_request.json")
    assert request.url == "https://backend.example/calls/start"
    assert request.headers == {"Content-Type": "application/json"}
    assert request.sign == BodySignature("acme", "X-Veevo-Signature")
    assert (request.method, request.timeout_s, request.retry_unsent) == ("POST", 10, True)


@pytest.mark.parametrize(
    ("dialect", "names"),
    [("both", ["callerPhone", "callerNumber"]), ("2026-04", ["callerPhone"]), ("newer", ["callerNumber"])],
)
def test_the_caller_has_the_name_of_each_generation_of_the_documents(dialect: str, names: list[str]) -> None:
    body = posted(dialect)
    assert list(body) == ["callSid", *names, "calledNumber", "timestamp"]
    assert {body[name] for name in names} == {"+19805551234"}


def test_numbers_are_e164_and_what_is_none_stays() -> None:
    body = posted("both", called="5551234567;npdi", caller="anonymous")
    assert (body["calledNumber"], body["callerPhone"]) == ("+15551234567", "anonymous")
    assert posted("both", called="reception")["calledNumber"] == "reception"
    assert posted("both", caller="9805551234")["callerNumber"] == "+19805551234"


def test_a_twilio_call_keeps_its_own_sid_and_any_other_gets_one_of_its_id() -> None:
    own = "CA" + "ab" * 16
    assert posted("both", line="twilio", line_call_id=own)["callSid"] == own
    assert posted("both", line_call_id="abc@host")["callSid"] == SID
    odd = posted("both", call_id=CallId("call-1"))["callSid"]
    assert len(odd) == 34
    assert odd == posted("both", call_id=CallId("call-1"))["callSid"]


def test_the_documented_reply_becomes_the_documented_session() -> None:
    plan = plan_of(recorded("on_call_start_reply.json"))
    spec = conversation(plan).agent
    assert plan.flow[0] == Answer()
    assert plan.flow[-1] == HangUp()
    assert isinstance(conversation(plan).on_failure[0], Say)
    assert spec.url == "wss://api.openai.com/v1/realtime?model=gpt-realtime-1.5"
    assert spec.headers == {"Authorization": "Bearer sk-canary-openai-key"}
    assert (spec.speaks_first, spec.transcribes_caller, spec.idle_hang_up_ms) == (True, True, 60_000)
    assert (spec.roll_over_after_ms, spec.closing_note_after_ms, plan.max_seconds) == (None, 55 * 60_000, 59 * 60)
    assert session_of(plan) == {
        "type": "realtime",
        "model": "gpt-realtime-1.5",
        "instructions": "You are a helpful assistant for...",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {
                    "type": "semantic_vad",
                    "eagerness": "high",
                    "create_response": True,
                    "interrupt_response": True,
                },
                "transcription": {"model": "gpt-4o-mini-transcribe"},
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
        },
        "tools": [],
        "tool_choice": "auto",
    }
    assert plan.carrier_credentials == CarrierCredentials("ACcanary-sid", "canary-twilio-token")
    assert plan.journal.transcript
    assert plan.notes == ()


def test_left_out_fields_get_the_documented_defaults() -> None:
    bare = plan_of(configuration(voice=..., model=..., tools=...))
    assert session_of(bare) == session_of(plan_of(configuration()))


@pytest.mark.parametrize(
    ("given", "wanted", "noted"),
    [
        ({"voice": "next-years-voice"}, ("next-years-voice", "high", "near_field"), False),
        ({"vadEagerness": "auto", "noiseReduction": "far_field"}, ("marin", "auto", "far_field"), False),
        ({"vadEagerness": "Low"}, ("marin", "low", "near_field"), False),
        ({"vadEagerness": "eager"}, ("marin", "high", "near_field"), True),
        ({"noiseReduction": 7}, ("marin", "high", "near_field"), True),
        ({"voice": None, "vadEagerness": None}, ("marin", "high", "near_field"), False),
        ({"voice": {"id": "x"}}, ("marin", "high", "near_field"), True),
    ],
)
def test_unknown_voices_pass_and_bad_words_give_the_default(
    given: dict[str, Any], wanted: tuple[str, str, str], noted: bool
) -> None:
    plan = plan_of(configuration(**given))
    audio = session_of(plan)["audio"]
    heard = audio["input"]
    assert (audio["output"]["voice"], heard["turn_detection"]["eagerness"], heard["noise_reduction"]["type"]) == wanted
    assert bool(plan.notes) is noted


def test_an_unknown_model_passes_through() -> None:
    plan = plan_of(configuration(model="gpt-realtime-9 beta"))
    assert session_of(plan)["model"] == "gpt-realtime-9 beta"
    assert conversation(plan).agent.url.endswith("?model=gpt-realtime-9%20beta")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("ws://127.0.0.1:9/v1/realtime", "ws://127.0.0.1:9/v1/realtime?model=gpt-realtime-1.5"),
        ("https://ai.example/rt?key=1", "wss://ai.example/rt?key=1&model=gpt-realtime-1.5"),
        ("wss://ai.example/rt?model=mine", "wss://ai.example/rt?model=mine"),
    ],
)
def test_the_numbers_own_ai_address_stands_in_the_place_of_openais(url: str, wanted: str) -> None:
    assert conversation(plan_of(configuration(), number(openai_url=url))).agent.url == wanted


@pytest.mark.parametrize(
    ("given", "wanted"), [(0, None), (15_000, 15_000), ("20000", 20_000), (-1, 60_000), ("soon", 60_000), (None, 60_000)]
)
def test_inactivity(given: object, wanted: int | None) -> None:
    assert conversation(plan_of(configuration(inactivityTimeoutMs=given))).agent.idle_hang_up_ms == wanted


def test_a_greeting_is_played_and_then_the_caller_speaks_first() -> None:
    plan = plan_of(configuration(greetingUrl="https://backend.example/hello.mp3"))
    assert conversation(plan).greeting_url == "https://backend.example/hello.mp3"
    assert not conversation(plan).agent.speaks_first
    broken = plan_of(configuration(greetingUrl="hello.mp3"))
    assert conversation(broken).greeting_url is None
    assert conversation(broken).agent.speaks_first


def test_tools_keep_their_text_and_the_nested_form_is_flattened() -> None:
    flat = '{"type":"function","name":"a","parameters":{"minimum":1.0,"x":1e400},"strict":true}'
    nested = '{"type":"function","function":{"name":"b","description":"d","parameters":{"type":"object"}}}'
    bare = '{"name":"c"}'
    body = configuration(tools=...)[:-1] + f',"tools":[{flat},{nested},{bare},{{"type":"function"}},7]}}'.encode()
    plan = plan_of(body)
    update = conversation(plan).agent.session_update.decode()
    assert flat in update
    tools = session_of(plan)["tools"]
    assert tools[1:] == [
        {"type": "function", "name": "b", "description": "d", "parameters": {"type": "object"}},
        {"type": "function", "name": "c"},
    ]
    assert sum("tools[" in note for note in plan.notes) == 3


def test_our_own_tools_are_ours_only_when_enabled_and_listed() -> None:
    listed = [{"type": "function", "name": name} for name in ("end_call", "transfer_call", "other")]
    assert conversation(plan_of(configuration(tools=listed))).agent.builtin_tools == {}
    enabled = number(builtin_tools=["end_call", "transfer_call"])
    assert conversation(plan_of(configuration(), enabled)).agent.builtin_tools == {}
    assert conversation(plan_of(configuration(tools=listed), enabled)).agent.builtin_tools == {
        "end_call": BuiltinTool.END_CONVERSATION,
        "transfer_call": BuiltinTool.TRANSFER_CALL,
    }


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"reject": True}, 603, None),
        ({"rejected": True, "reason": "busy"}, 486, None),
        ({"action": "reject", "reason": "closed"}, 603, None),
        ({"status": "rejected", "reason": "Busy"}, 486, None),
        ({"status": "REJECT"}, 603, None),
        ({"reject": True, "message": "We are closed."}, 0, "We are closed."),
    ],
)
def test_reject_forms(body: dict[str, Any], status: int, message: str | None) -> None:
    decision = VEEVO.read_start_outcome(number(), attempt(), HttpReply(200, json.dumps(body).encode()))
    assert decision.ending is Ending.REJECTED
    assert not decision.end_webhook_owed
    if isinstance(decision, Refusal):
        assert (decision.status, message) == (status, None)
    else:
        assert decision.flow == (Answer(), Say(message or ""), HangUp())


@pytest.mark.parametrize("body", [{"reject": False}, {"status": "ok"}, {"action": "accept"}, {"reject": "true"}])
def test_what_is_no_rejection_is_read_as_a_configuration(body: dict[str, Any]) -> None:
    assert isinstance(plan_of(configuration(**body)), CallPlan)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (HttpFailure("timeout", "backend.example:443 did not answer in 10 s"), "call-start-timeout"),
        (HttpFailure("unreachable", "no route"), "call-start-unreachable"),
        (HttpFailure("refused", "10.0.0.1"), "call-start-refused"),
        (HttpReply(500, b"{}"), "call-start-http-error"),
        (HttpReply(302, configuration()), "call-start-http-error"),
        (HttpReply(200, b"<html>"), "call-start-invalid-reply"),
        (HttpReply(200, b"[]"), "call-start-invalid-reply"),
        (HttpReply(200, b""), "call-start-invalid-reply"),
        (HttpReply(200, b"[" * 100_000), "call-start-invalid-reply"),
        (HttpReply(200, configuration(), truncated=True), "call-start-invalid-reply"),
        (HttpReply(200, configuration(onToolCallUrl="ftp://x")), "call-start-invalid-reply"),
        (HttpReply(200, configuration(openaiApiKey="sk-a\nb")), "call-start-invalid-reply"),
    ],
)
def test_without_a_usable_reply_the_call_is_never_answered(outcome: HttpOutcome, reason: str) -> None:
    refusal = refused(outcome)
    assert (refusal.status, refusal.ending, refusal.reason) == (480, Ending.CALL_START_FAILED, reason)


@pytest.mark.parametrize("name", ["twilioAccountSid", "twilioAuthToken", "openaiApiKey", "systemPrompt", "onToolCallUrl"])
def test_a_missing_required_field_is_named(name: str) -> None:
    refusal = refused(HttpReply(200, configuration(**{name: ...})))
    assert name in (refusal.message or "")
    assert "canary" not in (refusal.message or "")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_reply_gives_a_decision_and_tells_no_secret(fields: dict[str, Any]) -> None:
    body = json.dumps({**json.loads(configuration()), **fields}).encode()
    decision = VEEVO.read_start_outcome(number(), attempt(), HttpReply(200, body))
    assert "canary" not in repr(decision)
    if isinstance(decision, CallPlan):
        assert not any("canary" in note for note in decision.notes)


@pytest.mark.parametrize(
    "member",
    [b'"metadata":"\xff"', b'"tools":[{"type":"mcp","name":"\xff"}]', b'"tools":[{"name":"a","description":"\xed\xa0\x80"}]'],
)
def test_a_reply_that_is_no_utf_8_is_refused_wherever_it_is_not(member: bytes) -> None:
    body = configuration().removesuffix(b"}") + b"," + member + b"}"
    decision = VEEVO.read_start_outcome(number(), attempt(), HttpReply(200, body))
    assert isinstance(decision, Refusal)
    assert decision.reason == "call-start-invalid-reply"


@given(st.binary())
def test_any_bytes_give_a_decision(body: bytes) -> None:
    decision = VEEVO.read_start_outcome(number(), attempt(), HttpReply(200, body))
    assert isinstance(decision, Refusal)


def test_the_plan_shows_none_of_its_keys() -> None:
    plan = plan_of(configuration(metadata={"secret": "canary-metadata"}))
    assert "canary" not in repr(plan.contract_data)
    assert "canary-openai" not in repr(plan)
    assert "canary-twilio" not in repr(plan)
    assert STARTED.tzinfo is not None

"""CallStart: what is posted, and what each kind of reply becomes."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply
from switchhook.domain.model import Direction
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import Answer, BuiltinTool, CallPlan, Converse, HangUp, RecordingSpec, Refusal, RouteTo, Say
from tests.api.vns.cases import DATA, GUID, STARTED, VNS, attempt, conversation, number, plan_of, recorded, reply_with
from tests.api.vns.test_tolerant_json import JSON


def posted(**fields: Any) -> Any:
    settings = fields.pop("settings", {})
    return json.loads(VNS.start_request(number(**settings), attempt(**fields)).body)


def test_request_is_the_recorded_one_in_its_order() -> None:
    request = VNS.start_request(number(), attempt())
    expected = recorded("call_start_request.json")
    assert json.loads(request.body) == expected
    assert list(json.loads(request.body)) == list(expected)
    assert request.url == "https://backend.example/callstart"
    assert request.headers == {"Token": "canary-start", "Content-Type": "application/json"}
    assert (request.method, request.timeout_s, request.max_reply_bytes, request.retry_unsent) == ("POST", 10, 1 << 20, True)


def test_own_content_type_is_kept() -> None:
    webhook = {"url": "https://b.example/", "headers": {"content-type": "application/json; charset=utf-8"}}
    assert VNS.start_request(number(call_start=webhook), attempt()).headers == webhook["headers"]


@pytest.mark.parametrize(
    ("form", "called", "caller", "shown"),
    [
        ("national", "+17206999999", "+13032639999", ("7206999999", "3032639999")),
        ("national", "7206999999", "+442079460000", ("7206999999", "+442079460000")),
        ("e164", "7206999999", "13032639999", ("+17206999999", "+13032639999")),
        ("raw", "17206999999", "anonymous", ("17206999999", "anonymous")),
        ("national", "reception", "1001", ("reception", "1001")),
    ],
)
def test_number_forms(form: str, called: str, caller: str, shown: tuple[str, str]) -> None:
    body = posted(settings={"number_format": form}, called=called, caller=caller)
    assert (body["calledNumber"], body["callerId"]) == shown


def test_other_fields() -> None:
    body = posted(caller_name=None, direction=Direction.OUTBOUND, customer_call_id="abc123")
    assert body["callerIdName"] is None
    assert body["outboundTriggered"] is True
    assert body["customerCallId"] == "abc123"
    assert all(part.isdigit() for part in body["softwareVersion"].split("."))
    assert body["softwareVersion"].count(".") == 3


def test_time_is_utc_whatever_the_zone_of_the_clock() -> None:
    local = datetime(2026, 3, 12, 4, 42, 15, 999_999, tzinfo=timezone(timedelta(hours=-6)))
    assert posted(started_at=local)["callStart"] == "2026-03-12T10:42:15Z"


def test_a_full_reply_becomes_a_plan() -> None:
    plan = plan_of((DATA / "call_start_reply.json").read_bytes())
    assert plan.flow == (Answer(), conversation(plan), HangUp())
    agent = conversation(plan).agent
    assert agent.url == "wss://ai.example/v1/realtime?model=gpt-realtime"
    assert agent.headers == {"Authorization": "Bearer canary-ai-key", "OpenAI-Beta": "realtime=v1"}
    assert agent.builtin_tools == {
        "vns_end_conversation": BuiltinTool.END_CONVERSATION,
        "vns_transfer_call": BuiltinTool.TRANSFER_CALL,
        "vns_get_call_info": BuiltinTool.CALL_INFO,
        "vns_get_utc_datetime": BuiltinTool.UTC_DATETIME,
    }
    assert (agent.speaks_first, agent.interrupt_response, agent.transcribes_caller) == (True, True, True)
    assert agent.roll_over_after_ms is not None
    assert conversation(plan).on_failure == (Say("We cannot take your call at the moment."), RouteTo("+13035551212"))
    assert plan.max_seconds == 300
    assert plan.customer_call_id == "CallId-001"
    assert plan.recording == RecordingSpec("mp3", "canary-recording-password")
    assert (plan.journal.tool_requests, plan.journal.tool_replies, plan.journal.transcript) == (True, True, True)
    assert plan.ending is Ending.COMPLETED
    assert plan.notes == ()


def test_the_session_goes_on_unchanged() -> None:
    body = (DATA / "call_start_reply.json").read_bytes()
    forwarded = conversation(plan_of(body)).agent.session_update
    expected = json.loads(body)
    del expected["VoiceElements_Instructions"]
    assert json.loads(forwarded) == expected
    assert list(json.loads(forwarded)) == list(expected)
    for text in (b"0.650", b"[1.0, 1e400, 12345678901234567890123", b"canary-mcp-token"):
        assert text in forwarded, "numbers and unknown keys keep their own text"
    assert b"VoiceElements" not in forwarded


@given(
    st.dictionaries(
        st.text().filter(lambda k: k not in ("type", "session") and k.lower() != "voiceelements_instructions"), JSON, max_size=4
    ),
    st.dictionaries(st.text(), JSON, max_size=4),
    st.booleans(),
)
def test_any_session_goes_on_deep_equal(top: dict[str, Any], session: dict[str, Any], first: bool) -> None:
    rest = {**top, "type": "session.update", "session": session}
    instructions = {"VoiceElements_Instructions": {"aiUrl": {"url": "wss://ai.example/"}}}
    body = json.dumps({**instructions, **rest} if first else {**rest, **instructions}).encode()
    assert json.loads(conversation(plan_of(body)).agent.session_update) == rest


def test_a_sloppy_reply_is_understood_with_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        plan = plan_of((DATA / "call_start_reply_sloppy.txt").read_bytes())
    agent = conversation(plan).agent
    assert agent.url == "wss://ai.example/v1/realtime?model=gpt-realtime"
    assert agent.headers == {"Authorization": "Bearer canary-ai-key", "X-Shard": "7"}
    assert plan.max_seconds == 300
    assert plan.customer_call_id == "4711"
    assert plan.journal.transcript
    assert plan.journal.tool_requests
    assert plan.recording is None
    assert json.loads(agent.session_update)["session"]["instructions"] == 'First line,\nsecond\tline // no comment, "quoted", ]'
    said = "\n".join(plan.notes)
    for about in (
        "the reply: mended (byte order mark)",
        "the reply: mended (comment)",
        "the reply: mended (trailing comma)",
        "the reply: mended (control character in a string)",
        "AIURL: coerced (read as aiUrl)",
        "aiUrl.url: coerced",
        "aiUrl.headers.X-Shard: coerced",
        "maxSeconds: coerced",
        "customerCallId: coerced",
        "defaultToolsUrlBase: coerced",
        "logTranscription: coerced",
        "logToolCallRequests: coerced",
        "recordCall: ignored",
        "recordCallFormat: ignored",
        "favouriteColour: ignored (unknown key)",
    ):
        assert said.count(about) == 1, about
    assert sum("maxSeconds" in record.message for record in caplog.records) == 1
    assert all(record.__dict__["call_id"] == GUID for record in caplog.records)
    assert "canary" not in said + caplog.text


def test_only_the_ai_address_is_needed() -> None:
    plan = plan_of(reply_with())
    assert plan.max_seconds == 3600
    assert plan.recording is None
    assert not plan.journal.logs
    assert plan.customer_call_id is None
    assert conversation(plan).on_failure == (HangUp(),)
    assert conversation(plan).agent.builtin_tools == {}


@pytest.mark.parametrize(
    ("instructions", "max_seconds"),
    [
        ({"maxSeconds": 300}, 300),
        ({"maxSeconds": 0.5}, 0.5),
        ({"maxSeconds": "300"}, 300),
        ({"maxSeconds": None}, 3600),
        ({"maxSeconds": 0}, 3600),
        ({"maxSeconds": -5}, 3600),
        ({"maxSeconds": "soon"}, 3600),
        ({"maxSeconds": True}, 3600),
        ({"maxSeconds": [300]}, 3600),
        ({"maxSeconds": 10**400}, 3600),
        ({"maxSeconds": 99_999_999}, 14_400),
    ],
)
def test_max_seconds(instructions: dict[str, Any], max_seconds: float) -> None:
    plan = plan_of(reply_with(instructions))
    assert plan.max_seconds == max_seconds
    assert bool(plan.notes) is (max_seconds != instructions["maxSeconds"] and instructions["maxSeconds"] is not None)


def test_max_seconds_is_capped_for_the_number() -> None:
    assert plan_of(reply_with({"maxSeconds": 300}), number(max_seconds_cap=60)).max_seconds == 60


@pytest.mark.parametrize(("given", "kept"), [(None, "from-outbound"), (..., "from-outbound"), ("", ""), ("new", "new")])
def test_customer_call_id_replaces_when_it_is_not_null(given: object, kept: str) -> None:
    assert plan_of(reply_with({"customerCallId": given}), call=attempt(customer_call_id="from-outbound")).customer_call_id == kept


@pytest.mark.parametrize(
    ("instructions", "recording"),
    [
        ({"recordCall": True}, RecordingSpec("opus", None)),
        ({"recordCall": True, "recordCallFormat": None, "recordCallPassword": None}, RecordingSpec("opus", None)),
        ({"recordCall": True, "recordCallFormat": "WAV"}, RecordingSpec("wav", None)),
        ({"recordCall": True, "recordCallFormat": "flac", "recordCallPassword": "p"}, RecordingSpec("opus", "p")),
        ({"recordCall": "true", "recordCallPassword": ""}, RecordingSpec("opus", None)),
        ({"recordCall": False, "recordCallPassword": "p"}, None),
        ({"recordCall": None}, None),
    ],
)
def test_recording(instructions: dict[str, Any], recording: RecordingSpec | None) -> None:
    assert plan_of(reply_with(instructions)).recording == recording


@pytest.mark.parametrize(
    ("session", "interrupts"),
    [
        ({}, True),
        ({"audio": {"input": {"turn_detection": {"interrupt_response": False}}}}, False),
        ({"audio": {"input": {"turn_detection": {"interrupt_response": True}}}}, True),
        ({"audio": {"input": {"turn_detection": None}}, "turn_detection": {"interrupt_response": False}}, True),
        ({"turn_detection": {"interrupt_response": False}}, False),
        ({"audio": "odd"}, True),
    ],
)
def test_interrupt_response(session: dict[str, Any], interrupts: bool) -> None:
    assert conversation(plan_of(reply_with(session=session))).agent.interrupt_response is interrupts


@pytest.mark.parametrize(
    ("session", "transcribes"),
    [
        ({}, False),
        ({"audio": {"input": {"transcription": {"model": "whisper-1"}}}}, True),
        ({"audio": {"input": {"transcription": None}}}, False),
        ({"input_audio_transcription": {"model": "whisper-1"}}, True),
    ],
)
def test_a_transcript_without_caller_transcription_gets_a_hint(session: dict[str, Any], transcribes: bool) -> None:
    plan = plan_of(reply_with({"logTranscription": True}, session))
    assert conversation(plan).agent.transcribes_caller is transcribes
    assert any("no User lines" in note for note in plan.notes) is not transcribes
    assert plan_of(reply_with(session=session)).notes == ()


def test_a_builtin_name_is_ours_only_when_listed_as_a_function() -> None:
    tools = [
        {"type": "mcp", "name": "vns_transfer_call"},
        {"name": "vns_get_call_info"},
        {"type": "function", "name": "vns_other"},
        "odd",
        None,
    ]
    assert conversation(plan_of(reply_with(session={"tools": tools}))).agent.builtin_tools == {
        "vns_get_call_info": BuiltinTool.CALL_INFO
    }
    assert conversation(plan_of(reply_with(session={"tools": {"odd": 1}}))).agent.builtin_tools == {}


def test_who_speaks_first_is_the_numbers_choice() -> None:
    assert not conversation(plan_of(reply_with(), number(ai_speaks_first=False))).agent.speaks_first


@pytest.mark.parametrize(
    ("instructions", "branch"),
    [
        ({}, (HangUp(),)),
        ({"messageToPlayOnFailure": "Sorry."}, (Say("Sorry."), HangUp())),
        ({"routeToNumberOnFailure": "(303) 555-1212"}, (RouteTo("+13035551212"),)),
        ({"routeToNumberOnFailure": "reception", "messageToPlayOnFailure": ""}, (RouteTo("reception"),)),
        ({"routeToNumberOnFailure": 13035551212}, (RouteTo("+13035551212"),)),
    ],
)
def test_failure_branch(instructions: dict[str, Any], branch: tuple[object, ...]) -> None:
    assert conversation(plan_of(reply_with(instructions))).on_failure == branch


@pytest.mark.parametrize(
    ("ai_url", "url"),
    [
        ("wss://ai.example/x", "wss://ai.example/x"),
        ({"url": " wss://ai.example/x ", "headers": None}, "wss://ai.example/x"),
        ({"url": "http://ai.example:8000/x"}, "ws://ai.example:8000/x"),
        ({"Url": "wss://ai.example/x", "Headers": {}}, "wss://ai.example/x"),
    ],
)
def test_ai_address_forms(ai_url: object, url: str) -> None:
    assert conversation(plan_of(reply_with({"aiUrl": ai_url}))).agent.url == url


def test_headers_that_http_cannot_carry_are_left_out() -> None:
    headers = {"Good": "1", "Bad": "canary\r\nEvil: 1", "Bad Name": "canary", "Null": None, "List": ["canary"], "Flag": True}
    plan = plan_of(reply_with({"aiUrl": {"url": "wss://ai.example/", "headers": headers}}))
    assert conversation(plan).agent.headers == {"Good": "1", "Flag": "true"}
    assert "canary" not in str(plan.notes)
    assert sum("HTTP cannot carry it" in note for note in plan.notes) == 3


OK = b'{"VoiceElements_Instructions":{"aiUrl":{"url":"wss://ai.example/"}},"type":"session.update","session":{}}'
FAILURES: list[tuple[HttpOutcome, str, str]] = [
    (HttpFailure("timeout", "x"), "call-start-timeout", "did not answer in 10 seconds"),
    (HttpFailure("unreachable", "x"), "call-start-unreachable", "could not be reached"),
    (HttpFailure("refused", "x"), "call-start-refused", "is not allowed"),
    (HttpReply(500, OK), "call-start-http-error", "HTTP 500"),
    (HttpReply(302, OK), "call-start-http-error", "HTTP 302"),
    (HttpReply(404, b""), "call-start-http-error", "HTTP 404"),
    (HttpReply(200, OK, truncated=True), "call-start-invalid-reply", "longer than 1 MiB"),
    (HttpReply(200, b""), "call-start-invalid-reply", "not JSON"),
    (HttpReply(204, b""), "call-start-invalid-reply", "not JSON"),
    (HttpReply(200, b"<html>canary</html>"), "call-start-invalid-reply", "not JSON"),
    (HttpReply(200, b"[]"), "call-start-invalid-reply", "not JSON"),
    (HttpReply(200, b"{}"), "call-start-invalid-reply", "VoiceElements_Instructions is missing"),
    (HttpReply(200, reply_with(VoiceElements_Instructions="canary")), "call-start-invalid-reply", "VoiceElements_Instructions"),
    (HttpReply(200, reply_with({"aiUrl": ...})), "call-start-invalid-reply", "aiUrl.url is missing"),
    (HttpReply(200, reply_with({"aiUrl": {"headers": {}}})), "call-start-invalid-reply", "aiUrl.url is missing"),
    (HttpReply(200, reply_with({"aiUrl": {"url": "canary"}})), "call-start-invalid-reply", "aiUrl.url is missing"),
    (HttpReply(200, reply_with({"aiUrl": {"url": "wss://[canary/"}})), "call-start-invalid-reply", "aiUrl.url is missing"),
    (HttpReply(200, reply_with(type=...)), "call-start-invalid-reply", "type is missing"),
    (HttpReply(200, reply_with(type=7)), "call-start-invalid-reply", "type is missing"),
    (
        HttpReply(200, b'{"VoiceElements_Instructions":{"aiUrl":"wss://x/"},"type":"session.update"}'),
        "call-start-invalid-reply",
        "session is missing",
    ),
    (
        HttpReply(200, b'{"VoiceElements_Instructions":{"aiUrl":"wss://x/"},"type":"session.update","session":null}'),
        "call-start-invalid-reply",
        "session is",
    ),
]


@pytest.mark.parametrize(("outcome", "reason", "message"), FAILURES)
def test_a_failed_call_start_refuses_the_call(outcome: HttpOutcome, reason: str, message: str) -> None:
    refusal = VNS.read_start_outcome(number(), attempt(), outcome)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.ending, refusal.end_webhook_owed) == (480, Ending.CALL_START_FAILED, True)
    assert refusal.reason == reason
    assert refusal.number == number()
    assert refusal.message is not None
    assert message in refusal.message
    assert "canary" not in repr(refusal)


@pytest.mark.parametrize(
    ("fallback", "flow"),
    [
        ({"message": "Call later."}, (Answer(), Say("Call later."), HangUp())),
        ({"number": "+13035551212"}, (Answer(), RouteTo("+13035551212"))),
        ({"number": "3035551212", "message": "One moment."}, (Answer(), Say("One moment."), RouteTo("+13035551212"))),
    ],
)
def test_a_failed_call_start_takes_the_numbers_fallback(fallback: dict[str, str], flow: tuple[object, ...]) -> None:
    plan = VNS.read_start_outcome(number(fallback=fallback), attempt(customer_call_id="c"), HttpFailure("timeout", ""))
    assert isinstance(plan, CallPlan)
    assert plan.flow == flow
    assert (plan.ending, plan.customer_call_id) == (Ending.CALL_START_FAILED, "c")
    assert plan.message == "The CallStart webhook did not answer in 10 seconds."
    assert not any(isinstance(action, Converse) for action in plan.flow)


@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: reply_with(VoiceElements_Instructions=value))
)
def test_any_reply_gives_a_plan_or_a_refusal(body: bytes) -> None:
    assert isinstance(VNS.read_start_outcome(number(), attempt(), HttpReply(200, body)), CallPlan | Refusal)


@given(
    st.dictionaries(
        st.sampled_from(
            ["maxSeconds", "customerCallId", "defaultToolsUrlBase", "recordCall", "recordCallFormat", "logTranscription", "x"]
        ),
        JSON,
    )
)
def test_no_optional_field_can_make_a_reply_unusable(instructions: dict[str, Any]) -> None:
    plan = plan_of(reply_with(instructions))
    assert 0 < plan.max_seconds <= 14_400


def test_notes_are_bounded() -> None:
    plan = plan_of(reply_with({f"k{'x' * 1000}{i}": i for i in range(1000)}))
    assert len(plan.notes) <= 64
    assert all(len(note) < 200 for note in plan.notes)


def test_started_constant_is_the_example() -> None:
    assert STARTED.isoformat() == "2026-03-12T10:42:15+00:00"

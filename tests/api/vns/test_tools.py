"""Tool calls: URL adapters, bodies, and the text the model gets for every kind of reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.vns.tools import tool_url
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import Speaker, ToolCall, Utterance
from switchhook.domain.plan import BuiltinTool
from tests.api.vns.cases import GUID, STARTED, VNS, attempt, number, plan_of, recorded, reply_with

BASE = "https://b.example/v1/aitool"
TOOL = "lookup_name_or_phone"
ADAPTERS = [
    ("/<<sessionguid>>/<<toolname>>/<<customerCallId>>", "/{guid}/{tool}/{id}", ""),
    ("/<<toolname>>/<<sessionguid>>/<<customerCallId>>", "/{tool}/{guid}/{id}", ""),
    ("/<<toolname>>", "/{tool}", ""),
    ("/<<toolname>>/<<customerCallId>>", "/{tool}/{id}", ""),
    (
        "?toolname=<<toolname>>&sessionguid=<<sessionguid>>&customerCallId=<<customerCallId>>",
        "",
        "toolname={tool}&sessionguid={guid}&customerCallId={id}",
    ),
    ("?toolname=<<toolname>>&sessionguid=<<sessionguid>>", "", "toolname={tool}&sessionguid={guid}"),
]
IDS = [("plain", "plain"), ("Call 1/a", "Call%201%2Fa"), ("a&b=c#d?e%é", "a%26b%3Dc%23d%3Fe%25%C3%A9"), (None, "")]
BASES = [(BASE, BASE, ""), (BASE + "/", BASE, ""), (BASE + "?k=v", BASE, "k=v"), (BASE + "/?k=v", BASE, "k=v")]


def requested(
    instructions: Mapping[str, Any] | None = None,
    arguments: str = "{}",
    name: str = TOOL,
    settings: Mapping[str, Any] | None = None,
) -> HttpRequest:
    tools = {
        "defaultToolsUrlBase": {"url": BASE, "headers": {"Token": "canary-tool"}},
        "customerCallId": "CallId-001",
        **(instructions or {}),
    }
    plan = plan_of(reply_with(tools), number(**(settings or {})))
    request = VNS.tool_request(plan, attempt(), ToolCall("call_1", name, arguments), STARTED)
    assert request is not None
    return request


@pytest.mark.parametrize(("base", "path", "query"), BASES)
@pytest.mark.parametrize(("given_id", "encoded"), IDS)
@pytest.mark.parametrize(("adapter", "added_path", "added_query"), ADAPTERS)
def test_adapters(
    adapter: str, added_path: str, added_query: str, given_id: str | None, encoded: str, base: str, path: str, query: str
) -> None:
    request = requested(
        {"defaultToolsUrlAdapter": adapter, "customerCallId": given_id, "defaultToolsUrlBase": {"url": base}}, '{"name":"Ron"}'
    )
    values = {"guid": GUID, "tool": TOOL, "id": encoded}
    queries = "&".join(part for part in (query, added_query.format(**values)) if part)
    # A query adapter leaves the base's path alone, with or without its slash.
    kept = path if added_path else base.partition("?")[0]
    assert request.url == kept + added_path.format(**values) + (f"?{queries}" if queries else "")
    assert request.body == b'{"name":"Ron"}'


@pytest.mark.parametrize("base", [base for base, _, _ in BASES])
@pytest.mark.parametrize("adapter", [None, ""])
@pytest.mark.parametrize("given_id", [given_id for given_id, _ in IDS])
def test_without_adapter_the_url_stays_and_the_body_tells(adapter: str | None, base: str, given_id: str | None) -> None:
    request = requested(
        {"defaultToolsUrlAdapter": adapter, "customerCallId": given_id, "defaultToolsUrlBase": {"url": base}}, '{"name":"Ron"}'
    )
    assert request.url == base
    assert json.loads(request.body) == {
        "VoiceElements_InvokeTool": {"toolName": TOOL, "sessionGuid": GUID, "customerCallId": given_id},
        "name": "Ron",
    }


@pytest.mark.parametrize(
    ("adapter", "url"),
    [
        ("/<<TOOLNAME>>/<<SessionGuid>>/<<customercallid>>", f"{BASE}/t/G/Call%201%2Fa"),
        ("<<toolname>>", f"{BASE}/t"),
        ("/x-<<toolname>>-y?id=<<customerCallId>>&z=1", f"{BASE}/x-t-y?id=Call%201%2Fa&z=1"),
        ("/<<unknown>>/<<toolname>>", f"{BASE}/<<unknown>>/t"),
        ("/fixed", f"{BASE}/fixed"),
    ],
)
def test_other_adapters_follow_the_general_rule(adapter: str, url: str) -> None:
    assert tool_url(BASE, adapter, {"toolname": "t", "sessionguid": "G", "customercallid": "Call 1/a"}) == url


def test_null_placeholder() -> None:
    adapter = {"defaultToolsUrlAdapter": "/<<toolname>>/<<customerCallId>>", "customerCallId": None}
    assert requested(adapter).url == f"{BASE}/{TOOL}/"
    assert requested(adapter, settings={"null_placeholder": "-"}).url == f"{BASE}/{TOOL}/-"


@given(
    st.sampled_from([adapter for adapter, _, _ in ADAPTERS]),
    st.text()
    | st.sampled_from(
        ["..", ".", "%2e%2e", "../../admin", "..\\..", "?x", "#", "//evil.example/", "@evil.example", "%252e%252e"]
    ),
)
def test_no_customer_call_id_leaves_its_place(adapter: str, given_id: str) -> None:
    """As the strictest server would read it: percent-decoded once, dot segments resolved, the path is still below the base."""
    parts = urlsplit(tool_url(BASE, adapter, {"toolname": TOOL, "sessionguid": GUID, "customercallid": given_id}))
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "b.example", "")
    segments = parts.path.split("/")
    assert segments[:3] == ["", "v1", "aitool"]
    assert not any(unquote(segment) in (".", "..") for segment in segments)
    if adapter.startswith("?"):
        assert parts.path == "/v1/aitool"
        assert set(parse_qs(parts.query, keep_blank_values=True)) <= {"toolname", "sessionguid", "customerCallId"}
    else:
        assert len(segments) == 3 + adapter.count("/")
        assert parts.query == ""


def test_request_is_the_recorded_one() -> None:
    request = requested(arguments='{"order":"A-17"}', name="find_order")
    expected = recorded("tool_request.json")
    assert json.loads(request.body) == expected
    assert list(json.loads(request.body)) == list(expected), "the metadata comes first"
    assert request.headers == {"Token": "canary-tool", "Content-Type": "application/json"}
    assert (request.method, request.timeout_s, request.max_reply_bytes, request.retry_unsent) == ("POST", 30, 256 << 10, False)
    assert requested(settings={"tool_timeout_s": 5}).timeout_s == 5


META = {"toolName": TOOL, "sessionGuid": GUID, "customerCallId": "CallId-001"}


@pytest.mark.parametrize(
    ("arguments", "plain", "adapted"),
    [
        ('{"a":1}', {"a": 1}, b'{"a":1}'),
        ("", {}, b"{}"),
        ("  ", {}, b"{}"),
        ("null", {}, b"{}"),
        ("{}", {}, b"{}"),
        ("[1,2]", {"arguments": "[1,2]"}, b"[1,2]"),
        ("7", {"arguments": "7"}, b"7"),
        ('{"a":', {"arguments": '{"a":'}, b'{"a":'),
        ('{"a":NaN}', {"arguments": '{"a":NaN}'}, b'{"a":NaN}'),
        ('{"VoiceElements_InvokeTool":{"toolName":"x"},"b":2}', {"b": 2}, b'{"VoiceElements_InvokeTool":{"toolName":"x"},"b":2}'),
    ],
)
def test_arguments(arguments: str, plain: dict[str, Any], adapted: bytes) -> None:
    assert json.loads(requested(arguments=arguments).body) == {"VoiceElements_InvokeTool": META, **plain}
    assert requested({"defaultToolsUrlAdapter": "/<<toolname>>"}, arguments).body == adapted


def test_arguments_keep_their_own_text() -> None:
    body = requested(arguments='{ "n": 1.50, "big": 12345678901234567890123, "s": "\\u00e9" }').body
    for text in (b"1.50", b"12345678901234567890123", b'"\\u00e9"'):
        assert text in body


@given(st.text())
def test_any_arguments_can_be_posted(arguments: str) -> None:
    body = json.loads(requested(arguments=arguments).body)
    assert body["VoiceElements_InvokeTool"] == META


def test_half_a_surrogate_pair_does_not_stop_a_tool() -> None:
    assert requested(arguments='{"a":"\ud83d"}').body
    assert requested({"defaultToolsUrlAdapter": "/<<toolname>>"}, '{"a":"\ud83d"}', name="x\ud83d").body


def test_without_a_tool_url_the_model_is_told() -> None:
    plan = plan_of(reply_with())
    assert VNS.tool_request(plan, attempt(), ToolCall("c", "x", "{}"), STARTED) is None
    assert json.loads(VNS.tool_output(None)) == {"error": "No tool URL is set for this call."}


BIG = b'{"a":"' + b"x" * ((256 << 10) - 6)


@pytest.mark.parametrize(
    ("outcome", "output"),
    [
        (HttpReply(200, b'{ "a": 1.50 }'), '{ "a": 1.50 }'),
        (HttpReply(201, b'{"a":1}'), '{"a":1}'),
        (HttpReply(299, b'\xef\xbb\xbf{"a":1}'), '{"a":1}'),
        (HttpReply(200, b"[1,2]"), "[1,2]"),
        (HttpReply(200, b'"text"'), '"text"'),
        (HttpReply(200, b"7\n"), "7\n"),
        (HttpReply(204, b""), '{"status":"ok"}'),
        (HttpReply(200, b" \r\n"), '{"status":"ok"}'),
        (HttpReply(200, b"all good"), '{"result":"all good"}'),
        (HttpReply(200, b'{"a":1,}'), '{"result":"{\\"a\\":1,}"}'),
        (HttpReply(200, b"NaN"), '{"result":"NaN"}'),
        (HttpReply(200, b"caf\xe9"), '{"result":"caf\ufffd"}'),
        (HttpReply(500, b""), '{"error":"The tool returned HTTP 500.","details":""}'),
        (HttpReply(500, b"oops"), '{"error":"The tool returned HTTP 500.","details":"oops"}'),
        (HttpReply(422, b'{"why":1.0}'), '{"error":"The tool returned HTTP 422.","details":{"why":1.0}}'),
        (HttpReply(302, b""), '{"error":"The tool returned HTTP 302.","details":""}'),
        (HttpFailure("timeout", "canary"), '{"error":"The tool did not answer in time."}'),
        (HttpFailure("unreachable", "canary"), '{"error":"The tool could not be reached."}'),
        (HttpFailure("refused", "canary"), '{"error":"The tool could not be reached."}'),
    ],
)
def test_the_text_for_the_model(outcome: HttpOutcome, output: str) -> None:
    assert VNS.tool_output(outcome) == output


def test_long_replies_are_cut() -> None:
    text = json.loads(VNS.tool_output(HttpReply(200, "é".encode() * 20_000)))
    assert len(text["result"].encode()) == 16 << 10
    details = json.loads(VNS.tool_output(HttpReply(500, b"x" * 5000)))["details"]
    assert details == "x" * 1024
    cut = json.loads(VNS.tool_output(HttpReply(200, BIG, truncated=True)))
    assert cut["truncated"] is True
    assert cut["result"] == BIG.decode()


@given(st.integers(200, 599), st.binary(max_size=200), st.booleans())
def test_the_model_always_gets_json(status: int, body: bytes, truncated: bool) -> None:
    json.loads(VNS.tool_output(HttpReply(status, body, truncated=truncated)))


def test_builtin_outputs() -> None:
    plan = plan_of(reply_with({"customerCallId": "CallId-001"}))
    now = datetime(2026, 3, 12, 10, 43, 1, 500_000, tzinfo=UTC)

    def output(tool: BuiltinTool, arguments: str = "{}") -> object:
        return json.loads(VNS.builtin_output(tool, plan, attempt(), ToolCall("c", "x", arguments), now))

    assert output(BuiltinTool.END_CONVERSATION, "not json") == {"status": "ending"}
    assert output(BuiltinTool.UTC_DATETIME) == {"utcDateTime": "2026-03-12T10:43:01Z"}
    assert output(BuiltinTool.CALL_INFO) == {
        "calledNumber": "7206999999",
        "callerId": "3032639999",
        "callerIdName": "Ada Caller",
        "callStart": "2026-03-12T10:42:15Z",
        "outboundTriggered": False,
        "sessionGuid": GUID,
        "customerCallId": "CallId-001",
    }


def test_live_transcription() -> None:
    at = datetime(2026, 4, 17, 16, 26, 20, 46_999, tzinfo=UTC)
    tools = {
        "defaultToolsUrlBase": {"url": BASE, "headers": {"Token": "t"}},
        "transcriptionToolName": "phrases",
        "defaultToolsUrlAdapter": "/<<toolname>>",
    }
    for speaker, label in ((Speaker.AGENT, "AI"), (Speaker.CALLER, "User")):
        request = VNS.utterance_request(plan_of(reply_with(tools)), attempt(), Utterance(speaker, "Bye.", 1, at))
        assert request is not None
        assert request.url == f"{BASE}/phrases"
        assert request.timeout_s == 5
        assert json.loads(request.body) == {"timestamp": "2026-04-17T16:26:20.046Z", "speaker": label, "text": "Bye."}
    in_body = VNS.utterance_request(
        plan_of(reply_with({**tools, "defaultToolsUrlAdapter": None})), attempt(), Utterance(Speaker.CALLER, "Bye.", 1, at)
    )
    assert in_body is not None
    assert json.loads(in_body.body)["VoiceElements_InvokeTool"] == {
        "toolName": "phrases",
        "sessionGuid": GUID,
        "customerCallId": None,
    }


@pytest.mark.parametrize("missing", ["transcriptionToolName", "defaultToolsUrlBase"])
def test_live_transcription_is_off_unless_asked_for(missing: str) -> None:
    tools: dict[str, Any] = {"defaultToolsUrlBase": {"url": BASE}, "transcriptionToolName": "phrases", missing: None}
    assert (
        VNS.utterance_request(
            plan_of(reply_with(tools)), attempt(), Utterance(Speaker.AGENT, "x", 1, datetime(2026, 1, 1, tzinfo=UTC))
        )
        is None
    )

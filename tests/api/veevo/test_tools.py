"""onToolCall: what is posted, and the text that the model gets."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.contract import BodySignature, HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import ToolCall, TransferRecord
from switchhook.domain.plan import BuiltinTool, TransferOrder
from tests.api.veevo.cases import SID, STARTED, VEEVO, attempt, configuration, number, plan_of, recorded

NOW = STARTED + timedelta(seconds=20)
ABSENT: Any = ...


def request_of(arguments: str, metadata: Any = ABSENT, name: str = "check_availability", **settings: Any) -> HttpRequest | None:
    plan = plan_of(configuration(metadata=metadata), number(**settings))
    return VEEVO.tool_request(plan, attempt(), ToolCall("call_1", name, arguments), NOW)


def body_of(arguments: str, metadata: Any = ABSENT, **settings: Any) -> dict[str, Any]:
    request = request_of(arguments, metadata, **settings)
    assert request is not None
    found: dict[str, Any] = json.loads(request.body)
    return found


def test_the_request_is_the_documented_one_byte_for_byte() -> None:
    request = request_of('{"date":"April 15, 2026"}', {"customerId": "cust_123"})
    assert request is not None
    assert json.loads(request.body) == json.loads(recorded("on_tool_call_request.json"))
    assert list(json.loads(request.body)) == ["toolName", "arguments", "metadata", "timestamp"]
    assert (request.url, request.timeout_s) == ("https://your-backend.com/calls/tool", 30)
    assert request.sign == BodySignature("acme", "X-Veevo-Signature")
    assert not request.retry_unsent


def test_the_documented_request_has_the_documented_bytes() -> None:
    body = configuration()[:-1] + b',"metadata":{"customerId":"cust_123"}}'
    call = ToolCall("call_1", "check_availability", '{"date":"April 15, 2026"}')
    request = VEEVO.tool_request(plan_of(body), attempt(), call, NOW)
    assert request is not None
    assert request.body == recorded("on_tool_call_request.json")


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert body_of(arguments)["arguments"] == {}


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "7", "{'a':1}", '{"a":\ud800}', "[" * 50_000, '{"a":NaN}'])
def test_arguments_that_are_no_object_are_not_sent(arguments: str) -> None:
    assert request_of(arguments) is None
    assert json.loads(VEEVO.tool_output(None)) == {"error": "Invalid arguments"}


def test_metadata_is_echoed_as_it_was_given_and_left_out_when_there_was_none() -> None:
    assert "metadata" not in body_of("{}")
    assert body_of("{}", None)["metadata"] is None
    raw = configuration()[:-1] + b',"metadata":{"n":1.0,"big":12345678901234567890123,"e":"\\u00e9"}}'
    request = VEEVO.tool_request(plan_of(raw), attempt(), ToolCall("c", "x", '{"a":1.0}'), NOW)
    assert request is not None
    assert b'"metadata":{"n":1.0,"big":12345678901234567890123,"e":"\\u00e9"}' in request.body
    assert b'"arguments":{"a":1.0}' in request.body


def test_the_call_sid_is_sent_on_wish() -> None:
    assert "callSid" not in body_of("{}")
    assert body_of("{}", tool_call_sid=True)["callSid"] == SID


@pytest.mark.parametrize(
    ("outcome", "output"),
    [
        (HttpReply(200, recorded("on_tool_call_reply.json")), "We have 3 standard units available for April 15."),
        (HttpReply(201, b'{"result":"ok"}'), "ok"),
        (HttpReply(200, b'{"result":{"n":1.0}}'), '{"n":1.0}'),
        (HttpReply(200, b'{"result":[1,2]}'), "[1,2]"),
        (HttpReply(200, b'{"result":null}'), "null"),
        (HttpReply(200, b'{"result":""}'), ""),
        (HttpReply(200, b' {"other":1.50} '), '{"other":1.50}'),
        (HttpReply(200, b"[1]"), "[1]"),
        (HttpReply(204, b""), '{"status":"ok"}'),
        (HttpReply(200, b"all good"), '{"result":"all good"}'),
        (HttpReply(500, b'{"why":"broken"}'), '{"error":"The tool returned HTTP 500.","details":{"why":"broken"}}'),
        (HttpReply(404, b"no"), '{"error":"The tool returned HTTP 404.","details":"no"}'),
        (HttpReply(200, b'{"a', truncated=True), '{"result":"{\\"a","truncated":true}'),
        (HttpFailure("timeout", ""), '{"error":"The tool did not answer in time."}'),
        (HttpFailure("unreachable", ""), '{"error":"The tool could not be reached."}'),
    ],
)
def test_results(outcome: HttpOutcome, output: str) -> None:
    assert VEEVO.tool_output(outcome) == output


@given(st.binary(), st.integers(100, 599), st.booleans())
def test_any_reply_gives_a_text(body: bytes, status: int, truncated: bool) -> None:
    assert isinstance(VEEVO.tool_output(HttpReply(status, body, truncated=truncated)), str)


@given(st.text(), st.text())
def test_any_arguments_give_a_request_or_none(name: str, arguments: str) -> None:
    request = request_of(arguments, name=name)
    if request is not None:
        assert isinstance(json.loads(request.body)["arguments"], dict)


def test_our_own_tools() -> None:
    plan = plan_of(configuration())
    order = VEEVO.transfer_order(plan, attempt(), ToolCall("c", "transfer_call", '{"number":"+17205551212","attended":true}'))
    assert isinstance(order, TransferOrder)
    assert (order.called, order.caller, order.attended) == ("+17205551212", "+19805551234", True)
    assert isinstance(VEEVO.transfer_order(plan, attempt(), ToolCall("c", "transfer_call", "{}")), str)
    ended = VEEVO.builtin_output(BuiltinTool.END_CONVERSATION, plan, attempt(), ToolCall("c", "end_call", "{}"), NOW)
    assert json.loads(ended) == {"status": "ending"}
    failed = TransferRecord("+1", "+2", None, STARTED, NOW, "busy")
    assert json.loads(VEEVO.transfer_output(failed))["result"] == "busy"

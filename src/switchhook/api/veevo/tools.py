"""onToolCall: the request to the customer's backend and the text that the model gets back (contract §2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from switchhook.api.veevo import profile
from switchhook.api.veevo.configuration import UNREADABLE
from switchhook.api.veevo.forms import iso, json_bytes, json_text, printable
from switchhook.domain.contract import BodySignature, HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import CallAttempt, ToolCall
from switchhook.domain.plan import CallPlan, TransferOrder

_NUMBER_NAMES = ("number", "phoneNumber", "phone_number", "transferNumber", "to")


@dataclass(frozen=True, slots=True)
class ToolTarget:
    """Where a call's tools go; kept with the plan, in memory only."""

    url: str = field(repr=False)
    metadata: str | None = field(default=None, repr=False)
    """JSON text."""
    call_sid: str | None = None
    """Sent with each call when the number says so."""


def tool_request(target: ToolTarget, account: str, call: ToolCall, now: datetime) -> HttpRequest | None:
    """The callback that runs a tool; None when the model's arguments are no JSON object: the backend is not called then."""
    arguments = _arguments(call.arguments)
    if arguments is None:
        return None
    body: dict[str, Any] = {"toolName": printable(call.name), "arguments": arguments}
    if target.metadata is not None:
        body["metadata"] = msgspec.Raw(target.metadata.encode())
    body["timestamp"] = iso(now)
    if target.call_sid is not None:
        body["callSid"] = target.call_sid
    return HttpRequest(
        target.url,
        json_bytes(body),
        {"Content-Type": "application/json"},
        timeout_s=profile.TOOL_TIMEOUT_S,
        max_reply_bytes=profile.TOOL_REPLY_BYTES,
        sign=BodySignature(account, profile.SIGNATURE_HEADER),
    )


def tool_output(outcome: HttpOutcome | None) -> str:
    """The text for the model, whatever came back: an output it always gets."""
    if outcome is None:
        return json_text({"error": "Invalid arguments"})
    if isinstance(outcome, HttpFailure):
        late = outcome.reason == "timeout"
        return json_text({"error": "The tool did not answer in time." if late else "The tool could not be reached."})
    return _reply_output(outcome) if 200 <= outcome.status < 300 else _error_output(outcome)


def transfer_order(plan: CallPlan, attempt: CallAttempt, call: ToolCall) -> TransferOrder | str:
    """What the model's call of our own `transfer_call` asks for, or the text that tells it why that cannot be."""
    given = _members(call.arguments)
    called = next((str(given[name]).strip() for name in _NUMBER_NAMES if isinstance(given.get(name), str | int)), "")
    if not called:
        return json_text({"status": "failed", "reason": "number is missing: give the number in E.164."})
    return TransferOrder(
        called,
        attempt.caller,
        attempt.caller_name,
        attended=given.get("attended") is True,
        ring_s=profile.TRANSFER_RING_S,
        consult_s=profile.CONSULT_S,
    )


def _arguments(text: str) -> msgspec.Raw | None:
    """The model's own text when it is a JSON object; no text counts as an empty one."""
    text = text.strip()
    if text in ("", "null"):
        return msgspec.Raw(b"{}")
    try:
        encoded = text.encode()
        msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
        msgspec.json.decode(encoded)
    except UNREADABLE:
        return None
    return msgspec.Raw(encoded)


def _members(text: str) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any])
    except UNREADABLE:
        return {}


def _reply_output(reply: HttpReply) -> str:
    text = _text(reply.body)
    if reply.truncated:
        return json_text({"result": text, "truncated": True})
    if not text.strip():
        return json_text({"status": "ok"})
    if not _is_json(text):
        return json_text({"result": _cut(text, profile.TOOL_TEXT_BYTES)})
    try:
        members = msgspec.json.decode(text.encode(), type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return text.strip()
    if "result" not in members:
        return text.strip()
    result = msgspec.json.decode(members["result"])
    return result if isinstance(result, str) else bytes(members["result"]).decode()


def _error_output(reply: HttpReply) -> str:
    text = _text(reply.body)
    whole = not reply.truncated and _is_json(text)
    details: Any = msgspec.Raw(text.strip().encode()) if whole else _cut(text, profile.TOOL_ERROR_BYTES)
    return json_text({"error": f"The tool returned HTTP {reply.status}.", "details": details})


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig", "replace")


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode()[:limit_bytes].decode("utf-8", "ignore")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text.encode())
    except UNREADABLE:
        return False
    return True

"""Tool calls: the request to the customer's endpoint and the text that the model gets back (contract §1.4, §1.5, §1.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from switchhook.api.vns import profile
from switchhook.api.vns.forms import json_text, utc_milliseconds
from switchhook.api.vns.schema import webhook_headers
from switchhook.api.vns.tolerant_json import InvalidJson, parse_object, parse_value
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import CallAttempt, Speaker, ToolCall, Utterance, Webhook

METADATA = "VoiceElements_InvokeTool"

_PLACEHOLDER = re.compile(r"<<\s*(sessionguid|toolname|customercallid)\s*>>", re.IGNORECASE)
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ToolTarget:
    """Where a call's tools go; kept with the plan, in memory only."""

    base: Webhook | None = field(default=None, repr=False)
    adapter: str | None = field(default=None, repr=False)
    customer_call_id: str | None = None
    transcription_tool: str | None = None
    timeout_s: float = profile.TOOL_TIMEOUT_S
    null_placeholder: str = profile.NULL_PLACEHOLDER


def tool_request(target: ToolTarget, attempt: CallAttempt, call: ToolCall) -> HttpRequest | None:
    """The webhook that runs a tool; None without `defaultToolsUrlBase.url`."""
    return None if target.base is None else _request(target, target.base, attempt, call, target.timeout_s)


def utterance_request(target: ToolTarget, attempt: CallAttempt, utterance: Utterance) -> HttpRequest | None:
    """The live delivery of a transcript line, a tool call in all but its answer; None when it was not asked for."""
    if target.base is None or target.transcription_tool is None:
        return None
    arguments = {
        "timestamp": utc_milliseconds(utterance.at),
        "speaker": "AI" if utterance.speaker is Speaker.AGENT else "User",
        "text": f"{profile.DESTINATION_MARK} {utterance.text}" if utterance.speaker is Speaker.DESTINATION else utterance.text,
    }
    call = ToolCall("", target.transcription_tool, json_text(arguments))
    return _request(target, target.base, attempt, call, profile.TRANSCRIPTION_TIMEOUT_S)


def tool_output(outcome: HttpOutcome | None) -> str:
    """The text for the model, whatever came back: an output it always gets."""
    if outcome is None:
        return json_text({"error": "No tool URL is set for this call."})
    if isinstance(outcome, HttpFailure):
        late = outcome.reason == "timeout"
        return json_text({"error": "The tool did not answer in time." if late else "The tool could not be reached."})
    return _reply_output(outcome) if 200 <= outcome.status < 300 else _error_output(outcome)


def tool_url(base: str, adapter: str | None, values: Mapping[str, str]) -> str:
    """Contract §1.5. `values` are keyed by placeholder in lower case and are percent-encoded wherever they land.

    An adapter that begins with `?` is a query, any other a path; one with both parts adds both. In a path, a segment that a value
    turns into `.` or `..` is encoded twice: servers read `%2E%2E` as a step upwards (WHATWG URL), and the value is foreign text.
    """
    if not adapter:
        return base
    path, _, query = adapter.partition("?")
    base_path, mark, base_query = base.partition("#")[0].partition("?")
    if path:
        segments = "/".join(_segment(segment, values) for segment in path.removeprefix("/").split("/"))
        base_path = f"{base_path.removesuffix('/')}/{segments}"
    queries = [part for part in (base_query.removesuffix("&"), _fill(query, values)) if part]
    return base_path + ("?" + "&".join(queries) if queries or mark else "")


def _request(target: ToolTarget, base: Webhook, attempt: CallAttempt, call: ToolCall, timeout_s: float) -> HttpRequest:
    return HttpRequest(
        _url(target, base.url, attempt, call.name),
        _body(target, attempt, call).encode("utf-8", "replace"),
        webhook_headers(base.headers),
        timeout_s=timeout_s,
        max_reply_bytes=profile.TOOL_REPLY_BYTES,
    )


def _url(target: ToolTarget, base: str, attempt: CallAttempt, tool: str) -> str:
    given = target.customer_call_id
    values = {
        "sessionguid": attempt.call_id,
        "toolname": tool,
        "customercallid": target.null_placeholder if given is None else given,
    }
    return tool_url(base, target.adapter, values)


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: quote(values[found.group(1).lower()], safe="", errors="replace"), template)


def _segment(template: str, values: Mapping[str, str]) -> str:
    filled = _fill(template, values)
    if filled != template and _DOTS.fullmatch(filled):
        return re.sub(r"\.|%2e", "%252E", filled, flags=re.IGNORECASE)
    return filled


def _body(target: ToolTarget, attempt: CallAttempt, call: ToolCall) -> str:
    """The model's arguments in the model's own text, with the metadata in front unless the adapter carries it."""
    arguments = call.arguments.strip()
    if arguments in ("", "null"):
        arguments = "{}"
    if target.adapter:
        return arguments
    metadata = {"toolName": call.name, "sessionGuid": attempt.call_id, "customerCallId": target.customer_call_id}
    parts = [f'"{METADATA}":{json_text(metadata)}']
    try:
        parts += [f"{json_text(member.name)}:{member.text}" for member in parse_object(arguments) if member.name != METADATA]
    except InvalidJson:
        parts.append(f'"arguments":{json_text(call.arguments)}')
    return f"{{{','.join(parts)}}}"


def _reply_output(reply: HttpReply) -> str:
    text = _text(reply.body)
    if reply.truncated:
        return json_text({"result": text, "truncated": True})
    if not text.strip():
        return json_text({"status": "ok"})
    return text if _is_json(text) else json_text({"result": _cut(text, profile.TOOL_TEXT_BYTES)})


def _error_output(reply: HttpReply) -> str:
    text = _text(reply.body)
    whole = not reply.truncated and _is_json(text)
    details = text if whole else json_text(_cut(text, profile.TOOL_ERROR_BYTES))
    return f'{{"error":{json_text(f"The tool returned HTTP {reply.status}.")},"details":{details}}}'


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig", "replace")


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def _is_json(text: str) -> bool:
    try:
        parse_value(text.strip())
    except InvalidJson:
        return False
    return True

"""CallEnd: the account of a finished call as VNS writes it (contract §1.8)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, tzinfo

from switchhook.api.vns import profile
from switchhook.api.vns.forms import json_bytes, shown_number, utc_ticks
from switchhook.api.vns.schema import settings_of, webhook_headers, zone_of
from switchhook.api.vns.tolerant_json import InvalidJson, parse_object
from switchhook.api.vns.transfer import result_word
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import Direction, Number, Speaker, ToolCall, TransferRecord, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.report import CallReport

logger = logging.getLogger(__name__)

FIRST_LINE = "Logging Started."

_STATUS = {
    Ending.COMPLETED: 0,
    Ending.ABANDONED: 0,
    Ending.CALL_START_FAILED: 1,
    Ending.AGENT_NOT_ESTABLISHED: 2,
    Ending.AGENT_LOST: 3,
    Ending.OUTBOUND_NOT_PLACED: 4,
    Ending.INTERNAL_ERROR: 5,
    Ending.REJECTED: 5,
}
_TEXT = {
    Ending.CALL_START_FAILED: "The CallStart webhook gave no usable reply.",
    Ending.AGENT_NOT_ESTABLISHED: "The AI session could not be established.",
    Ending.AGENT_LOST: "The AI session was lost.",
    Ending.OUTBOUND_NOT_PLACED: "The outbound call could not be placed.",
    Ending.INTERNAL_ERROR: "Internal error.",
    Ending.REJECTED: "The call was refused.",
}
_ANSWERERS = {
    "human": "HumanDetected",
    "voicemail": "MachineDetected",
    "screener": "MachineDetected",
    "announcement": "OperatorIntercept",
}
_LABELS = {
    Speaker.AGENT: "AI :",
    Speaker.CALLER: "User:",
    Speaker.DESTINATION: f"User: {profile.DESTINATION_MARK}",
}


def end_body(report: CallReport, log: Sequence[tuple[datetime, str]], utterances: Sequence[Utterance]) -> bytes:
    """Every field, in the order of the example. `log` comes in order; the transcript is ordered by conversation item."""
    settings = settings_of(report.number.settings) if report.number else None
    form = settings.number_format if settings else profile.NUMBER_FORMAT
    zone = zone_of(settings)
    attempt = report.attempt
    lines = [(attempt.started_at, FIRST_LINE), *log]
    spoken = sorted(utterances, key=lambda utterance: utterance.order)
    body = {
        "sessionGuid": attempt.call_id,
        "callStart": utc_ticks(attempt.started_at),
        "callConnected": utc_ticks(report.connected_at) if report.connected_at else None,
        "callEnd": utc_ticks(report.ended_at),
        "calledNumber": shown_number(attempt.called, form),
        "callerId": shown_number(attempt.caller, form),
        "callerIdName": attempt.caller_name,
        "status": _STATUS[report.verdict.ending],
        "errorMessage": _error_message(report.verdict),
        "outboundTriggered": attempt.direction is Direction.OUTBOUND,
        "outboundCallResult": _outbound_result(report),
        "customerCallId": report.customer_call_id,
        "callReferredOut": report.referred_out,
        "transfers": [_transfer(record) for record in report.transfers] or None,
        "logInformation": [log_line(at, text, zone) for at, text in lines] if report.journal.logs else None,
        "transcription": [transcript_line(line, zone) for line in spoken] if report.journal.transcript else None,
    }
    return json_bytes(body)


def end_request(number: Number, body: bytes) -> HttpRequest:
    """The request around a stored body, with the number's present URL and headers."""
    webhook = settings_of(number.settings).call_end
    return HttpRequest(
        webhook.url,
        body,
        webhook_headers(webhook.headers),
        timeout_s=profile.CALL_END_TIMEOUT_S,
        max_reply_bytes=profile.CALL_END_REPLY_BYTES,
    )


def acknowledges(outcome: HttpOutcome) -> bool:
    """Any 2xx counts; the reply's own `status` is only looked at to warn."""
    if not isinstance(outcome, HttpReply) or not 200 <= outcome.status < 300:
        return False
    try:
        members = {member.name: member.value for member in parse_object(outcome.body.decode("utf-8-sig", "replace"))}
    except InvalidJson:
        return True
    status = members.get("status")
    if isinstance(status, int) and status != 0:
        logger.warning("CallEnd was acknowledged with status %d; it is not sent again", status)
    return True


def log_line(at: datetime, text: str, zone: tzinfo) -> str:
    """`26/04/17 - 10:26:12.560 - Logging Started.`, local time of `zone`."""
    local = at.astimezone(zone)
    return f"{local:%y/%m/%d - %H:%M:%S}.{local.microsecond // 1000:03d} - {_one_line(text)}"


def transcript_line(utterance: Utterance, zone: tzinfo) -> str:
    """`2026-04-17 10:26:20.046 AI : Hello!` or `… User: Bye.`, local time of `zone`.

    There are two labels and no third: whom the agent consults for a transfer is a user, marked as not the caller.
    """
    local = utterance.at.astimezone(zone)
    label = _LABELS[utterance.speaker]
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {label} {_one_line(utterance.text)}"


def tool_request_line(call: ToolCall) -> str:
    """`Tool Request: <name> <json>`."""
    return _cut(f"Tool Request: {call.name} {call.arguments.strip() or '{}'}")


def tool_reply_line(call: ToolCall, outcome: HttpOutcome | None, output: str) -> str:
    """`Tool Reply: <name> <http> <ms>ms <json>`; without an HTTP status a word stands in its place."""
    if isinstance(outcome, HttpReply):
        result, elapsed_ms = str(outcome.status), outcome.elapsed_ms
    elif isinstance(outcome, HttpFailure):
        result, elapsed_ms = outcome.reason, outcome.elapsed_ms
    else:
        result, elapsed_ms = "none", 0
    return _cut(f"Tool Reply: {call.name} {result} {elapsed_ms}ms {output}")


def _error_message(verdict: Verdict) -> str:
    if verdict.reason == "max-duration":
        return "Maximum call duration reached"
    if _STATUS[verdict.ending] == 0:
        return "No Errors"
    return verdict.message or _TEXT[verdict.ending]


def _outbound_result(report: CallReport) -> str:
    if report.attempt.direction is Direction.INBOUND:
        return "N/A"
    if report.connected_at is not None:
        return _ANSWERERS.get(report.answered_by or "", "Connected")
    if report.verdict.ending in (Ending.CALL_START_FAILED, Ending.INTERNAL_ERROR):
        return "Error"
    if report.answered_by == "announcement":
        return _ANSWERERS[report.answered_by]
    return result_word(report.verdict.reason)


def _transfer(record: TransferRecord) -> dict[str, str | None]:
    return {
        "transferCalledNumber": record.called,
        "transferCallerId": record.caller,
        "transferCallerIdName": record.caller_name,
        "transferCallStart": utc_ticks(record.started_at),
        "transferCallEnd": utc_ticks(record.ended_at),
        "transferCallResult": result_word(record.result),
    }


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _cut(text: str) -> str:
    limit = profile.LOG_LINE_CHARACTERS
    return text if len(text) <= limit else text[:limit] + "…"

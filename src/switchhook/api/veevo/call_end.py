"""onCallEnd: the account of a finished call, with its transcript and what it cost (contract §2.5, §2.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from switchhook.api.veevo import profile
from switchhook.api.veevo.call_start import signed_for
from switchhook.api.veevo.configuration import UNREADABLE
from switchhook.api.veevo.forms import amount, iso, json_bytes, printable, shown_number
from switchhook.api.veevo.profile import Dialect
from switchhook.api.veevo.schema import settings_of
from switchhook.domain import money
from switchhook.domain.call_sid import call_sid
from switchhook.domain.contract import HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import Number, Speaker, Utterance
from switchhook.domain.report import CallReport
from switchhook.usecases.costs import connected_seconds, untold

_ROLES = {Speaker.AGENT: "assistant", Speaker.CALLER: "user", Speaker.DESTINATION: "user"}
_TOKENS = {
    "inputTextTokens": "input_text",
    "inputAudioTokens": "input_audio",
    "outputTextTokens": "output_text",
    "outputAudioTokens": "output_audio",
}
_CACHED_TOKENS = {"cachedInputTextTokens": "cached_text", "cachedInputAudioTokens": "cached_audio"}
_COSTS = {
    "costInputText": "input_text",
    "costInputAudio": "input_audio",
    "costOutputText": "output_text",
    "costOutputAudio": "output_audio",
    "costTwilio": "carrier",
}


def end_body(report: CallReport, utterances: Sequence[Utterance]) -> bytes:
    """Every field, in the order of the example; those of the newer documents come after them."""
    dialect: Dialect = settings_of(report.number.settings).dialect if report.number else profile.DIALECT
    spoken = sorted(utterances, key=lambda utterance: utterance.order)
    metadata = _metadata(report.customer_call_id)
    seconds = connected_seconds(report).quantize(Decimal(1), ROUND_HALF_UP)
    body = {
        "callSid": call_sid(report.attempt),
        "transcript": [
            {"role": _ROLES[line.speaker], "content": _content(line), "timestamp": int(line.at.timestamp())} for line in spoken
        ],
        "costBreakdown": cost_breakdown(report, dialect),
        "durationSeconds": int(seconds),
        **({"metadata": metadata} if metadata is not None else {}),
        "timestamp": iso(report.ended_at),
        **_parties(report, dialect),
    }
    return json_bytes(body)


def cost_breakdown(report: CallReport, dialect: Dialect) -> Mapping[str, Any]:
    """Tokens and US dollars. What nobody knows is null: the price of an unknown model, tokens that the model did not tell apart,
    all of a call whose process died."""
    tokens = {**_TOKENS, **(_CACHED_TOKENS if dialect == "both" else {})}
    known, unknown = report.costs is not None or report.connected_at is None, untold(report.usage)
    counts = {name: report.usage.get(kind, 0) if known and kind not in unknown else None for name, kind in tokens.items()}
    costs = {name: _part(report, kind) for name, kind in _COSTS.items()}
    amounts = {name: amount(cost) for name, cost in costs.items()}
    return {**counts, **amounts, "totalCost": amount(money.total(costs.values()))}


def end_request(number: Number, body: bytes) -> HttpRequest:
    """The request around a stored body, with the number's present address; it is signed anew with each try."""
    return HttpRequest(
        settings_of(number.settings).on_call_end.url,
        body,
        {"Content-Type": "application/json"},
        timeout_s=profile.CALL_END_TIMEOUT_S,
        max_reply_bytes=profile.CALL_END_REPLY_BYTES,
        sign=signed_for(number.account),
    )


def acknowledges(outcome: HttpOutcome) -> bool:
    """Any 2xx."""
    return isinstance(outcome, HttpReply) and 200 <= outcome.status < 300


def _content(line: Utterance) -> str:
    """There are two roles and no third; whom the agent consults for a transfer is a user, marked as not the caller."""
    text = printable(line.text)
    return f"{profile.DESTINATION_MARK} {text}" if line.speaker is Speaker.DESTINATION else text


def _part(report: CallReport, kind: str) -> Decimal | None:
    if report.costs is not None:
        return report.costs.parts.get(kind)
    return Decimal(0) if report.connected_at is None else None


def _metadata(text: str | None) -> msgspec.Raw | None:
    """As it was given; a reference of another kind (an outbound order's) is none."""
    if text is None:
        return None
    try:
        encoded = text.encode()
        msgspec.json.decode(encoded, type=msgspec.Raw)
    except UNREADABLE:
        return None
    return msgspec.Raw(encoded)


def _parties(report: CallReport, dialect: Dialect) -> Mapping[str, str]:
    if dialect == "2026-04":
        return {}
    caller = shown_number(report.attempt.caller)
    older = {"callerPhone": caller} if dialect == "both" else {}
    return {"callerNumber": caller, **older, "calledNumber": shown_number(report.attempt.called)}

"""`vns_transfer_call`: what the model asks for, and what it is told when that did not come about (contract §1.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchhook.api.vns import profile
from switchhook.api.vns.forms import json_text
from switchhook.api.vns.tolerant_json import InvalidJson, parse_tolerantly
from switchhook.domain.dialling import PASSING_RULES, DialResult
from switchhook.domain.model import CallAttempt, Direction, ToolCall, TransferRecord
from switchhook.domain.plan import CallPlan, TransferOrder

_WORDS = {
    DialResult.CONNECTED: "Connected",
    DialResult.REFERRED: "Successful",
    DialResult.NO_ANSWER: "NoAnswer",
    DialResult.BUSY: "Busy",
    DialResult.UNREACHABLE: "OperatorIntercept",
    DialResult.VOICEMAIL: "MachineDetected",
    DialResult.ERROR: "Error",
}
_TRUE = ("true", "yes", "1")


def result_word(result: str) -> str:
    """The word of VNS for a `DialResult` value (contract §1.8); whatever has none of its own has failed."""
    try:
        return _WORDS.get(DialResult(result), "Failed")
    except ValueError:
        return "Failed"


def transfer_order(plan: CallPlan, attempt: CallAttempt, call: ToolCall) -> TransferOrder | str:
    """The order, or the text for the model when the arguments name no number. Every argument but the number is optional."""
    arguments = _arguments(call.arguments)
    called = arguments.get("transferNumber")
    if not isinstance(called, str | int) or not str(called).strip():
        return json_text(
            {"status": "failed", "transferCallResult": "Error", "reason": "transferNumber is missing: give the number in E.164."}
        )
    outbound = attempt.direction is Direction.OUTBOUND
    ours = _flag(arguments.get("useVnsNumberAsCallerId"))
    # Of an outbound call the party is the one we called; our own number is the caller of the request.
    party = attempt.called if outbound else attempt.caller
    return TransferOrder(
        str(called).strip(),
        plan.number.number if ours else party,
        None if ours or outbound else attempt.caller_name,
        attended=_flag(arguments.get("attended")),
        ring_s=profile.TRANSFER_RING_S,
        consult_s=profile.CONSULT_S,
    )


def transfer_output(transfer: TransferRecord) -> str:
    """`{"status":"failed","transferCallResult":"NoAnswer"}`, with the reason when the policy refused."""
    output = {"status": "failed", "transferCallResult": result_word(transfer.result)}
    reason = _REASONS.get(transfer.result)
    if transfer.result == DialResult.POLICY.value and transfer.detail.partition(":")[0] in PASSING_RULES:
        reason = "No call to this number can be placed at this time."
    return json_text(output | ({"reason": reason} if reason else {}))


_REASONS = {
    DialResult.POLICY.value: "Calls to this number are not allowed.",
    DialResult.DECLINED.value: "The person there did not take the call.",
    DialResult.TRUNK_ERROR.value: "The number could not be reached for technical reasons.",
}


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        parsed = parse_tolerantly(text.encode("utf-8", "replace"), profile.MENDED_REPLY_BYTES)
    except InvalidJson:
        return {}
    return {member.name: member.value for member in parsed.members}


def _flag(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in _TRUE) or value == 1

"""The tools that the gateway runs itself: the text that the model gets (contract §1.6)."""

from __future__ import annotations

from datetime import datetime

from switchhook.api.vns.forms import json_text, shown_number, utc_seconds
from switchhook.api.vns.schema import settings_of
from switchhook.domain.model import CallAttempt, Direction
from switchhook.domain.plan import BuiltinTool, CallPlan

_RECORDING = {BuiltinTool.RECORDING_PAUSE: "paused", BuiltinTool.RECORDING_RESUME: "recording"}


def builtin_output(tool: BuiltinTool, plan: CallPlan, attempt: CallAttempt, now: datetime) -> str:
    """`now` is UTC. The effect (farewell, transfer, pause) is not made here."""
    if tool is BuiltinTool.END_CONVERSATION:
        return json_text({"status": "ending"})
    if tool is BuiltinTool.UTC_DATETIME:
        return json_text({"utcDateTime": utc_seconds(now)})
    if tool in _RECORDING:
        return json_text({"status": _RECORDING[tool] if plan.recording is not None else "not recorded"})
    return json_text(_call_info(plan, attempt))


def _call_info(plan: CallPlan, attempt: CallAttempt) -> dict[str, str | bool | None]:
    """The names of CallStart."""
    form = settings_of(plan.number.settings).number_format
    return {
        "calledNumber": shown_number(attempt.called, form),
        "callerId": shown_number(attempt.caller, form),
        "callerIdName": attempt.caller_name,
        "callStart": utc_seconds(attempt.started_at),
        "outboundTriggered": attempt.direction is Direction.OUTBOUND,
        "sessionGuid": attempt.call_id,
        "customerCallId": plan.customer_call_id,
    }

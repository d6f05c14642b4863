"""The Veevo contract as the house sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from switchhook.api.veevo import call_end, call_start, profile, schema, tools
from switchhook.api.veevo.forms import json_text
from switchhook.domain.contract import HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import CallAttempt, JsonObject, Number, ToolCall, TransferRecord, Utterance
from switchhook.domain.plan import BuiltinTool, CallPlan, Refusal, TransferOrder
from switchhook.domain.report import CallReport


class VeevoContract:
    """Implements `domain.contract.Contract`; stateless."""

    name = "veevo"
    retry_delays_s: Sequence[float] = profile.CALL_END_RETRIES_S
    tells_of_refused_calls = False

    def read_number_settings(self, settings: JsonObject) -> JsonObject:
        """See `schema.NumberSettings`. Raises ApplyError naming each field and its cure."""
        return schema.read_number_settings(settings)

    def start_request(self, number: Number, attempt: CallAttempt) -> HttpRequest:
        """onCallStart."""
        return call_start.start_request(number, attempt)

    def read_start_outcome(self, number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> CallPlan | Refusal:
        """The reply's plan, or a refusal."""
        return call_start.read_start_outcome(number, attempt, outcome)

    def tool_request(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> HttpRequest | None:
        """onToolCall; None when the model's arguments cannot be sent."""
        target = plan.contract_data
        return tools.tool_request(target, plan.number.account, call, now) if isinstance(target, tools.ToolTarget) else None

    def tool_output(self, outcome: HttpOutcome | None) -> str:
        """The text for the model."""
        return tools.tool_output(outcome)

    def builtin_output(self, tool: BuiltinTool, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> str:
        """Of our own `end_call`; the other one answers through `transfer_output`."""
        return json_text({"status": "ending"})

    def transfer_order(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall) -> TransferOrder | str:
        """Our own `transfer_call`."""
        return tools.transfer_order(plan, attempt, call)

    def transfer_output(self, record: TransferRecord) -> str:
        """What the model is told of a failed transfer."""
        return json_text({"status": "failed", "result": record.result})

    def log_tool_request(self, call: ToolCall) -> str:
        """For the call's log, which no callback of Veevo carries."""
        return f"onToolCall: {call.name}"

    def log_tool_reply(self, call: ToolCall, outcome: HttpOutcome | None, output: str) -> str:
        """The same of the reply."""
        status = outcome.status if isinstance(outcome, HttpReply) else outcome.reason if outcome else "not sent"
        return f"onToolCall: {call.name} answered: {status}"

    def utterance_request(self, plan: CallPlan, attempt: CallAttempt, utterance: Utterance) -> HttpRequest | None:
        """Veevo has no live transcript."""
        return None

    def end_body(self, report: CallReport, log: Sequence[tuple[datetime, str]], utterances: Sequence[Utterance]) -> bytes:
        """onCallEnd."""
        return call_end.end_body(report, utterances)

    def end_request(self, number: Number, body: bytes) -> HttpRequest:
        """onCallEnd's request around a stored body."""
        return call_end.end_request(number, body)

    def acknowledges(self, outcome: HttpOutcome) -> bool:
        """Any 2xx."""
        return call_end.acknowledges(outcome)

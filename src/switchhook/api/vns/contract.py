"""The Voice Nexus Service contract as the house sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from switchhook import __version__
from switchhook.api.vns import builtin, call_end, call_start, profile, schema, tools, transfer
from switchhook.domain.contract import HttpOutcome, HttpRequest
from switchhook.domain.model import CallAttempt, JsonObject, Number, ToolCall, TransferRecord, Utterance
from switchhook.domain.plan import BuiltinTool, CallPlan, Refusal, TransferOrder
from switchhook.domain.report import CallReport


def software_version(version: str = __version__) -> str:
    """Our version in the four dotted parts that VNS shows."""
    parts = [part if part.isdigit() else "0" for part in version.split(".")]
    return ".".join([*parts, "0", "0", "0", "0"][:4])


class VnsContract:
    """Implements `domain.contract.Contract`; stateless."""

    name = "vns"
    retry_delays_s: Sequence[float] = profile.CALL_END_RETRIES_S
    tells_of_refused_calls = True

    def read_number_settings(self, settings: JsonObject) -> JsonObject:
        """See `schema.NumberSettings`. Raises ApplyError naming each field and its cure."""
        return schema.read_number_settings(settings)

    def start_request(self, number: Number, attempt: CallAttempt) -> HttpRequest:
        """CallStart."""
        return call_start.start_request(number, attempt, software_version())

    def read_start_outcome(self, number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> CallPlan | Refusal:
        """The reply's plan, the number's fallback, or a refusal."""
        return call_start.read_start_outcome(number, attempt, outcome)

    def tool_request(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> HttpRequest | None:
        """The customer's tool; None without a tool URL."""
        return tools.tool_request(_target(plan), attempt, call)

    def tool_output(self, outcome: HttpOutcome | None) -> str:
        """The text for the model."""
        return tools.tool_output(outcome)

    def builtin_output(self, tool: BuiltinTool, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> str:
        """The text for the model; no built-in tool of VNS needs the call's arguments for it."""
        return builtin.builtin_output(tool, plan, attempt, now)

    def transfer_order(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall) -> TransferOrder | str:
        """`vns_transfer_call`."""
        return transfer.transfer_order(plan, attempt, call)

    def transfer_output(self, record: TransferRecord) -> str:
        """What the model is told of a failed transfer."""
        return transfer.transfer_output(record)

    def log_tool_request(self, call: ToolCall) -> str:
        """`Tool Request: …`."""
        return call_end.tool_request_line(call)

    def log_tool_reply(self, call: ToolCall, outcome: HttpOutcome | None, output: str) -> str:
        """`Tool Reply: …`."""
        return call_end.tool_reply_line(call, outcome, output)

    def utterance_request(self, plan: CallPlan, attempt: CallAttempt, utterance: Utterance) -> HttpRequest | None:
        """`transcriptionToolName`."""
        return tools.utterance_request(_target(plan), attempt, utterance)

    def end_body(self, report: CallReport, log: Sequence[tuple[datetime, str]], utterances: Sequence[Utterance]) -> bytes:
        """CallEnd."""
        return call_end.end_body(report, log, utterances)

    def end_request(self, number: Number, body: bytes) -> HttpRequest:
        """CallEnd's request around a stored body."""
        return call_end.end_request(number, body)

    def acknowledges(self, outcome: HttpOutcome) -> bool:
        """Any 2xx."""
        return call_end.acknowledges(outcome)


def _target(plan: CallPlan) -> tools.ToolTarget:
    """A fallback plan has no tools."""
    return plan.contract_data if isinstance(plan.contract_data, tools.ToolTarget) else tools.ToolTarget()

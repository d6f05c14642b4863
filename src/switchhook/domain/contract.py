"""What a contract's folder gives to the house, so that nothing below `api` knows a contract by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from switchhook.domain.model import CallAttempt, JsonObject, Number, ToolCall, TransferRecord, Utterance
from switchhook.domain.plan import BuiltinTool, CallPlan, Refusal, TransferOrder
from switchhook.domain.report import CallReport


@dataclass(frozen=True, slots=True)
class BodySignature:
    """The header that proves a body to be ours: lower-case hex of HMAC-SHA256 under the account's webhook secret.

    The secret is no part of a request: it is looked up when the request leaves (`usecases.signing`).
    """

    account: str
    header: str


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request on its way out."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "POST"
    timeout_s: float = 10.0
    max_reply_bytes: int = 1 << 20
    """A longer body is cut there and the reply marked `truncated`."""
    retry_unsent: bool = False
    """Try once more when the connection failed before any byte was sent."""
    sign: BodySignature | None = None
    """Sign on the way out, each time that it is sent."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply that came back, whatever its status."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    truncated: bool = False
    elapsed_ms: int = 0


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """No reply came back."""

    reason: str
    """`timeout`, `unreachable` (DNS, TCP, TLS, reset) or `refused` (egress policy)."""
    detail: str
    """For the log; no secret."""
    elapsed_ms: int = 0


HttpOutcome: TypeAlias = HttpReply | HttpFailure


class Http(Protocol):
    """The guarded way out for HTTP; `egress` implements it. Redirects are not followed."""

    async def send(self, request: HttpRequest) -> HttpOutcome:
        """Send and wait. Never raises but for cancellation."""


class Contract(Protocol):
    """One customer-facing contract. Rendering and parsing only: no I/O, no state; secrets live in the arguments."""

    name: str
    retry_delays_s: Sequence[float]
    """The contract's ladder after a failed end webhook, before the hourly tries."""
    tells_of_refused_calls: bool
    """Whether the end webhook is owed for a call that its start webhook did not let in."""

    def read_number_settings(self, settings: JsonObject) -> JsonObject:
        """Validate the contract's keys of a number in an apply file, normalised. Raises ApplyError naming the field."""

    def start_request(self, number: Number, attempt: CallAttempt) -> HttpRequest:
        """The webhook that asks what to do with the call."""

    def read_start_outcome(self, number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> CallPlan | Refusal:
        """Translate the reply, or the lack of one, into a plan (a fallback flow counts) or a refusal."""

    def tool_request(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> HttpRequest | None:
        """The webhook that runs the customer's tool; None when nothing can be sent (no tool URL, say). `now` is UTC."""

    def tool_output(self, outcome: HttpOutcome | None) -> str:
        """The text for the model: of a reply, of a failure, or (None) of a tool that nothing could be sent to."""

    def builtin_output(self, tool: BuiltinTool, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> str:
        """The text for the model from a tool that the gateway runs itself; `now` is UTC."""

    def transfer_order(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall) -> TransferOrder | str:
        """What the model's call of the transfer tool asks for, or the text that tells it why that cannot be."""

    def transfer_output(self, record: TransferRecord) -> str:
        """The text for the model of a transfer that did not come about."""

    def log_tool_request(self, call: ToolCall) -> str:
        """The log line of a tool request."""

    def log_tool_reply(self, call: ToolCall, outcome: HttpOutcome | None, output: str) -> str:
        """The log line of a tool reply."""

    def utterance_request(self, plan: CallPlan, attempt: CallAttempt, utterance: Utterance) -> HttpRequest | None:
        """The live delivery of a transcript line, or None when the customer did not ask for it."""

    def end_body(self, report: CallReport, log: Sequence[tuple[datetime, str]], utterances: Sequence[Utterance]) -> bytes:
        """The body of the end webhook. `log` and `utterances` are in order."""

    def end_request(self, number: Number, body: bytes) -> HttpRequest:
        """The end webhook's request around a stored body, with the number's present URL and headers."""

    def acknowledges(self, outcome: HttpOutcome) -> bool:
        """Whether this outcome counts as received."""

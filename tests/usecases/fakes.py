"""A contract with easy texts that is strict about how it is used, a customer's HTTP side, a clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import ApplyError
from switchhook.domain.model import CallAttempt, CallId, Direction, JsonObject, Number, ToolCall, TransferRecord, Utterance
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import AgentSpec, Answer, BuiltinTool, CallPlan, Converse, HangUp, JournalSpec, Refusal, TransferOrder
from switchhook.domain.report import CallReport

START = datetime(2026, 4, 17, 16, 26, 12, 560_000, tzinfo=UTC)
EVERYTHING = JournalSpec(tool_requests=True, tool_replies=True, transcript=True)


class SteppedClock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> float:
        return 1000.0 + self.passed_s

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.passed_s)


class LoopClock:
    """The loop's own time, virtual or real."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.now())


class Customer:
    """Answers what is sent, and remembers it. `answers` by path; a gate of a path holds its answers back."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.answers: dict[str, Callable[[HttpRequest], HttpOutcome]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.waiting = 0

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.requests.append(request)
        path = request.url.partition("/")[2].lstrip("/").partition("/")[2]
        gate = self.gates.get(path)
        if gate is not None:
            self.waiting += 1
            try:
                await gate.wait()
            finally:
                self.waiting -= 1
        answer = self.answers.get(path)
        return answer(request) if answer is not None else HttpReply(200, b"{}")

    def bodies(self, path: str) -> list[bytes]:
        """Bodies sent to a path, in order."""
        return [request.body for request in self.requests if request.url.endswith(f"/{path}")]


def always(outcome: HttpOutcome) -> Callable[[HttpRequest], HttpOutcome]:
    return lambda _: outcome


DOWN = HttpFailure("unreachable", "no route", 3)


class PlainContract:
    """Its texts are easy to compare. `broken` names a method that raises."""

    name = "plain"
    retry_delays_s: Sequence[float] = (5.0, 30.0, 120.0)
    tells_of_refused_calls = True

    def __init__(self, journal: JournalSpec = EVERYTHING, broken: str = "") -> None:
        self.journal = journal
        self.broken = broken
        self.live = False

    def _check(self, method: str) -> None:
        if method == self.broken:
            raise KeyError(f"{method} is broken on purpose")

    def read_number_settings(self, settings: JsonObject) -> JsonObject:
        unknown = sorted(set(settings) - {"url", "headers", "limits"})
        if unknown:
            raise ApplyError(f"{unknown[0]}: is no setting of the plain contract")
        if "url" not in settings:
            raise ApplyError("url: is missing; write https://…")
        return {"url": settings["url"], "headers": settings.get("headers", {}), "limits": tuple(settings.get("limits", ()))}

    def start_request(self, number: Number, attempt: CallAttempt) -> HttpRequest:
        self._check("start_request")
        return self._request(number, "start", json.dumps({"call": attempt.call_id}).encode())

    def read_start_outcome(self, number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> CallPlan | Refusal:
        self._check("read_start_outcome")
        if isinstance(outcome, HttpFailure) or outcome.status != 200:
            return Refusal(480, Ending.CALL_START_FAILED, "call-start-failed")
        return plan(number, self.journal)

    def tool_request(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> HttpRequest | None:
        self._check("tool_request")
        return None if call.name == "homeless" else self._request(plan.number, "tool", call.arguments.encode())

    def tool_output(self, outcome: HttpOutcome | None) -> str:
        if outcome is None:
            return "no url"
        return f"failed: {outcome.reason}" if isinstance(outcome, HttpFailure) else outcome.body.decode()

    def builtin_output(self, tool: BuiltinTool, plan: CallPlan, attempt: CallAttempt, call: ToolCall, now: datetime) -> str:
        return f"{tool.value} at {now:%H:%M:%S}"

    def transfer_order(self, plan: CallPlan, attempt: CallAttempt, call: ToolCall) -> TransferOrder | str:
        self._check("transfer_order")
        return TransferOrder(call.arguments, attempt.caller) if call.arguments else "whereto"

    def transfer_output(self, record: TransferRecord) -> str:
        self._check("transfer_output")
        return f"transfer {record.result}"

    def log_tool_request(self, call: ToolCall) -> str:
        return f"request {call.name} {call.arguments}"

    def log_tool_reply(self, call: ToolCall, outcome: HttpOutcome | None, output: str) -> str:
        return f"reply {call.name} {output}"

    def utterance_request(self, plan: CallPlan, attempt: CallAttempt, utterance: Utterance) -> HttpRequest | None:
        self._check("utterance_request")
        return self._request(plan.number, "live", utterance.text.encode()) if self.live else None

    def end_body(self, report: CallReport, log: Sequence[tuple[datetime, str]], utterances: Sequence[Utterance]) -> bytes:
        self._check("end_body")
        orders = [utterance.order for utterance in utterances]
        assert orders == sorted(orders), "utterances come in order"
        body = {
            "call": report.attempt.call_id,
            "ending": report.verdict.ending.value,
            "reason": report.verdict.reason,
            "connected": report.connected_at and report.connected_at.isoformat(),
            "ended": report.ended_at.isoformat(),
            "theirs": report.customer_call_id,
            "log": [text for _, text in log] if report.journal.logs else None,
            "said": [f"{said.speaker.value}: {said.text}" for said in utterances] if report.journal.transcript else None,
        }
        return json.dumps(body, ensure_ascii=False).encode()

    def end_request(self, number: Number, body: bytes) -> HttpRequest:
        self._check("end_request")
        return self._request(number, "end", body)

    def acknowledges(self, outcome: HttpOutcome) -> bool:
        self._check("acknowledges")
        return isinstance(outcome, HttpReply) and 200 <= outcome.status < 300

    def _request(self, number: Number, path: str, body: bytes) -> HttpRequest:
        return HttpRequest(f"{number.settings['url']}/{path}", body, number.settings["headers"])


NUMBER = Number("+17206999999", "acme", "plain", {"url": "http://acme", "headers": {"Token": "abc"}, "limits": []})


def plan(number: Number = NUMBER, journal: JournalSpec = EVERYTHING) -> CallPlan:
    clock = AgentSpec("wss://ai", builtin_tools={"what_time": BuiltinTool.UTC_DATETIME})
    spare = AgentSpec("wss://spare", builtin_tools={"spare_info": BuiltinTool.CALL_INFO})
    return CallPlan(number, (Answer(), Converse(clock, (Converse(spare),)), HangUp()), journal=journal)


def attempt(call_id: str = "call-1", called: str = "+17206999999", account: str | None = "acme") -> CallAttempt:
    return CallAttempt(
        CallId(call_id), Direction.INBOUND, called, "+13035550123", "ACME WEST", account, "sip", START, "abc@host", "local"
    )

"""The test button of every contract: post a made-up start or end webhook as a call would, and tell what came of it.

No AI session is opened and no call is recorded. Headers and bodies are not part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, TypeAlias

from switchhook.domain.contract import Contract, Http, HttpFailure, HttpOutcome
from switchhook.domain.model import CallAttempt, CallId, Direction, Number
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import Refusal
from switchhook.domain.report import CallReport

WebhookName: TypeAlias = Literal["call_start", "call_end"]

_FINDINGS = 64
_NAME_CHARACTERS = 64


class Judgement(Enum):
    """What became of a field of a reply."""

    UNDERSTOOD = "understood"
    COERCED = "coerced"
    IGNORED = "ignored"
    MENDED = "mended"


@dataclass(frozen=True, slots=True)
class Finding:
    """One field of a reply and what became of it. It names the field and never its value, which may be a secret."""

    field: str
    judgement: Judgement
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.judgement.value}" + (f" ({self.detail})" if self.detail else "")


class Findings:
    """Collects findings, a bounded number of them."""

    def __init__(self) -> None:
        self.items: list[Finding] = []

    def add(self, name: str, judgement: Judgement, detail: str = "") -> None:
        """Note one; beyond the bound it is dropped."""
        if len(self.items) < _FINDINGS:
            shown = name if name.isprintable() else ascii(name)
            self.items.append(Finding(shown[:_NAME_CHARACTERS], judgement, detail))


@dataclass(frozen=True, slots=True)
class WebhookTrial:
    """What came of a trial."""

    webhook: str
    """In the contract's own words: `call_start`, `onCallEnd`."""
    passed: bool
    status: int | None
    """HTTP status; None when no reply came."""
    elapsed_ms: int
    summary: str
    findings: tuple[Finding, ...] = ()

    def lines(self) -> list[str]:
        """For a terminal: the result first, then a line for each field."""
        status = f"HTTP {self.status}" if self.status is not None else "no reply"
        head = f"{self.webhook}: {'passed' if self.passed else 'FAILED'}, {status}, {self.elapsed_ms} ms: {self.summary}"
        return [head, *(f"  {finding}" for finding in self.findings)]


Explain: TypeAlias = Callable[[bytes], Sequence[Finding]]
"""What a contract found in the body of a usable reply to its start webhook."""


@dataclass(frozen=True, slots=True)
class TrialWords:
    """How a contract names its webhooks, and who its made-up caller is."""

    caller: str
    caller_name: str | None = None
    start: str = "call_start"
    end: str = "call_end"


class Trial:
    """The test button of one contract."""

    def __init__(self, contract: Contract, words: TrialWords, explain: Explain) -> None:
        self._contract = contract
        self._words = words
        self._explain = explain

    async def run(self, http: Http, number: Number, webhook: WebhookName, call_id: CallId, now: datetime) -> WebhookTrial:
        """Post once. `call_id` is fresh, `now` is UTC."""
        words, contract = self._words, self._contract
        attempt = CallAttempt(
            call_id,
            Direction.INBOUND,
            called=number.number,
            caller=words.caller,
            caller_name=words.caller_name,
            account=number.account,
            line="test",
            started_at=now,
        )
        if webhook == "call_start":
            return self._judge_start(number, attempt, await http.send(contract.start_request(number, attempt)))
        answered, ended = now + timedelta(seconds=1), now + timedelta(seconds=6)
        verdict = Verdict(Ending.COMPLETED, "caller-hung-up")
        report = CallReport(attempt, number, verdict, answered, ended, end_webhook_owed=True)
        return self._judge_end(await http.send(contract.end_request(number, contract.end_body(report, (), ()))))

    def _judge_start(self, number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> WebhookTrial:
        name = self._words.start
        if isinstance(outcome, HttpFailure):
            return _nobody(name, outcome)
        decision = self._contract.read_start_outcome(number, attempt, outcome)
        if decision.ending is Ending.REJECTED:
            return WebhookTrial(name, True, outcome.status, outcome.elapsed_ms, "a call would be refused, as the reply says")
        if isinstance(decision, Refusal) or decision.ending is Ending.CALL_START_FAILED:
            return WebhookTrial(name, False, outcome.status, outcome.elapsed_ms, decision.message or "no usable reply")
        findings = tuple(self._explain(outcome.body))
        return WebhookTrial(name, True, outcome.status, outcome.elapsed_ms, "a call would be answered", findings)

    def _judge_end(self, outcome: HttpOutcome) -> WebhookTrial:
        name = self._words.end
        if isinstance(outcome, HttpFailure):
            return _nobody(name, outcome)
        passed = self._contract.acknowledges(outcome)
        summary = "acknowledged" if passed else "not acknowledged; it would be sent again"
        return WebhookTrial(name, passed, outcome.status, outcome.elapsed_ms, summary)


def _nobody(name: str, failure: HttpFailure) -> WebhookTrial:
    return WebhookTrial(name, False, None, failure.elapsed_ms, f"{failure.reason}: {failure.detail}")

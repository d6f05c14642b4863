"""The test button (contract §1.9): post a made-up CallStart or CallEnd with the real headers, and tell what came of it.

No AI session is opened and no call is recorded. Headers and bodies are not part of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from switchhook.api.vns import profile
from switchhook.api.vns.call_start import NO_CALLER_LINES, StartReply, read_reply
from switchhook.api.vns.contract import VnsContract
from switchhook.api.vns.instructions import Finding, InvalidReply, Judgement
from switchhook.domain.contract import Http, HttpFailure, HttpOutcome
from switchhook.domain.model import CallAttempt, CallId, Direction, Number
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import Refusal
from switchhook.domain.report import CallReport

WebhookName: TypeAlias = Literal["call_start", "call_end"]


@dataclass(frozen=True, slots=True)
class WebhookTrial:
    """What came of a trial."""

    webhook: WebhookName
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


async def try_webhook(http: Http, number: Number, webhook: WebhookName, call_id: CallId, now: datetime) -> WebhookTrial:
    """Post once. `call_id` is fresh, `now` is UTC."""
    contract = VnsContract()
    attempt = CallAttempt(
        call_id,
        Direction.INBOUND,
        called=number.number,
        caller=profile.TEST_CALLER,
        caller_name=profile.TEST_CALLER_NAME,
        account=number.account,
        line="test",
        started_at=now,
    )
    if webhook == "call_start":
        outcome = await http.send(contract.start_request(number, attempt))
        return _judge_start(contract, number, attempt, outcome)
    verdict = Verdict(Ending.COMPLETED, "caller-hung-up")
    report = CallReport(attempt, number, verdict, now + timedelta(seconds=1), now + timedelta(seconds=6), end_webhook_owed=True)
    outcome = await http.send(contract.end_request(number, contract.end_body(report, (), ())))
    return _judge_end(contract, outcome)


def _judge_start(contract: VnsContract, number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> WebhookTrial:
    if isinstance(outcome, HttpFailure):
        return WebhookTrial("call_start", False, None, outcome.elapsed_ms, f"{outcome.reason}: {outcome.detail}")
    plan = contract.read_start_outcome(number, attempt, outcome)
    if isinstance(plan, Refusal) or plan.ending is Ending.CALL_START_FAILED:
        return WebhookTrial("call_start", False, outcome.status, outcome.elapsed_ms, plan.message or "no usable reply")
    try:
        reply = read_reply(outcome.body)
    except InvalidReply as error:
        return WebhookTrial("call_start", False, outcome.status, outcome.elapsed_ms, str(error))
    findings = (*reply.findings, *_session_findings(reply))
    return WebhookTrial("call_start", True, outcome.status, outcome.elapsed_ms, "a call would be answered", findings)


def _session_findings(reply: StartReply) -> list[Finding]:
    session = reply.session
    tools = ", ".join(session.builtin_tools) or "none"
    findings = [Finding("session", Judgement.UNDERSTOOD, f"passed on unchanged; built-in tools listed: {tools}")]
    if reply.instructions.log_transcription and not session.transcribes_caller:
        findings.append(Finding("logTranscription", Judgement.UNDERSTOOD, NO_CALLER_LINES))
    return findings


def _judge_end(contract: VnsContract, outcome: HttpOutcome) -> WebhookTrial:
    if isinstance(outcome, HttpFailure):
        return WebhookTrial("call_end", False, None, outcome.elapsed_ms, f"{outcome.reason}: {outcome.detail}")
    passed = contract.acknowledges(outcome)
    summary = "acknowledged" if passed else "not acknowledged; a CallEnd would be sent again"
    return WebhookTrial("call_end", passed, outcome.status, outcome.elapsed_ms, summary)

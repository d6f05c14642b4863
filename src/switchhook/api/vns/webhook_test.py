"""The test button (contract §1.9): a made-up CallStart or CallEnd with the real headers, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from switchhook.api.vns import profile
from switchhook.api.vns.call_start import NO_CALLER_LINES, StartReply, read_reply
from switchhook.api.vns.contract import VnsContract
from switchhook.domain.contract import Http
from switchhook.domain.model import CallId, Number
from switchhook.usecases.webhook_trial import Finding, Judgement, Trial, TrialWords, WebhookName, WebhookTrial


async def try_webhook(http: Http, number: Number, webhook: WebhookName, call_id: CallId, now: datetime) -> WebhookTrial:
    """Post once. `call_id` is fresh, `now` is UTC."""
    words = TrialWords(profile.TEST_CALLER, profile.TEST_CALLER_NAME)
    return await Trial(VnsContract(), words, _explain).run(http, number, webhook, call_id, now)


def _explain(body: bytes) -> Sequence[Finding]:
    reply = read_reply(body)
    return (*reply.findings, *_session_findings(reply))


def _session_findings(reply: StartReply) -> list[Finding]:
    session = reply.session
    tools = ", ".join(session.builtin_tools) or "none"
    findings = [Finding("session", Judgement.UNDERSTOOD, f"passed on unchanged; built-in tools listed: {tools}")]
    if reply.instructions.log_transcription and not session.transcribes_caller:
        findings.append(Finding("logTranscription", Judgement.UNDERSTOOD, NO_CALLER_LINES))
    return findings

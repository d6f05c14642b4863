"""The test button: a made-up onCallStart or onCallEnd, signed as for a call, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from switchhook.api.veevo import profile
from switchhook.api.veevo.configuration import Rejection, read_reply
from switchhook.api.veevo.contract import VeevoContract
from switchhook.domain.contract import Http
from switchhook.domain.model import CallId, Number
from switchhook.usecases.webhook_trial import Finding, Trial, TrialWords, WebhookName, WebhookTrial


async def try_webhook(http: Http, number: Number, webhook: WebhookName, call_id: CallId, now: datetime) -> WebhookTrial:
    """Post once. `call_id` is fresh, `now` is UTC; `http` signs."""
    words = TrialWords(profile.TEST_CALLER, start="onCallStart", end="onCallEnd")
    return await Trial(VeevoContract(), words, _explain).run(http, number, webhook, call_id, now)


def _explain(body: bytes) -> Sequence[Finding]:
    told = read_reply(body)
    return () if isinstance(told, Rejection) else told.findings

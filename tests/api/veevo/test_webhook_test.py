"""The test button: what the customer gets and what the operator is told."""

from __future__ import annotations

import json

import pytest

from switchhook.api.veevo.webhook_test import try_webhook
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.usecases.signing import SigningHttp, signature
from switchhook.usecases.webhook_trial import WebhookName, WebhookTrial
from tests.api.veevo.cases import CALL, SID, STARTED, configuration, number


class Backend:
    def __init__(self, outcome: HttpOutcome) -> None:
        self.outcome = outcome
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.requests.append(request)
        return self.outcome


async def secret(account: str) -> str:
    return "whsec"


async def tried(backend: Backend, webhook: WebhookName) -> WebhookTrial:
    return await try_webhook(SigningHttp(backend, secret), number(), webhook, CALL, STARTED)


async def test_on_call_start_is_tried_as_for_a_call() -> None:
    backend = Backend(HttpReply(200, configuration(vadEagerness="eager", colour="red"), elapsed_ms=12))
    trial = await tried(backend, "call_start")
    (request,) = backend.requests
    body = json.loads(request.body)
    assert (body["callSid"], body["callerNumber"], body["calledNumber"]) == (SID, "+15550100000", "+15551234567")
    assert request.headers["X-Veevo-Signature"] == signature("whsec", request.body)
    assert trial.lines()[0] == "onCallStart: passed, HTTP 200, 12 ms: a call would be answered"
    text = "\n".join(trial.lines())
    for line in ("systemPrompt: understood", "vadEagerness: ignored", "colour: ignored (unknown key)"):
        assert line in text
    assert "canary" not in text


@pytest.mark.parametrize(
    ("outcome", "passed", "summary"),
    [
        (HttpReply(200, b'{"reject":true}'), True, "a call would be refused, as the reply says"),
        (HttpReply(200, b'{"reject":true,"message":"Closed."}'), True, "a call would be refused, as the reply says"),
        (HttpReply(200, b"{}"), False, "twilioAccountSid"),
        (HttpReply(500, b""), False, "HTTP 500"),
        (HttpFailure("refused", "SWITCHHOOK_EGRESS_ALLOW"), False, "SWITCHHOOK_EGRESS_ALLOW"),
    ],
)
async def test_what_came_of_it(outcome: HttpOutcome, passed: bool, summary: str) -> None:
    trial = await tried(Backend(outcome), "call_start")
    assert trial.passed is passed
    assert summary in trial.summary


@pytest.mark.parametrize(
    ("outcome", "passed"), [(HttpReply(200, b""), True), (HttpReply(503, b""), False), (HttpFailure("timeout", ""), False)]
)
async def test_on_call_end_is_tried(outcome: HttpOutcome, passed: bool) -> None:
    backend = Backend(outcome)
    trial = await tried(backend, "call_end")
    assert (trial.webhook, trial.passed) == ("onCallEnd", passed)
    assert json.loads(backend.requests[0].body)["durationSeconds"] == 5

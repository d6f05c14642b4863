"""onCallStart: the callback that asks how to run a call, and its reply made into a plan (contract §2.3)."""

from __future__ import annotations

import logging
from decimal import Decimal

from switchhook.api.veevo import profile
from switchhook.api.veevo.configuration import Configuration, InvalidReply, Rejection, read_reply
from switchhook.api.veevo.forms import iso, json_bytes, shown_number
from switchhook.api.veevo.schema import NumberSettings, settings_of
from switchhook.api.veevo.session import agent
from switchhook.api.veevo.tools import ToolTarget
from switchhook.domain.call_sid import call_sid
from switchhook.domain.contract import BodySignature, HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import CallAttempt, Number
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import Answer, CallPlan, Converse, HangUp, JournalSpec, Refusal, Say
from switchhook.usecases.webhook_trial import Judgement

logger = logging.getLogger(__name__)

_JSON = {"Content-Type": "application/json"}


def start_request(number: Number, attempt: CallAttempt) -> HttpRequest:
    """The fields in the order of the example; who reads one generation of the documents only gets its name of the caller."""
    settings = settings_of(number.settings)
    caller = shown_number(attempt.caller)
    body = {
        "callSid": call_sid(attempt),
        **({"callerPhone": caller} if settings.dialect != "newer" else {}),
        **({"callerNumber": caller} if settings.dialect != "2026-04" else {}),
        "calledNumber": shown_number(attempt.called),
        "timestamp": iso(attempt.started_at),
    }
    return HttpRequest(
        settings.on_call_start.url,
        json_bytes(body),
        _JSON,
        timeout_s=profile.CALL_START_TIMEOUT_S,
        max_reply_bytes=profile.CALL_START_REPLY_BYTES,
        retry_unsent=True,
        sign=signed_for(number.account),
    )


def signed_for(account: str) -> BodySignature:
    """Every callback is signed (contract §2.2)."""
    return BodySignature(account, profile.SIGNATURE_HEADER)


def read_start_outcome(number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> CallPlan | Refusal:
    """A plan, or a refusal: the caller is never answered then, and no onCallEnd follows."""
    reason, why = _failure(outcome)
    if not reason:
        assert isinstance(outcome, HttpReply)  # a failure has its reason
        try:
            told = read_reply(outcome.body)
        except InvalidReply as error:
            reason, why = "call-start-invalid-reply", f"The reply to onCallStart could not be used: {error}."
        else:
            return _rejected(number, told) if isinstance(told, Rejection) else _plan(number, attempt, told)
    detail = f" ({outcome.detail})" if isinstance(outcome, HttpFailure) else ""
    logger.error("onCallStart failed, the call is refused: %s%s", why, detail, extra={"call_id": attempt.call_id})
    return Refusal(profile.FAILED_STATUS, Ending.CALL_START_FAILED, reason, number, message=why)


def _failure(outcome: HttpOutcome) -> tuple[str, str]:
    """(reason, sentence) of an outcome without a usable reply; both empty when there may be one."""
    if isinstance(outcome, HttpFailure):
        sentence = {
            "timeout": f"onCallStart did not answer in {profile.CALL_START_TIMEOUT_S:g} seconds.",
            "refused": "The address of onCallStart is not allowed.",
        }.get(outcome.reason, "onCallStart could not be reached.")
        return f"call-start-{outcome.reason}", sentence
    if not 200 <= outcome.status < 300:
        return "call-start-http-error", f"onCallStart answered HTTP {outcome.status}."
    if outcome.truncated:
        return "call-start-invalid-reply", "The reply to onCallStart could not be used: it is longer than 1 MiB."
    return "", ""


def _rejected(number: Number, told: Rejection) -> CallPlan | Refusal:
    why = "The backend did not take the call."
    if told.message is None:
        status = profile.BUSY_STATUS if told.busy else profile.REJECTED_STATUS
        return Refusal(status, Ending.REJECTED, "rejected-by-backend", number, message=why)
    flow = (Answer(), Say(told.message), HangUp())
    return CallPlan(number, flow, ending=Ending.REJECTED, message=why, end_webhook_owed=False, carrier=profile.CARRIER)


def _plan(number: Number, attempt: CallAttempt, told: Configuration) -> CallPlan:
    settings = settings_of(number.settings)
    notes = tuple(f"onCallStart reply: {finding}" for finding in told.findings if finding.judgement is not Judgement.UNDERSTOOD)
    for note in notes:
        logger.warning(note, extra={"call_id": attempt.call_id})
    sorry = (Say(settings.apology),) if settings.apology else ()
    return CallPlan(
        number,
        flow=(Answer(), Converse(agent(settings, told), (*sorry, HangUp()), told.greeting_url), HangUp()),
        max_seconds=settings.max_seconds,
        # The metadata is the customer's own name for the call: kept with its record, so that onCallEnd has it after a crash too.
        customer_call_id=told.metadata,
        journal=JournalSpec(transcript=True),
        notes=notes,
        contract_data=ToolTarget(told.tool_url, told.metadata, _tool_sid(settings, attempt)),
        carrier=profile.CARRIER,
        carrier_usd_per_minute=_rate(settings),
        carrier_credentials=told.twilio,
    )


def _tool_sid(settings: NumberSettings, attempt: CallAttempt) -> str | None:
    return call_sid(attempt) if settings.tool_call_sid else None


def _rate(settings: NumberSettings) -> Decimal | None:
    rate = settings.twilio_usd_per_minute
    return None if rate is None else Decimal(rate)

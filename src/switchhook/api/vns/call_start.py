"""CallStart: the webhook that asks what to do with a call, and its reply made into a plan."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from switchhook.api.vns import profile
from switchhook.api.vns.forms import json_bytes, shown_number, utc_seconds
from switchhook.api.vns.instructions import Instructions, InvalidReply, read_instructions
from switchhook.api.vns.schema import NumberSettings, settings_of, webhook_headers
from switchhook.api.vns.session import INSTRUCTIONS, Session, read_session
from switchhook.api.vns.tolerant_json import InvalidJson, parse_tolerantly
from switchhook.api.vns.tools import ToolTarget
from switchhook.domain import phone
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import CallAttempt, Direction, Number
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import (
    Action,
    AgentSpec,
    Answer,
    AnswerDetection,
    CallPlan,
    Converse,
    HangUp,
    JournalSpec,
    OnMachine,
    RecordingSpec,
    Refusal,
    RouteTo,
    Say,
)
from switchhook.usecases.webhook_trial import Finding, Findings, Judgement

logger = logging.getLogger(__name__)

NO_CALLER_LINES = "Transcription: no User lines, because session.audio.input.transcription is not set in the CallStart reply."


@dataclass(frozen=True, slots=True)
class StartReply:
    """A usable CallStart reply."""

    instructions: Instructions
    session: Session
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    message: str
    detail: str = field(default="")


def start_request(number: Number, attempt: CallAttempt, software_version: str) -> HttpRequest:
    """Contract §1.2; fields in the order of the example."""
    settings = settings_of(number.settings)
    body = {
        "sessionGuid": attempt.call_id,
        "calledNumber": shown_number(attempt.called, settings.number_format),
        "callerId": shown_number(attempt.caller, settings.number_format),
        "callerIdName": attempt.caller_name,
        "outboundTriggered": attempt.direction is Direction.OUTBOUND,
        "softwareVersion": software_version,
        "callStart": utc_seconds(attempt.started_at),
        "customerCallId": attempt.customer_call_id,
    }
    return HttpRequest(
        settings.call_start.url,
        json_bytes(body),
        webhook_headers(settings.call_start.headers),
        timeout_s=profile.CALL_START_TIMEOUT_S,
        max_reply_bytes=profile.CALL_START_REPLY_BYTES,
        retry_unsent=True,
    )


def read_reply(body: bytes) -> StartReply:
    """Contract §1.3 and §6.1. Raises InvalidReply; its message holds nothing of the body."""
    try:
        parsed = parse_tolerantly(body, profile.MENDED_REPLY_BYTES)
    except InvalidJson as error:
        raise InvalidReply(f"it is not JSON: {error}") from None
    findings = Findings()
    for repair in parsed.repairs:
        findings.add("the reply", Judgement.MENDED, repair)
    given = None
    for member in parsed.members:
        if member.name.lower() == INSTRUCTIONS.lower():
            given = member.value
    instructions = read_instructions(given, findings)
    return StartReply(instructions, read_session(parsed.members), tuple(findings.items))


def read_start_outcome(number: Number, attempt: CallAttempt, outcome: HttpOutcome) -> CallPlan | Refusal:
    """A plan from a usable reply; otherwise the number's fallback, or a refusal when it has none."""
    settings = settings_of(number.settings)
    try:
        failure = _failure(outcome)
        if failure is None:
            assert isinstance(outcome, HttpReply)
            return _plan(number, settings, attempt, read_reply(outcome.body))
    except InvalidReply as error:
        failure = _Failure("call-start-invalid-reply", f"The CallStart reply could not be used: {error}.")
    logger.warning("CallStart failed: %s %s", failure.message, failure.detail, extra={"call_id": attempt.call_id})
    return _fallback(number, settings, attempt, failure)


def _failure(outcome: HttpOutcome) -> _Failure | None:
    if isinstance(outcome, HttpFailure):
        message = {
            "timeout": f"The CallStart webhook did not answer in {profile.CALL_START_TIMEOUT_S:g} seconds.",
            "refused": "The address of the CallStart webhook is not allowed.",
        }.get(outcome.reason, "The CallStart webhook could not be reached.")
        return _Failure(f"call-start-{outcome.reason}", message, outcome.detail)
    if not 200 <= outcome.status < 300:
        return _Failure("call-start-http-error", f"The CallStart webhook answered HTTP {outcome.status}.")
    if outcome.truncated:
        return _Failure("call-start-invalid-reply", "The CallStart reply could not be used: it is longer than 1 MiB.")
    return None


def _plan(number: Number, settings: NumberSettings, attempt: CallAttempt, reply: StartReply) -> CallPlan:
    told = reply.instructions
    notes = [f"CallStart reply: {finding}" for finding in reply.findings if finding.judgement is not Judgement.UNDERSTOOD]
    if told.max_seconds > settings.max_seconds_cap:
        notes.append(f"CallStart reply: maxSeconds: lowered to this number's limit of {settings.max_seconds_cap:g}")
    for note in notes:
        logger.info(note, extra={"call_id": attempt.call_id})
    if told.log_transcription and not reply.session.transcribes_caller:
        notes.append(NO_CALLER_LINES)
    customer_call_id = attempt.customer_call_id if told.customer_call_id is None else told.customer_call_id
    return CallPlan(
        number,
        flow=(
            Answer(),
            Converse(_agent(settings, reply), _after_failure(told.message_on_failure, told.route_on_failure)),
            HangUp(),
        ),
        max_seconds=min(told.max_seconds, settings.max_seconds_cap),
        max_seconds_cover_transfers=settings.max_seconds_scope == "call",
        record_transfers=settings.record_transfers,
        ring_s=settings.ring_s,
        answer_detection=_detection(settings),
        customer_call_id=customer_call_id,
        recording=_recording(settings, told),
        journal=JournalSpec(told.log_tool_requests, told.log_tool_replies, told.log_transcription),
        notes=tuple(notes),
        contract_data=ToolTarget(
            base=told.tools,
            adapter=told.tools_adapter,
            customer_call_id=customer_call_id,
            transcription_tool=told.transcription_tool,
            timeout_s=settings.tool_timeout_s,
            null_placeholder=settings.null_placeholder,
        ),
    )


def _recording(settings: NumberSettings, told: Instructions) -> RecordingSpec | None:
    if not told.record:
        return None
    return RecordingSpec(told.record_format, told.record_password, settings.pause_recording_on_digits)


def _detection(settings: NumberSettings) -> AnswerDetection | None:
    wanted = settings.answer_detection
    return AnswerDetection(OnMachine(wanted.on_machine), wanted.message) if wanted else None


def _agent(settings: NumberSettings, reply: StartReply) -> AgentSpec:
    return AgentSpec(
        url=reply.instructions.ai.url,
        headers=reply.instructions.ai.headers,
        session_update=reply.session.update,
        builtin_tools=reply.session.builtin_tools,
        speaks_first=settings.ai_speaks_first,
        interrupt_response=reply.session.interrupt_response,
        transcribes_caller=reply.session.transcribes_caller,
    )


def _after_failure(message: str | None, number: str | None) -> tuple[Action, ...]:
    """Speak, then hand the caller on or hang up (contract §1.10 E)."""
    spoken: tuple[Action, ...] = () if message is None else (Say(message),)
    return (*spoken, HangUp() if number is None else RouteTo(phone.e164(number) or number))


def _fallback(number: Number, settings: NumberSettings, attempt: CallAttempt, failure: _Failure) -> CallPlan | Refusal:
    fallback = settings.fallback
    nobody = fallback.number is None and fallback.message is None
    if nobody or attempt.direction is Direction.OUTBOUND:  # whom nobody has called yet needs no message
        return Refusal(
            profile.REFUSAL_STATUS,
            Ending.CALL_START_FAILED,
            failure.reason,
            number,
            end_webhook_owed=True,
            message=failure.message,
        )
    return CallPlan(
        number,
        flow=(Answer(), *_after_failure(fallback.message, fallback.number)),
        max_seconds=settings.max_seconds_cap,
        customer_call_id=attempt.customer_call_id,
        ending=Ending.CALL_START_FAILED,
        message=failure.message,
    )

"""What a customer sees of calls that it steers from outside, and what may go wrong there.

The codes are those of Twilio's API, whose clients read them (contract `vns-veevo` §4.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from switchhook.calls.recorded import RecordedLine
from switchhook.domain.model import CallAttempt, CallId, Direction
from switchhook.domain.outcome import Verdict
from switchhook.domain.phone import e164
from switchhook.domain.plan import Action, CallPlan, RecordingSpec
from switchhook.domain.records import CallRecord


class SteeringRefused(Exception):
    """What was asked cannot be done: an HTTP status, Twilio's code for it, and a sentence that names the field and the cure."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class FlowUnreadable(SteeringRefused):
    """The customer's answer, or the text it gave, is no flow that can be run."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(400, code, message)


NO_SUCH_CALL = 20404
NOT_IN_PROGRESS = 21220


@dataclass(frozen=True, slots=True)
class Pair:
    """What proves a request of the customer's to us, and ours to the customer."""

    account_sid: str
    auth_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    account: str
    pair: Pair
    calls: frozenset[CallId] | None = None
    """The calls whose start webhook gave the pair; None: all of the account."""

    def may_see(self, call_id: CallId, account: str | None) -> bool:
        """Whether a call is this one's business."""
        return account == self.account and (self.calls is None or call_id in self.calls)


class CallStatus(Enum):
    """Where a call is, in Twilio's words."""

    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"


LIVE = (CallStatus.QUEUED, CallStatus.RINGING, CallStatus.IN_PROGRESS)
REASONS = {
    CallStatus.BUSY: ("busy", "declined", "rejected-by-backend"),
    CallStatus.NO_ANSWER: ("no-answer",),
    CallStatus.CANCELED: ("cancelled", "caller-cancelled", "caller-hung-up", "no-ack"),
}
"""Of calls that nobody answered; any other reason is a failure."""


@dataclass(frozen=True, slots=True)
class CallView:
    """A call, live or over."""

    attempt: CallAttempt
    status: CallStatus
    connected_at: datetime | None
    ended_at: datetime | None = None

    @property
    def seconds(self) -> int | None:
        """Between answer and end; None while it lives."""
        if self.ended_at is None:
            return None
        return 0 if self.connected_at is None else round((self.ended_at - self.connected_at).total_seconds())


class LiveSession(Protocol):
    """A live call; `calls.session.CallSession`."""

    attempt: CallAttempt

    @property
    def account(self) -> str:
        """Whose call it is."""

    @property
    def plan(self) -> CallPlan | None:
        """How it is run."""

    @property
    def connected_at(self) -> datetime | None:
        """When it was answered."""

    @property
    def in_progress(self) -> bool:
        """The party is there and the call is not ending."""

    @property
    def recorded(self) -> RecordedLine:
        """Its recording."""

    def record(self, spec: RecordingSpec) -> bool:
        """Begin to record."""

    def redirect(self, flow: tuple[Action, ...]) -> None:
        """Let this flow take the place of whatever it does."""

    def stop(self, verdict: Verdict) -> None:
        """End it."""


class Board(Protocol):
    """Who is live; `calls.switchboard.Switchboard`."""

    def find(self, call_id: CallId) -> LiveSession | None:
        """A live call."""

    def sessions(self) -> Sequence[LiveSession]:
        """All of them, the oldest first."""


def status_of_live(session: LiveSession) -> CallStatus:
    """An outbound call waits until its line is dialled; how far the ringing is only its events tell."""
    if session.connected_at is not None:
        return CallStatus.IN_PROGRESS
    waits = session.attempt.direction is Direction.OUTBOUND and session.plan is None
    return CallStatus.QUEUED if waits else CallStatus.RINGING


def status_of_end(connected_at: datetime | None, reason: str | None) -> CallStatus:
    """Of a call that is over."""
    if connected_at is not None:
        return CallStatus.COMPLETED
    return next((status for status, reasons in REASONS.items() if reason in reasons), CallStatus.FAILED)


def view_of(session: LiveSession) -> CallView:
    """A live call."""
    return CallView(session.attempt, status_of_live(session), session.connected_at)


def view_of_record(record: CallRecord) -> CallView:
    """A call as it was written down."""
    if record.ended_at is None:
        status = CallStatus.RINGING if record.connected_at is None else CallStatus.IN_PROGRESS
        return CallView(record.attempt, status, record.connected_at)
    status = status_of_end(record.connected_at, record.reason)
    return CallView(record.attempt, status, record.connected_at, record.ended_at)


def shown_number(text: str) -> str:
    """E.164 where that can be told, else as the line gave it."""
    return e164(text.partition(";")[0]) or text

"""What is remembered: the records that the store keeps and the use cases read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from switchhook.domain.dialling import DiallingRules
from switchhook.domain.model import CallAttempt, CallId, Number, Speaker, TransferRecord, Trunk, Utterance
from switchhook.domain.outcome import Ending, Outcome
from switchhook.domain.plan import JournalSpec


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt to call, accepted or not."""

    attempt: CallAttempt
    account: str | None
    number: str | None
    """The number that was found, E.164."""
    contract: str | None
    call_start_sent_at: datetime | None = None
    """Set: a start webhook went out, or was about to."""
    customer_call_id: str | None = None
    journal: JournalSpec = field(default_factory=JournalSpec)
    connected_at: datetime | None = None
    ended_at: datetime | None = None
    """None: the call lives, or its process died."""
    ending: Ending | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    message: str | None = None
    end_webhook_owed: bool = False
    referred_out: bool = False
    transfers: tuple[TransferRecord, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, str] = field(default_factory=dict)
    """US dollars as exact text by part, with their `total`; what is unknown is left out."""


class LineKind(Enum):
    """What a line of a call's journal is."""

    LOG = "log"
    AGENT = "agent"
    CALLER = "caller"
    DESTINATION = "consult"


@dataclass(frozen=True, slots=True)
class CallLine:
    """A line of a call's journal: of the log or of the transcript."""

    call_id: CallId
    position: int
    """Unique within the call, in the order of writing."""
    kind: LineKind
    at: datetime
    text: str = field(repr=False)
    order: int = 0
    """Of a transcript line: its place among the utterances."""
    interrupted: bool = False


_KINDS = {
    Speaker.AGENT: LineKind.AGENT,
    Speaker.CALLER: LineKind.CALLER,
    Speaker.DESTINATION: LineKind.DESTINATION,
}
_SPEAKERS = {kind: speaker for speaker, kind in _KINDS.items()}


def utterance_line(call_id: CallId, position: int, utterance: Utterance) -> CallLine:
    """The journal line of an utterance."""
    return CallLine(
        call_id, position, _KINDS[utterance.speaker], utterance.at, utterance.text, utterance.order, utterance.interrupted
    )


def split_journal(lines: Sequence[CallLine]) -> tuple[list[tuple[datetime, str]], list[Utterance]]:
    """The log in the order of writing, and the transcript in the order of the conversation."""
    log = [(line.at, line.text) for line in lines if line.kind is LineKind.LOG]
    spoken = [
        Utterance(_SPEAKERS[line.kind], line.text, line.order, line.at, line.interrupted)
        for line in lines
        if line.kind is not LineKind.LOG
    ]
    return log, sorted(spoken, key=lambda utterance: utterance.order)


@dataclass(frozen=True, slots=True)
class CallProgress:
    """What became known of a live call since its record was begun."""

    call_id: CallId
    journal: JournalSpec
    customer_call_id: str | None
    connected_at: datetime | None


class OutboxState(Enum):
    """Where an event's delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    PARKED = "parked"
    """Given up; a person may send it again."""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """A fact that a customer is to be told, rendered once; its bytes never change."""

    call_id: CallId
    kind: str
    account: str
    number: str
    contract: str
    body: bytes = field(repr=False)
    created_at: datetime
    next_attempt_at: datetime
    attempts: int = 0
    state: OutboxState = OutboxState.PENDING
    last_error: str | None = None
    delivered_at: datetime | None = None

    @property
    def event_id(self) -> str:
        """Stable name of the event: there is one of a kind for each call."""
        return f"{self.call_id}:{self.kind}"


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """How many events are not delivered."""

    pending: int = 0
    parked: int = 0


class RecordingState(Enum):
    """How far a recording's file is."""

    SPOOLING = "spooling"
    MAKING = "making"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RecordingRecord:
    """A recording of a call: its spool, later its file."""

    call_id: CallId
    account: str
    format: str
    encrypted: bool
    path: str
    """Of the file, relative to the data directory."""
    state: RecordingState
    created_at: datetime
    size_bytes: int = 0
    salvaged: bool = False
    """Made from the spool of a process that died, or of one that is damaged."""
    purge_at: datetime | None = None
    """From then on nobody finds it, and it is removed. Of one that is not made yet: when it was deleted."""

    def gone(self, now: datetime) -> bool:
        """Deleted, or kept long enough."""
        return self.purge_at is not None and self.purge_at <= now


@dataclass(frozen=True, slots=True)
class KeptRecording:
    """A finished recording with what is known of its call."""

    record: RecordingRecord
    call_started_at: datetime
    call_ended_at: datetime | None
    customer_call_id: str | None


@dataclass(frozen=True, slots=True)
class RecordingQuery:
    """Which of an account's finished recordings are wanted; newest first."""

    account: str
    now: datetime
    """Those whose time is over by then are left out."""
    limit: int
    customer_call_id: str | None = None
    since: datetime | None = None
    """Calls that began then or later."""
    until: datetime | None = None
    """Calls that began before."""
    after: tuple[datetime, str] | None = None
    """(created_at, call id) of the last one of the page before."""


@dataclass(frozen=True, slots=True)
class CallSearch:
    """Which of an account's calls are wanted; newest first. What is None does not matter."""

    account: str
    limit: int
    call_ids: frozenset[CallId] | None = None
    called: frozenset[str] | None = None
    """The forms in which lines may have written the number."""
    caller: frozenset[str] | None = None
    since: datetime | None = None
    """Calls that began then or later."""
    until: datetime | None = None
    """Calls that began before."""
    over: bool | None = None
    connected: bool | None = None
    reasons: tuple[str, ...] | None = None
    other_reasons: tuple[str, ...] | None = None
    """Those that ended for none of these."""
    after: tuple[datetime, str] | None = None
    """(started_at, call id) of the last one of the page before."""
    twilio_sid: str | None = None
    """Twilio's own name of a call that it carries."""


TWILIO_URL = "https://api.twilio.com"


@dataclass(frozen=True, slots=True)
class TwilioCredentials:
    """What proves an account to Twilio, or to a service with the same HTTP API."""

    account_sid: str
    auth_token: str = field(repr=False)
    rest_base_url: str = TWILIO_URL


@dataclass(frozen=True, slots=True)
class VeevoCredentials:
    """What an account shares with its Veevo backend."""

    webhook_secret: str = field(repr=False)
    """Signs what we post (`X-Veevo-Signature`)."""
    management_key: str | None = field(default=None, repr=False)
    """The bearer of the management API."""


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """A tenant and what holds for all its numbers."""

    name: str
    dialling: DiallingRules = field(default_factory=DiallingRules)
    twilio: TwilioCredentials | None = None
    veevo: VeevoCredentials | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call wants of the money that its account may spend in a day, in millionths of a US dollar."""

    most: int
    least: int
    """With less it is not placed."""
    limit: int
    """Of the whole day."""


@dataclass(frozen=True, slots=True)
class Directory:
    """What is configured: tenants with their settings and API tokens (name → SHA-256), trunks and numbers."""

    tokens: Mapping[str, Mapping[str, bytes]]
    """Account → token name → digest; an account without tokens is a key too."""
    trunks: Mapping[str, Trunk]
    numbers: Mapping[str, Number]
    accounts: Mapping[str, AccountSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DirectoryUpdate:
    """Additions, replacements and removals, made all or none."""

    accounts: tuple[AccountSettings, ...] = ()
    tokens: tuple[tuple[str, str, bytes], ...] = ()
    """(account, token name, SHA-256 of the value)."""
    trunks: tuple[Trunk, ...] = ()
    numbers: tuple[Number, ...] = ()
    remove_tokens: tuple[tuple[str, str], ...] = ()
    remove_trunks: tuple[str, ...] = ()
    remove_numbers: tuple[str, ...] = ()
    based_on: int | None = None
    """The version of the configuration that this was decided on: of another one nothing is changed. None: whatever it is."""

"""The ports that join the floors: what `calls` asks of the lines below and of the use cases above."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from switchhook.domain.dialling import TRANSFER_RING_S, DialPermit, DialPurpose, DialRefused, DialRequest
from switchhook.domain.model import CallAttempt, CallId, Encoding, ToolCall, TransferMode, TransferRecord, Utterance
from switchhook.domain.plan import Action, AskNext, CallPlan, RecordingSpec, Refusal, TransferOrder
from switchhook.domain.report import CallReport


class Clock(Protocol):
    """Both kinds of time: `now` runs evenly and orders things; `utc` is the wall's."""

    def now(self) -> float:
        """Monotonic seconds."""

    def utc(self) -> datetime:
        """Wall time, zone UTC."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of one utterance's audio the party really heard when it was cut off."""

    key: str
    heard_ms: int
    queued_ms: int
    """All that was ever queued under this key; heard_ms never exceeds it."""


class SoundSource(Protocol):
    """Sound that is made or arrives as it is heard: the other party of a bridge, ringback, hold sound."""

    def next_frame(self, now: float) -> bytes | None:
        """The 20 ms to be heard from now on, in the leg's encoding; None: silence. Asked each 20 ms while it is what plays."""


class Playout(Protocol):
    """What one party hears. `media.playout` implements it; an agent only enqueues, finishes and interrupts."""

    def enqueue(self, key: str, payload: bytes, now: float) -> None:
        """Queue sound in the leg's encoding behind what is queued; `key` names the utterance it belongs to."""

    def finish(self, key: str, now: float) -> None:
        """No more sound will come under this key."""

    def interrupt(self, now: float) -> Sequence[Heard]:
        """Drop all that is queued or in flight, raise the epoch, and tell of every unfinished utterance what was heard."""

    def play_from(self, source: SoundSource | None) -> None:
        """Play this whenever nothing is queued, from the next frame on; None: silence again. `interrupt` leaves it alone."""

    def heard_ms(self, key: str, now: float) -> int:
        """Milliseconds of this utterance that were really heard so far."""

    @property
    def idle(self) -> bool:
        """True when nothing is queued or playing."""


@dataclass(frozen=True, slots=True)
class LegAnswered:
    """The answer has been sent (and, where the line has it, media may flow)."""


@dataclass(frozen=True, slots=True)
class LegProgress:
    """The far side of a leg that we dial says that it rings, or plays something before it answers."""

    status: int
    """The SIP status: 180, 183…"""
    early_media: bool
    """Sound of the far side comes already."""


@dataclass(frozen=True, slots=True)
class LegEnded:
    """The line is gone, whoever ended it. Comes exactly once for each leg."""

    reason: str
    """`caller-hung-up`, `caller-cancelled`, `media-timeout`, `session-expired` (the peer no longer refreshes its session, RFC
    4028), `no-ack`, `line-failed`, `hung-up` (by us), `rejected` (by us); of a leg that we dialled also `callee-hung-up`,
    `refused` (by the far side, see `status`), `no-answer` (rang too long), `trunk-failed` (no trunk could carry it), `policy-`
    and a rule of the dialling policy (a trunk redirected it to a number that the rule refuses) and `referred` (the peer has put
    it through elsewhere)."""
    detail: str = ""
    status: int | None = None
    """The far side's final SIP answer, when there was one."""


@dataclass(frozen=True, slots=True)
class ReferProgress:
    """What became of `refer`: the peer took it (202), refused it, or tells by NOTIFY how the new call goes (RFC 3515 §2.4.4)."""

    status: int
    final: bool
    """Nothing follows: the new call stands (2xx), failed, or the peer refused to try (then `accepted` is False)."""
    accepted: bool = True


@dataclass(frozen=True, slots=True)
class TransferAsked:
    """The party asks by REFER that we put it through to somebody else. Answered by `Leg.refer_result`."""

    target: str
    """A number or SIP URI."""
    replaces: str | None = None
    """The Replaces of the target's URI: the call it should take the place of (attended transfer of a PBX)."""


@dataclass(frozen=True, slots=True)
class DigitPressed:
    """A DTMF digit: one of 0–9, `*`, `#`, A–D. De-duplicated across methods."""

    digit: str


@dataclass(frozen=True, slots=True)
class PlayoutDrained:
    """The last sample that was queued has been heard."""


LegEvent: TypeAlias = LegAnswered | LegProgress | LegEnded | DigitPressed | PlayoutDrained | ReferProgress | TransferAsked


class FrameTap(Protocol):
    """Sees each frame that a leg received or sent, placed on the leg's own time line."""

    def received(self, payload: bytes, position: int) -> None:
        """Sound from the party; `position` counts samples since answer, by RTP time, gaps left out."""

    def sent(self, payload: bytes, position: int) -> None:
        """Sound to the party, as it left."""


class Leg(Protocol):
    """One line to one party. Methods never block and never raise for a line that is gone."""

    @property
    def encoding(self) -> Encoding:
        """G.711 flavour on the line, fixed once `answer` was called."""

    @property
    def playout(self) -> Playout:
        """What the party hears; a line may lease its ports when it is first asked for."""

    @property
    def encrypted(self) -> bool:
        """Whether signalling and sound are encrypted on the line."""

    def subscribe(self, on_event: Callable[[LegEvent], None]) -> None:
        """Name the one receiver of this leg's events."""

    def listen(self, on_audio: Callable[[bytes, float], None] | None) -> None:
        """Name the one receiver of the party's sound: (payload in `encoding`, monotonic now). Called straight from the socket."""

    def tap(self, tap: FrameTap | None) -> None:
        """Attach the recorder, or take it off."""

    def hang_up(self) -> None:
        """End the line in good order, or give up dialling it; `LegEnded` follows."""

    def close(self) -> None:
        """Give back sockets, ports and timers at once, and hang up or cancel if that has not happened; idempotent."""

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        """Play a DTMF digit to the party. Raises ValueError for what is no digit."""

    @property
    def transfer_mode(self) -> TransferMode:
        """How the line's peer wants a caller handed on."""

    def refer(self, target: str, replaces: Leg | None = None, caller: str = "", ring_s: float = TRANSFER_RING_S) -> None:
        """Ask the peer to connect its party with `target` (E.164), in the place of our leg `replaces` when given. `caller` is
        the number that the target is to be shown and `ring_s` how long it may ring, where the line lets us say so.

        `ReferProgress` follows; the leg stays until it is hung up.
        """

    def recall(self) -> None:
        """The party is wanted here again, whatever came of `refer`. No event follows; a party that cannot be brought back ends
        the line."""

    def refer_result(self, status: int) -> None:
        """Answer the party's `TransferAsked`: 1xx while it goes on, then what came of it (told by NOTIFY)."""

    @property
    def figures(self) -> Mapping[str, float]:
        """What was measured on the line: `packets_in`, `packets_out`, `packets_lost`, `jitter_ms`…"""


class OfferedLeg(Leg, Protocol):
    """A line that somebody else dialled and we may answer."""

    def ring(self) -> None:
        """Tell the caller that it rings (180)."""

    def answer(self) -> None:
        """Answer; `LegAnswered` follows."""

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        """Refuse an unanswered call; `LegEnded` follows."""


class Dialer(Protocol):
    """Places calls over an account's lines."""

    def dial(self, request: DialRequest) -> Leg:
        """Begin at once. `LegProgress`, `LegAnswered` and `LegEnded` follow.

        The last comes exactly once, also when nothing could be dialled.
        """


class DiallingGate(Protocol):
    """The dialling policy of all accounts; fails closed."""

    async def admit(self, account: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        """Judge a number as anybody wrote it, and count the call. Never raises but for cancellation."""

    def release(self, permit: DialPermit, seconds: float) -> None:
        """The call is over; it was connected for so long. Idempotent."""


class CallRouting(Protocol):
    """Decides what happens on a call."""

    async def route(self, attempt: CallAttempt) -> CallPlan | Refusal:
        """Find the number, post the contract's start webhook and translate its reply. Never raises but for cancellation."""


class ToolRunner(Protocol):
    """Runs one tool call of the model."""

    async def run(self, call: ToolCall) -> str:
        """The text for the model, whatever happened. Never raises but for cancellation."""

    def transfer_order(self, call: ToolCall) -> TransferOrder | str:
        """What the model's call of the transfer tool asks for, or the text that tells it why that cannot be. Never raises."""

    def transfer_output(self, call: ToolCall, transfer: TransferRecord) -> str:
        """The text for the model of a transfer that did not come about. Never raises."""


class CallJournal(Protocol):
    """Writes a live call down. Methods return at once; writing is batched."""

    tools: ToolRunner

    def answered(self, at: datetime) -> None:
        """The call was answered."""

    def utterance(self, utterance: Utterance) -> None:
        """A final line of the transcript."""

    def log(self, text: str, at: datetime) -> None:
        """A line of the call's log."""


class CallBook(Protocol):
    """Keeps the records of calls."""

    def open(self, attempt: CallAttempt, plan: CallPlan) -> CallJournal:
        """Begin writing an accepted call down."""

    async def finish(self, report: CallReport) -> None:
        """Close the record and, in the same transaction, queue the end webhook that is owed."""


class Recorder(FrameTap, Protocol):
    """A recording under way."""

    def pause(self) -> None:
        """Silence from here on, on both sides; time goes on. Idempotent."""

    def resume(self) -> None:
        """Record again. Sound of the pause that comes late stays silent. Idempotent."""

    def change_line(self) -> None:
        """What follows comes from another line, whose positions count from its own answer; it goes on at the present time."""

    def stop(self) -> None:
        """Seal the spool; the file is made afterwards by a worker."""


class Recorders(Protocol):
    """Opens recordings."""

    def open(
        self,
        call_id: CallId,
        account: str,
        spec: RecordingSpec,
        encoding: Encoding,
        started_at: datetime,
        on_failed: Callable[[str], None] | None = None,
    ) -> Recorder:
        """Begin to spool a two-channel recording (caller left). Touches no disk itself: a disk that cannot take the recording is
        told to `on_failed` later, on the event loop, in a sentence for people. Raises RecordingError when it is hopeless at once.
        """


class Greetings(Protocol):
    """Fetches the sound that greets a caller."""

    async def fetch(self, url: str, encoding: Encoding) -> bytes:
        """Sound in the encoding, bounded in size and time. Raises GreetingUnavailable."""


class NextFlows(Protocol):
    """Asks customers how the flows of their calls go on."""

    async def ask(self, call_id: CallId, question: AskNext, dialled: TransferRecord | None) -> tuple[Action, ...]:
        """The flow that the customer answers with, or one that apologises. Never raises but for cancellation.

        `dialled`: how the attempt to put the caller through went, when the question is asked after one.
        """


class Voice(Protocol):
    """A local voice for fixed messages."""

    async def synthesize(self, text: str, encoding: Encoding) -> bytes:
        """Sound of the text in the encoding. Raises VoiceUnavailable."""

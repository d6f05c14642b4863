"""A call on a carrier with Twilio's interface, as a machine: webhook, media stream, status callbacks, `<Dial>` and back.

Rules:
1. `LegEnded` is told exactly once, whatever comes in whatever order; after it only what is owed to the carrier goes on.
2. We hang up by closing the stream, so that the TwiML after `<Connect>` (`<Hangup/>`) runs. When nothing shows within `GRACE_S`
   that it did, the call is ended over REST.
3. While the carrier dials on our order its stream is gone and the line is not.

    OFFERED --answer--> AWAITED --start--> TALKING --refer--> HANDED_OVER --dial failed, recall--> AWAITED --start--> TALKING
    DIALLING --in-progress--> AWAITED                              \\--dial completed--> PARTED
    any --hang up--> RELEASED --stop, final status, or REST--> OVER
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, LegProgress, ReferProgress

START_S = 15.0
"""So long a stream may take to open after the TwiML that asks for it."""
DIAL_SPARE_S = 60.0
"""So long after the ring time the carrier may not tell what came of its dialling: its order may wait before it is carried out."""
RECALL_S = 30.0
"""So long a party that is taken back may be on its way: an order over REST, then a stream."""
GRACE_S = 5.0
"""So long a call that we left may take to show that it is over."""
RING_SPARE_S = 15.0
"""The carrier itself stops ringing; this is the margin after which its word is not waited for."""


@dataclass(frozen=True, slots=True)
class AnswerWebhook:
    """Answer the voice webhook with TwiML that opens the stream and hangs up after it."""


@dataclass(frozen=True, slots=True)
class RejectWebhook:
    """Answer the voice webhook with `<Reject>`."""

    reason: str
    """`busy` or `rejected`."""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the stream's socket."""


@dataclass(frozen=True, slots=True)
class EndCall:
    """End the call over REST (`Status=completed`)."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Redirect the call over REST to TwiML that dials the target."""

    target: str
    ring_s: float


@dataclass(frozen=True, slots=True)
class Recall:
    """Redirect the call over REST to TwiML that opens a stream again."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the call core."""

    event: LegEvent


CallEffect: TypeAlias = AnswerWebhook | RejectWebhook | CloseStream | EndCall | Redirect | Recall | Tell


class Stage(Enum):
    """Where the call is."""

    OFFERED = "offered"
    DIALLING = "dialling"
    AWAITED = "awaited"
    """Its stream is to come, for the first time or again."""
    TALKING = "talking"
    HANDED_OVER = "handed-over"
    """The carrier dials on our order, or its party talks with whom it has reached."""
    PARTED = "parted"
    """That talk is over; the carrier is about to hang up."""
    RELEASED = "released"
    """Ended for the call core; the carrier has not shown yet that it is over."""
    OVER = "over"


_BUSY = (486, 503, 600)
_FINAL = {"completed": 200, "busy": 486, "no-answer": 480, "failed": 503, "canceled": 487}
"""CallStatus or DialCallStatus → the SIP status that says the same."""


class TwilioCall:
    """One call. Inputs may come in any order and any number. `media_at` is set by the line with each frame of sound."""

    def __init__(self, media_timeout_s: float, now: float, ring_s: float | None = None) -> None:
        """`ring_s`: we dial, and it may ring so long; None: the carrier offers the call."""
        self._media_timeout_s = media_timeout_s
        self._outbound = ring_s is not None
        self._effects: list[CallEffect] = []
        self._due = now + ring_s + RING_SPARE_S if ring_s is not None else None
        self._streaming = False
        self._answered = False
        self._dial_answered = False
        self._recalled = False
        self.media_at = now
        self.stage = Stage.DIALLING if self._outbound else Stage.OFFERED

    # -- what the driver needs ------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """The end of the present stage's patience."""
        return self.media_at + self._media_timeout_s if self.stage is Stage.TALKING else self._due

    def take(self) -> list[CallEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def wants_stream(self) -> bool:
        """Whether a stream that opens now is the call's."""
        return self.stage in (Stage.AWAITED, Stage.DIALLING) or (self.stage is Stage.HANDED_OVER and not self._streaming)

    @property
    def recalled(self) -> bool:
        """Whether the order that takes the party back is on its way."""
        return self._recalled and self.stage is Stage.AWAITED

    # -- what the call core asks ----------------------------------------------------------------

    def answer(self, now: float) -> None:
        """Answer an offered call."""
        if self.stage is Stage.OFFERED:
            self.stage, self._due = Stage.AWAITED, now + START_S
            self._effects.append(AnswerWebhook())

    def reject(self, status: int, now: float) -> None:
        """Refuse an offered call; one that was answered is hung up."""
        if self.stage is Stage.OFFERED:
            self._effects.append(RejectWebhook("busy" if status in _BUSY else "rejected"))
            self._end("rejected")
        else:
            self.hang_up(now)

    def hang_up(self, now: float) -> None:
        """End the call; it counts as ended at once."""
        match self.stage:
            case Stage.OFFERED:
                self._effects.append(RejectWebhook("rejected"))
                self._end("hung-up")
            case Stage.TALKING | Stage.PARTED:
                self._end("hung-up", owed_at=now + GRACE_S)
            case Stage.DIALLING | Stage.AWAITED | Stage.HANDED_OVER:
                self._effects.append(EndCall())
                self._end("hung-up")
            case _:
                pass

    def refer(self, target: str, ring_s: float, now: float) -> None:
        """Have the carrier dial the target for its party, and let it ring so long."""
        if self.stage is not Stage.TALKING:
            if self.stage not in (Stage.RELEASED, Stage.OVER):
                self._tell(ReferProgress(481, final=True, accepted=False))
            return
        self.stage, self._due = Stage.HANDED_OVER, now + ring_s + DIAL_SPARE_S
        self._dial_answered = False
        self._effects.append(Redirect(target, ring_s))

    def recall(self, now: float) -> None:
        """Take the party back, whether the carrier still dials or has put it through."""
        if self.stage is Stage.HANDED_OVER:
            self.stage, self._due, self._recalled = Stage.AWAITED, now + RECALL_S, True
            self._effects.append(Recall())

    # -- the stream -----------------------------------------------------------------------------

    def stream_started(self, now: float) -> None:
        """`start` came on a socket that is the call's; ask `wants_stream` first."""
        if not self.wants_stream:
            return
        handed_over, self.stage = self.stage is Stage.HANDED_OVER, Stage.TALKING
        self._streaming, self._due, self.media_at = True, None, now
        self._recalled = False
        if handed_over:  # the carrier gave its party back without a word of how the dialling went
            self._tell(ReferProgress(200 if self._dial_answered else 480, final=True))
        if not self._answered:
            self._answered = True
            self._tell(LegAnswered())

    def stream_gone(self, stopped: bool, now: float) -> None:
        """The socket is closed, or (`stopped`) the carrier says that it ends the stream."""
        self._streaming = False
        match self.stage:
            case Stage.TALKING:
                # A socket that is lost without `stop` leaves the call to the TwiML behind the stream.
                self._end(self._party_left, owed_at=None if stopped else now + GRACE_S)
            case Stage.RELEASED if stopped:
                self._over()
            case _:
                pass

    # -- what the carrier tells by HTTP ---------------------------------------------------------

    def status(self, status: str, sip_code: int | None, now: float) -> None:
        """A status callback's CallStatus and SipResponseCode."""
        if status == "ringing" and self.stage is Stage.DIALLING:
            self._tell(LegProgress(180, early_media=False))
        elif status in ("in-progress", "answered") and self.stage is Stage.DIALLING:
            self.stage, self._due = Stage.AWAITED, now + START_S
        elif status in _FINAL:
            self._carrier_ended(status, sip_code)

    def fail(self, reason: str, detail: str, now: float) -> None:
        """The line does not work: the call could not be placed, or its webhook's connection was lost."""
        self._end(reason, detail, owed_at=now + GRACE_S if self.stage is not Stage.DIALLING else None)

    def redirect_failed(self, status: int, now: float) -> None:
        """The carrier did not take our order to dial."""
        if self.stage is not Stage.HANDED_OVER:
            return
        if not self._streaming:
            self._end(self._party_left, owed_at=now + GRACE_S)
            return
        self.stage, self._due, self.media_at = Stage.TALKING, None, now
        self._tell(ReferProgress(status, final=True, accepted=False))

    def recall_failed(self, now: float) -> None:
        """The carrier did not take our order to bring the party back: mostly because the party is gone."""
        if self.recalled:
            self._end(self._party_left, owed_at=now + GRACE_S)

    def dial_answered(self, now: float) -> None:
        """Whom the carrier dials has answered: how long they talk is the call core's to limit."""
        if self.stage is Stage.HANDED_OVER and not self._dial_answered:
            self._dial_answered, self._due = True, None
            self._tell(ReferProgress(200, final=False))

    def dial_over(self, dial_status: str, now: float) -> bool:
        """`<Dial>` ended so; returns whether its party is to come back on a new stream, and not to be hung up."""
        if self.stage is not Stage.HANDED_OVER:
            return self.stage is Stage.AWAITED and self._answered
        if self._dial_answered or dial_status in ("completed", "answered"):
            self.stage, self._due = Stage.PARTED, now + GRACE_S
            self._tell(ReferProgress(200, final=True))
            return False
        self.stage, self._due = Stage.AWAITED, now + START_S
        self._tell(ReferProgress(_FINAL.get(dial_status, 503), final=True))
        return True

    # -- time -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """The present stage's patience is at its end."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        match self.stage:
            case Stage.TALKING:
                self._end("media-timeout", "no sound came from the party", owed_at=now + GRACE_S)
            case Stage.RELEASED:
                self._effects.append(EndCall())
                self._over()
            case Stage.PARTED:
                self._effects.append(EndCall())
                self._end("hung-up")
            case Stage.DIALLING:
                self._effects.append(EndCall())
                self._end("no-answer")
            case _:
                self._effects.append(EndCall())
                what = "opened no media stream" if self.stage is Stage.AWAITED else "did not tell what became of the transfer"
                self._end("line-failed", f"the carrier {what}")

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _party_left(self) -> str:
        if self._outbound:
            return "callee-hung-up"
        return "caller-hung-up" if self._answered else "caller-cancelled"

    def _carrier_ended(self, status: str, sip_code: int | None) -> None:
        if self.stage is Stage.RELEASED:
            self._over()
        elif self.stage is not Stage.DIALLING or status == "completed":
            self._end(self._party_left)
        elif status == "no-answer":
            self._end("no-answer", status=sip_code)
        elif status == "failed" and sip_code is None:
            self._end("trunk-failed", "the carrier could not place the call")
        else:
            self._end("refused", status=sip_code if sip_code is not None else _FINAL[status])

    def _end(self, reason: str, detail: str = "", status: int | None = None, owed_at: float | None = None) -> None:
        """The line is over for the call core; until `owed_at` the carrier may show that it is over there too."""
        if self.stage in (Stage.RELEASED, Stage.OVER):
            return
        self.stage, self._due = (Stage.OVER if owed_at is None else Stage.RELEASED), owed_at
        if self._streaming:
            self._streaming = False
            self._effects.append(CloseStream())
        self._tell(LegEnded(reason, detail, status))

    def _over(self) -> None:
        self.stage, self._due = Stage.OVER, None

    def _tell(self, event: LegEvent) -> None:
        self._effects.append(Tell(event))

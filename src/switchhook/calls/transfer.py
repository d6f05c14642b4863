"""One transfer as a machine: from the agent's wish to the far side's answer, or back to the agent.

Rules:
1. The caller is let go only on evidence: the far side has answered, or the peer that was asked by REFER says so.
2. Every failure ends in one `TransferOver` that names what the far side said, and the caller returns to the agent.
3. Whatever is dialled and not put through is dropped.
4. Each step has a deadline.

    PREPARING --allowed, last words heard--> DIALLING --answered--> BRIDGED        (blind)
        |                                        \\--answered--> CONSULTING --accepted--> BRIDGED   (attended)
        \\--the line's peer does transfers--> REFERRING --refused--> DIALLING
    CONSULTING --accepted, the peer does transfers--> HANDING_OVER --refused--> BRIDGED
                                                           \\--taken, caller gone--> LEFT
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from switchhook.domain.dialling import DialPermit, DialPurpose, DialRefused, DialResult, result_of_end, result_of_status
from switchhook.domain.model import TransferMode
from switchhook.domain.plan import TransferOrder
from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded, LegEvent, LegProgress, ReferProgress

LAST_WORDS_S = 3.0
"""What the agent has said is heard to its end, at most this long (contract §1.10 C)."""
ADMISSION_S = 5.0
SPARE_S = 5.0
"""The leg keeps the ring time itself; this is the margin after which it is not waited for."""
REFER_S = 95.0
"""Longer than any line's own patience with a REFER, so that the line's word comes first."""
CARRIER_SPARE_S = 65.0
"""How much longer than the ring time a carrier's own patience with what it dials is (`telephony.twilio_call.DIAL_SPARE_S`)."""
REPLACED_S = 10.0
"""A peer that took an attended REFER may end our call with the caller before its new call has taken the place of the
destination's leg (RFC 3891); that leg is kept so long. The far side answers such a call by itself, nobody has to pick it up."""
ACCEPT_DIGIT = "1"
DECLINE_DIGIT = "2"


class WaitingSound(Enum):
    """What the caller hears meanwhile."""

    RINGBACK = "ringback"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Admit:
    """Ask the dialling policy; `admitted` must follow."""

    called: str
    purpose: DialPurpose


@dataclass(frozen=True, slots=True)
class HoldCaller:
    """Agent and caller no longer hear each other; the caller hears this."""

    sound: WaitingSound


@dataclass(frozen=True, slots=True)
class DialCallee:
    """Dial the destination; its leg's events follow."""

    called: str
    ring_s: float


@dataclass(frozen=True, slots=True)
class JoinEarly:
    """The caller hears what the far side plays before it answers."""


@dataclass(frozen=True, slots=True)
class Consult:
    """The agent talks with the destination."""


@dataclass(frozen=True, slots=True)
class Join:
    """Put the caller through; the agent is not needed any more."""


@dataclass(frozen=True, slots=True)
class ReleaseAgent:
    """The caller talks with the destination elsewhere: the agent is not needed any more."""


@dataclass(frozen=True, slots=True)
class ReferCaller:
    """Ask the caller's peer or carrier to make the connection; `attended`: in the place of the destination's leg."""

    called: str
    attended: bool


@dataclass(frozen=True, slots=True)
class DropCallee:
    """Hang the destination's leg up, or stop dialling it."""


@dataclass(frozen=True, slots=True)
class TransferOver:
    """What the transfer came to; nothing follows."""

    result: DialResult
    put_through: bool
    """The caller was connected with the destination, here or (`referred`) elsewhere."""
    referred: bool = False
    status: int | None = None
    detail: str = ""


TransferEffect: TypeAlias = (
    Admit | HoldCaller | DialCallee | JoinEarly | Consult | Join | ReleaseAgent | ReferCaller | DropCallee | TransferOver
)


class Step(Enum):
    """How far a transfer has come."""

    PREPARING = "preparing"
    REFERRING = "referring"
    DIALLING = "dialling"
    CONSULTING = "consulting"
    HANDING_OVER = "handing-over"
    LEFT = "left"
    """The caller's peer took the REFER and ended the caller's line; the destination's waits for its place to be taken."""
    BRIDGED = "bridged"
    OVER = "over"


@dataclass(slots=True)
class _Evidence:
    status: int | None = None
    detail: str = ""
    accepted: bool = False
    """The peer took our REFER."""


class TransferMachine:
    """One transfer. Inputs may come in any order and any number."""

    def __init__(self, order: TransferOrder, mode: TransferMode) -> None:
        self.order = order
        self._mode = mode
        self._effects: list[TransferEffect] = []
        self._deadlines: dict[str, float] = {}
        self._permit: DialPermit | None = None
        self._quiet = False
        self._dialled = False
        self._early = False
        self._agent_gone = False
        self._released = False
        self._evidence = _Evidence()
        self.step = Step.PREPARING

    # -- what the driver needs ------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """The earliest limit."""
        return min(self._deadlines.values(), default=None)

    def take(self) -> list[TransferEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    # -- inputs ---------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin."""
        self._deadlines["last words"] = now + LAST_WORDS_S
        self._deadlines["admission"] = now + ADMISSION_S
        self._effects.append(Admit(self.order.called, self.order.purpose))

    def admitted(self, decision: DialPermit | DialRefused, now: float) -> None:
        """The policy has judged."""
        if self.step is not Step.PREPARING or self._permit is not None:
            return
        self._deadlines.pop("admission", None)
        if isinstance(decision, DialRefused):
            self._fail(DialResult.POLICY, f"{decision.rule}: {decision.message}")
            return
        self._permit = decision
        self._go(now)

    def quiet(self, now: float) -> None:
        """What the agent had said has been heard."""
        if self.step is Step.PREPARING and not self._quiet:
            self._quiet = True
            self._deadlines.pop("last words", None)
            self._go(now)

    def callee(self, event: LegEvent, now: float) -> None:
        """The destination's leg tells something."""
        match event:
            case LegProgress(early_media=True) if self.step is Step.DIALLING and not self.order.attended and not self._early:
                self._early = True
                self._effects.append(JoinEarly())
            case LegAnswered() if self.step is Step.DIALLING:
                self._answered(now)
            case LegEnded():
                self._callee_ended(event)
            case DigitPressed(digit=digit) if self.step is Step.CONSULTING:
                if digit == ACCEPT_DIGIT:
                    self.accept(now)
                elif digit == DECLINE_DIGIT:
                    self.decline(now)
            case _:
                pass

    def accept(self, now: float) -> None:
        """The destination takes the caller."""
        if self.step is not Step.CONSULTING:
            return
        assert self._permit is not None  # nothing is dialled without one
        self._deadlines.clear()
        if self._mode is TransferMode.REFER:
            self.step = Step.HANDING_OVER
            self._deadlines["refer"] = now + REFER_S
            self._effects += [HoldCaller(WaitingSound.HOLD), ReferCaller(self._permit.called, attended=True)]
        else:
            self._join(now)

    def decline(self, now: float, voicemail: bool = False) -> None:
        """The destination, or the agent, does not want the caller put through; `voicemail`: no person is there."""
        if self.step is Step.CONSULTING and voicemail:
            self._fail(DialResult.VOICEMAIL, "a voicemail answered")
        elif self.step is Step.CONSULTING:
            self._fail(DialResult.DECLINED, "the destination did not take the call")

    def refer_progress(self, event: ReferProgress, now: float) -> None:
        """The caller's peer tells how our REFER goes."""
        if self.step not in (Step.REFERRING, Step.HANDING_OVER):
            return
        self._evidence.accepted = event.accepted
        self._evidence.status = event.status
        answered = event.accepted and 200 <= event.status < 300
        if not event.final:
            if answered and self._mode is TransferMode.CARRIER:
                assert self._permit is not None  # nobody is asked without one
                self._deadlines["refer"] = now + self._talk_s(self._permit) + SPARE_S
                self._released = True
                self._effects.append(ReleaseAgent())
            return
        self._deadlines.pop("refer", None)
        if answered or self._released:
            self._over(DialResult.CONNECTED, put_through=True, referred=self._mode is TransferMode.REFER)
        elif self.step is Step.HANDING_OVER and self._dialled:
            self._join(now)  # the destination is on the line: we connect the two ourselves
        elif self.step is Step.HANDING_OVER:
            self._fail(DialResult.DROPPED, "the destination left before the peer had connected the caller")
        elif event.accepted:
            self._fail(result_of_status(event.status), "the peer could not reach the destination")
        else:
            self._dial(now)

    def agent_gone(self, now: float) -> None:
        """The agent failed: whoever is being briefed gets the caller; otherwise the transfer goes on without it."""
        self._agent_gone = True
        self.accept(now)

    def caller_gone(self, now: float) -> None:
        """The caller's line has ended."""
        match self.step:
            case Step.OVER:
                return
            case Step.BRIDGED:
                self._effects.append(DropCallee())
                self._over(DialResult.CONNECTED, put_through=True, detail="caller-hung-up")
            case Step.LEFT:
                return
            case Step.HANDING_OVER if self._evidence.accepted and self._dialled:
                self.step = Step.LEFT
                self._deadlines = {"replaced": now + REPLACED_S}
            case Step.REFERRING | Step.HANDING_OVER if self._evidence.accepted:
                # Some peers end the call instead of telling how it went: then nobody here knows.
                self._gone_over()
            case _:
                self._fail(DialResult.CANCELLED, "the caller hung up")

    def stop(self, now: float) -> None:
        """The call ends for another reason."""
        if self._released:
            self._over(DialResult.CONNECTED, put_through=True)
        elif self.step is Step.BRIDGED:
            self._effects.append(DropCallee())
            self._over(DialResult.CONNECTED, put_through=True)
        elif self.step is not Step.OVER:
            self._fail(DialResult.CANCELLED, "the call was ended")

    def tick(self, now: float) -> None:
        """Something took too long."""
        for name in [name for name, due in self._deadlines.items() if due <= now]:
            if self._deadlines.pop(name, None) is not None:
                self._expired(name, now)

    # -- how it goes on -------------------------------------------------------------------------

    def _go(self, now: float) -> None:
        if self._permit is None or not self._quiet:
            return
        if self._mode is not TransferMode.BRIDGE and not self.order.attended:
            self.step = Step.REFERRING
            self._deadlines["refer"] = now + max(REFER_S, self.order.ring_s + CARRIER_SPARE_S)
            self._effects += [HoldCaller(WaitingSound.RINGBACK), ReferCaller(self._permit.called, attended=False)]
        else:
            self._dial(now)

    def _dial(self, now: float) -> None:
        assert self._permit is not None  # nothing is dialled without one
        self.step = Step.DIALLING
        self._dialled = True
        self._deadlines["dial"] = now + self.order.ring_s + SPARE_S
        sound = WaitingSound.HOLD if self.order.attended else WaitingSound.RINGBACK
        self._effects += [HoldCaller(sound), DialCallee(self._permit.called, self.order.ring_s)]

    def _answered(self, now: float) -> None:
        self._deadlines.pop("dial", None)
        self._evidence.status = 200
        if not self.order.attended or self._agent_gone:
            self._join(now)
            return
        self.step = Step.CONSULTING
        self._deadlines["consult"] = now + self.order.consult_s
        self._effects.append(Consult())

    def _callee_ended(self, event: LegEnded) -> None:
        if self.step is Step.BRIDGED:
            self._dialled = False
            self._over(DialResult.CONNECTED, put_through=True, detail=event.reason)
        elif self.step is Step.LEFT:
            self._dialled = False
            if event.reason == "callee-hung-up":
                self._gone_over()
            else:
                self._fail(result_of_end(event.reason, event.status), event.detail or event.reason)
        elif self.step in (Step.DIALLING, Step.CONSULTING, Step.HANDING_OVER):
            self._dialled = False
            answered = self.step is not Step.DIALLING
            self._evidence.status = self._evidence.status if answered else event.status
            if self.step is Step.HANDING_OVER and self._evidence.accepted:
                # The destination's leg ends when another call takes its place: the REFER's own end is still to come.
                return
            result = DialResult.DROPPED if answered else result_of_end(event.reason, event.status)
            self._fail(result, event.detail or event.reason)

    def _expired(self, name: str, now: float) -> None:
        match name:
            case "last words":
                self.quiet(now)
            case "admission":
                self._fail(DialResult.POLICY, "unavailable: the dialling policy did not answer")
            case "dial":
                self._fail(DialResult.NO_ANSWER, "nobody answered")
            case "consult":
                self._fail(DialResult.DECLINED, "the destination did not take the call in time")
            case "replaced":
                self._fail(DialResult.CANCELLED, "the caller hung up, and no other call took the destination's place")
            case "refer" if self.step is Step.HANDING_OVER and self._dialled:
                self._join(now)
            case "refer" if self._released:
                self._over(DialResult.CONNECTED, put_through=True, detail="max-duration")
            case "refer":
                self._fail(DialResult.NO_ANSWER, "the peer did not say what became of the transfer")
            case _:  # the longest time that the policy allows
                self._effects.append(DropCallee())
                self._over(DialResult.CONNECTED, put_through=True, detail="max-duration")

    def _gone_over(self) -> None:
        """The caller's line has ended after its peer or carrier took our order."""
        if self._mode is TransferMode.CARRIER:
            talked = self._released
            self._over(DialResult.CONNECTED if talked else DialResult.CANCELLED, put_through=talked, detail="caller-hung-up")
        else:
            self._over(DialResult.REFERRED, put_through=True, referred=True)

    def _join(self, now: float) -> None:
        assert self._permit is not None  # nothing is dialled without one
        self.step = Step.BRIDGED
        self._deadlines.clear()
        self._deadlines["bridged"] = now + self._talk_s(self._permit)
        self._effects.append(Join())

    def _talk_s(self, permit: DialPermit) -> float:
        return min(permit.max_seconds, self.order.talk_s or permit.max_seconds)

    def _fail(self, result: DialResult, detail: str) -> None:
        self._drop()
        self._over(result, put_through=False, detail=detail)

    def _drop(self) -> None:
        if self._dialled:
            self._dialled = False
            self._effects.append(DropCallee())

    def _over(self, result: DialResult, put_through: bool, referred: bool = False, detail: str = "") -> None:
        if self.step is Step.OVER:
            return
        self.step = Step.OVER
        self._deadlines.clear()
        self._effects.append(TransferOver(result, put_through, referred, self._evidence.status, detail or self._evidence.detail))

"""One transfer of a live call: wires its machine with the two lines, the dialling policy and the agent; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from switchhook.agents.conversation import ConsultTool
from switchhook.calls.consultation import Consultations
from switchhook.calls.moving import LineMove, MoveHost, let_go, refuse, take_over
from switchhook.calls.parts import CallParts, Joined
from switchhook.calls.seat import AgentSeat
from switchhook.calls.transfer import (
    ACCEPT_DIGIT,
    DECLINE_DIGIT,
    Admit,
    Consult,
    DialCallee,
    DropCallee,
    HoldCaller,
    Join,
    JoinEarly,
    ReferCaller,
    ReleaseAgent,
    Step,
    TransferEffect,
    TransferMachine,
    TransferOver,
    WaitingSound,
)
from switchhook.domain.dialling import DialPermit, DialRequest
from switchhook.domain.model import CallAttempt, TransferMode, TransferRecord
from switchhook.domain.plan import TransferOrder
from switchhook.domain.ports import (
    DigitPressed,
    Leg,
    LegEnded,
    LegEvent,
    OfferedLeg,
    PlayoutDrained,
    ReferProgress,
    TransferAsked,
)
from switchhook.driver import Driver

COMPLETE = "complete_transfer"
CANCEL = "cancel_transfer"
VOICEMAIL = "voicemail"
CONSULT_TOOLS = (
    ConsultTool(COMPLETE, "Put the caller through to the person you are talking with, because that person takes the call."),
    ConsultTool(
        CANCEL,
        "Do not put the caller through: the person you are talking with cannot or will not take the call, or it is a voicemail.",
        {"reason": ("declined", VOICEMAIL)},
    ),
)


class TransferHost(MoveHost, Protocol):
    """What a transfer asks of the call that it belongs to."""

    attempt: CallAttempt

    @property
    def leg(self) -> Leg:
        """The caller's line."""

    @property
    def seat(self) -> AgentSeat | None:
        """The agent, while there is one."""

    def put_through(self) -> None:
        """The caller is connected: the agent is not needed any more."""


class CallTransfer:
    """One transfer. `close` gives back whatever it holds.

    `on_over` is told once what came of it: the record, whether the caller was put through, and the reason for the call's verdict.
    """

    def __init__(
        self,
        order: TransferOrder,
        host: TransferHost,
        parts: CallParts,
        consultations: Consultations,
        on_over: Callable[[TransferRecord, bool, str], None],
    ) -> None:
        self._consultations = consultations
        self._on_over = on_over
        self._host = host
        self._parts = parts
        self._order = order
        self._machine = TransferMachine(order, TransferMode.BRIDGE if order.returns else host.leg.transfer_mode)
        self._driver = Driver(self._machine, self._perform, host.fault)
        self._callee: Leg | None = None
        self._bridge: Joined | None = None
        self._waiting: tuple[Leg, WaitingSound] | None = None
        self._started_at = parts.clock.utc()
        self._joined_at: datetime | None = None
        self._moving: LineMove | None = None
        self._permits: list[DialPermit] = []

    def start(self) -> None:
        """Begin: the agent's last words are heard, then the destination is dialled."""
        self._host.write_log(f"Transfer: {self._order.called} was asked for" + (" (attended)" if self._order.attended else ""))
        self._driver.feed(self._machine.start)
        if self._host.leg.playout.idle:
            self._driver.feed(self._machine.quiet)

    # -- inputs ---------------------------------------------------------------------------------

    @property
    def consulting(self) -> bool:
        """The agent talks with the destination."""
        return self._machine.step is Step.CONSULTING

    @property
    def joined(self) -> bool:
        """The caller talks with the destination."""
        return self._machine.step is Step.BRIDGED

    @property
    def outlives_caller(self) -> bool:
        """The caller's line has ended, and the destination's is kept because another call may take its place."""
        return self._machine.step is Step.LEFT

    def has(self, leg: Leg) -> bool:
        """Whether the destination is on that line."""
        return leg is self._callee

    def replace_callee(self, leg: OfferedLeg) -> None:
        """Somebody takes the destination's place (INVITE with Replaces)."""
        if not self._may_be_replaced:
            refuse(leg, 481)
        elif self.consulting and leg.encoding is not self._host.leg.encoding:
            refuse(leg, 488)  # the agent speaks the old line's
        else:
            take_over(leg, self._callee_replaced)

    def caller_event(self, event: LegEvent) -> None:
        """The caller's line tells something other than its end."""
        if isinstance(event, PlayoutDrained) and self._host.leg.playout.idle:
            self._driver.feed(self._machine.quiet)
        elif isinstance(event, DigitPressed) and self._bridge is not None:
            self._bridge.digit(self._host.leg, event.digit)
        elif isinstance(event, ReferProgress):
            self._driver.feed(lambda now: self._machine.refer_progress(event, now))

    def caller_moved(self) -> None:
        """The caller is on another line now."""
        if self._bridge is not None and self._callee is not None:
            self._bridge.close()
            self._bridge = self._parts.joining.join(self._host.leg, self._callee, early=not self.joined)
        elif self._waiting is not None:
            _, sound = self._waiting
            self._quiet()
            self._wait(sound)

    def caller_gone(self) -> None:
        """The caller's line has ended."""
        self._driver.feed(self._machine.caller_gone)

    def agent_gone(self) -> None:
        """The agent failed."""
        self._driver.feed(self._machine.agent_gone)

    def decided(self, take: bool, voicemail: bool = False) -> None:
        """What the agent says of the destination's wish."""
        machine = self._machine
        self._driver.feed(machine.accept if take else lambda now: machine.decline(now, voicemail))

    def stop(self) -> None:
        """The call ends."""
        self._driver.feed(self._machine.stop)

    def close(self) -> None:
        """Give everything back; idempotent."""
        self.stop()
        if self._moving is not None:
            self._moving.close()
        self._driver.close()
        self._drop()
        self._release()

    def _on_callee(self, event: LegEvent) -> None:
        try:
            self._take_callee_event(event)
        except Exception as fault:  # noqa: BLE001 - the call logs it
            self._host.fault(fault)

    def _take_callee_event(self, event: LegEvent) -> None:
        if isinstance(event, LegEnded) and event.reason == "caller-hung-up":
            event = replace(event, reason="callee-hung-up")  # the destination is on a line that its own side dialled
        if isinstance(event, LegEnded) and self._moving is not None and self._moving.leg_ended(event):
            if self._bridge is not None:
                self._bridge.close()
                self._bridge = None
            self._wait(WaitingSound.RINGBACK)
            return
        if isinstance(event, TransferAsked) and self._callee is not None:
            self._asked_to_move(event, self._callee)
            return
        if isinstance(event, DigitPressed) and self._bridge is not None and self._callee is not None:
            self._bridge.digit(self._callee, event.digit)
            return
        seat = self._host.seat
        if isinstance(event, PlayoutDrained) and seat is not None and self.consulting:
            seat.tell(lambda agent, now: agent.drained(now))
            return
        self._driver.feed(lambda now: self._machine.callee(event, now))

    def _asked_to_move(self, event: TransferAsked, callee: Leg) -> None:
        """The destination's phone system puts the caller through to somebody else."""
        if not self.joined or (self._moving is not None and not self._moving.over):
            callee.refer_result(603)
            return
        if self._moving is not None:
            self._moving.close()
        self._moving = LineMove(self._host, self._parts, callee, self._order.caller, self._callee_moved)
        self._moving.on_lost = self._on_callee
        self._moving.start(event)

    def _callee_moved(self, leg: Leg, permit: DialPermit) -> None:
        self._permits.append(permit)
        self._talk_over(leg)

    @property
    def _may_be_replaced(self) -> bool:
        return self._machine.step in (Step.CONSULTING, Step.HANDING_OVER, Step.BRIDGED)

    def _callee_replaced(self, leg: Leg) -> None:
        old = self._callee
        if old is None or not self._may_be_replaced:
            leg.hang_up()
            return
        if self._moving is not None:
            self._moving.close()
        self._host.write_log("Transfer: the destination was replaced by another of its phone system")
        self._talk_over(leg)
        let_go(old)

    def _talk_over(self, leg: Leg) -> None:
        """The destination is on another line."""
        self._callee = leg
        leg.subscribe(self._on_callee)
        seat = self._host.seat
        if self.consulting and seat is not None:
            self._brief(seat, leg)  # it may be somebody else
        elif self.joined:
            if self._bridge is not None:
                self._bridge.close()
                self._bridge = None
            self._join()

    # -- effects --------------------------------------------------------------------------------

    def _perform(self, effect: TransferEffect) -> None:
        match effect:
            case Admit():
                self._host.spawn(self._admit(effect))
            case HoldCaller(sound=sound):
                self._hold(sound)
            case DialCallee():
                self._dial(effect)
            case JoinEarly():
                self._join()
            case Consult():
                self._consult()
            case Join() | ReleaseAgent():
                self._put_through(effect)
            case ReferCaller():
                self._host.write_log("Transfer: the line's peer is asked to connect the caller")
                order, replaced = self._order, self._callee if effect.attended else None
                self._host.leg.refer(effect.called, replaced, order.caller, order.ring_s)
            case DropCallee():
                self._drop()
            case TransferOver():
                self._over(effect)

    async def _admit(self, effect: Admit) -> None:
        decision = await self._parts.dialling.admit(self._host.account, effect.called, effect.purpose)
        if isinstance(decision, DialPermit):
            self._permits.append(decision)
        self._driver.feed(lambda now: self._machine.admitted(decision, now))
        if self._machine.step is Step.OVER:
            self._release()

    def _hold(self, sound: WaitingSound) -> None:
        self._consultations.end(self._parts.clock.utc())
        if self._host.seat is not None:
            self._host.seat.pause()
        self._wait(sound)

    def _wait(self, sound: WaitingSound) -> None:
        self._waiting = (self._host.leg, sound)
        self._parts.joining.play(*self._waiting)

    def _dial(self, effect: DialCallee) -> None:
        order, leg = self._order, self._host.leg
        request = DialRequest(
            self._host.attempt.call_id,
            self._host.account,
            effect.called,
            order.caller,
            order.caller_name,
            leg.encoding,
            effect.ring_s,
        )
        self._callee = self._parts.dialer.dial(request)
        self._callee.subscribe(self._on_callee)

    def _consult(self) -> None:
        seat, callee = self._host.seat, self._callee
        if seat is None or callee is None:
            self._driver.feed(self._machine.accept)
            return
        self._host.write_log("Transfer: the agent talks with the destination")
        self._consultations.begin(self._parts.clock.utc())
        self._brief(seat, callee)

    def _brief(self, seat: AgentSeat, callee: Leg) -> None:
        seat.consult(callee, _briefing(self._host.attempt), CONSULT_TOOLS)

    def _put_through(self, effect: Join | ReleaseAgent) -> None:
        self._host.write_log("Transfer: the caller is put through")
        self._joined_at = self._parts.clock.utc()
        self._consultations.end(self._joined_at)
        self._host.put_through()
        if isinstance(effect, Join):
            self._join()

    def _join(self) -> None:
        self._quiet()
        if self._bridge is not None:
            self._bridge.answered()
        elif self._callee is not None:
            self._bridge = self._parts.joining.join(self._host.leg, self._callee, early=not self.joined)

    def _drop(self) -> None:
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
        if self._callee is not None:
            self._callee.close()

    def _quiet(self) -> None:
        if self._waiting is not None:
            leg, _ = self._waiting
            self._waiting = None
            self._parts.joining.quiet(leg)

    def _over(self, effect: TransferOver) -> None:
        if self._moving is not None:
            self._moving.close()
        self._drop()
        self._quiet()
        self._release()
        self._consultations.end(self._parts.clock.utc())
        told = f" ({effect.status})" if effect.status else ""
        self._host.write_log(f"Transfer: {effect.result.value}{told}" + (f": {effect.detail}" if effect.detail else ""))
        if not effect.put_through and self._host.seat is not None:
            self._host.seat.resume(self._host.leg)
        order = self._order
        record = TransferRecord(
            self._called,
            order.caller,
            order.caller_name,
            self._started_at,
            self._parts.clock.utc(),
            effect.result.value,
            effect.status,
            effect.detail,
            effect.referred,
            self._joined_at,
        )
        self._on_over(record, effect.put_through, _reason(effect))

    @property
    def _called(self) -> str:
        """In E.164 as far as it is known; an extension as it was asked for, without the address of the phone system."""
        known = self._permits[0].called if self._permits else ""
        return known if known.startswith("+") else self._order.called

    def _release(self) -> None:
        joined = self._joined_at
        seconds = (self._parts.clock.utc() - joined).total_seconds() if joined else 0.0
        for permit in self._permits:
            self._parts.dialling.release(permit, seconds)


def _reason(effect: TransferOver) -> str:
    """The reason of the call's end, when the transfer was it."""
    if effect.referred:
        return "referred"
    if effect.detail in ("max-duration", "caller-hung-up"):
        return effect.detail
    return "callee-hung-up" if effect.put_through else f"transfer-{effect.result.value}"


def _briefing(attempt: CallAttempt) -> str:
    caller = f"{attempt.caller_name} ({attempt.caller})" if attempt.caller_name else attempt.caller or "an unknown number"
    return (
        f"The caller, {caller}, is on hold and hears nothing of this. From now on you are talking with the person the caller "
        "shall be transferred to, who has just answered. Say in one or two sentences who is calling and why, and ask whether the "
        f"call can be put through. If the person agrees, call {COMPLETE}. If the person declines, cannot talk, or is a "
        f"voicemail, call {CANCEL}. The person may also press {ACCEPT_DIGIT} to take the call or {DECLINE_DIGIT} to decline."
    )

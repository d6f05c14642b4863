"""A party's phone system puts us through to somebody else (REFER), or takes a call of ours over (Replaces).

The talk goes on, over another line.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from switchhook.calls.parts import CallParts
from switchhook.calls.transfer import Admit, DialCallee, DropCallee, Join, TransferEffect, TransferMachine, TransferOver
from switchhook.domain.dialling import RING_S, DialPermit, DialRequest, DialResult
from switchhook.domain.model import CallId, TransferMode
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import TransferOrder
from switchhook.domain.ports import Leg, LegAnswered, LegEnded, LegEvent, LegProgress, OfferedLeg, TransferAsked
from switchhook.driver import Driver

_STATUSES = {
    DialResult.POLICY: 403,
    DialResult.BUSY: 486,
    DialResult.NO_ANSWER: 480,
    DialResult.UNREACHABLE: 404,
    DialResult.DECLINED: 603,
    DialResult.CANCELLED: 487,
}


class MoveHost(Protocol):
    """What a move asks of the call."""

    @property
    def account(self) -> str:
        """Whose call it is."""

    @property
    def call_id(self) -> CallId:
        """The call's id."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        """Run in the call's task group."""

    def write_log(self, text: str) -> None:
        """A line for the call's log."""

    def fault(self, fault: Exception) -> None:
        """Something broke."""

    def has(self, leg: Leg) -> bool:
        """Whether the call's party is on that line."""

    def stop(self, verdict: Verdict) -> None:
        """End the call."""


class LineMove:
    """The party on `leg` asked for `asked`: dials it, and hands the new line to `on_moved` once it is answered.

    The old line is told how it goes and is let go when the new one stands; until then nothing changes. `close` gives back what
    it holds; `permit` is the call's to give back once the move has succeeded.
    """

    def __init__(
        self, host: MoveHost, parts: CallParts, leg: Leg, caller: str, on_moved: Callable[[Leg, DialPermit], None]
    ) -> None:
        self._host = host
        self._parts = parts
        self._leg = leg
        self._caller = caller
        self._on_moved = on_moved
        self._machine: TransferMachine | None = None
        self._driver: Driver | None = None
        self._replaces: str | None = None
        self._line: Leg | None = None
        self._permit: DialPermit | None = None
        self._lost: LegEnded | None = None
        self.on_lost: Callable[[LegEnded], None] | None = None
        """Told of the old line's end when the move has failed after it."""
        self.over = False

    def leg_ended(self, event: LegEnded) -> bool:
        """The old line has ended; True: the move goes on without it, as phones that hang up once their REFER is taken expect."""
        if self.over or self._machine is None:
            return False
        self._lost = event
        return True

    def start(self, asked: TransferAsked) -> None:
        """Begin."""
        self._host.write_log(f"Transfer: the other side asks to be connected with {asked.target} (REFER)")
        order = TransferOrder(asked.target, self._caller, ring_s=RING_S)
        self._replaces = asked.replaces
        self._machine = machine = TransferMachine(order, TransferMode.BRIDGE)
        self._driver = Driver(machine, self._perform, self._host.fault)
        self._driver.feed(machine.start)
        self._driver.feed(machine.quiet)

    def close(self) -> None:
        """Give up, unless it has succeeded; idempotent."""
        if not self.over and self._machine is not None and self._driver is not None:
            self._driver.feed(self._machine.stop)
        if self._driver is not None:
            self._driver.close()

    def _perform(self, effect: TransferEffect) -> None:
        match effect:
            case Admit():
                self._host.spawn(self._admit(effect))
            case DialCallee():
                self._dial(effect)
            case Join():
                self._moved()
            case DropCallee() if self._line is not None and self.over and self._host.has(self._line):
                # The longest time that the policy allows on the new line: whoever is on it is hung up on in good order.
                self._host.stop(Verdict(Ending.COMPLETED, "max-duration", "Maximum call duration reached"))
            case DropCallee() if self._line is not None:
                self._line.close()
            case TransferOver() if not self.over:
                self._failed(effect)
            case _:
                pass  # who waits for whom is the other side's business

    async def _admit(self, effect: Admit) -> None:
        decision = await self._parts.dialling.admit(self._host.account, effect.called, effect.purpose)
        if isinstance(decision, DialPermit):
            self._permit = decision
        if self.over:
            self._release()
        elif self._machine is not None and self._driver is not None:
            machine = self._machine
            self._driver.feed(lambda now: machine.admitted(decision, now))

    def _dial(self, effect: DialCallee) -> None:
        request = DialRequest(
            self._host.call_id,
            self._host.account,
            effect.called,
            self._caller,
            encoding=self._leg.encoding,
            ring_s=effect.ring_s,
            replaces=self._replaces,
        )
        self._line = self._parts.dialer.dial(request)
        self._line.subscribe(self._on_line)

    def _on_line(self, event: LegEvent) -> None:
        if isinstance(event, LegProgress) and not self.over:
            self._leg.refer_result(180)
        machine = self._machine
        if self._driver is not None and machine is not None:
            self._driver.feed(lambda now: machine.callee(event, now))

    def _moved(self) -> None:
        self.over = True
        assert self._line is not None and self._permit is not None  # it has answered, so it was allowed and dialled
        self._leg.refer_result(200)
        self._on_moved(self._line, self._permit)
        let_go(self._leg)
        if self._lost is not None:
            self._leg.close()

    def _failed(self, effect: TransferOver) -> None:
        self.over = True
        if self._line is not None:
            self._line.close()
        self._release()
        self._host.write_log(f"Transfer: {effect.result.value}" + (f": {effect.detail}" if effect.detail else ""))
        self._leg.refer_result(_STATUSES.get(effect.result, 503))
        if self._lost is not None and self.on_lost is not None:
            self.on_lost(self._lost)

    def _release(self) -> None:
        if self._permit is not None:
            self._parts.dialling.release(self._permit, 0)


def take_over(leg: OfferedLeg, on_moved: Callable[[Leg], None]) -> None:
    """Answer a line that takes the place of another (RFC 3891), and hand it on once it stands."""

    def on_event(event: LegEvent) -> None:
        if isinstance(event, LegAnswered):
            on_moved(leg)
        elif isinstance(event, LegEnded):
            leg.close()

    leg.subscribe(on_event)
    leg.answer()


def refuse(leg: OfferedLeg, status: int) -> None:
    """Refuse a line that nobody has taken."""
    leg.subscribe(_ignore)
    leg.reject(status)


def let_go(leg: Leg) -> None:
    """Hang a line up that nobody needs any more, and close it when it has ended."""

    def on_event(event: LegEvent) -> None:
        if isinstance(event, LegEnded):
            leg.close()

    leg.listen(None)
    leg.tap(None)
    leg.subscribe(on_event)
    leg.hang_up()


def _ignore(event: LegEvent) -> None:
    """A refused line has nothing to tell."""

"""The line to a call's party, which the party's phone system may change for another while the call goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from switchhook.calls.moving import LineMove, MoveHost, let_go, refuse, take_over
from switchhook.calls.parts import CallParts
from switchhook.domain.dialling import DialPermit
from switchhook.domain.ports import Leg, LegEnded, LegEvent, OfferedLeg, TransferAsked


class PartyHost(MoveHost, Protocol):
    """What the line asks of its call."""

    @property
    def talking(self) -> bool:
        """The call has its plan and is not ending: only then is it worth another line."""

    @property
    def own_number(self) -> str:
        """The number of ours that runs the call, E.164."""

    def line_changed(self, old: Leg) -> None:
        """The party is on another line; `old` is about to be let go."""


class PartyLine:
    """One line at a time; `on_event` is told what happens on it."""

    def __init__(self, host: PartyHost, parts: CallParts, on_event: Callable[[LegEvent], None]) -> None:
        self._host = host
        self._parts = parts
        self._on_event = on_event
        self._moving: LineMove | None = None
        self._permits: list[tuple[DialPermit, datetime]] = []
        self.leg: Leg | None = None
        """None: nobody has called, and nobody was dialled."""

    def use(self, leg: Leg) -> None:
        """The party is on this line."""
        self.leg = leg
        leg.subscribe(self._on_event)

    def ended(self, event: LegEnded) -> bool:
        """The line has ended. True: a move goes on without it, and `on_event` is told should that fail."""
        # A call that is ending waits for its own line alone.
        return self._moving is not None and self._host.talking and self._moving.leg_ended(event)

    def replace(self, leg: OfferedLeg) -> None:
        """Somebody takes the party's place (INVITE with Replaces, RFC 3891)."""
        if self.leg is None or not self._host.talking:
            refuse(leg, 481)
        elif leg.encoding is not self.leg.encoding:
            refuse(leg, 488)  # agent and recording speak the old line's
        else:
            take_over(leg, self._taken_over)

    def _taken_over(self, leg: Leg) -> None:
        old = self.leg
        if not self._host.talking or old is None:
            leg.hang_up()
            return
        self.stop_moving()
        self._host.write_log("Transfer: the party was replaced by another of its phone system")
        self._change(old, leg)
        let_go(old)

    def asked_to_move(self, event: TransferAsked) -> None:
        """The party asks to be put through to somebody else (REFER)."""
        old = self.leg
        assert old is not None  # it has told us
        busy = self._moving is not None and not self._moving.over
        if busy or not self._host.talking:
            old.refer_result(603)
            return
        self.stop_moving()
        self._moving = LineMove(self._host, self._parts, old, self._host.own_number, self._moved)
        self._moving.on_lost = self._on_event
        self._moving.start(event)

    def _moved(self, leg: Leg, permit: DialPermit) -> None:
        assert self.leg is not None  # it has asked
        self._permits.append((permit, self._parts.clock.utc()))
        self._change(self.leg, leg)

    def _change(self, old: Leg, new: Leg) -> None:
        self.use(new)
        self._host.line_changed(old)

    def stop_moving(self) -> None:
        """Give a move up, unless it has succeeded; idempotent."""
        if self._moving is not None:
            self._moving.close()

    def hang_up(self) -> None:
        """End the line in good order; `on_event` is told when it has ended, also of one that had ended and was being replaced."""
        self.stop_moving()
        if self.leg is not None:
            self.leg.hang_up()

    def close(self) -> None:
        """End the line by force; idempotent."""
        if self.leg is not None:
            self.leg.close()

    def forget(self) -> None:
        """The call is over and is told nothing more; permits of the dialling policy are given back."""
        self._moving = None
        if self.leg is not None:
            self.leg.subscribe(_ignore)
        now = self._parts.clock.utc()
        for permit, since in self._permits:
            self._parts.dialling.release(permit, (now - since).total_seconds())


def _ignore(event: LegEvent) -> None:
    """A call that is over is told nothing."""

"""Who has the agent's place on a call: one agent at a time, seated with a greeting and dismissed with its bill."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from switchhook.agents.conversation import Agent, AgentEffect
from switchhook.calls.greeting import greet
from switchhook.calls.listening import AnswerListener
from switchhook.calls.machine import OpenAgent
from switchhook.calls.parts import CallParts
from switchhook.calls.seat import AgentSeat
from switchhook.domain.plan import AnswerDetection
from switchhook.domain.ports import Leg


class SeatingHost(Protocol):
    """What an agent's place asks of its call."""

    @property
    def leg(self) -> Leg:
        """The party's line."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the call's task group."""

    def spawn_lasting(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what the call's end does not cut short."""

    def write_log(self, text: str) -> None:
        """A line for the call's log."""

    def fault(self, fault: Exception) -> None:
        """Something broke."""


class Seating:
    """The agent's place; `perform` gets the effects that are the call's business."""

    def __init__(
        self, host: SeatingHost, parts: CallParts, listener: AnswerListener, perform: Callable[[AgentEffect], None]
    ) -> None:
        self._host = host
        self._parts = parts
        self._listener = listener
        self._perform = perform
        self._greeting_url: str | None = None
        self.seat: AgentSeat | None = None
        """None: nobody is there."""
        self._seats: list[AgentSeat] = []
        self._counted: Counter[str] = Counter()
        """What those used who are not among `_seats` any more."""

    def open(self, wanted: OpenAgent) -> None:
        """Seat an agent."""
        parts = self._parts
        self._forget_gone()
        self.seat = AgentSeat(wanted.spec, self._host.leg, parts.agents, parts.clock, self._perform, self._host.fault)
        self._seats.append(self.seat)
        self.seat.start(wanted.waiting)
        self._greeting_url = wanted.greeting_url
        if not wanted.waiting:
            self._greet(self.seat)

    def party_arrived(self, detection: AnswerDetection | None) -> None:
        """The party that was called has answered; `detection`: find out who that is."""
        seat = self.seat
        if seat is None:
            return
        if detection is not None:
            self._listener.start(detection, seat, self._host.leg.encoding, self._parts.clock.now())
        seat.party_arrived()
        self._greet(seat)

    def tell(self, change: Callable[[Agent, float], None]) -> None:
        """Give the agent one input, if there is one."""
        if self.seat is not None:
            self.seat.tell(change)

    def stop(self) -> None:
        """Dismiss the agent; idempotent. The call's record waits for what the model still writes down."""
        seat, self.seat = self.seat, None
        if seat is not None:
            seat.stop()
            if not seat.gone.is_set():
                self._host.spawn_lasting(_gone(seat))

    def close(self) -> None:
        """Dismiss the agent, and wait for nothing."""
        self.seat = None
        for seat in self._seats:
            seat.close()

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of all who had the place, by kind."""
        total = Counter(self._counted)
        for seat in self._seats:
            total.update(seat.usage)
        return dict(total)

    def _forget_gone(self) -> None:
        for seat in [seat for seat in self._seats if seat.gone.is_set()]:
            self._counted.update(seat.usage)
            self._seats.remove(seat)

    def _greet(self, seat: AgentSeat) -> None:
        if self._greeting_url is not None:
            self._host.spawn(greet(self._greeting_url, self._host.leg, seat, self._parts, self._host.write_log))


async def _gone(seat: AgentSeat) -> None:
    await seat.gone.wait()

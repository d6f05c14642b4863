"""An account asks us to call somebody: find its number, ask the dialling policy, begin the call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from switchhook.calls.steering import OrderedCall
from switchhook.domain.dialling import COUNTING_RULES, DialPermit, DialPurpose, DialRefused
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import CallAttempt, CallId, Direction
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.phone import e164
from switchhook.domain.ports import Clock, DiallingGate
from switchhook.usecases.repositories import NumberFinder

logger = logging.getLogger(__name__)


class Unplaced(Enum):
    """Why a call was not begun."""

    BAD_REQUEST = "bad-request"
    """Asked again it will fail again: a number that is none, not the account's, or not allowed."""
    TOO_MANY = "too-many"
    """The account's own limits."""
    UNAVAILABLE = "unavailable"
    """No trunk, no free slot, no database: try again later."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The call has begun; everything further is told by the contract's webhooks."""

    call_id: CallId


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """The call was not begun."""

    why: Unplaced
    message: str
    """For the customer: names the field and the cure."""


@dataclass(frozen=True, slots=True)
class CallOrder:
    """Who is to be called, under which number of the account."""

    account: str
    called: str
    caller: str
    """A number of the account: its contract and webhooks run the call."""
    caller_name: str | None = None
    customer_call_id: str | None = None


class CallPlacing(Protocol):
    """What begins the call; the switchboard does."""

    def place(self, attempt: CallAttempt, permit: DialPermit, ordered: OrderedCall | None = None) -> bool:
        """False when there is no room."""

    def not_placed(self, attempt: CallAttempt, verdict: Verdict) -> None:
        """Write a refused attempt down."""


class Outgoing:
    """Places calls for accounts. `line_of` tells the kind of line an account dials with, None when it has none."""

    def __init__(
        self,
        numbers: NumberFinder,
        dialling: DiallingGate,
        board: CallPlacing,
        line_of: Callable[[str], str | None],
        clock: Clock,
        new_id: Callable[[], CallId],
    ) -> None:
        self._numbers = numbers
        self._dialling = dialling
        self._board = board
        self._line_of = line_of
        self._clock = clock
        self._new_id = new_id

    async def place(self, order: CallOrder, ordered: OrderedCall | None = None) -> Placed | NotPlaced:
        """Begin the call, or say why not. Never raises but for cancellation.

        `ordered` brings its own plan; otherwise the number's contract is asked for one.
        """
        attempt = self._attempt(order)
        try:
            problem = await self._caller_problem(order)
        except SwitchhookError:
            logger.exception("a call was not placed: the store failed", extra={"call_id": attempt.call_id})
            return self._refuse(attempt, Unplaced.UNAVAILABLE, "store-unavailable", "The database could not be used")
        if problem is not None:
            return self._refuse(attempt, Unplaced.BAD_REQUEST, "unknown-number", problem)
        line = self._line_of(order.account)
        if line is None:
            cure = "The account has no trunk to dial with: add one to the apply file"
            return self._refuse(attempt, Unplaced.UNAVAILABLE, "no-trunk", cure)
        attempt = replace(attempt, line=line)
        decision = await self._dialling.admit(order.account, order.called, DialPurpose.OUTBOUND)
        if isinstance(decision, DialRefused):
            why = Unplaced.TOO_MANY if decision.rule in COUNTING_RULES else Unplaced.BAD_REQUEST
            why = Unplaced.UNAVAILABLE if decision.rule == "unavailable" else why
            return self._refuse(attempt, why, f"policy-{decision.rule}", f"calledNumber: {decision.message}")
        return self._begin(attempt, decision, ordered)

    def _begin(self, attempt: CallAttempt, permit: DialPermit, ordered: OrderedCall | None) -> Placed | NotPlaced:
        begun = False
        try:
            begun = self._board.place(attempt, permit, ordered)
        finally:
            if not begun:
                self._dialling.release(permit, 0)
        if begun:
            return Placed(attempt.call_id)
        return self._refuse(attempt, Unplaced.UNAVAILABLE, "over-capacity", "No call slot is free; try again in a few seconds")

    async def _caller_problem(self, order: CallOrder) -> str | None:
        caller = e164(order.caller)
        number = await self._numbers.find_number(caller) if caller else None
        if number is None or number.account != order.account:
            return "callerId: is no number of this account; give one that is configured, since its webhooks run the call"
        return None

    def _attempt(self, order: CallOrder) -> CallAttempt:
        return CallAttempt(
            call_id=self._new_id(),
            direction=Direction.OUTBOUND,
            called=order.called,
            caller=order.caller,
            caller_name=order.caller_name,
            account=order.account,
            line="sip",
            started_at=self._clock.utc(),
            customer_call_id=order.customer_call_id,
        )

    def _refuse(self, attempt: CallAttempt, why: Unplaced, reason: str, message: str) -> NotPlaced:
        self._board.not_placed(attempt, Verdict(Ending.REJECTED, reason, message))
        return NotPlaced(why, message)

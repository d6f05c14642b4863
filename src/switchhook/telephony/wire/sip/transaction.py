"""What the four transaction machines share: a table of (state, event) rows is run by one small interpreter (RFC 3261 §17)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.timers import Timer, TimerValues


class State(Enum):
    """States of RFC 3261 §17 and RFC 6026; each machine uses some of them."""

    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


class Event(Enum):
    """What happens to a transaction besides its timers."""

    START = "start"
    """A client transaction sends its request."""
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    """Responses: received by a client transaction, given by the user of a server transaction."""
    REQUEST = "request"
    """A server transaction's request came again."""
    ACK = "ack"
    TRANSPORT_ERROR = "transport error"


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send these bytes where the transaction's messages go."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message for the transaction's user."""

    message: Request | Response


@dataclass(frozen=True, slots=True)
class Failed:
    """The transaction failed: `timeout` (B, F, H) or `transport`."""

    reason: str


TransactionEffect: TypeAlias = Transmit | Deliver | Failed
Action: TypeAlias = "Callable[[Transaction, float], None]"


@dataclass(frozen=True, slots=True)
class Row:
    """Where an event leads, and what is done on the way."""

    to: State
    actions: tuple[Action, ...] = ()


Table: TypeAlias = Mapping[tuple[State, Event | Timer], Row]


class Transaction:
    """One transaction: a machine whose behaviour is its table. An event without a row is ignored."""

    __slots__ = ("_armed", "_effects", "_interval", "_table", "_values", "data", "message", "reliable", "state")

    def __init__(self, table: Table, state: State, values: TimerValues, reliable: bool) -> None:
        self._table = table
        self._values = values
        self._armed: dict[Timer, float] = {}
        self._interval = values.t1
        self._effects: list[TransactionEffect] = []
        self.state = state
        self.reliable = reliable
        self.data = b""
        """The message that is repeated."""
        self.message: Request | Response | None = None
        """The message of the event at hand."""

    @property
    def over(self) -> bool:
        """Whether it can be forgotten."""
        return self.state is State.TERMINATED

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        return min(self._armed.values()) if self._armed else None

    def tick(self, now: float) -> None:
        """Fire every timer that is due."""
        for timer in [timer for timer, due in self._armed.items() if due <= now]:
            if self._armed.pop(timer, None) is not None:
                self.apply(timer, now)

    def take(self) -> list[TransactionEffect]:
        """Effects so far, in order."""
        effects, self._effects = self._effects, []
        return effects

    def apply(self, event: Event | Timer, now: float) -> None:
        """Run the row of this event."""
        row = self._table.get((self.state, event))
        if row is None:
            return
        self.state = row.to
        if row.to is State.TERMINATED:
            self._armed.clear()
        for action in row.actions:
            action(self, now)
        self.message = None

    def transport_failed(self, now: float) -> None:
        """What was sent could not be."""
        self.apply(Event.TRANSPORT_ERROR, now)

    def emit(self, effect: TransactionEffect) -> None:
        """Give an effect."""
        self._effects.append(effect)

    def start_timer(self, timer: Timer, now: float) -> None:
        """Arm a timer at its first value; a timer of no length fires at once."""
        delay = self._values.first(timer, self.reliable)
        if delay is None:
            return
        if delay <= 0:
            self.apply(timer, now)
            return
        self._interval = delay if timer in (Timer.A, Timer.E, Timer.G) else self._interval
        self._armed[timer] = now + delay

    def lengthen_timer(self, timer: Timer, now: float) -> None:
        """Arm a retransmission timer again at its next interval."""
        self._interval = self._values.next_interval(timer, self._interval)
        self._armed[timer] = now + self._interval

    def settle_timer(self, timer: Timer, now: float) -> None:
        """Arm a retransmission timer again at T2 (RFC 3261 §17.1.2.2, Proceeding)."""
        self._interval = self._values.t2
        self._armed[timer] = now + self._interval

    def stop_timer(self, timer: Timer) -> None:
        """Disarm a timer."""
        self._armed.pop(timer, None)


def send(transaction: Transaction, now: float) -> None:
    """Action: send (again) what the transaction repeats."""
    transaction.emit(Transmit(transaction.data))


def deliver(transaction: Transaction, now: float) -> None:
    """Action: hand the message at hand to the user."""
    if transaction.message is not None:
        transaction.emit(Deliver(transaction.message))


def timed_out(transaction: Transaction, now: float) -> None:
    """Action: tell the user that no answer came."""
    transaction.emit(Failed("timeout"))


def transport_lost(transaction: Transaction, now: float) -> None:
    """Action: tell the user that the transport failed."""
    transaction.emit(Failed("transport"))


def start(timer: Timer) -> Action:
    """Action: arm a timer."""
    return lambda transaction, now: transaction.start_timer(timer, now)


def lengthen(timer: Timer) -> Action:
    """Action: arm a retransmission timer again."""
    return lambda transaction, now: transaction.lengthen_timer(timer, now)


def settle(timer: Timer) -> Action:
    """Action: arm a retransmission timer again at T2."""
    return lambda transaction, now: transaction.settle_timer(timer, now)


def stop(timer: Timer) -> Action:
    """Action: disarm a timer."""
    return lambda transaction, now: transaction.stop_timer(timer)


def event_of(status: int) -> Event:
    """The event that a response of this status is."""
    if status < 200:
        return Event.PROVISIONAL
    return Event.SUCCESS if status < 300 else Event.FAILURE

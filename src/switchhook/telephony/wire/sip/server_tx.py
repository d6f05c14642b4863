"""Server transactions: how a request is answered, once and the same however often it comes (RFC 3261 §17.2, RFC 6026 §7.1)."""

from __future__ import annotations

from switchhook.telephony.wire.sip.message import Response
from switchhook.telephony.wire.sip.timers import Timer, TimerValues
from switchhook.telephony.wire.sip.transaction import (
    Event,
    Row,
    State,
    Table,
    Transaction,
    deliver,
    event_of,
    lengthen,
    send,
    start,
    stop,
    timed_out,
    transport_lost,
)

INVITE_SERVER: Table = {
    (State.PROCEEDING, Event.REQUEST): Row(State.PROCEEDING, (send,)),
    (State.PROCEEDING, Event.PROVISIONAL): Row(State.PROCEEDING, (send,)),
    (State.PROCEEDING, Event.SUCCESS): Row(State.ACCEPTED, (send, start(Timer.L))),
    (State.PROCEEDING, Event.FAILURE): Row(State.COMPLETED, (send, start(Timer.G), start(Timer.H))),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): Row(State.PROCEEDING, (transport_lost,)),
    # RFC 6026 §7.1: in Accepted the user repeats its 2xx; the INVITE that comes again is absorbed.
    (State.ACCEPTED, Event.REQUEST): Row(State.ACCEPTED),
    (State.ACCEPTED, Event.SUCCESS): Row(State.ACCEPTED, (send,)),
    (State.ACCEPTED, Event.ACK): Row(State.ACCEPTED, (deliver,)),
    (State.ACCEPTED, Event.TRANSPORT_ERROR): Row(State.ACCEPTED, (transport_lost,)),
    (State.ACCEPTED, Timer.L): Row(State.TERMINATED),
    (State.COMPLETED, Event.REQUEST): Row(State.COMPLETED, (send,)),
    (State.COMPLETED, Timer.G): Row(State.COMPLETED, (send, lengthen(Timer.G))),
    (State.COMPLETED, Timer.H): Row(State.TERMINATED, (timed_out,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): Row(State.COMPLETED, (transport_lost,)),
    (State.COMPLETED, Event.ACK): Row(State.CONFIRMED, (stop(Timer.G), stop(Timer.H), start(Timer.I))),
    (State.CONFIRMED, Event.ACK): Row(State.CONFIRMED),
    (State.CONFIRMED, Timer.I): Row(State.TERMINATED),
}

SERVER: Table = {
    (State.TRYING, Event.REQUEST): Row(State.TRYING),
    (State.TRYING, Event.PROVISIONAL): Row(State.PROCEEDING, (send,)),
    (State.TRYING, Event.SUCCESS): Row(State.COMPLETED, (send, start(Timer.J))),
    (State.TRYING, Event.FAILURE): Row(State.COMPLETED, (send, start(Timer.J))),
    (State.PROCEEDING, Event.REQUEST): Row(State.PROCEEDING, (send,)),
    (State.PROCEEDING, Event.PROVISIONAL): Row(State.PROCEEDING, (send,)),
    (State.PROCEEDING, Event.SUCCESS): Row(State.COMPLETED, (send, start(Timer.J))),
    (State.PROCEEDING, Event.FAILURE): Row(State.COMPLETED, (send, start(Timer.J))),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): Row(State.TERMINATED, (transport_lost,)),
    (State.COMPLETED, Event.REQUEST): Row(State.COMPLETED, (send,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): Row(State.TERMINATED, (transport_lost,)),
    (State.COMPLETED, Timer.J): Row(State.TERMINATED),
}


class ServerTransaction(Transaction):
    """Answers one request. The first arrival makes the transaction; `repeat` is every later one."""

    __slots__ = ("invite",)

    def __init__(self, invite: bool, values: TimerValues, reliable: bool) -> None:
        super().__init__(INVITE_SERVER if invite else SERVER, State.PROCEEDING if invite else State.TRYING, values, reliable)
        self.invite = invite

    @property
    def answered(self) -> bool:
        """Whether a final response was given."""
        return self.state not in (State.TRYING, State.PROCEEDING)

    def respond(self, response: Response, now: float) -> None:
        """Give a response. One that comes too late for the state is dropped; a 2xx to an INVITE may be given again."""
        event = event_of(response.status)
        if self.answered and not (event is Event.SUCCESS and self.state is State.ACCEPTED):
            return
        self.data = bytes(response)
        self.apply(event, now)

    def repeat(self, now: float) -> None:
        """The same request came again."""
        if self.data:
            self.apply(Event.REQUEST, now)

    def acknowledge(self, now: float) -> None:
        """An ACK came that matches this INVITE transaction."""
        self.apply(Event.ACK, now)

"""Client transactions: how a request is repeated until it is answered (RFC 3261 §17.1, RFC 6026 §7.2)."""

from __future__ import annotations

from switchhook.telephony.wire.sip.headers import Headers
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.timers import Timer, TimerValues
from switchhook.telephony.wire.sip.transaction import (
    Event,
    Row,
    State,
    Table,
    Transaction,
    Transmit,
    deliver,
    event_of,
    lengthen,
    send,
    settle,
    start,
    stop,
    timed_out,
    transport_lost,
)


def acknowledge(transaction: Transaction, now: float) -> None:
    """Action: send the ACK of a failure response, which belongs to the transaction (RFC 3261 §17.1.1.3)."""
    if isinstance(transaction, ClientTransaction) and isinstance(transaction.message, Response):
        transaction.emit(Transmit(bytes(ack_of_failure(transaction.request, transaction.message))))


INVITE_CLIENT: Table = {
    (State.CALLING, Event.START): Row(State.CALLING, (send, start(Timer.A), start(Timer.B))),
    (State.CALLING, Timer.A): Row(State.CALLING, (send, lengthen(Timer.A))),
    (State.CALLING, Timer.B): Row(State.TERMINATED, (timed_out,)),
    (State.CALLING, Event.TRANSPORT_ERROR): Row(State.TERMINATED, (transport_lost,)),
    (State.CALLING, Event.PROVISIONAL): Row(State.PROCEEDING, (stop(Timer.A), stop(Timer.B), deliver)),
    (State.CALLING, Event.SUCCESS): Row(State.ACCEPTED, (stop(Timer.A), stop(Timer.B), deliver, start(Timer.M))),
    (State.CALLING, Event.FAILURE): Row(State.COMPLETED, (stop(Timer.A), stop(Timer.B), acknowledge, deliver, start(Timer.D))),
    (State.PROCEEDING, Event.PROVISIONAL): Row(State.PROCEEDING, (deliver,)),
    # Only a cancelled INVITE has timer B here (RFC 3261 §9.1).
    (State.PROCEEDING, Timer.B): Row(State.TERMINATED, (timed_out,)),
    (State.PROCEEDING, Event.SUCCESS): Row(State.ACCEPTED, (stop(Timer.B), deliver, start(Timer.M))),
    (State.PROCEEDING, Event.FAILURE): Row(State.COMPLETED, (stop(Timer.B), acknowledge, deliver, start(Timer.D))),
    # RFC 6026 §7.2: every further 2xx, also of another fork, is the user's to acknowledge.
    (State.ACCEPTED, Event.SUCCESS): Row(State.ACCEPTED, (deliver,)),
    (State.ACCEPTED, Timer.M): Row(State.TERMINATED),
    (State.COMPLETED, Event.FAILURE): Row(State.COMPLETED, (acknowledge,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): Row(State.TERMINATED, (transport_lost,)),
    (State.COMPLETED, Timer.D): Row(State.TERMINATED),
}

CLIENT: Table = {
    (State.TRYING, Event.START): Row(State.TRYING, (send, start(Timer.E), start(Timer.F))),
    (State.TRYING, Timer.E): Row(State.TRYING, (send, lengthen(Timer.E))),
    (State.TRYING, Timer.F): Row(State.TERMINATED, (timed_out,)),
    (State.TRYING, Event.TRANSPORT_ERROR): Row(State.TERMINATED, (transport_lost,)),
    (State.TRYING, Event.PROVISIONAL): Row(State.PROCEEDING, (deliver,)),
    (State.TRYING, Event.SUCCESS): Row(State.COMPLETED, (stop(Timer.E), stop(Timer.F), deliver, start(Timer.K))),
    (State.TRYING, Event.FAILURE): Row(State.COMPLETED, (stop(Timer.E), stop(Timer.F), deliver, start(Timer.K))),
    (State.PROCEEDING, Timer.E): Row(State.PROCEEDING, (send, settle(Timer.E))),
    (State.PROCEEDING, Timer.F): Row(State.TERMINATED, (timed_out,)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): Row(State.TERMINATED, (transport_lost,)),
    (State.PROCEEDING, Event.PROVISIONAL): Row(State.PROCEEDING, (deliver,)),
    (State.PROCEEDING, Event.SUCCESS): Row(State.COMPLETED, (stop(Timer.E), stop(Timer.F), deliver, start(Timer.K))),
    (State.PROCEEDING, Event.FAILURE): Row(State.COMPLETED, (stop(Timer.E), stop(Timer.F), deliver, start(Timer.K))),
    (State.COMPLETED, Timer.K): Row(State.TERMINATED),
}


class ClientTransaction(Transaction):
    """Sends one request and gives its responses to the user."""

    __slots__ = ("invite", "request")

    def __init__(self, request: Request, values: TimerValues, reliable: bool) -> None:
        invite = request.method == "INVITE"
        super().__init__(INVITE_CLIENT if invite else CLIENT, State.CALLING if invite else State.TRYING, values, reliable)
        self.invite = invite
        self.request = request
        self.data = bytes(request)

    def start(self, now: float) -> None:
        """Send the request."""
        self.apply(Event.START, now)

    def receive(self, response: Response, now: float) -> None:
        """A response that matches this transaction came."""
        self.message = response
        self.apply(event_of(response.status), now)


def cancel_of(request: Request) -> Request:
    """The CANCEL of an INVITE: the same branch, route, parties and number (RFC 3261 §9.1)."""
    headers = Headers()
    headers.add("Via", request.headers.get_all("Via")[0])
    for route in request.headers.get_all("Route"):
        headers.add("Route", route)
    for name in ("From", "To", "Call-ID"):
        headers.add(name, request.headers.get(name) or "")
    headers.add("CSeq", f"{request.cseq.number} CANCEL")
    headers.add("Max-Forwards", "70")
    return Request("CANCEL", request.uri, headers, b"")


def ack_of_failure(request: Request, response: Response) -> Request:
    """The ACK of a 300–699 response: the INVITE's branch, route and number, the response's To (RFC 3261 §17.1.1.3)."""
    headers = Headers()
    headers.add("Via", request.headers.get_all("Via")[0])
    for route in request.headers.get_all("Route"):
        headers.add("Route", route)
    headers.add("From", request.headers.get("From") or "")
    headers.add("To", response.headers.get("To") or "")
    headers.add("Call-ID", request.call_id)
    headers.add("CSeq", f"{request.cseq.number} ACK")
    headers.add("Max-Forwards", "70")
    return Request("ACK", request.uri, headers, b"")

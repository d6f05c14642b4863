"""Session refreshes of ours: an UPDATE where the peer takes it, else a re-INVITE (RFC 4028 §7, RFC 3311, RFC 3261 §14.1)."""

from __future__ import annotations

from typing import Protocol
from weakref import ref

from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sip.client_digest import PROOFS
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_core import SessionCore
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.session_timer import SessionTimer
from switchhook.telephony.wire.sip.transaction_layer import Caller, ClientExchange

_GONE = (408, 481)
_GLARE_STEP_S = 0.01
_GLARE_STEPS = 201


class Refreshed(Caller, Protocol):
    """The session that is kept alive."""

    core: SessionCore
    dialog: Dialog
    media: SessionMedia
    timer: SessionTimer

    def dress_request(self, request: Request, body: bytes) -> None:
        """Give a request its Contact, abilities and SDP."""

    def agree(self, agreed: Negotiated | None) -> None:
        """Offer and answer are complete again."""

    def finish(self, reason: str, detail: str, now: float) -> None:
        """End the session."""


class SessionRefresh:
    """Sends refreshes of one session and judges their answers."""

    def __init__(self, session: Refreshed, by_update: bool) -> None:
        self._owner = ref(session)  # it owns this object: a finished one does not wait for the garbage collector
        self._by_update = by_update
        self._pending: ClientExchange | None = None
        self._retry_at: float | None = None
        self._tried_intervals = 0

    @property
    def _session(self) -> Refreshed:
        session = self._owner()
        assert session is not None
        return session

    @property
    def deadline(self) -> float | None:
        """When a refresh that met glare is tried again."""
        return self._retry_at

    @property
    def offering(self) -> bool:
        """Whether a re-INVITE of ours is under way: the peer's offer then meets glare."""
        return self._pending is not None and self._pending.request.method == "INVITE"

    def send(self, now: float) -> None:
        """Send a refresh, unless one is under way."""
        if self._pending is not None:
            return
        session = self._session
        self._retry_at = None
        request = session.dialog.request("UPDATE" if self._by_update else "INVITE")
        session.dress_request(request, b"" if self._by_update else session.media.current_offer())
        for name, value in session.timer.request_headers():
            request.headers.add(name, value)
        self._pending = session.core.layer.request(request, session.dialog.next_hop(), session, now)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        if self._retry_at is not None and self._retry_at <= now:
            self.send(now)

    def stop(self, now: float) -> None:
        """The session is over; a re-INVITE under way is cancelled."""
        self._retry_at = None
        if self._pending is not None and self.offering:
            self._session.core.layer.cancel(self._pending, now)

    def replaced(self, exchange: ClientExchange, again: ClientExchange) -> None:
        """A refresh that was challenged is under way again, with its proof."""
        if exchange is self._pending:
            self._pending = again

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response to a refresh."""
        if response.status < 200:
            return
        first = exchange is self._pending
        if exchange.request.method == "INVITE" and response.status < 300:
            self._acknowledge(exchange)
        if not first:
            return
        self._pending = None
        if response.status < 300:
            self._succeeded(response, now)
        else:
            self._failed(response, now)

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No answer: the dialog is gone (RFC 3261 §12.2.1.2)."""
        self._pending = None
        self._session.finish("session-expired", f"session refresh: {reason}", now)

    def _succeeded(self, response: Response, now: float) -> None:
        self._tried_intervals = 0
        session = self._session
        try:
            session.dialog.remote_target = session.dialog.target_after(response)
            session.timer.accepted(response, now)
            session.agree(session.media.refreshed_by(response))
        except RemoteProtocolError as error:
            session.finish("line-failed", error.reason, now)

    def _failed(self, response: Response, now: float) -> None:
        session = self._session
        if response.status in _GONE:
            session.finish("session-expired", f"session refresh: {response.status}", now)
        elif response.status == 422 and self._tried_intervals < 2:
            self._tried_intervals += 1
            session.timer.too_small(response)
            self._retry_at = now
        elif response.status == 491:
            # RFC 3261 §14.1: the side that does not own the Call-ID waits 0 to 2 s, in steps of 10 ms.
            self._retry_at = now + session.core.pick(_GLARE_STEPS) * _GLARE_STEP_S
        elif response.status in (405, 501) and self._by_update:
            self._by_update = False
            self._retry_at = now
        # Any other refusal leaves the session as it is; without a refresh it ends with its timer.

    def _acknowledge(self, exchange: ClientExchange) -> None:
        """The ACK of a 2xx is a transaction of its own (RFC 3261 §13.2.2.4)."""
        session = self._session
        ack = session.dialog.request("ACK", exchange.request.cseq.number)
        for name in PROOFS:
            ack.headers.add_from(exchange.request.headers, name)
        flow = session.dialog.next_hop()
        layer = session.core.layer
        ack.headers.insert("Via", layer.new_via(flow))
        layer.send(bytes(ack), flow)

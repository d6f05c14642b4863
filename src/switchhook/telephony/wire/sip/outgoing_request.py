"""Requests of ours outside every dialog: REGISTER, OPTIONS, MESSAGE (RFC 3261 §8.1, digest by §22)."""

from __future__ import annotations

from switchhook.telephony.wire.sip.client_digest import ClientDigest
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_core import SessionCore
from switchhook.telephony.wire.sip.session_events import RequestAnswered, RequestId
from switchhook.telephony.wire.sip.transaction_layer import ClientExchange


class OutgoingRequest:
    """One request until its final answer; a challenge is answered when there are credentials."""

    def __init__(self, core: SessionCore, number: RequestId, credentials: Account | None) -> None:
        self._core = core
        self._number = number
        self._digest = ClientDigest(credentials, core.entropy)

    def send(self, request: Request, flow: Flow, now: float) -> None:
        """Send it; its Via is added here. One `RequestAnswered` follows."""
        self._core.layer.request(request, flow, self, now)

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response."""
        if response.status < 200:
            return
        again = self._digest.renewed(exchange.request, response)
        if again is None:
            self._core.emit(RequestAnswered(self._number, response))
            return
        cseq = exchange.request.cseq
        again.headers.set("CSeq", f"{cseq.number + 1} {cseq.method}")
        self.send(again, exchange.flow, now)

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No final response will come."""
        self._core.emit(RequestAnswered(self._number, None, reason))

"""One dialog of an INVITE of ours, early or answered; each fork has its own (RFC 3261 §12.1.2, §13.2.2, RFC 3262 §4)."""

from __future__ import annotations

from typing import ClassVar, Protocol
from weakref import ref

from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sip.client_digest import PROOFS, ClientDigest
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.dialog_session import DialogSession, Phase
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.headers import RAck
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_core import SessionCore
from switchhook.telephony.wire.sip.session_events import SessionId
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.session_refresh import SessionRefresh
from switchhook.telephony.wire.sip.session_timer import SessionTimer
from switchhook.telephony.wire.sip.transaction_layer import ClientExchange


class Beginning(Protocol):
    """The session that sent the INVITE."""

    core: SessionCore
    number: SessionId
    timer: SessionTimer
    digest: ClientDigest

    def abandoned(self, detail: str, now: float) -> None:
        """The callee ended an early dialog."""

    def left(self) -> None:
        """Nothing more follows in one of the dialogs."""


class OutgoingDialog(DialogSession):
    """A dialog as UAC: RINGING until its 2xx came, then CONFIRMED."""

    peer_hung_up: ClassVar[str] = "callee-hung-up"

    def __init__(self, owner: Beginning, dialog: Dialog, media: SessionMedia) -> None:
        super().__init__(owner.core, owner.number, dialog, media, by_update=False)
        self._owner = ref(owner)  # it owns this object: a finished one does not wait for the garbage collector
        self.timer = owner.timer
        self.digest = owner.digest
        self.agreed: Negotiated | None = None
        """By the answer that came last."""
        self.gone = False
        """Nothing more follows here."""
        self._rseq: int | None = None
        self._ack: bytes | None = None

    @property
    def acknowledged_once(self) -> bool:
        """Whether its 2xx came."""
        return self._ack is not None

    @property
    def takes_offers(self) -> bool:
        """Our own offer stands until it is answered, and that alone is in the way (RFC 3311 §5.2)."""
        return True

    def agree(self, agreed: Negotiated | None) -> None:
        """Offer and answer are complete again."""
        self.agreed = agreed or self.agreed
        super().agree(agreed)

    # -- responses to the INVITE

    def progressed(self, invite: ClientExchange, response: Response, now: float) -> bool:
        """A provisional response; False for one that is passed over: repeated, or out of order (RFC 3262 §4)."""
        try:
            rseq = response.rseq if "100rel" in response.require else None
        except RemoteProtocolError:
            return False
        if rseq is not None:
            if self._rseq is not None and rseq != self._rseq + 1:
                return False
            self._rseq = rseq
            self._send_prack(RAck(rseq, invite.request.cseq), now)
        try:
            self.agreed = self.media.answered_in(response) or self.agreed
        except RemoteProtocolError:
            return True  # sound that cannot be played yet; the 200 decides
        return True

    def accepted(self, invite: ClientExchange, response: Response) -> None:
        """A 2xx: send its ACK (RFC 3261 §13.2.2.4)."""
        self.dialog.take_way(response)
        self.refresh = SessionRefresh(self, "UPDATE" in response.allow)
        ack = self.dialog.request("ACK", invite.request.cseq.number)
        for name in PROOFS:
            # RFC 3261 §22.1: the ACK proves what the INVITE proved.
            ack.headers.add_from(invite.request.headers, name)
        self._ack = self._on_the_way(ack)
        self.acknowledge()

    def acknowledge(self) -> None:
        """Send the ACK, the first time or for a 2xx that came again."""
        if self._ack is not None:
            self.core.layer.send(self._ack, self.dialog.next_hop())

    def open(self, response: Response, now: float) -> Negotiated:
        """The 2xx is the session's.

        Raises:
            RemoteProtocolError: it holds no answer, or one that cannot be used.
        """
        self.phase = Phase.CONFIRMED
        agreed = self.media.answered_in(response) or self.agreed
        if agreed is None:
            raise RemoteProtocolError(400, "the answer carries no SDP")
        self.agreed = agreed
        try:
            self.timer.accepted(response, now)
        except RemoteProtocolError:
            self.timer.stop()  # an interval that cannot be read: none was agreed on
        return agreed

    def decline(self, now: float) -> None:
        """End a dialog that was answered and is not wanted: another fork has the call, or it was given up."""
        self.phase = Phase.OVER
        self.gone = False
        self._send_bye(now)

    def drop(self) -> None:
        """The call is another fork's, or over; what the callee still sends here finds no session."""
        if not self.acknowledged_once:
            self.phase = Phase.OVER
            self.gone = True

    # -- in the dialog

    def cancelled(self, detail: str, now: float) -> None:
        """The callee ended the early dialog, which no callee should (RFC 3261 §15)."""
        owner = self._owner()
        if owner is not None:
            owner.abandoned(detail, now)

    def _leave(self) -> None:
        self.gone = True
        owner = self._owner()
        if owner is not None:
            owner.left()

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No answer will come. A PRACK's is not missed: the callee repeats itself, or gives up."""
        if exchange.request.method != "PRACK":
            super().unanswered(exchange, reason, now)

    def _send_prack(self, rack: RAck, now: float) -> None:
        prack = self.dialog.request("PRACK")
        prack.headers.add("RAck", str(rack))
        prack.headers.add("User-Agent", self.core.product)
        self.core.layer.request(prack, self.dialog.next_hop(), self, now)

    def _on_the_way(self, request: Request) -> bytes:
        request.headers.insert("Via", self.core.layer.new_via(self.dialog.next_hop()))
        return bytes(request)

"""The dialog of one session, the same whoever began it: requests of the peer, refreshes, transfers, BYE (RFC 3261 §12–15).

The life is RINGING → ANSWERED (200 sent) → CONFIRMED (its ACK came, or the peer's 200) → OVER. `Ended` is given when it becomes
OVER; a BYE of ours may still be under way then, and the dialog is forgotten once that is answered or given up.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sip.client_digest import ClientDigest
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.message import Message, Request, Response
from switchhook.telephony.wire.sip.reliable_provisional import ReliableProvisional
from switchhook.telephony.wire.sip.session_core import SDP, SessionCore, describe, refusal
from switchhook.telephony.wire.sip.session_events import DigitReported, Ended, MediaAgreed, SessionId
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.session_refresh import SessionRefresh
from switchhook.telephony.wire.sip.session_timer import Due, SessionTimer
from switchhook.telephony.wire.sip.session_transfer import SessionTransfer
from switchhook.telephony.wire.sip.timers import Repeater
from switchhook.telephony.wire.sip.transaction_layer import ClientExchange, ServerExchange


class Phase(Enum):
    """How far a session has come."""

    RINGING = "ringing"
    ANSWERED = "answered"
    CONFIRMED = "confirmed"
    OVER = "over"


class _Unacknowledged:
    """A 2xx to an INVITE that waits for its ACK (RFC 3261 §13.3.1.4)."""

    __slots__ = ("cseq", "exchange", "repeater", "response")

    def __init__(self, exchange: ServerExchange, response: Response, repeater: Repeater) -> None:
        self.exchange = exchange
        self.response = response
        self.repeater = repeater
        self.cseq = exchange.request.cseq.number


class DialogSession:
    """What `InviteSession` and `OutgoingDialog` have in common. Methods that come too late do nothing."""

    peer_hung_up: ClassVar[str] = "caller-hung-up"
    """The reason of an end by the peer's BYE."""

    def __init__(self, core: SessionCore, number: SessionId, dialog: Dialog, media: SessionMedia, by_update: bool) -> None:
        self.core = core
        self.number = number
        self.dialog = dialog
        self.media = media
        self.phase = Phase.RINGING
        self.timer = SessionTimer(core.timer_policy)
        self.reliable: ReliableProvisional | None = None
        """Our reliable provisional response."""
        self.refresh = SessionRefresh(self, by_update)
        self.transfer = SessionTransfer(self)
        self.digest = ClientDigest(None, core.entropy)
        """Answers challenges to requests of ours."""
        self._unacknowledged: _Unacknowledged | None = None
        self._bye_owed = False
        self._bye_repeated = False

    @property
    def local_tag(self) -> str:
        """Our tag."""
        return self.dialog.local.tag or ""

    @property
    def talking(self) -> bool:
        """Answered, and not over."""
        return self.phase in (Phase.ANSWERED, Phase.CONFIRMED)

    @property
    def takes_offers(self) -> bool:
        """Whether the peer may offer anew: not while its own first offer waits for our answer (RFC 3311 §5.2)."""
        return self.phase is not Phase.RINGING

    # -- what the peer sends (requests inside the dialog come through session_requests)

    def acknowledged(self, ack: Request, now: float) -> None:
        """An ACK of a 2xx came."""
        waiting = self._unacknowledged
        if waiting is None or ack.cseq.number != waiting.cseq:
            return
        self._unacknowledged = None
        if self._bye_owed:
            self._send_bye(now)
            return
        if self.phase is Phase.ANSWERED:
            self.phase = Phase.CONFIRMED
        if self.media.awaiting_answer:
            try:
                self.agree(self.media.answered_by(ack))
            except RemoteProtocolError as error:
                self.finish("line-failed", error.reason, now)

    def cancelled(self, detail: str, now: float) -> None:
        """The peer ended it before the answer."""
        raise NotImplementedError

    def ended_by_peer(self, detail: str, now: float) -> None:
        """The peer's BYE came."""
        if self.phase is Phase.OVER and not self._bye_owed:
            return
        self._unacknowledged = None
        self._bye_owed = False
        self._end(*self.transfer.end_of_talk(self.peer_hung_up, detail), now)

    def digit(self, digit: str, duration_ms: int | None) -> None:
        """A DTMF digit came by INFO."""
        if self.phase is not Phase.OVER:
            self.core.emit(DigitReported(self.number, digit, duration_ms))

    # -- what answers and the machine's own clock do

    def succeed(self, exchange: ServerExchange, body: bytes, now: float) -> None:
        """Send the 2xx of an INVITE and repeat it until its ACK comes."""
        response = self.ok(exchange.request, body)
        for name, value in self.timer.accept(exchange.request, now):
            response.headers.add(name, value)
        repeater = Repeater(self.core.layer.values, self.core.layer.values.t2, now)
        self._unacknowledged = _Unacknowledged(exchange, response, repeater)
        exchange.respond(response, now)

    def agree(self, agreed: Negotiated | None) -> None:
        """Offer and answer are complete again."""
        if agreed is not None and self.phase is not Phase.OVER:
            self.core.emit(MediaAgreed(self.number, agreed))

    def finish(self, reason: str, detail: str, now: float) -> None:
        """End an answered session from our side."""
        if self.phase is Phase.OVER:
            return
        # RFC 3261 §15: the callee sends no BYE before the ACK came or was given up.
        if self.phase is Phase.ANSWERED and self._unacknowledged is not None:
            self._bye_owed = True
            self._end(reason, detail, now, keep=True)
            return
        self._send_bye(now)
        self._end(reason, detail, now, keep=True)

    @property
    def unacknowledged(self) -> bool:
        """Whether a 2xx waits for its ACK."""
        return self._unacknowledged is not None

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        due = [
            self.timer.deadline,
            self.refresh.deadline,
            self.transfer.deadline,
            self._unacknowledged.repeater.deadline if self._unacknowledged else None,
        ]
        return min((at for at in due if at is not None), default=None)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        if self._unacknowledged is not None:
            self._tick_unacknowledged(self._unacknowledged, now)
        if self.phase is Phase.OVER:
            return
        self.refresh.tick(now)
        self.transfer.tick(now)
        due = self.timer.due(now)
        if due is Due.REFRESH:
            self.refresh.send(now)
        elif due is Due.EXPIRED:
            self.finish("session-expired", "the peer stopped refreshing the session", now)

    def _tick_unacknowledged(self, waiting: _Unacknowledged, now: float) -> None:
        if waiting.repeater.given_up(now):
            self._unacknowledged = None
            self._send_bye(now)
            self._end("no-ack", "the answer was never acknowledged", now, keep=True)
        elif waiting.repeater.again(now):
            waiting.exchange.respond(waiting.response, now)

    # -- messages

    def ok(self, request: Request, body: bytes = b"") -> Response:
        """A 200 with what a target refresh or dialog-making response carries (RFC 3261 §12.1.1)."""
        response = request.reply(200, None, self.local_tag)
        self._dress(response, request, body)
        return response

    def refuse_request(self, exchange: ServerExchange, status: int, reason: str | None, now: float) -> None:
        """Answer a request inside the dialog with a failure."""
        exchange.respond(refusal(exchange.request, status, reason, self.local_tag), now)

    def dress_request(self, request: Request, body: bytes) -> None:
        """Give a request of ours its Contact, abilities and SDP."""
        self._present(request, "User-Agent", body)

    def _dress(self, response: Response, request: Request, body: bytes) -> None:
        for value in request.headers.get_all("Record-Route"):
            response.headers.add("Record-Route", value)
        self._present(response, "Server", body)

    def _present(self, message: Message, product_field: str, body: bytes) -> None:
        message.headers.set("Contact", self.core.contact(self.dialog.flow))
        describe(message)
        message.headers.add(product_field, self.core.product)
        if body:
            message.headers.add("Content-Type", SDP)
            message.body = body

    def _send_bye(self, now: float) -> None:
        self._bye_owed = False
        request = self.dialog.request("BYE")
        request.headers.add("User-Agent", self.core.product)
        self.core.layer.request(request, self.dialog.next_hop(), self, now)

    def _end(self, reason: str, detail: str, now: float, keep: bool = False) -> None:
        """Become OVER; `keep` the dialog while a BYE is owed or under way."""
        self._quieten(now)
        if self.phase is not Phase.OVER:
            self.phase = Phase.OVER
            self.core.emit(Ended(self.number, reason, detail))
        if not keep:
            self._leave()

    def _quieten(self, now: float) -> None:
        """Stop what runs on its own."""
        self.timer.stop()
        self.refresh.stop(now)
        self.transfer.stop(now)

    def _leave(self) -> None:
        """Nothing more follows in this dialog."""
        self.core.forget(self.number)

    # -- answers to requests of ours

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response to our BYE, which ends the dialog whatever it says, or to a refresh."""
        if self._prove(exchange, response, now):
            return
        if exchange.request.method != "BYE":
            self.refresh.answered(exchange, response, now)
        elif response.status >= 200:
            self._leave()
        self.core.reschedule(self.number)

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No answer will come to our BYE (timer F, or it could not be sent), or to a refresh."""
        if exchange.request.method != "BYE":
            self.refresh.unanswered(exchange, reason, now)
        elif reason == "transport" and exchange.flow.alternative is not None and not self._bye_repeated:
            # The connection was lost with the BYE: once more, to where the peer listens.
            self._bye_repeated = True
            self._send_bye(now)
        else:
            self._leave()
        self.core.reschedule(self.number)

    def _prove(self, exchange: ClientExchange, response: Response, now: float) -> bool:
        """Send a challenged request again with its proof; False when there is no challenge, or none that we can answer."""
        again = self.digest.renewed(exchange.request, response)
        if again is None:
            return False
        self.dialog.local_seq += 1
        again.headers.set("CSeq", f"{self.dialog.local_seq} {again.method}")
        fresh = self.core.layer.request(again, exchange.flow, self, now)
        self.refresh.replaced(exchange, fresh)
        return True

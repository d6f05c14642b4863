"""One session that a peer began with an INVITE: from 100 to the end of its dialog (RFC 3261 §13.3, §14.2, §15).

The life is RINGING → ANSWERED (200 sent) → CONFIRMED (ACK came) → OVER. `Ended` is given when it becomes OVER; a BYE of ours may
still be under way then, and the dialog is forgotten once that is answered or given up.
"""

from __future__ import annotations

from enum import Enum

from switchhook.telephony.wire.offer_answer import LocalMedia, Negotiated
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.grammar import format_host_port
from switchhook.telephony.wire.sip.message import Message, Request, Response
from switchhook.telephony.wire.sip.reliable_provisional import ReliableProvisional
from switchhook.telephony.wire.sip.session_core import SDP, SessionCore, describe, refusal
from switchhook.telephony.wire.sip.session_events import Answered, DigitReported, Ended, MediaAgreed, SessionId
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.session_refresh import SessionRefresh
from switchhook.telephony.wire.sip.session_timer import Due, SessionTimer
from switchhook.telephony.wire.sip.timers import Repeater
from switchhook.telephony.wire.sip.transaction_layer import ClientExchange, ServerExchange

_STILL_RINGING_S = 60.0
"""RFC 3261 §13.3.1.1: a provisional response each minute keeps proxies from cancelling."""
_FAILED_RETRY_S = 5
"""Retry-After of a call refused for want of a port: one comes free with the next call that ends."""


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


class InviteSession:
    """One session as UAS. Methods that come too late do nothing."""

    def __init__(
        self, core: SessionCore, number: SessionId, exchange: ServerExchange, dialog: Dialog, media: SessionMedia
    ) -> None:
        self.core = core
        self.number = number
        self.invite = exchange
        self.request = request = exchange.request
        """The INVITE that began it."""
        self.dialog = dialog
        self.media = media
        self.phase = Phase.RINGING
        self.timer = SessionTimer(core.timer_policy)
        self.reliable: ReliableProvisional | None = None
        self.refresh = SessionRefresh(self, "UPDATE" in request.allow)
        self._needs_reliable = "100rel" in request.require
        self._rang = False
        self._ring_again_at: float | None = None
        self._unacknowledged: _Unacknowledged | None = None
        self._bye_owed = False
        self._bye_repeated = False

    @property
    def flow(self) -> Flow:
        """The way the INVITE came."""
        return self.invite.flow

    @property
    def local_tag(self) -> str:
        """Our tag."""
        return self.dialog.local.tag or ""

    # -- decisions of the call

    def ring(self, now: float) -> None:
        """Send 180; reliably when the peer requires that."""
        if self.phase is not Phase.RINGING or self._rang:
            return
        if self._needs_reliable and not self.media.offered:
            # RFC 3261 §13.2.1: the first reliable response to an INVITE without offer must carry ours, which is made with the
            # answer alone; a 180 is not owed.
            return
        self._rang = True
        self._send_ringing(now)

    def answer(self, local: LocalMedia, now: float) -> Negotiated | None:
        """Send 200 with our answer, or with our offer when the INVITE had none (then `MediaAgreed` follows the ACK).

        Returns what was agreed. The offer was judged on arrival and is taken as it stands.
        """
        if self.phase is not Phase.RINGING:
            return None
        body, agreed = self.media.open(local)
        self._stop_ringing()
        self.phase = Phase.ANSWERED
        self.succeed(self.invite, body, now)
        self.core.emit(Answered(self.number))
        self._agree(agreed)
        return agreed

    def reject(self, status: int, retry_after_s: int | None, now: float) -> None:
        """Refuse the call."""
        if self.phase is Phase.RINGING:
            self._refuse(status, None, retry_after_s, now)
            self._end("rejected", str(status), now)

    def hang_up(self, now: float) -> None:
        """End it in good order: 480 before the answer; BYE after, once the ACK is there (RFC 3261 §15)."""
        if self.phase is Phase.RINGING:
            self._refuse(480, None, None, now)
            self._end("hung-up", "", now)
        elif self.phase in (Phase.ANSWERED, Phase.CONFIRMED):
            self.finish("hung-up", "", now)

    def fail(self, reason: str, detail: str, now: float) -> None:
        """End it because the line does not work: no media, no RTP port."""
        if self.phase is Phase.RINGING:
            self._refuse(503, None, _FAILED_RETRY_S, now)
            self._end(reason, detail, now)
        else:
            self.finish(reason, detail, now)

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
                self._agree(self.media.answered_by(ack))
            except RemoteProtocolError as error:
                self.finish("line-failed", error.reason, now)

    def cancelled(self, detail: str, now: float) -> None:
        """The peer gave up before the answer (CANCEL, or BYE in the early dialog)."""
        if self.phase is Phase.RINGING:
            self._refuse(487, None, None, now)
            self._end("caller-cancelled", detail, now)

    def ended_by_peer(self, detail: str, now: float) -> None:
        """The peer's BYE came."""
        if self.phase is Phase.OVER and not self._bye_owed:
            return
        self._unacknowledged = None
        self._bye_owed = False
        self._end("caller-hung-up", detail, now)

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
        self._agree(agreed)

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
            self._ring_again_at,
            self.reliable.deadline if self.reliable else None,
            self._unacknowledged.repeater.deadline if self._unacknowledged else None,
        ]
        return min((at for at in due if at is not None), default=None)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        if self.reliable is not None:
            self._tick_reliable(self.reliable, now)
        if self._ring_again_at is not None and self._ring_again_at <= now:
            self._send_ringing(now)
        if self._unacknowledged is not None:
            self._tick_unacknowledged(self._unacknowledged, now)
        if self.phase is Phase.OVER:
            return
        self.refresh.tick(now)
        due = self.timer.due(now)
        if due is Due.REFRESH:
            self.refresh.send(now)
        elif due is Due.EXPIRED:
            self.finish("line-failed", "session timer expired", now)

    def _tick_reliable(self, reliable: ReliableProvisional, now: float) -> None:
        if reliable.given_up(now):
            # RFC 3262 §3: a provisional response that is never acknowledged refuses the INVITE.
            self._refuse(500, "No PRACK", None, now)
            self._end("no-ack", "no PRACK", now)
        elif reliable.again(now):
            self.invite.respond(reliable.response, now)

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
        self._contact(request)
        describe(request)
        request.headers.add("User-Agent", self.core.product)
        if body:
            request.headers.add("Content-Type", SDP)
            request.body = body

    def _dress(self, response: Response, request: Request, body: bytes) -> None:
        for value in request.headers.get_all("Record-Route"):
            response.headers.add("Record-Route", value)
        self._contact(response)
        describe(response)
        response.headers.add("Server", self.core.product)
        if body:
            response.headers.add("Content-Type", SDP)
            response.body = body

    def _contact(self, message: Message) -> None:
        host, port = self.core.advertise(self.flow)
        transport = "" if self.flow.transport == "udp" else f";transport={self.flow.transport}"
        message.headers.set("Contact", f"<sip:{format_host_port(host, port)}{transport}>")

    def _send_ringing(self, now: float) -> None:
        response = self.request.reply(180, None, self.local_tag)
        self._dress(response, self.request, b"")
        if self._needs_reliable:
            if self.reliable is not None:
                self._ring_again_at = None
                return
            rseq = 1 + self.core.pick(2**16)
            self.reliable = ReliableProvisional(response, rseq, self.request.cseq.number, self.core.layer.values, now)
        else:
            self._ring_again_at = now + _STILL_RINGING_S
        self.invite.respond(response, now)

    def _stop_ringing(self) -> None:
        self._ring_again_at = None
        if self.reliable is not None:
            self.reliable.stop()

    def _refuse(self, status: int, reason: str | None, retry_after_s: int | None, now: float) -> None:
        if self.phase is not Phase.RINGING:
            return
        self._stop_ringing()
        response = refusal(self.request, status, reason, self.local_tag)
        if retry_after_s is not None:
            response.headers.add("Retry-After", str(retry_after_s))
        self.invite.respond(response, now)

    def _agree(self, agreed: Negotiated | None) -> None:
        if agreed is not None and self.phase is not Phase.OVER:
            self.core.emit(MediaAgreed(self.number, agreed))

    def _send_bye(self, now: float) -> None:
        self._bye_owed = False
        request = self.dialog.request("BYE")
        request.headers.add("User-Agent", self.core.product)
        self.core.layer.request(request, self.dialog.next_hop(), self, now)

    def _end(self, reason: str, detail: str, now: float, keep: bool = False) -> None:
        """Become OVER; `keep` the dialog while a BYE is owed or under way."""
        self._stop_ringing()
        self.timer.stop()
        self.refresh.stop(now)
        if self.phase is not Phase.OVER:
            self.phase = Phase.OVER
            self.core.emit(Ended(self.number, reason, detail))
        if not keep:
            self.core.forget(self.number)

    # -- answers to requests of ours

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response to our BYE, which ends the dialog whatever it says, or to a refresh."""
        if exchange.request.method != "BYE":
            self.refresh.answered(exchange, response, now)
        elif response.status >= 200:
            self.core.forget(self.number)
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
            self.core.forget(self.number)
        self.core.reschedule(self.number)

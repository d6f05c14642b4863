"""One session that a peer began with an INVITE: 100 to 200, or what became of it instead (RFC 3261 §13.3).

What is the same in sessions that we begin is in `dialog_session`.
"""

from __future__ import annotations

from switchhook.telephony.wire.offer_answer import LocalMedia, Negotiated
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.dialog_session import DialogSession, Phase
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.reliable_provisional import ReliableProvisional
from switchhook.telephony.wire.sip.session_core import SessionCore, refusal
from switchhook.telephony.wire.sip.session_events import Answered, SessionId
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.transaction_layer import ServerExchange

_STILL_RINGING_S = 60.0
"""RFC 3261 §13.3.1.1: a provisional response each minute keeps proxies from cancelling."""
_FAILED_RETRY_S = 5
"""Retry-After of a call refused for want of a port: one comes free with the next call that ends."""


class InviteSession(DialogSession):
    """One session as UAS. Methods that come too late do nothing."""

    def __init__(
        self, core: SessionCore, number: SessionId, exchange: ServerExchange, dialog: Dialog, media: SessionMedia
    ) -> None:
        self.invite = exchange
        self.request = request = exchange.request
        """The INVITE that began it."""
        super().__init__(core, number, dialog, media, "UPDATE" in request.allow)
        self._needs_reliable = "100rel" in request.require
        self._rang = False
        self._ring_again_at: float | None = None

    @property
    def flow(self) -> Flow:
        """The way the INVITE came."""
        return self.invite.flow

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
        self.agree(agreed)
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

    def cancelled(self, detail: str, now: float) -> None:
        """The peer gave up before the answer (CANCEL, or BYE in the early dialog)."""
        if self.phase is Phase.RINGING:
            self._refuse(487, None, None, now)
            self._end("caller-cancelled", detail, now)

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        due = [super().deadline, self._ring_again_at, self.reliable.deadline if self.reliable else None]
        return min((at for at in due if at is not None), default=None)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        if self.reliable is not None:
            self._tick_reliable(self.reliable, now)
        if self._ring_again_at is not None and self._ring_again_at <= now:
            self._send_ringing(now)
        super().tick(now)

    def _tick_reliable(self, reliable: ReliableProvisional, now: float) -> None:
        if reliable.given_up(now):
            # RFC 3262 §3: a provisional response that is never acknowledged refuses the INVITE.
            self._refuse(500, "No PRACK", None, now)
            self._end("no-ack", "no PRACK", now)
        elif reliable.again(now):
            self.invite.respond(reliable.response, now)

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

    def _quieten(self, now: float) -> None:
        self._stop_ringing()
        super()._quieten(now)

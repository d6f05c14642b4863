"""What SIP legs have in common, whoever dialled: the RTP stream, the events told in order, transfers, figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from switchhook.domain.dialling import TRANSFER_RING_S
from switchhook.domain.errors import PortsExhausted
from switchhook.domain.model import Encoding, TransferMode
from switchhook.domain.ports import FrameTap, Leg, LegEnded, LegEvent, ReferProgress
from switchhook.media.playout import Playout
from switchhook.telephony.rtp_media import RtpMedia, rtp_media
from switchhook.telephony.rtp_stream import MediaTimeout, RtpEvent, RtpStream
from switchhook.telephony.sip_transfer import LegTransfer, TransferEvent
from switchhook.telephony.wire.offer_answer import Negotiated

_MAX_EARLY_EVENTS = 64


class SipLine:
    """The part of `domain.ports.Leg` that is the same for `SipLeg` and `OutgoingSipLeg`.

    Events come after the method that causes them has returned, in order; what happens before `subscribe` is kept for it.
    """

    def __init__(self, streams: Callable[[], RtpStream], encoding: Encoding, transfer: LegTransfer | None) -> None:
        self.transfer = transfer
        """None until it is known over which trunk the line goes."""
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._encoding = encoding
        self._protected = False
        self._stream: RtpStream | None = None
        self._spare: Playout | None = None
        self._on_event: Callable[[LegEvent], None] | None = None
        self._on_audio: Callable[[bytes, float], None] | None = None
        self._tap: FrameTap | None = None
        self._early: list[LegEvent] = []
        self._over = False
        self._closed = False
        self._last_figures: Mapping[str, float] = {}

    @property
    def encoding(self) -> Encoding:
        """G.711 flavour that the leg speaks to the house; a line that agrees on the other one is translated."""
        return self._encoding

    @property
    def encrypted(self) -> bool:
        """Whether signalling is over TLS and sound, as agreed now, over SRTP."""
        raise NotImplementedError

    @property
    def playout(self) -> Playout:
        """What the party hears. On a line that is gone, or has no port, it plays to nobody."""
        stream = self._open_stream()
        if stream is not None:
            return stream.playout
        if self._spare is None:
            self._spare = Playout(self._encoding)
        return self._spare

    def subscribe(self, on_event: Callable[[LegEvent], None]) -> None:
        """Name the one receiver of this leg's events."""
        self._on_event = on_event
        early, self._early = self._early, []
        for event in early:
            self._loop.call_soon(self._hand_over, event)

    def listen(self, on_audio: Callable[[bytes, float], None] | None) -> None:
        """Name the one receiver of the party's sound."""
        self._on_audio = on_audio
        if self._stream is not None:
            self._stream.listen(on_audio)

    def tap(self, tap: FrameTap | None) -> None:
        """Attach the recorder, or take it off."""
        self._tap = tap
        if self._stream is not None:
            self._stream.tap(tap)

    def hang_up(self) -> None:
        """End the line in good order. It counts as ended at once; what is owed to the peer goes on by itself."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back ports at once, and hang up if that has not happened; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._release()
        self.hang_up()

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        """Play a DTMF digit to the party. Raises ValueError for what is no digit."""
        if self._stream is not None:
            self._stream.send_digit(digit, duration_ms)

    @property
    def transfer_mode(self) -> TransferMode:
        """How the line's peer wants a caller handed on: what its trunk says."""
        return self.transfer.mode if self.transfer else TransferMode.BRIDGE

    def refer(self, target: str, replaces: Leg | None = None, caller: str = "", ring_s: float = TRANSFER_RING_S) -> None:
        """Ask the peer by REFER to connect its party with `target`, in the place of our leg `replaces` when given."""
        not_yet = ReferProgress(481, final=True, accepted=False)
        refused = self.transfer.refer(target, replaces) if self.transfer else not_yet
        if refused is not None:
            self._tell(refused)

    def recall(self) -> None:
        """A peer that was asked by REFER cannot be asked to stop (RFC 3515); its party is on the line all the while."""

    def refer_result(self, status: int) -> None:
        """Answer the party's `TransferAsked`. Raises ValueError for no SIP status."""
        if self.transfer is not None:
            self.transfer.result(status)

    @property
    def figures(self) -> Mapping[str, float]:
        """Packets in, out and lost, jitter and concealed sound so far; empty before there is media."""
        if self._stream is None:
            return self._last_figures
        stats = self._stream.stats
        return {
            "packets_in": stats.packets_in,
            "packets_out": stats.packets_out,
            "packets_lost": stats.lost,
            "packets_rejected": stats.rejected,
            "jitter_ms": stats.jitter_ms,
            "concealed_ms": stats.concealed_ms,
        }

    # -- what the server tells

    def on_progress(self, status: int, early_media: Negotiated | None) -> None:
        """A provisional response to an INVITE of ours."""

    def on_answered(self) -> None:
        """The 200 is sent, or has come."""
        raise NotImplementedError

    def on_media(self, agreed: Negotiated) -> None:
        """Offer and answer are complete, for the first time or again."""
        self._protected = agreed.srtp is not None
        if self._stream is not None:
            self._stream.configure(self._media(agreed))

    def on_digit(self, digit: str, now: float) -> None:
        """A digit came by INFO."""
        if self._stream is not None:
            self._stream.info_digit(digit, now)

    def on_transfer(self, event: TransferEvent) -> None:
        """A REFER of ours goes on, or one of the peer came."""
        told = self.transfer.told(event) if self.transfer else None
        if told is not None:
            self._tell(told)

    def on_ended(self, reason: str, detail: str, status: int | None, retry_after_s: int | None = None) -> None:
        """The session is over; `retry_after_s` is what the final answer says of when to ask again."""
        if self._over:
            return
        self._over = True
        try:
            self._release()
        finally:
            self._tell(LegEnded(reason, detail, status))

    # -- inside

    def _fail(self, reason: str, detail: str) -> None:
        """The line does not work."""
        raise NotImplementedError

    def _media(self, agreed: Negotiated) -> RtpMedia:
        return rtp_media(agreed)

    def _open_stream(self) -> RtpStream | None:
        if self._stream is None and not self._over and not self._closed:
            try:
                self._stream = self._streams()
            except PortsExhausted as error:
                self._fail("line-failed", error.code)
                return None
            self._stream.subscribe(self._on_rtp_event)
            self._stream.listen(self._on_audio)
            self._stream.tap(self._tap)
        return self._stream

    def _on_rtp_event(self, event: RtpEvent) -> None:
        if not isinstance(event, MediaTimeout):
            self._tell(event)
        elif self.transfer is None or not self.transfer.pending:
            self._fail("media-timeout", "no sound came from the party")

    def _release(self) -> None:
        if self._stream is not None:
            self._last_figures = self.figures
            self._spare = self._stream.playout
            self._stream.close()
            self._stream = None

    def _tell(self, event: LegEvent) -> None:
        if self._on_event is not None:
            self._loop.call_soon(self._hand_over, event)
        elif len(self._early) < _MAX_EARLY_EVENTS or isinstance(event, LegEnded):
            self._early.append(event)

    def _hand_over(self, event: LegEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

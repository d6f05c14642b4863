"""One SIP line to one party, as the rest of the house sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from switchhook.domain.errors import PortsExhausted
from switchhook.domain.model import Encoding, TransferMode
from switchhook.domain.ports import FrameTap, Leg, LegAnswered, LegEnded, LegEvent
from switchhook.media.playout import Playout
from switchhook.telephony.rtp_stream import MediaTimeout, RtpEvent, RtpMedia, RtpStream
from switchhook.telephony.sip_transfer import LegTransfer, TransferEvent, leg_event
from switchhook.telephony.wire.offer_answer import DTMF_PAYLOAD_TYPE, Negotiated
from switchhook.telephony.wire.sdes import SrtpMode

_ENCODINGS = {"PCMU": Encoding.PCMU, "PCMA": Encoding.PCMA}
_STATIC_TYPES = {0: Encoding.PCMU, 8: Encoding.PCMA}
_MAX_EARLY_EVENTS = 64


class LegLink(Protocol):
    """What a leg asks of the SIP server. Late calls are left alone."""

    transfer: LegTransfer

    def ring(self) -> None:
        """Send 180."""

    def answer(self, rtp_port: int) -> None:
        """Send 200 with this port."""

    def reject(self, status: int, retry_after_s: int | None) -> None:
        """Send a final refusal."""

    def hang_up(self) -> None:
        """480 before the answer, BYE after."""

    def fail(self, reason: str, detail: str) -> None:
        """The line does not work."""


class SipLeg:
    """Implements `domain.ports.Leg`.

    RTP ports are leased by `answer`, or when `playout` is first asked for, so that refused calls cost none. When none is free the
    call is refused with 503 and ends as `line-failed`. Events come after the method that causes them has returned, in order;
    what happens before `subscribe` is kept for it.
    """

    def __init__(
        self,
        link: LegLink,
        streams: Callable[[], RtpStream],
        proposed: str | None,
        line_call_id: str,
        source: tuple[str, str, int],
        srtp: SrtpMode = SrtpMode.OFF,
    ) -> None:
        self.line_call_id = line_call_id
        """The SIP Call-ID."""
        self.source = source
        """Transport, address and port the call came from."""
        self.transfer = link.transfer
        self._link = link
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._encoding = _ENCODINGS.get(proposed or "", Encoding.PCMU)
        self._offered = proposed is not None
        self._srtp = srtp
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
        """G.711 flavour on the line, by the caller's offer; µ-law when it made none. A later change of codec is translated."""
        return self._encoding

    @property
    def encrypted(self) -> bool:
        """Whether signalling is over TLS and sound, as agreed now, over SRTP."""
        return self._protected and self.source[0] == "tls"

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

    def ring(self) -> None:
        """Tell the caller that it rings (180)."""
        self._link.ring()

    def answer(self) -> None:
        """Lease ports and answer."""
        stream = self._open_stream()
        if stream is not None:
            self._link.answer(stream.local_port)

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        """Refuse an unanswered call."""
        self._link.reject(status, retry_after_s)

    def hang_up(self) -> None:
        """BYE after the answer, 480 before. The line counts as ended at once; the BYE is repeated on its own until answered."""
        self._link.hang_up()

    def close(self) -> None:
        """Give back ports at once, and hang up if that has not happened; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._release()
        self._link.hang_up()

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        """Play a DTMF digit to the party. Raises ValueError for what is no digit."""
        if self._stream is not None:
            self._stream.send_digit(digit, duration_ms)

    @property
    def transfer_mode(self) -> TransferMode:
        """How the line's peer wants a caller handed on: what its trunk says."""
        return self.transfer.mode

    def refer(self, target: str, replaces: Leg | None = None) -> None:
        """Ask the peer by REFER to connect its party with `target`, in the place of our leg `replaces` when given."""
        refused = self.transfer.refer(target, replaces)
        if refused is not None:
            self._tell(refused)

    def refer_result(self, status: int) -> None:
        """Answer the party's `TransferAsked`. Raises ValueError for no SIP status."""
        self.transfer.result(status)

    @property
    def figures(self) -> Mapping[str, float]:
        """Packets in, out and lost, jitter and concealed sound so far; empty before the answer."""
        if self._stream is None:
            return self._last_figures
        stats = self._stream.stats
        return {
            "packets_in": stats.packets_in,
            "packets_out": stats.packets_out,
            "packets_lost": stats.lost,
            "jitter_ms": stats.jitter_ms,
            "concealed_ms": stats.concealed_ms,
        }

    # -- what the server tells

    def on_answered(self) -> None:
        """The 200 is sent."""
        if not self._offered and self._stream is not None and self._srtp is SrtpMode.OFF:
            # The answer comes with the ACK; until then the peer's first packets may show where it is. What may be encrypted
            # waits for the keys.
            self._stream.configure(RtpMedia(None, self._encoding, 0, DTMF_PAYLOAD_TYPE, other_types=_STATIC_TYPES))
        self._tell(LegAnswered())

    def on_media(self, agreed: Negotiated) -> None:
        """Offer and answer are complete, for the first time or again."""
        self._protected = agreed.srtp is not None
        if self._stream is not None:
            self._stream.configure(_rtp_media(agreed))

    def on_digit(self, digit: str, now: float) -> None:
        """A digit came by INFO."""
        if self._stream is not None:
            self._stream.info_digit(digit, now)

    def on_transfer(self, event: TransferEvent) -> None:
        """A REFER of ours goes on, or one of the peer came."""
        told = leg_event(event)
        if told is not None:
            self._tell(told)

    def on_ended(self, reason: str, detail: str) -> None:
        """The session is over."""
        if self._over:
            return
        self._over = True
        try:
            self._release()
        finally:
            self._tell(LegEnded(reason, detail))

    # -- inside

    def _open_stream(self) -> RtpStream | None:
        if self._stream is None and not self._over and not self._closed:
            try:
                self._stream = self._streams()
            except PortsExhausted as error:
                self._link.fail("line-failed", error.code)
                return None
            self._stream.subscribe(self._on_rtp_event)
            self._stream.listen(self._on_audio)
            self._stream.tap(self._tap)
        return self._stream

    def _on_rtp_event(self, event: RtpEvent) -> None:
        if isinstance(event, MediaTimeout):
            self._link.fail("media-timeout", "no sound came from the party")
        else:
            self._tell(event)

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


def _rtp_media(agreed: Negotiated) -> RtpMedia:
    # An unspecified address is hold as RFC 2543 had it: there is nowhere to send to.
    reachable = agreed.remote_host not in ("0.0.0.0", "::")
    return RtpMedia(
        remote=(agreed.remote_host, agreed.remote_port) if reachable else None,
        encoding=_ENCODINGS[agreed.encoding],
        payload_type=agreed.payload_type,
        dtmf_payload_type=agreed.dtmf_payload_type,
        send=agreed.we_send,
        receive=agreed.we_receive,
        other_types={number: encoding for number, encoding in _STATIC_TYPES.items() if number != agreed.payload_type},
        remote_rtcp=(agreed.remote_host, agreed.remote_rtcp_port) if agreed.remote_rtcp_port != agreed.remote_port + 1 else None,
        srtp=agreed.srtp,
    )

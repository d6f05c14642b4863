"""A SIP line that somebody else dialled, as the rest of the house sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from switchhook.domain.model import Encoding
from switchhook.domain.ports import LegAnswered
from switchhook.telephony.rtp_media import ENCODINGS, STATIC_TYPES, RtpMedia
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_line import SipLine
from switchhook.telephony.sip_transfer import LegTransfer
from switchhook.telephony.wire.offer_answer import DTMF_PAYLOAD_TYPE
from switchhook.telephony.wire.sdes import SrtpMode


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


class SipLeg(SipLine):
    """Implements `domain.ports.OfferedLeg`.

    The leg speaks what the caller's offer prefers; µ-law when it made none. RTP ports are leased by `answer`, or when `playout`
    is first asked for, so that refused calls cost none. When none is free the call is refused with 503 and ends as `line-failed`.
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
        super().__init__(streams, ENCODINGS.get(proposed or "", Encoding.PCMU), link.transfer)
        self.line_call_id = line_call_id
        """The SIP Call-ID."""
        self.source = source
        """Transport, address and port the call came from."""
        self._link = link
        self._offered = proposed is not None
        self._srtp = srtp

    @property
    def encrypted(self) -> bool:
        """Whether signalling is over TLS and sound, as agreed now, over SRTP."""
        return self._protected and self.source[0] == "tls"

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

    def on_answered(self) -> None:
        """The 200 is sent."""
        if not self._offered and self._stream is not None and self._srtp is SrtpMode.OFF:
            # The answer comes with the ACK; until then the peer's first packets may show where it is. What may be encrypted
            # waits for the keys.
            self._stream.configure(RtpMedia(None, self._encoding, 0, DTMF_PAYLOAD_TYPE, other_types=STATIC_TYPES))
        self._tell(LegAnswered())

    def _fail(self, reason: str, detail: str) -> None:
        self._link.fail(reason, detail)

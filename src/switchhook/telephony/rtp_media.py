"""What a leg's RTP stream is told to do, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from switchhook.domain.model import Encoding
from switchhook.telephony.rtp_path import Address
from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sdes import SrtpKeys

ENCODINGS: Mapping[str, Encoding] = {"PCMU": Encoding.PCMU, "PCMA": Encoding.PCMA}
STATIC_TYPES: Mapping[int, Encoding] = {0: Encoding.PCMU, 8: Encoding.PCMA}


@dataclass(frozen=True, slots=True)
class RtpMedia:
    """What offer and answer agreed on."""

    remote: Address | None
    """Where the peer wants its sound, by IP address; None: not known yet, the stream is quiet until the peer's packets tell."""
    encoding: Encoding
    payload_type: int
    dtmf_payload_type: int | None = None
    send: bool = True
    receive: bool = True
    other_types: Mapping[int, Encoding] = field(default_factory=dict)
    """Further payload types that the peer may send by the agreement."""
    remote_rtcp: Address | None = None
    """Where it differs from the port after `remote`'s."""
    srtp: SrtpKeys | None = None
    """None: plain RTP."""
    spoken: Encoding | None = None
    """What the leg speaks to the house, where that is fixed: the wire is then translated. None: `encoding`."""
    early: bool = False
    """The party has not answered: it may well be silent."""


@dataclass(frozen=True, slots=True)
class RtpStats:
    """The figures of a stream so far."""

    packets_in: int
    packets_out: int
    lost: int
    late: int
    ignored: int
    """Packets that were no RTP, or of a payload type that was not agreed on; the rejected ones too."""
    rejected: int
    """Packets that SRTP did not open: forged, repeated, or under another key."""
    concealed_ms: int
    jitter_ms: float
    round_trip_ms: float | None
    peer_lost: int | None


def rtp_media(agreed: Negotiated) -> RtpMedia:
    """What the stream needs of what was agreed on."""
    # An unspecified address is hold as RFC 2543 had it: there is nowhere to send to.
    reachable = agreed.remote_host not in ("0.0.0.0", "::")
    return RtpMedia(
        remote=(agreed.remote_host, agreed.remote_port) if reachable else None,
        encoding=ENCODINGS[agreed.encoding],
        payload_type=agreed.payload_type,
        dtmf_payload_type=agreed.dtmf_payload_type,
        send=agreed.we_send,
        receive=agreed.we_receive,
        other_types={number: encoding for number, encoding in STATIC_TYPES.items() if number != agreed.payload_type},
        remote_rtcp=(agreed.remote_host, agreed.remote_rtcp_port) if agreed.remote_rtcp_port != agreed.remote_port + 1 else None,
        srtp=agreed.srtp,
    )

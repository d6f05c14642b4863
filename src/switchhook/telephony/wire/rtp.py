"""RTP packets (RFC 3550 §5.1): pack a header and a payload, and find the payload in what arrives."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

HEADER = Struct(">BBHII")
"""First byte, marker and payload type, sequence number, timestamp, SSRC."""
HEADER_BYTES = HEADER.size
PLAIN = 0x80
"""First byte of version 2 without padding, extension and CSRC."""
MARKER = 0x80
COMFORT_NOISE = 13
"""Static payload type of RFC 3389."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """A packet taken apart; the receiving fast path does without it."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def pack(second: int, sequence: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    """Return a packet; `second` is the payload type, with MARKER or-ed in where the marker is set."""
    return HEADER.pack(PLAIN, second, sequence, timestamp, ssrc) + payload


def parse(data: bytes) -> RtpPacket | None:
    """Return the packet, or None for what is not RTP version 2 or whose lengths do not fit."""
    size = len(data)
    if size < HEADER_BYTES:
        return None
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    if first >> 6 != 2:
        return None
    start = HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:  # RFC 3550 §5.3.1: one extension, its length in words after the profile's 16 bits
        if size < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = size
    if first & 0x20:  # RFC 3550 §5.1: the last byte counts the padding, itself included
        if not data[-1]:
            return None
        end -= data[-1]
    if start > end:
        return None
    return RtpPacket(second & 0x7F, bool(second & MARKER), sequence, timestamp, ssrc, data[start:end])


def is_rtcp(data: bytes) -> bool:
    """Whether a datagram on the RTP port is RTCP (RFC 5761 §4: types 192 to 223 where the payload type would be)."""
    return len(data) >= 8 and data[0] >> 6 == 2 and 192 <= data[1] <= 223

"""RTCP (RFC 3550 §6): compound reports built and read, the interval between them, and the round trip they tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
GOODBYE = 203
_HEADER = Struct(">BBH")
_SENDER = Struct(">IIIIII")
_SENDER_SIZE = _SENDER.size
_BLOCK = Struct(">IIIIII")
_CNAME = 1
_MAX_SOURCES = 31
_UINT32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReceptionBlock:
    """How one source is received (RFC 3550 §6.4.1)."""

    ssrc: int
    fraction_lost: int
    """Of 256, since the report before."""
    packets_lost: int
    highest_sequence: int
    jitter: int
    """In timestamp units."""
    last_sr: int
    """Middle 32 bits of the NTP time of the last sender report, 0 when none came."""
    delay_since_sr: int
    """In 1/65536 s."""


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """What a sender tells of itself."""

    ntp: int
    """64-bit NTP time."""
    rtp_timestamp: int
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one compound packet said."""

    ssrc: int
    sender: SenderInfo | None = None
    blocks: tuple[ReceptionBlock, ...] = ()
    cname: str | None = None
    goodbye: bool = False


def ntp_time(seconds: float) -> int:
    """Return 64-bit NTP time; a monotonic clock will do where the wall's is not wanted (RFC 3550 §6.4.1)."""
    return int(seconds * (1 << 32)) & 0xFFFFFFFFFFFFFFFF


def ntp_middle(ntp: int) -> int:
    """Return the middle 32 bits, as LSR carries them."""
    return (ntp >> 16) & _UINT32


def round_trip_s(block: ReceptionBlock, now_ntp: int) -> float | None:
    """Return the round trip in seconds (RFC 3550 §6.4.1: A − LSR − DLSR), or None when it cannot be told."""
    if not block.last_sr:
        return None
    units = (ntp_middle(now_ntp) - block.last_sr - block.delay_since_sr) & _UINT32
    return units / 65536 if units < 0x80000000 else None


def build(
    ssrc: int,
    cname: str,
    sender: SenderInfo | None = None,
    block: ReceptionBlock | None = None,
    goodbye: bool = False,
) -> bytes:
    """Return a compound packet: SR or RR, SDES with CNAME, and BYE where the source leaves (RFC 3550 §6.1)."""
    blocks = b"" if block is None else _pack_block(block)
    count = 0x80 | (block is not None)
    if sender is None:
        body = ssrc.to_bytes(4, "big") + blocks
        packets = [_packet(count, RECEIVER_REPORT, body)]
    else:
        info = _SENDER.pack(
            ssrc,
            sender.ntp >> 32 & _UINT32,
            sender.ntp & _UINT32,
            sender.rtp_timestamp & _UINT32,
            sender.packets & _UINT32,
            sender.octets & _UINT32,
        )
        packets = [_packet(count, SENDER_REPORT, info + blocks)]
    name = cname.encode()[:255]
    chunk = ssrc.to_bytes(4, "big") + bytes((_CNAME, len(name))) + name
    # RFC 3550 §6.5: the items of a chunk end with a null byte and fill up a word.
    packets.append(_packet(0x81, SOURCE_DESCRIPTION, chunk + bytes(4 - len(chunk) % 4)))
    if goodbye:
        packets.append(_packet(0x81, GOODBYE, ssrc.to_bytes(4, "big")))
    return b"".join(packets)


def parse(data: bytes) -> Report | None:
    """Return what a compound packet says, or None for an invalid one (RFC 3550 appendix A.2). Unknown types are passed over."""
    if len(data) < 8 or data[0] >> 6 != 2 or data[1] not in (SENDER_REPORT, RECEIVER_REPORT):
        return None
    ssrc = int.from_bytes(data[4:8], "big")
    sender: SenderInfo | None = None
    blocks: tuple[ReceptionBlock, ...] = ()
    cname: str | None = None
    goodbye = False
    at = 0
    while at < len(data):
        if len(data) - at < 4 or data[at] >> 6 != 2:
            return None
        first, kind, words = _HEADER.unpack_from(data, at)
        end = at + 4 + 4 * words
        if end > len(data):
            return None
        body = data[at + 4 : end - _padding(first, data[at + 4 : end])]
        count = first & 0x1F
        if kind in (SENDER_REPORT, RECEIVER_REPORT):
            told, more = _parse_report(kind, count, body)
            sender = sender or told
            blocks = (blocks + more)[:_MAX_SOURCES]
        elif kind == SOURCE_DESCRIPTION:
            cname = cname or _parse_cname(body)
        elif kind == GOODBYE:
            goodbye = True
        at = end
    return Report(ssrc, sender, blocks, cname, goodbye)


class Reporter:
    """One stream's side of RTCP: when its reports go out, what they say, and what the peer's reports told.

    `random` gives numbers from 0 to 1; `deadline` is when the next report is due.
    """

    __slots__ = ("_cname", "_packets_then", "_random", "_sr_at", "_sr_middle", "_ssrc", "deadline", "peer_lost", "round_trip_s")

    INTERVAL_S = 5.0

    def __init__(self, ssrc: int, now: float, random: Callable[[], float]) -> None:
        self._ssrc = ssrc
        self._random = random
        # RFC 7022 §4.2: a short-term persistent CNAME is random and tells nothing of the host.
        self._cname = f"{int(random() * (1 << 48)):012x}"
        self._packets_then = 0
        self._sr_middle = 0
        self._sr_at = 0.0
        self.round_trip_s: float | None = None
        self.peer_lost: int | None = None
        """Packets of ours that the peer did not get, by its last report."""
        # RFC 3550 §6.2: the first interval is half as long.
        self.deadline = now + self._interval() / 2

    def report(
        self,
        now: float,
        sender: SenderInfo,
        reception: Callable[[int, int], ReceptionBlock | None],
        goodbye: bool = False,
    ) -> bytes:
        """Return the compound packet for now: SR when something was sent since the last (RFC 3550 §6.4), else RR."""
        self.deadline = now + self._interval()
        since = int((now - self._sr_at) * 65536) & _UINT32 if self._sr_middle else 0
        sent = sender.packets != self._packets_then
        self._packets_then = sender.packets
        return build(self._ssrc, self._cname, sender if sent else None, reception(self._sr_middle, since), goodbye)

    def receive(self, data: bytes, now: float) -> None:
        """Take a datagram of the peer; what is no RTCP is passed over."""
        report = parse(data)
        if report is None:
            return
        if report.sender is not None:
            self._sr_middle, self._sr_at = ntp_middle(report.sender.ntp), now
        for block in report.blocks:
            if block.ssrc == self._ssrc:
                self.peer_lost = block.packets_lost
                self.round_trip_s = round_trip_s(block, ntp_time(now)) or self.round_trip_s

    def _interval(self) -> float:
        # RFC 3550 §6.3.1: spread by chance over half to one and a half of the interval, so that reports do not fall together.
        return self.INTERVAL_S * (0.5 + self._random())


def _packet(first: int, kind: int, body: bytes) -> bytes:
    return _HEADER.pack(first, kind, len(body) // 4) + body


def _pack_block(block: ReceptionBlock) -> bytes:
    lost = max(-0x800000, min(0x7FFFFF, block.packets_lost)) & 0xFFFFFF
    return _BLOCK.pack(
        block.ssrc,
        (block.fraction_lost & 0xFF) << 24 | lost,
        block.highest_sequence & _UINT32,
        block.jitter & _UINT32,
        block.last_sr & _UINT32,
        block.delay_since_sr & _UINT32,
    )


def _padding(first: int, body: bytes) -> int:
    """Bytes of padding at the end of a packet; what does not fit counts as none."""
    return body[-1] if first & 0x20 and body and body[-1] <= len(body) else 0


def _parse_report(kind: int, count: int, body: bytes) -> tuple[SenderInfo | None, tuple[ReceptionBlock, ...]]:
    """Return the sender's part and the reception blocks that are really there."""
    sender = None
    at = 4
    if kind == SENDER_REPORT:
        if len(body) < _SENDER_SIZE:
            return None, ()
        _, high, low, timestamp, packets, octets = _SENDER.unpack_from(body)
        sender = SenderInfo(high << 32 | low, timestamp, packets, octets)
        at = _SENDER_SIZE
    blocks = []
    while count > 0 and at + _BLOCK.size <= len(body):
        ssrc, lost, highest, jitter, last_sr, delay = _BLOCK.unpack_from(body, at)
        total = lost & 0xFFFFFF
        blocks.append(
            ReceptionBlock(ssrc, lost >> 24, total - (1 << 24) if total & 0x800000 else total, highest, jitter, last_sr, delay)
        )
        at += _BLOCK.size
        count -= 1
    return sender, tuple(blocks)


def _parse_cname(body: bytes) -> str | None:
    """Return the CNAME of the first chunk, if it is whole."""
    at = 4
    while at + 2 <= len(body) and body[at]:
        size = body[at + 1]
        if body[at] == _CNAME:
            return body[at + 2 : at + 2 + size].decode("utf-8", "replace")
        at += 2 + size
    return None

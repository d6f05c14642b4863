"""Puts the packets of one RTP stream in order: what comes in order passes at once, only a gap holds what follows it.

A held packet waits for the missing ones until the deadline; then they are given up (the line conceals them) and the flow goes
on. The RTP timestamp tells where sound lies on the leg's time line, so that silence suppression leaves a gap and no error.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.dtmf import DtmfReceiver
from switchhook.telephony.wire.rtcp import ReceptionBlock
from switchhook.telephony.wire.rtp import RtpPacket

RATE_HZ = 8_000
HOLD_S = 0.060
MAX_CONCEAL_SAMPLES = 480
"""60 ms for each gap; what is longer stays a gap in the positions."""
MAX_HELD = 16
_MAX_DROPOUT = 3_000
_MAX_MISORDER = 100
"""RFC 3550 appendix A.1: a sequence number further off is taken for a restart, once a second packet confirms it."""
_MAX_STRAY_SAMPLES = 8_000
"""Timestamp and arrival may differ by 1 s; beyond, the timestamp has jumped and arrival decides."""
_NEVER = -1
_PLAIN = rtp.PLAIN
_unpack_header = rtp.HEADER.unpack_from


@dataclass(frozen=True, slots=True)
class Frame:
    """Sound off the fast path, in order; `payload` None: lost, to be concealed."""

    payload: bytes | None
    samples: int
    position: int
    payload_type: int


class Receiver:
    """One direction of one stream. `origin` is the time of position 0 on the leg's time line.

    `push` returns the payload of an in-order packet of the main payload type, whose place is then in `position`. For all else
    it returns None, and what is to be heard is in `take()`, pressed digits in `digits`. `deadline` and `tick` end a hold.
    """

    __slots__ = (
        "_anchor_position",
        "_anchor_timestamp",
        "_base_extended",
        "_candidate",
        "_cycles",
        "_dtmf",
        "_dtmf_type",
        "_end",
        "_frame_samples",
        "_held",
        "_hold_s",
        "_jitter",
        "_next_sequence",
        "_next_timestamp",
        "_origin",
        "_other_types",
        "_payload_type",
        "_prior_expected",
        "_prior_received",
        "_ready",
        "_received",
        "_ssrc",
        "_transit",
        "arrived_at",
        "concealed_samples",
        "deadline",
        "digits",
        "foreign",
        "invalid",
        "late",
        "lost",
        "packets",
        "position",
        "silent",
    )

    def __init__(self, origin: float, hold_s: float = HOLD_S) -> None:
        self._origin = origin
        self._hold_s = hold_s
        self._payload_type = self._dtmf_type = _NEVER
        self._other_types: Collection[int] = ()
        self._dtmf = DtmfReceiver()
        self._ssrc = self._next_sequence = self._next_timestamp = _NEVER
        self._candidate: RtpPacket | None = None
        self._held: dict[int, tuple[RtpPacket, float]] = {}
        self._ready: list[Frame] = []
        self._end = self._anchor_timestamp = self._anchor_position = 0
        self._frame_samples = 160
        self._cycles = self._base_extended = self._received = 0
        self._prior_expected = self._prior_received = 0
        self._transit = self._jitter = 0.0
        self.deadline: float | None = None
        self.digits: list[str] = []
        self.position = 0
        self.arrived_at: float | None = None
        """When the last packet of the stream came."""
        self.silent = False
        """The peer said by comfort noise that it has nothing to send."""
        self.packets = self.lost = self.late = self.concealed_samples = self.invalid = self.foreign = 0

    def configure(self, payload_type: int, other_types: Collection[int], dtmf_type: int | None) -> None:
        """Name the payload types: the main one, other sound that may come, telephone events. The stream goes on."""
        self._payload_type = payload_type
        self._other_types = other_types
        self._dtmf_type = _NEVER if dtmf_type is None else dtmf_type

    def push(self, packet: bytes, now: float) -> bytes | None:
        """Take a datagram. Never raises, whatever it holds."""
        if len(packet) > 12:
            first, second, sequence, timestamp, ssrc = _unpack_header(packet)
            if (
                sequence == self._next_sequence
                and timestamp == self._next_timestamp
                and ssrc == self._ssrc
                and second == self._payload_type
                and first == _PLAIN
                and self.deadline is None
            ):
                payload = packet[12:]
                samples = len(payload)
                if sequence == 0xFFFF:
                    self._next_sequence = 0
                    self._cycles += 0x10000
                else:
                    self._next_sequence = sequence + 1
                self._next_timestamp = (timestamp + samples) & 0xFFFFFFFF
                self.position = position = self._end
                self._end = position + samples
                self._received += 1
                self.packets += 1
                self.arrived_at = now
                # RFC 3550 §6.4.1: interarrival jitter, in timestamp units
                transit = now * RATE_HZ - timestamp
                change = transit - self._transit
                self._transit = transit
                if -RATE_HZ < change < RATE_HZ:
                    self._jitter += ((change if change > 0.0 else -change) - self._jitter) * 0.0625
                return payload
        self._push_any(packet, now)
        return None

    def take(self) -> list[Frame]:
        """Return the frames that are ready, in order, and forget them."""
        ready = self._ready
        if ready:
            self._ready = []
        return ready

    def tick(self, now: float) -> None:
        """The hold is over: give the missing packets up and go on."""
        while self.deadline is not None and self.deadline <= now:
            self._give_up()

    def reset(self) -> None:
        """Another peer may come (re-INVITE): take the next packet for the first of its stream."""
        while self.deadline is not None:
            self._give_up()
        self._ssrc = self._next_sequence = self._next_timestamp = _NEVER
        self._candidate = None
        self.silent = False

    @property
    def end(self) -> int:
        """Position after the last sample that was given."""
        return self._end

    @property
    def ssrc(self) -> int | None:
        """The source that is listened to; None: none yet."""
        return None if self._ssrc == _NEVER else self._ssrc

    @property
    def jitter_ms(self) -> float:
        """Interarrival jitter (RFC 3550 §6.4.1)."""
        return self._jitter * 1000 / RATE_HZ

    def reception(self, last_sr: int, delay_since_sr: int) -> ReceptionBlock | None:
        """Return the block for the next report (RFC 3550 §6.4.1, appendix A.3), or None when nothing came yet."""
        if self._ssrc == _NEVER:
            return None
        highest = self._cycles + self._next_sequence - 1
        expected = highest - self._base_extended + 1
        new_expected = expected - self._prior_expected
        new_lost = new_expected - (self._received - self._prior_received)
        self._prior_expected, self._prior_received = expected, self._received
        fraction = 0 if new_expected <= 0 or new_lost <= 0 else min(255, (new_lost << 8) // new_expected)
        return ReceptionBlock(
            self._ssrc, fraction, expected - self._received, highest, int(self._jitter), last_sr, delay_since_sr
        )

    def _push_any(self, data: bytes, now: float) -> None:
        """Everything but the next packet of the main type."""
        packet = rtp.parse(data)
        if packet is None:
            self.invalid += 1
            return
        if packet.ssrc != self._ssrc:
            if self._ssrc == _NEVER:
                self._adopt(packet, now)
            elif not self._confirmed(packet, now):
                return
        self.arrived_at = now
        self.packets += 1
        ahead = ((packet.sequence - self._next_sequence + 0x8000) & 0xFFFF) - 0x8000
        if -_MAX_MISORDER <= ahead < 0:
            self.late += 1
            self._received += 1
        elif ahead == 0:
            self._pass(packet, now)
            self._pass_held()
        elif 0 < ahead <= _MAX_DROPOUT:
            self._hold(packet, now)
        elif self._confirmed(packet, now):
            self._pass(packet, now)

    def _confirmed(self, packet: RtpPacket, now: float) -> bool:
        """Whether a second packet in a row shows that a source has changed or restarted; the first is then passed before it."""
        first = self._candidate
        self._candidate = packet
        if first is None or first.ssrc != packet.ssrc or packet.sequence != (first.sequence + 1) & 0xFFFF:
            return False
        while self.deadline is not None:
            self._give_up()
        self._candidate = None
        self._adopt(first, now)
        self._pass(first, now)
        return True

    def _adopt(self, packet: RtpPacket, now: float) -> None:
        """Follow this source from this packet on, placed by its arrival."""
        self._ssrc = packet.ssrc
        self._next_sequence = packet.sequence
        self._cycles = self._received = self._prior_expected = self._prior_received = 0
        self._base_extended = packet.sequence
        self._anchor(packet.timestamp, now)
        self._next_timestamp = packet.timestamp
        self._transit = now * RATE_HZ - packet.timestamp
        self.silent = False

    def _anchor(self, timestamp: int, now: float) -> None:
        """From here on positions follow from this timestamp, which lies where it arrived."""
        self._anchor_timestamp = timestamp
        self._anchor_position = max(self._end, self._arrival(now))

    def _arrival(self, now: float) -> int:
        return int((now - self._origin) * RATE_HZ)

    def _hold(self, packet: RtpPacket, now: float) -> None:
        """Keep a packet that came before one that is missing."""
        if packet.sequence in self._held:
            self.late += 1
            self._received += 1
            return
        self._held[packet.sequence] = (packet, now)
        if self.deadline is None:
            self.deadline = now + self._hold_s
        elif len(self._held) > MAX_HELD:
            self._give_up()

    def _give_up(self) -> None:
        """Take the missing packets before the first held one for lost, conceal them, and pass what follows in order."""
        next_sequence = self._next_sequence
        sequence = min(self._held, key=lambda held: (held - next_sequence) & 0xFFFF)
        packet, _ = self._held[sequence]
        missing = (sequence - next_sequence) & 0xFFFF
        self.lost += missing
        if sequence < next_sequence:
            self._cycles += 0x10000
        self._next_sequence = sequence
        if self._is_sound(packet.payload_type) and self._next_timestamp != _NEVER:
            jump = ((packet.timestamp - self._next_timestamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            samples = min(jump, missing * self._frame_samples, MAX_CONCEAL_SAMPLES)
            if samples > 0:
                self._emit(None, samples, self._end, packet.payload_type)
                self._next_timestamp = (self._next_timestamp + samples) & 0xFFFFFFFF
                self.concealed_samples += samples
        self._pass_held()

    def _pass_held(self) -> None:
        """Pass what is held and in order; the next gap, if any, has its own deadline."""
        while (held := self._held.pop(self._next_sequence, None)) is not None:
            self._pass(*held)
        if not self._held:
            self.deadline = None
        else:
            self.deadline = min(arrived for _, arrived in self._held.values()) + self._hold_s

    def _pass(self, packet: RtpPacket, arrived: float) -> None:
        """The next packet in order, of whatever type."""
        self._count(packet, arrived)
        kind = packet.payload_type
        if kind == self._dtmf_type:
            digit = self._dtmf.push(packet.payload, packet.timestamp, arrived)
            if digit is not None:
                self.digits.append(digit)
        elif kind == rtp.COMFORT_NOISE:
            self.silent = True
            self._next_timestamp = _NEVER
        elif not self._is_sound(kind):
            self.foreign += 1
        elif packet.payload:
            self._place(packet, arrived)

    def _count(self, packet: RtpPacket, arrived: float) -> None:
        self._next_sequence = (packet.sequence + 1) & 0xFFFF
        if self._next_sequence == 0:
            self._cycles += 0x10000
        self._received += 1
        transit = arrived * RATE_HZ - packet.timestamp
        change = abs(transit - self._transit)
        self._transit = transit
        if change < RATE_HZ and packet.payload_type != self._dtmf_type:
            self._jitter += (change - self._jitter) * 0.0625

    def _is_sound(self, payload_type: int) -> bool:
        return payload_type == self._payload_type or payload_type in self._other_types

    def _place(self, packet: RtpPacket, arrived: float) -> None:
        """Give the sound of a packet its place by timestamp, never before what was given already."""
        samples = len(packet.payload)
        ahead = ((packet.timestamp - self._anchor_timestamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        position = self._anchor_position + ahead
        if packet.timestamp != self._next_timestamp:
            if abs(position - self._arrival(arrived)) > _MAX_STRAY_SAMPLES:
                self._anchor(packet.timestamp, arrived)
                position = self._anchor_position
            else:
                self._anchor_timestamp, self._anchor_position = packet.timestamp, position
        self.silent = False
        self._frame_samples = samples
        self._next_timestamp = (packet.timestamp + samples) & 0xFFFFFFFF
        self._emit(packet.payload, samples, max(position, self._end), packet.payload_type)

    def _emit(self, payload: bytes | None, samples: int, position: int, payload_type: int) -> None:
        self._ready.append(Frame(payload, samples, position, payload_type))
        self._end = position + samples

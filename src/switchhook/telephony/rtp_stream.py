"""The RTP of one leg: sockets, symmetric latching, what is heard and what is played, DTMF, reports.

Sound goes out continuously from `configure` on, silence when nothing is queued; a talkspurt starts at once, with marker and true
timestamp. Sound that comes in goes to the listener straight from the socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from switchhook.domain.model import Encoding
from switchhook.domain.ports import DigitPressed, FrameTap, PlayoutDrained
from switchhook.media import g711, tones
from switchhook.media.concealment import conceal
from switchhook.media.playout import FRAME_BYTES, Playout
from switchhook.telephony.pacer import FRAME_TICKS, TICKS_PER_S, Pacer
from switchhook.telephony.rtp_media import RtpMedia, RtpStats
from switchhook.telephony.rtp_path import DATAGRAM_BYTES, Address, RtpPath
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.dtmf import DigitFilter, DtmfSender
from switchhook.telephony.wire.receive import Receiver
from switchhook.telephony.wire.rtcp import Reporter, SenderInfo, ntp_time

MEDIA_TIMEOUT_S = 30.0
_HOLD_S = 0.040
"""A gap is given up on the first beat after this: at most 60 ms after it opened."""
_QUIET_S = 0.100
"""A peer that sends nothing for so long suppresses silence: the listener hears silence in its place."""
_MAX_FILL_SAMPLES = 8_000
_MAX_TONE_BYTES = 10 * g711.RATE_HZ
_TICK_S = 1 / TICKS_PER_S
_PLAIN = rtp.PLAIN
_pack_header = rtp.HEADER.pack
_SAMPLES_PER_TICK = g711.RATE_HZ // TICKS_PER_S


@dataclass(frozen=True, slots=True)
class MediaTimeout:
    """Nothing came from the party for `MEDIA_TIMEOUT_S` although it should have. Told again for each such stretch."""


RtpEvent: TypeAlias = DigitPressed | PlayoutDrained | MediaTimeout


class RtpStream:
    """The media of one leg. Make it on the loop; it leases its ports at once. Raises PortsExhausted."""

    __slots__ = (
        "_chore_tick",
        "_clock",
        "_closed",
        "_digit_filter",
        "_digits_out",
        "_event_tick",
        "_filled_to_s",
        "_last_payload",
        "_lease",
        "_media",
        "_media_timeout_s",
        "_on_audio",
        "_on_event",
        "_origin_tick",
        "_outbound_table",
        "_pacer",
        "_packets_out",
        "_path",
        "_plain_in",
        "_plain_out",
        "_ports",
        "_random",
        "_receive",
        "_receiver",
        "_reporter",
        "_second",
        "_sequence",
        "_silence",
        "_spurting",
        "_ssrc",
        "_tables",
        "_tap",
        "_tick",
        "_timestamp_offset",
        "_tone",
        "_waits_since_s",
        "encoding",
        "local_port",
        "playout",
    )

    def __init__(
        self,
        ports: RtpPorts,
        pacer: Pacer,
        media_timeout_s: float = MEDIA_TIMEOUT_S,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._ports = ports
        self._pacer = pacer
        self._clock = pacer.clock
        self._media_timeout_s = media_timeout_s
        self._lease = ports.lease()
        self.local_port = self._lease.port
        self.encoding = Encoding.PCMU
        """The leg's encoding, fixed by the first `configure`."""
        self.playout = Playout(self.encoding, on_talk=self._talk, on_drained=self._drained)
        # RFC 3550 §5.1: SSRC and the starts of sequence and timestamp are random.
        start = entropy(10)
        self._ssrc = int.from_bytes(start[:4], "big")
        self._timestamp_offset = int.from_bytes(start[4:8], "big")
        self._sequence = int.from_bytes(start[8:], "big")
        self._random = lambda: int.from_bytes(entropy(4), "big") / (1 << 32)
        self._media: RtpMedia | None = None
        self._on_audio: Callable[[bytes, float], None] | None = None
        self._on_event: Callable[[RtpEvent], None] | None = None
        self._tap: FrameTap | None = None
        self._tables: dict[int, bytes | None] = {}
        self._outbound_table: bytes | None = None
        self._silence = self._last_payload = self._tone = b""
        self._digits_out = DtmfSender()
        self._digit_filter = DigitFilter()
        self._path = RtpPath(self._lease, self._readable, self._packet, self._peer_report)
        self._receive = self._path.receive
        self._packets_out = self._second = self._event_tick = self._chore_tick = 0
        self._filled_to_s = self._waits_since_s = 0.0
        self._plain_in = self._plain_out = self._spurting = self._closed = False
        self._tick = self._origin_tick = pacer.tick()
        self._receiver = Receiver(self._tick * _TICK_S, _HOLD_S)
        self._reporter = Reporter(self._ssrc, self._tick * _TICK_S, self._random)

    # What the leg asks for

    def subscribe(self, on_event: Callable[[RtpEvent], None]) -> None:
        """Name the one receiver of digits, Drained and MediaTimeout."""
        self._on_event = on_event

    def listen(self, on_audio: Callable[[bytes, float], None] | None) -> None:
        """Name the one receiver of the party's sound: (payload in the leg's encoding, monotonic now)."""
        self._on_audio = on_audio
        self._set_plain()

    def tap(self, tap: FrameTap | None) -> None:
        """Attach the recorder, or take it off. Silence that fills the time between talkspurts is not shown to it."""
        self._tap = tap

    def configure(self, media: RtpMedia) -> None:
        """Start the stream, or point it anew after a re-INVITE: address, hold, codec."""
        if self._closed:
            return
        before, self._media = self._media, media
        if before is None:
            self._start(media)
        self._tables[media.payload_type] = g711.translation(media.encoding, self.encoding)
        for payload_type, encoding in media.other_types.items():
            self._tables[payload_type] = g711.translation(encoding, self.encoding)
        self._receiver.configure(media.payload_type, self._tables.keys(), media.dtmf_payload_type)
        self._second = media.payload_type
        self._outbound_table = g711.translation(self.encoding, media.encoding)
        self._silence = media.encoding.silence * FRAME_BYTES
        if before is None or before.srtp != media.srtp:
            self._path.secure(media.srtp)
            self._receive = self._path.receive
        if before is None or before.remote != media.remote:
            self._path.point(media.remote, media.remote_rtcp)
            self._receiver.reset()
            self._off_path(b"", self._clock())
        if before is None or not _is_two_way(before):
            self._waits_since_s = self._clock()
        self._set_plain()
        if before is None:
            self._beat_now()
        elif self._plain_out and not self.playout.idle and not before.send:
            self._talk()

    def info_digit(self, digit: str, now: float) -> None:
        """A digit came by SIP INFO; it is told unless RFC 4733 told it already."""
        self._digit(digit, "info", now)

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        """Play a digit: as a telephone event, or as tones where the peer takes no events. Queued sound waits meanwhile.

        Raises ValueError for what is no digit, or when too many wait.
        """
        if self._media is not None and self._media.dtmf_payload_type is None:
            if len(self._tone) > _MAX_TONE_BYTES:
                raise ValueError("ten seconds of digits wait already")
            self._tone += tones.dtmf(digit, duration_ms, self.encoding) + tones.silence(60, self.encoding)
        else:
            self._digits_out.send(digit, duration_ms)
        self._set_plain()

    @property
    def position(self) -> int:
        """Samples since the first `configure`: where the leg's time line is."""
        return (self._pacer.tick() - self._origin_tick) * _SAMPLES_PER_TICK

    @property
    def remote(self) -> Address | None:
        """Where sound goes: the signalled address, or the one the peer's packets come from."""
        return self._path.remote

    @property
    def stats(self) -> RtpStats:
        """The figures so far."""
        receiver, round_trip_s = self._receiver, self._reporter.round_trip_s
        return RtpStats(
            packets_in=receiver.packets,
            packets_out=self._packets_out,
            lost=receiver.lost,
            late=receiver.late,
            ignored=receiver.invalid + receiver.foreign,
            rejected=self._path.rejected,
            concealed_ms=receiver.concealed_samples * 1000 // g711.RATE_HZ,
            jitter_ms=receiver.jitter_ms,
            round_trip_ms=None if round_trip_s is None else round_trip_s * 1000,
            peer_lost=self._reporter.peer_lost,
        )

    def close(self) -> None:
        """Say goodbye by RTCP and give sockets, ports and the beat back; idempotent. Nothing is told afterwards."""
        if self._closed:
            return
        self._closed = True
        self._on_event = self._on_audio = self._tap = None
        self.playout.on_talk = self.playout.on_drained = None
        try:
            if self._media is not None:
                self._pacer.leave(self, self._tick)
                self._report(self._clock(), goodbye=True)
        finally:
            if self._media is not None:
                self._path.close()
            self._ports.release(self._lease)

    # Sound out

    def beat(self, tick: int) -> None:
        """A frame is due; the pacer calls this."""
        if tick - self._tick < FRAME_TICKS:  # the line has changed its phase within this frame
            return
        self._emit(tick)
        now = tick * _TICK_S
        receiver = self._receiver
        if receiver.silent or (receiver.arrived_at is not None and now - receiver.arrived_at > _QUIET_S):
            self._fill(now)
        if tick >= self._chore_tick:
            self._chores(tick, now)

    def _emit(self, tick: int) -> None:
        """Send the frame of this tick; its timestamp is the tick's, so that it is true after any pause."""
        self._tick = tick
        if not self._plain_out:
            self._emit_other(tick)
            return
        frame = self.playout.next_frame(tick * _TICK_S)
        second = self._second
        if frame is None:
            self._spurting = False
            frame = self._silence
        else:
            if not self._spurting:
                self._spurting = True
                second |= rtp.MARKER  # RFC 3551 §4.1: the first packet of a talkspurt
            if self._tap is not None:
                self._tap.sent(frame, (tick - self._origin_tick) * _SAMPLES_PER_TICK)
            if self._outbound_table is not None:
                frame = frame.translate(self._outbound_table)
        self._send_packet(second, tick, frame)

    def _send_packet(self, second: int, tick: int, payload: bytes) -> None:
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        self._packets_out += 1
        timestamp = (self._timestamp_offset + tick * _SAMPLES_PER_TICK) & 0xFFFFFFFF
        send = self._path.send
        try:
            send(_pack_header(_PLAIN, second, sequence, timestamp, self._ssrc) + payload)
        except BlockingIOError:  # a full buffer: the next frame is as good
            return
        except OSError:  # an ICMP error that an earlier packet met
            self._path.listen_again()

    def _emit_other(self, tick: int) -> None:
        """A beat on hold, without an address, or while a digit is played."""
        self.playout.rest(tick * _TICK_S)
        self._spurting = False
        media = self._media
        if media is None or not self._can_send(media):
            return
        if self._tone:
            frame, self._tone = self._tone[:FRAME_BYTES], self._tone[FRAME_BYTES:]
            frame += self.encoding.silence * (FRAME_BYTES - len(frame))
            self._send_packet(self._second, tick, frame.translate(self._outbound_table) if self._outbound_table else frame)
        else:
            self._emit_event(tick, media.dtmf_payload_type)
        self._set_plain()

    def _emit_event(self, tick: int, payload_type: int | None) -> None:
        payload = self._digits_out.next_payload()
        if payload is None or payload_type is None:
            self._send_packet(self._second, tick, self._silence)
            return
        if self._digits_out.begins:
            self._event_tick = tick
            payload_type |= rtp.MARKER
        # RFC 4733 §2.5.1.2: every packet of an event carries the timestamp of its beginning.
        self._send_packet(payload_type, self._event_tick, payload)

    def _talk(self) -> None:
        """Sound was queued while idle: the first frame leaves at once, and the beat follows from here."""
        if self._plain_out:
            self._pacer.leave(self, self._tick)
            self._beat_now()

    def _beat_now(self) -> None:
        # One frame has one timestamp: a second frame within the same tick belongs to the next.
        self._emit(max(self._pacer.tick(), self._tick + 1))
        if not self._closed:
            self._pacer.join(self, self._tick)

    def _drained(self) -> None:
        self._spurting = False
        self._tell(PlayoutDrained())

    # Sound in

    def _readable(self) -> None:
        """One datagram of the locked peer. The loop calls again while there are more, in turn with the other streams."""
        # What an attribute holds is called by way of a local name: the interpreter has a short cut for methods alone.
        receive, clock = self._receive, self._clock
        try:
            packet = receive(DATAGRAM_BYTES)
        except BlockingIOError:  # nothing after all
            return
        except OSError:  # an ICMP error that a packet of ours met
            self._path.listen_again()
            return
        now = clock()
        receiver = self._receiver
        payload = receiver.push(packet, now)
        if payload is None:
            self._off_path(packet, now)
        elif self._plain_in:
            self._last_payload = payload
            if self._tap is not None:
                self._tap.received(payload, receiver.position)
            on_audio = self._on_audio
            on_audio(payload, now)  # type: ignore[misc]  # _plain_in says that it is there
        else:
            self._hear(payload, self._second, receiver.position, now)

    def _packet(self, packet: bytes) -> None:
        """A datagram that led the path to its peer."""
        self._set_plain()
        now = self._clock()
        payload = self._receiver.push(packet, now)
        if payload is not None:
            self._hear(payload, self._second, self._receiver.position, now)
        self._off_path(packet, now)

    def _off_path(self, packet: bytes, now: float) -> None:
        """What the last packet brought, when it was not just the next sound."""
        receiver = self._receiver
        for frame in receiver.take():
            if frame.payload is not None:
                self._hear(frame.payload, frame.payload_type, frame.position, now)
            else:
                self._hear_concealed(conceal(self._last_payload, frame.samples, self.encoding), frame.position, now)
        if receiver.digits:
            digits, receiver.digits = receiver.digits, []
            for digit in digits:
                self._digit(digit, "rtp", now)
        if receiver.deadline is not None:
            self._chore_tick = 0
        if rtp.is_rtcp(packet):
            self._peer_report(packet)

    def _hear(self, payload: bytes, payload_type: int, position: int, now: float) -> None:
        """Sound of any agreed type, in order."""
        table = self._tables.get(payload_type)
        if table is not None:
            payload = payload.translate(table)
        self._last_payload = payload
        self._hear_concealed(payload, position, now)

    def _hear_concealed(self, payload: bytes, position: int, now: float) -> None:
        if self._media is None or not self._media.receive:
            return
        if self._tap is not None:
            self._tap.received(payload, position)
        if self._on_audio is not None:
            self._on_audio(payload, now)

    def _fill(self, now: float) -> None:
        """The peer sends nothing because it has nothing to say: the listener hears silence, for the end of a turn is silence."""
        receiver = self._receiver
        if self._path.locked:  # After a stall of the loop packets may be waiting: they are what there is to hear.
            arrived_at = receiver.arrived_at
            self._readable()
            if receiver.arrived_at != arrived_at:
                return
        arrived_at = receiver.arrived_at or now
        start = max(self._filled_to_s, arrived_at if receiver.silent else arrived_at + FRAME_TICKS * _TICK_S)
        frames = int((now - start) * TICKS_PER_S + 0.5) // FRAME_TICKS
        if frames <= 0:
            return
        self._filled_to_s = start + frames * FRAME_TICKS * _TICK_S
        if self._on_audio is not None and self._media is not None and self._media.receive:
            self._on_audio(self.encoding.silence * min(frames * FRAME_BYTES, _MAX_FILL_SAMPLES), now)

    def _start(self, media: RtpMedia) -> None:
        """Fix the leg's encoding and its time line; what came before is not heard."""
        self.encoding = media.spoken or media.encoding
        self.playout.configure(self.encoding)
        tick = self._pacer.tick()
        self._tick, self._origin_tick = tick - 1, tick
        self._receiver = Receiver(tick * _TICK_S, _HOLD_S)
        self._reporter = Reporter(self._ssrc, tick * _TICK_S, self._random)
        self._chore_tick = tick + TICKS_PER_S
        self._path.open()

    def _can_send(self, media: RtpMedia) -> bool:
        return media.send and self._path.remote is not None

    def _set_plain(self) -> None:
        """Decide whether the short paths will do: nothing to translate, hold, or play but the playout."""
        media = self._media
        if media is None:
            return
        self._plain_in = media.receive and self._on_audio is not None and self._tables.get(media.payload_type) is None
        self._plain_out = self._can_send(media) and not self._tone and not self._digits_out.active

    def _digit(self, digit: str, method: str, now: float) -> None:
        if self._digit_filter.fresh(digit, method, now):
            self._tell(DigitPressed(digit))

    def _tell(self, event: RtpEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _chores(self, tick: int, now: float) -> None:
        """What need not be done on every beat: end a hold, report, see whether the party is still there."""
        receiver = self._receiver
        if receiver.deadline is not None:
            receiver.tick(now)
            self._off_path(b"", now)
        if now >= self._reporter.deadline:
            self._report(now)
        last = max(receiver.arrived_at or 0.0, self._waits_since_s)
        two_way = self._media is not None and _is_two_way(self._media)
        if two_way:
            self._path.seek(receiver.ssrc, now - (receiver.arrived_at or now))
        if two_way and now - last > self._media_timeout_s:
            self._waits_since_s = now
            self._tell(MediaTimeout())
        self._chore_tick = 0 if receiver.deadline is not None else tick + TICKS_PER_S

    def _report(self, now: float, goodbye: bool = False) -> None:
        timestamp, packets = int(self._timestamp_offset + now * g711.RATE_HZ), self._packets_out
        sender = SenderInfo(ntp_time(now), timestamp, packets, packets * FRAME_BYTES)
        packet = self._reporter.report(now, sender, self._receiver.reception, goodbye)
        self._path.send_report(packet)

    def _peer_report(self, packet: bytes) -> None:
        self._waits_since_s = now = self._clock()  # a party that only reports is there
        self._reporter.receive(packet, now)


def _is_two_way(media: RtpMedia) -> bool:
    """Whether the party has to be heard: one that holds us may send music or nothing (RFC 3264 §8.4)."""
    return media.send and media.receive and not media.early

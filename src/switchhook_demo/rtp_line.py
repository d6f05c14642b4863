"""The sound of one call at the telephone: a paced RTP sender and an ear that keeps what arrived and when."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from switchhook_demo.sip_text import PAYLOAD_TYPES
from switchhook_demo.sound import FRAME_BYTES, ULAW_SILENCE, VOICE_RMS, decode, encode, loudness

FRAME_S = 0.020
WORD_GAP_S = 0.25
HEADER = struct.Struct("!BBHII")
EVENTS = "0123456789*#ABCD"
EVENT_FRAMES = 8
"""A digit lasts 160 ms; its end is sent three times (RFC 4733 §2.5.1.4)."""
END_COPIES = 3
DIGIT_GAP_S = 0.1
LATE_RESET_S = 0.2
"""A sender that has slept longer than this starts its clock anew rather than send a burst."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One RTP packet that arrived."""

    at: float
    """Monotonic seconds."""
    sequence: int
    timestamp: int
    marker: bool
    payload: bytes
    """In the line's encoding."""
    rms: float

    @property
    def voiced(self) -> bool:
        """Whether it is louder than a line's hum."""
        return self.rms > VOICE_RMS


class Ear:
    """What the telephone heard, packet by packet."""

    def __init__(self) -> None:
        self.packets: list[Heard] = []
        self.digits: list[str] = []
        """RFC 4733 digits from the far side."""
        self.encoding = "PCMU"
        self._arrived = asyncio.Event()
        self._last_event_timestamp: int | None = None

    def take(self, packet: Heard) -> None:
        """A packet of sound arrived."""
        self.packets.append(packet)
        self._arrived.set()

    def take_event(self, timestamp: int, payload: bytes) -> None:
        """A telephone-event packet arrived; the copies of one event share a timestamp."""
        if timestamp != self._last_event_timestamp and len(payload) >= 4 and payload[0] < len(EVENTS):
            self._last_event_timestamp = timestamp
            self.digits.append(EVENTS[payload[0]])
            self._arrived.set()

    def ulaw(self, since: float = 0.0) -> bytes:
        """All sound that arrived after a moment, as µ-law, in order of sequence of arrival."""
        sound = b"".join(packet.payload for packet in self.packets if packet.at >= since)
        return sound if self.encoding == "PCMU" else encode(decode(sound, self.encoding))

    def last_voice(self, since: float = 0.0) -> float | None:
        """When the latest voiced packet after a moment arrived."""
        for packet in reversed(self.packets):
            if packet.at < since:
                return None
            if packet.voiced:
                return packet.at
        return None

    def talking_for(self, now: float) -> float:
        """Seconds for which the far side has been speaking without a pause that is more than one between words; 0 in silence."""
        end: float | None = None
        start = now
        for packet in reversed(self.packets):
            if start - packet.at > WORD_GAP_S:
                break
            if packet.voiced:
                start = packet.at
                end = end or packet.at
        return end - start if end is not None else 0.0

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until a condition on what was heard holds; it is looked at again at least every 20 ms."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not condition():
            if loop.time() >= deadline:
                raise TimeoutError(f"{what} within {timeout_s:g} s")
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), FRAME_S)
            except TimeoutError:
                continue

    async def voice(self, since: float, timeout_s: float, frames: int = 2) -> float:
        """Wait for voice that arrived after `since`; returns when the first of `frames` voiced packets came."""
        found: list[float] = []
        position = 0

        def enough() -> bool:
            nonlocal position
            found.extend(packet.at for packet in self.packets[position:] if packet.at >= since and packet.voiced)
            position = len(self.packets)
            return len(found) >= frames

        await self.until(enough, timeout_s, "no voice came")
        return found[0]

    async def quiet(self, quiet_ms: int, timeout_s: float) -> None:
        """Wait until no voice has come for so long, counted from this call or from the last voice."""
        loop = asyncio.get_running_loop()
        start = loop.time() - 1.0

        def silent() -> bool:
            last = self.last_voice(start)
            return loop.time() - max(last or 0.0, start + 1.0) >= quiet_ms / 1000

        await self.until(silent, timeout_s, f"no {quiet_ms} ms of quiet came")


class RtpLine:
    """One UDP socket that sends a packet each 20 ms (silence when there is nothing to say) and listens."""

    def __init__(self, host: str) -> None:
        self.ear = Ear()
        self.sent_voice_at: float | None = None
        """When the latest voiced packet left."""
        self._loop = asyncio.get_running_loop()
        self._open((host, 0))
        self._task: asyncio.Task[None] | None = None
        self._remote: tuple[str, int] | None = None
        self._encoding = "PCMU"
        self._dtmf_type: int | None = None
        self._queue: deque[bytes] = deque()
        self._digits: deque[str] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sequence = secrets.randbelow(1 << 16)
        self._timestamp = secrets.randbelow(1 << 32)
        self._ssrc = secrets.randbelow(1 << 32)
        self.sending = True
        """False while the call is held by the far side."""

    @property
    def port(self) -> int:
        """The local RTP port."""
        return int(self._socket.getsockname()[1])

    @property
    def speaking(self) -> bool:
        """Whether sound is queued."""
        return bool(self._queue)

    def connect(self, remote: tuple[str, int], encoding: str, dtmf_type: int | None) -> None:
        """Start towards a far side, or turn to another."""
        self._remote, self._encoding, self._dtmf_type = remote, encoding, dtmf_type
        self.ear.encoding = encoding
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    def queue(self, ulaw: bytes) -> None:
        """Say this after what is already queued; the last frame is filled up with silence."""
        for start in range(0, len(ulaw), FRAME_BYTES):
            self._queue.append(ulaw[start : start + FRAME_BYTES].ljust(FRAME_BYTES, ULAW_SILENCE))
        self._idle.clear()

    def press(self, digit: str) -> None:
        """Send a digit after what is already queued (RFC 4733)."""
        if self._dtmf_type is None:
            raise ValueError("the far side takes no telephone-event; press with method='info'")
        if digit not in EVENTS:
            raise ValueError(f"not a DTMF digit: {digit!r}")
        self._digits.append(digit)
        self._idle.clear()

    def hush(self) -> None:
        """Forget what is queued."""
        self._queue.clear()

    async def said(self) -> None:
        """Wait until everything queued has left."""
        await self._idle.wait()

    async def shut_for(self, duration_s: float) -> None:
        """Close the port, and open the same one again after a while, as a telephone does that sets its sound up anew."""
        host, port = self._socket.getsockname()
        sending, self.sending = self.sending, False
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        try:
            await asyncio.sleep(duration_s)
        finally:
            self._open((host, port))
            self.sending = sending

    def _open(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address)
        self._loop.add_reader(self._socket.fileno(), self._receive)

    async def close(self) -> None:
        """Stop and release the port; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    async def _run(self) -> None:
        """One packet each 20 ms on an absolute clock."""
        due = self._loop.time()
        while True:
            if self._digits and not self._queue:
                due = await self._send_digit(self._digits.popleft(), due)
            elif self._queue:
                self._send_frame(self._queue.popleft())
            else:
                self._idle.set()
                self._send_frame(ULAW_SILENCE * FRAME_BYTES)
            due = await self._next(due)

    async def _next(self, due: float) -> float:
        """Sleep until the next packet's time."""
        self._timestamp = (self._timestamp + FRAME_BYTES) & 0xFFFFFFFF
        due += FRAME_S
        now = self._loop.time()
        if now - due > LATE_RESET_S:
            due = now
        await asyncio.sleep(max(0.0, due - now))
        return due

    async def _send_digit(self, digit: str, due: float) -> float:
        """The packets of one event keep the timestamp of its start (RFC 4733 §2.5.1.2)."""
        start = self._timestamp
        for frame in range(1, EVENT_FRAMES + END_COPIES + 1):
            end = frame > EVENT_FRAMES
            duration = min(frame, EVENT_FRAMES) * FRAME_BYTES
            payload = struct.pack("!BBH", EVENTS.index(digit), (0x80 if end else 0) | 10, duration)
            self._send(self._dtmf_type or 0, payload, start, marker=frame == 1)
            if not end:
                due = await self._next(due)
        await asyncio.sleep(DIGIT_GAP_S)
        self._timestamp = (self._timestamp + int(DIGIT_GAP_S * 8000)) & 0xFFFFFFFF
        return due + DIGIT_GAP_S

    def _send_frame(self, ulaw: bytes) -> None:
        payload = ulaw if self._encoding == "PCMU" else encode(decode(ulaw), self._encoding)
        self._send(PAYLOAD_TYPES[self._encoding], payload, self._timestamp)
        if loudness(ulaw) > VOICE_RMS:
            self.sent_voice_at = self._loop.time()

    def _send(self, payload_type: int, payload: bytes, timestamp: int, marker: bool = False) -> None:
        if self._remote is None or not self.sending:
            return
        header = HEADER.pack(0x80, payload_type | (0x80 if marker else 0), self._sequence, timestamp, self._ssrc)
        self._sequence = (self._sequence + 1) & 0xFFFF
        try:
            self._socket.sendto(header + payload, self._remote)
        except (BlockingIOError, ConnectionRefusedError):
            return  # a full or closed far end is a lost packet, as on any network

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data = self._socket.recv(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if len(data) < HEADER.size or data[0] >> 6 != 2:
                continue
            _, kind, sequence, timestamp, _ = HEADER.unpack_from(data)
            payload = data[HEADER.size + 4 * (data[0] & 0x0F) :]
            if kind & 0x7F in PAYLOAD_TYPES.values():
                rms = loudness(payload, self._encoding)
                self.ear.take(Heard(self._loop.time(), sequence, timestamp, bool(kind & 0x80), payload, rms))
            else:
                self.ear.take_event(timestamp, payload)

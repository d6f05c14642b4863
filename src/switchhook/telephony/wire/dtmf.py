"""DTMF: telephone events of RFC 4733 in and out, and one digit where a peer sends each by two methods."""

from __future__ import annotations

from collections import deque
from struct import Struct

DIGITS = "0123456789*#ABCD"
"""Event codes 0 to 15 (RFC 4733 §3.2)."""
_EVENT = Struct(">BBH")
"""Event, end bit and volume, duration in timestamp units (RFC 4733 §2.3)."""
_END = 0x80
_VOLUME_DBM0 = 10
_REMEMBERED_EVENTS = 8
_EVENT_TIMEOUT_S = 0.2
"""An event whose end packets were all lost is over when nothing of it came for so long."""
PACKET_SAMPLES = 160
END_PACKETS = 3
"""The last packet goes out three times (RFC 4733 §2.5.1.4)."""
MAX_DURATION_MS = 8_000
"""One segment's 16-bit duration holds 8.19 s."""


class DtmfReceiver:
    """Turns telephone-event packets into digits, each once, as soon as its first packet comes.

    An event is known by its timestamp, so that neither a marker nor an end packet is needed and copies do no harm.
    """

    __slots__ = ("_code", "_duration", "_ended", "_known", "_seen_at", "_timestamp")

    def __init__(self) -> None:
        self._known: deque[int] = deque(maxlen=_REMEMBERED_EVENTS)
        self._code = -1
        self._timestamp = 0
        self._duration = 0
        self._ended = True
        self._seen_at = 0.0

    def push(self, payload: bytes, timestamp: int, now: float) -> str | None:
        """Take the payload of one packet; return the digit if it begins an event."""
        if len(payload) < _EVENT.size:
            return None
        code, flags, duration = _EVENT.unpack_from(payload)
        ended = bool(flags & _END)
        if timestamp in self._known:
            if timestamp == self._timestamp and code == self._code:
                self._go_on(duration, ended, now)
            return None
        again = self._continues(code, timestamp, now)
        self._known.append(timestamp)
        self._code, self._timestamp, self._duration = code, timestamp, duration
        self._ended, self._seen_at = ended, now
        return DIGITS[code] if not again and code < len(DIGITS) else None

    def _go_on(self, duration: int, ended: bool, now: float) -> None:
        self._duration = max(self._duration, duration)
        self._ended = self._ended or ended
        self._seen_at = now

    def _continues(self, code: int, timestamp: int, now: float) -> bool:
        """Whether this is the next segment of a long event (RFC 4733 §2.5.1.3): it starts where the one before stopped.

        Peers that move the timestamp with each packet of one event look the same and are understood too.
        """
        if self._ended or code != self._code or now - self._seen_at > _EVENT_TIMEOUT_S:
            return False
        ahead = (timestamp - self._timestamp) & 0xFFFFFFFF
        return ahead <= max(self._duration, PACKET_SAMPLES)


class DtmfSender:
    """Plays queued digits as telephone events, one packet for each frame of the line (RFC 4733 §2.5.1)."""

    __slots__ = ("_code", "_duration", "_ends_left", "_pause_left", "_queue", "_samples", "begins")

    MAX_QUEUED = 64
    _PAUSE_FRAMES = 3

    def __init__(self) -> None:
        self._queue: deque[tuple[int, int]] = deque()
        self._code = -1
        self._samples = 0
        self._duration = 0
        self._ends_left = 0
        self._pause_left = 0
        self.begins = False
        """Whether the packet just given is the first of its event: it carries the marker and sets the timestamp."""

    def send(self, digit: str, duration_ms: int) -> None:
        """Queue a digit. Raises ValueError for what is no digit, or when 64 wait."""
        code = DIGITS.find(digit) if len(digit) == 1 else -1
        if code < 0:
            raise ValueError(f"{digit!r} is no DTMF digit: use 0-9, *, #, A-D")
        if len(self._queue) >= self.MAX_QUEUED:
            raise ValueError(f"{self.MAX_QUEUED} digits wait already")
        frames = max(2, min(duration_ms, MAX_DURATION_MS) * 8 // PACKET_SAMPLES)
        self._queue.append((code, frames * PACKET_SAMPLES))

    @property
    def active(self) -> bool:
        """Whether a digit is being played or waits."""
        return bool(self._queue) or self._code >= 0 or self._pause_left > 0

    def next_payload(self) -> bytes | None:
        """Return the payload for the next frame of 20 ms, or None in the pause between digits."""
        self.begins = False
        if self._pause_left:
            self._pause_left -= 1
            return None
        if self._code < 0:
            if not self._queue:
                return None
            self._code, self._samples = self._queue.popleft()
            self._duration, self._ends_left = 0, END_PACKETS
            self.begins = True
        self._duration = min(self._duration + PACKET_SAMPLES, self._samples)
        ending = self._duration >= self._samples
        payload = _EVENT.pack(self._code, (_END if ending else 0) | _VOLUME_DBM0, self._duration)
        if ending:
            self._ends_left -= 1
            if not self._ends_left:
                self._code, self._pause_left = -1, self._PAUSE_FRAMES
        return payload


class DigitFilter:
    """One digit where a peer tells each by two methods (RFC 4733 and SIP INFO): the copy by the other method is dropped.

    The n-th report of a digit by one method is the copy of the n-th by the other, within two seconds.
    """

    __slots__ = ("_unmatched",)

    WINDOW_S = 2.0

    def __init__(self) -> None:
        self._unmatched: deque[tuple[str, str, float]] = deque(maxlen=32)

    def fresh(self, digit: str, method: str, now: float) -> bool:
        """Whether this digit was not told by another method yet."""
        while self._unmatched and now - self._unmatched[0][2] > self.WINDOW_S:
            self._unmatched.popleft()
        for told in self._unmatched:
            if told[0] == digit and told[1] != method:
                self._unmatched.remove(told)
                return False
        self._unmatched.append((digit, method, now))
        return True

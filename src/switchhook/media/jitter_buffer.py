"""Sound between two clocks: one party's arrives when its packets do, the other's is sent each 20 ms.

The buffer holds as much as the packets' lateness asks for, 20 to 120 ms. Lateness is counted from the earliest packet of the last
seconds, so that the delay of the sound is known at every frame: now, less the time at which it would have come at the earliest.
Clocks that drift apart move that delay slowly; it is corrected by one frame at a time, in silence where there is any.
"""

from __future__ import annotations

from math import inf

from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.concealment import CONCEAL_SAMPLES, conceal

FIRST_TARGET_SAMPLES = 2 * g711.FRAME_SAMPLES
MIN_TARGET_SAMPLES = g711.FRAME_SAMPLES
MAX_TARGET_SAMPLES = 6 * g711.FRAME_SAMPLES
MAX_HELD_SAMPLES = 20 * g711.FRAME_SAMPLES
"""400 ms. Overflow policy: the oldest sound is dropped until no more than the target is held."""
_FRAME = g711.FRAME_SAMPLES
_WINDOW_S = 2.0
_DECAY_SAMPLES = 40
"""The target falls by 5 ms a window at most: a line that was unsteady once is likely to be so again."""
_SHORT_SAMPLES = 80
"""This far below the target, a quiet frame is played twice."""
_LONG_SAMPLES = _FRAME + 40
"""This far beyond the target, a quiet frame is left out; the beats alone make a difference of up to a frame."""
_URGENT_SAMPLES = 2 * _FRAME + 40
"""This far beyond the target, no silence is waited for."""
_QUIET_LEVEL = 200
"""Root mean square, of 32767: the noise of a line, not speech."""
_ABSENT_S = 0.1
"""Nobody asked for so long (the party that should hear was on hold): what was kept meanwhile is stale."""
_FADE_SAMPLES = 20


class JitterBuffer:
    """One direction of a bridge; sans-I/O. `push` what arrives in order, ask `next_frame` each 20 ms; it is a `SoundSource`.

    Payloads may have any length. What a frame lacks is concealed, 60 ms at most; then there is silence until the target is held
    again. Silence that comes while nothing is held is not kept: it would only be delay.
    """

    __slots__ = (
        "_asked_at",
        "_cover",
        "_earliest",
        "_encoding",
        "_fresh",
        "_held",
        "_last",
        "_received",
        "_silence",
        "_starved",
        "_target",
        "_window_earliest",
        "_window_end",
        "_window_latest",
        "concealed_samples",
        "dropped_samples",
        "repeated_samples",
    )

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._silence = encoding.silence
        self._held = bytearray()
        self._received = 0
        self._last = b""
        self._cover = b""  # What still conceals a lack that has begun.
        self._starved = True
        self._asked_at = inf
        # Transit times as RFC 3550 §6.4.1 has them, in samples: arrival less place in the stream.
        self._fresh = True
        self._earliest = self._window_earliest = self._window_latest = 0.0
        self._window_end = inf
        self._target = float(FIRST_TARGET_SAMPLES)
        self.dropped_samples = 0
        """Left out: stale, or more than the two clocks allow."""
        self.repeated_samples = 0
        """Played twice, because the sender's clock is the slower one."""
        self.concealed_samples = 0
        """Made up for what had not come in time."""

    @property
    def held_ms(self) -> float:
        """Milliseconds of sound that wait."""
        return len(self._held) * 1000 / g711.RATE_HZ

    @property
    def target_ms(self) -> float:
        """How long sound is held beyond the time at which it comes at the earliest."""
        return self._target * 1000 / g711.RATE_HZ

    def push(self, payload: bytes, now: float) -> None:
        """Take the party's next sound, G.711 in the buffer's encoding; gaps are concealed already, and nothing is reordered."""
        if payload.strip(self._silence):
            if self._starved and not self._held:
                self._fresh = True
            self._measure(now * g711.RATE_HZ - self._received, now)
        else:
            # A pause tells nothing of the network, and the sound after it may lie elsewhere in time.
            self._fresh = True
            if self._starved and not self._held:
                return
        self._received += len(payload)
        self._held += payload
        if len(self._held) > MAX_HELD_SAMPLES:
            self._trim()

    def next_frame(self, now: float) -> bytes | None:
        """Return the 160 bytes to be heard from now on; None: silence."""
        held = self._held
        if now - self._asked_at > _ABSENT_S:
            self._trim()
        self._asked_at = now
        surplus = now * g711.RATE_HZ - (self._received - len(held)) - self._earliest - self._target
        if self._starved:
            if not held or surplus < 0:
                return None
            self._starved = False
        if len(held) < _FRAME:
            return self._lacking()
        if surplus > _LONG_SAMPLES:
            self._shorten(surplus > _URGENT_SAMPLES)
        frame = bytes(held[:_FRAME])
        if surplus < -_SHORT_SAMPLES and g711.level(frame, self._encoding) <= _QUIET_LEVEL:
            self.repeated_samples += _FRAME
        else:
            del held[:_FRAME]
        self._last = frame
        self._cover = b""
        return frame

    # -- how late packets are

    def _measure(self, transit: float, now: float) -> None:
        if now >= self._window_end:
            self._turn_window(transit, now)
        if self._fresh:
            self._fresh = False
            self._earliest = self._window_earliest = self._window_latest = transit
            if self._window_end == inf:
                self._window_end = now + _WINDOW_S
        elif transit < self._window_earliest:
            self._window_earliest = transit
            if transit < self._earliest:
                self._earliest = transit
        elif transit > self._window_latest:
            self._window_latest = transit
            self._aim(max(self._target, transit - self._earliest + _FRAME))

    def _turn_window(self, transit: float, now: float) -> None:
        """What the last window found is what the next begins with, so that slow changes are followed."""
        self._aim(max(self._window_latest - self._earliest + _FRAME, self._target - _DECAY_SAMPLES))
        self._earliest = self._window_earliest
        self._window_earliest = self._window_latest = transit
        self._window_end = now + _WINDOW_S

    def _aim(self, samples: float) -> None:
        # Besides the lateness a frame is needed: it may begin at the end of one packet and end in the next.
        self._target = min(max(samples, MIN_TARGET_SAMPLES), MAX_TARGET_SAMPLES)

    # -- corrections

    def _trim(self) -> None:
        """Drop the oldest sound beyond the target, in whole frames."""
        stale = (len(self._held) - int(self._target)) // _FRAME * _FRAME
        if stale > 0:
            del self._held[:stale]
            self.dropped_samples += stale

    def _lacking(self) -> bytes:
        """What is there of a frame, and concealment for the rest."""
        held = self._held
        part = bytes(held)
        if not self._cover:
            self._cover = conceal((self._last + part)[-_FRAME:], CONCEAL_SAMPLES, self._encoding)
        held.clear()
        lack = _FRAME - len(part)
        frame = part + self._cover[:lack]
        frame += self._silence * (_FRAME - len(frame))
        self._cover = self._cover[lack:]
        self.concealed_samples += lack
        self._starved = not self._cover
        return frame

    def _shorten(self, urgent: bool) -> None:
        """Leave the softest frame out when it is quiet; when the matter is urgent, fade it into what follows."""
        held, encoding = self._held, self._encoding
        starts = range(0, len(held) - 2 * _FRAME + 1, _FRAME)
        if not starts:
            return
        softest, start = min((g711.level(bytes(held[at : at + _FRAME]), encoding), at) for at in starts)
        middle, end = start + _FRAME, start + 2 * _FRAME
        if softest <= _QUIET_LEVEL:
            del held[start:middle]
        elif urgent:
            held[start:end] = _faded(bytes(held[start:middle]), bytes(held[middle:end]), encoding)
        else:
            return
        self.dropped_samples += _FRAME


def _faded(before: bytes, after: bytes, encoding: Encoding) -> bytes:
    """One frame that begins as the first and ends as the second."""
    outgoing, incoming = g711.decode(before, encoding), g711.decode(after, encoding)
    pieces = []
    for at in range(0, _FRAME, _FADE_SAMPLES):
        share = at / (_FRAME - _FADE_SAMPLES)
        piece = slice(2 * at, 2 * (at + _FADE_SAMPLES))
        pieces.append(g711.mixed(g711.scale(outgoing[piece], 1 - share), g711.scale(incoming[piece], share)))
    return g711.encode(b"".join(pieces), encoding)

"""Two lines that hear each other, and what a line hears that waits for another."""

from __future__ import annotations

import logging

from switchhook.calls.transfer import WaitingSound
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Clock, Leg, SoundSource
from switchhook.media import g711
from switchhook.media.hold_sound import WaitingSounds
from switchhook.media.jitter_buffer import JitterBuffer

log = logging.getLogger(__name__)

EARLY_SOUND_LEVEL = 200
"""Root mean square, of 32767: what is louder is early media; silence and the noise of a line are not."""
COMFORT_AFTER_S = 2.0
"""A party that was not heard for so long is on hold, or gone without a word."""


class Bridge:
    """Lets two answered lines hear each other until `close`. It needs no events but digits, and never ends by itself.

    Sound passes as it is, through a buffer that each line's playout asks for its next frame, so that RTP goes on evenly whatever
    the other line does. What is queued for a party (an announcement) is played before what the other one says. Recorder taps of
    the lines stay in force. A line on hold is silence to the other, or hold sound when `comfort` is given.

    `ringback`: `other` has not answered yet; `one` hears this until `other` is heard (RFC 3960 §3.2), or until `answered`.
    """

    def __init__(
        self, one: Leg, other: Leg, clock: Clock, comfort: WaitingSounds | None = None, ringback: SoundSource | None = None
    ) -> None:
        self._legs = (one, other)
        self._clock = clock
        self._closed = False
        self.dropped_digits = 0
        """Those that came faster than they can be played."""
        said, replied = self.buffers = (JitterBuffer(other.encoding), JitterBuffer(one.encoding))
        """What `one` says and what `other` says, on its way."""
        self._ringing = _Ringing(replied, one.encoding, ringback) if ringback is not None else None
        _connect(one, other, said, said, comfort)
        _connect(other, one, replied, self._ringing or replied, comfort)

    def answered(self) -> None:
        """The other line has answered: no ringback any more, however silent it is; idempotent."""
        if self._ringing is not None:
            self._ringing.ringback = None

    def digit(self, pressed_on: Leg, digit: str) -> None:
        """A key was pressed on one line: the other one hears it, by RFC 4733 or as tones. Dropped when too many wait."""
        if self._closed:
            return
        one, other = self._legs
        try:
            (other if pressed_on is one else one).send_digit(digit)
        except ValueError as refused:
            self.dropped_digits += 1
            if self.dropped_digits == 1:
                log.warning("digits are not passed on: %s", refused)

    def close(self) -> None:
        """Give both lines back, silent and unheard, from the next frame on; idempotent."""
        if self._closed:
            return
        self._closed = True
        now = self._clock.now()
        for leg in self._legs:
            leg.listen(None)
            leg.playout.play_from(None)
            leg.playout.interrupt(now)


class LineJoining:
    """Implements `calls.parts.Joining`."""

    def __init__(self, sounds: WaitingSounds, clock: Clock, comfort: bool = False) -> None:
        """`comfort`: a party hears hold sound, and not silence, while the one it is joined with is on hold."""
        self._sounds = sounds
        self._clock = clock
        self._comfort = comfort

    def join(self, one: Leg, other: Leg, early: bool = False) -> Bridge:
        """Let two lines hear each other.

        `early`: the other one has not answered. It may announce sound and send none: until it is heard, or `Bridge.answered` is
        called, `one` hears ringback.
        """
        ringback = self._sounds.ringback(one.encoding) if early else None
        return Bridge(one, other, self._clock, self._sounds if self._comfort else None, ringback)

    def play(self, leg: Leg, sound: WaitingSound) -> None:
        """Play this to a waiting party until `quiet`, after what is queued for it."""
        make = self._sounds.ringback if sound is WaitingSound.RINGBACK else self._sounds.hold
        leg.playout.play_from(make(leg.encoding))

    def quiet(self, leg: Leg) -> None:
        """Stop what is played to a waiting party, within a frame."""
        leg.playout.play_from(None)


class _Comforted:
    """The other party, and hold sound while nothing comes from it."""

    def __init__(self, party: SoundSource, comfort: SoundSource) -> None:
        self._party = party
        self._comfort = comfort
        self._quiet_since: float | None = None

    def next_frame(self, now: float) -> bytes | None:
        frame = self._party.next_frame(now)
        if frame is not None:
            self._quiet_since = None
            return frame
        if self._quiet_since is None:
            self._quiet_since = now
        return self._comfort.next_frame(now) if now - self._quiet_since >= COMFORT_AFTER_S else None


class _Ringing:
    """Ringback until the other party's own sound comes."""

    def __init__(self, party: SoundSource, encoding: Encoding, ringback: SoundSource) -> None:
        self._party = party
        self._encoding = encoding
        self.ringback: SoundSource | None = ringback

    def next_frame(self, now: float) -> bytes | None:
        frame = self._party.next_frame(now)
        if self.ringback is None:
            return frame
        if frame is None or g711.level(frame, self._encoding) <= EARLY_SOUND_LEVEL:
            return self.ringback.next_frame(now)
        self.ringback = None
        return frame


def _connect(speaker: Leg, listener: Leg, buffer: JitterBuffer, source: SoundSource, comfort: WaitingSounds | None) -> None:
    """One direction: from the speaker's socket into the buffer, out by the source on the listener's beat."""
    encoding = listener.encoding
    listener.playout.play_from(source if comfort is None else _Comforted(source, comfort.hold(encoding)))
    table = g711.translation(speaker.encoding, encoding)
    if table is None:
        speaker.listen(buffer.push)
    else:
        _listen_translated(speaker, buffer, table)


def _listen_translated(speaker: Leg, buffer: JitterBuffer, table: bytes) -> None:
    push = buffer.push
    speaker.listen(lambda payload, now: push(payload.translate(table), now))

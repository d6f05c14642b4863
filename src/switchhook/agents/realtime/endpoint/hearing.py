"""The input audio buffer: the caller's sound on the clock of what was written, and the turns found in it."""

from __future__ import annotations

from switchhook.agents.providers.vad import SpeechTest, Turn, VadSettings, VoiceActivity
from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.transcode import transcoder

SAMPLES_PER_MS = g711.RATE_HZ // 1000
_MOST_SAMPLES = 300 * g711.RATE_HZ
"""What is kept of sound that no one commits: five minutes; older sound is dropped."""
_SLACK_SAMPLES = g711.RATE_HZ
"""Kept beyond the padding while no one speaks."""


class InputBuffer:
    """Sound as G.711 at 8 kHz, whatever the session's format; positions are samples since the session's first."""

    def __init__(
        self, encoding: Encoding, vad: VadSettings | None, is_speech: SpeechTest | None = None, position: int = 0
    ) -> None:
        self.encoding = Encoding.PCMU if encoding is Encoding.PCM24 else encoding
        self._transcode = transcoder(encoding, self.encoding)
        self._is_speech = is_speech
        self._sound = bytearray()
        self._base = position
        self._committed = position
        self.set_turn_detection(vad)

    def set_turn_detection(self, vad: VadSettings | None) -> None:
        """Find turns with these settings from here on, or none."""
        self._vad = VoiceActivity(vad, self.encoding, self._is_speech, self.position) if vad else None

    @property
    def position(self) -> int:
        """Samples written since the session began."""
        return self._base + len(self._sound)

    @property
    def uncommitted(self) -> int:
        """Samples in the buffer that no turn has taken."""
        return self.position - max(self._base, self._committed)

    @property
    def speaking(self) -> bool:
        """True while the caller has the floor."""
        return self._vad is not None and self._vad.speaking

    def append(self, payload: bytes) -> list[Turn]:
        """Write sound in the session's format; gives the turns found."""
        sound = self._transcode(payload) if self._transcode else payload
        self._sound += sound
        turns = self._vad.feed(sound) if self._vad else []
        if not turns and self._vad is not None and not self._vad.speaking:
            self._keep(self._vad.settings.prefix_padding_ms * SAMPLES_PER_MS + _SLACK_SAMPLES)
        self._keep(_MOST_SAMPLES)
        return turns

    def turn_sound(self, turn: Turn) -> bytes:
        """The sound of a turn so far."""
        return self._cut(turn.start, turn.end)

    def close_turn(self, turn: Turn) -> None:
        """A turn was committed: what lies before its end is over."""
        self._committed = turn.end

    def commit(self) -> bytes:
        """Take all sound that no turn has taken, and begin anew."""
        sound = self._cut(max(self._base, self._committed), self.position)
        self.clear()
        return sound

    def clear(self) -> None:
        """Drop the sound and a turn under way."""
        self._base = self.position
        self._sound.clear()
        if self._vad is not None:
            self._vad.reset()

    def _cut(self, start: int, end: int) -> bytes:
        return bytes(self._sound[max(0, start - self._base) : max(0, end - self._base)])

    def _keep(self, samples: int) -> None:
        surplus = len(self._sound) - samples
        if surplus > 0:
            del self._sound[:surplus]
            self._base += surplus

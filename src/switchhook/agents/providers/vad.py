"""Voice activity: where in a stream the party begins and ceases to speak. 20 ms frames at 8 kHz, one decision each.

A machine of its own: sound is given, turns come back as return values; positions count samples since the stream began.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from switchhook.domain.errors import MissingExtra
from switchhook.domain.model import Encoding
from switchhook.media import g711

FRAME_SAMPLES = g711.FRAME_SAMPLES
_SAMPLES_PER_MS = g711.RATE_HZ // 1000
_ONSET_WINDOW = 5
_ONSET_FRAMES = 3
"""Speech in 60 of the last 100 ms is an onset: a click is not."""
_RESUME_FRAMES = 2
"""Within speech a single voiced frame does not end a silence."""
_PAUSE_SHARE = 0.4
"""A pause is told after this share of the silence that ends a turn, so that recognition can begin early."""
_LEAST_LEVEL = 80
"""Root mean square below which no frame is speech (about −52 dB of full scale)."""

SpeechTest = Callable[[bytes], bool]
"""Says of 20 ms of linear 16-bit sound at 8 kHz whether it is speech."""


@dataclass(frozen=True, slots=True)
class VadSettings:
    """The knobs of `server_vad`."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


class TurnKind(Enum):
    """What was found in the stream."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Turn:
    """A change in who holds the floor."""

    kind: TurnKind
    start: int
    """First sample of the turn, prefix padding included."""
    end: int
    """The sample at which this was found out: for STOPPED the silence that ended the turn is included."""


class VoiceActivity:
    """Finds turns in G.711 sound."""

    def __init__(
        self,
        settings: VadSettings,
        encoding: Encoding = Encoding.PCMU,
        is_speech: SpeechTest | None = None,
        position: int = 0,
    ) -> None:
        self.settings = settings
        self._encoding = encoding
        self._is_speech = is_speech or webrtc_speech_test(settings.threshold)
        self._position = position
        self._partial = b""
        self._recent: deque[bool] = deque(maxlen=_ONSET_WINDOW)
        self._speaking = False
        self._start = position
        self._silent_frames = 0
        self._voiced_run = 0
        self._pause_told = False
        frames = max(1, settings.silence_duration_ms * _SAMPLES_PER_MS // FRAME_SAMPLES)
        self._stop_frames = frames
        self._pause_frames = max(1, round(frames * _PAUSE_SHARE))

    @property
    def position(self) -> int:
        """Samples taken so far that made whole frames."""
        return self._position

    @property
    def speaking(self) -> bool:
        """True between STARTED and STOPPED."""
        return self._speaking

    def feed(self, payload: bytes) -> list[Turn]:
        """Take sound of any length in; gives the turns found in it, in order."""
        data = self._partial + payload
        whole = len(data) // FRAME_SAMPLES * FRAME_SAMPLES
        self._partial = data[whole:]
        found: list[Turn] = []
        for at in range(0, whole, FRAME_SAMPLES):
            frame = data[at : at + FRAME_SAMPLES]
            self._position += FRAME_SAMPLES
            loud = g711.level(frame, self._encoding) >= _LEAST_LEVEL
            self._step(loud and self._is_speech(g711.decode(frame, self._encoding)), found)
        return found

    def reset(self) -> None:
        """Forget a turn under way (the buffer was cleared or committed by hand); the position goes on."""
        self._speaking = False
        self._start = self._position  # the next turn's padding never reaches back into this one
        self._recent.clear()
        self._silent_frames = self._voiced_run = 0

    def _step(self, voiced: bool, found: list[Turn]) -> None:
        if self._speaking:
            self._within_speech(voiced, found)
            return
        self._recent.append(voiced)
        if voiced and sum(self._recent) >= _ONSET_FRAMES:
            onset = self._position - (len(self._recent) - self._recent.index(True)) * FRAME_SAMPLES
            self._start = max(self._start, onset - self.settings.prefix_padding_ms * _SAMPLES_PER_MS)
            self._speaking = True
            self._silent_frames = self._voiced_run = 0
            self._pause_told = False
            self._recent.clear()
            found.append(Turn(TurnKind.STARTED, self._start, self._position))

    def _within_speech(self, voiced: bool, found: list[Turn]) -> None:
        self._voiced_run = self._voiced_run + 1 if voiced else 0
        if self._voiced_run >= _RESUME_FRAMES:
            if self._pause_told:
                found.append(Turn(TurnKind.RESUMED, self._start, self._position))
            self._silent_frames = 0
            self._pause_told = False
            return
        self._silent_frames += 1
        if self._silent_frames >= self._stop_frames:
            found.append(Turn(TurnKind.STOPPED, self._start, self._position))
            self.reset()
        elif self._silent_frames >= self._pause_frames and not self._pause_told:
            self._pause_told = True
            found.append(Turn(TurnKind.PAUSED, self._start, self._position))


def webrtc_speech_test(threshold: float) -> SpeechTest:
    """Return the WebRTC detector, the stricter the higher the threshold (0 to 1). Raises MissingExtra."""
    try:
        from webrtcvad import Vad
    except ImportError as error:
        raise MissingExtra("voice activity detection needs webrtcvad: install the extra `switchhook[embedded]`") from error
    mode = 1 if threshold < 0.25 else 2 if threshold < 0.5 else 3
    detector = Vad(mode)

    def is_speech(linear: bytes) -> bool:
        return bool(detector.is_speech(linear, g711.RATE_HZ))

    return is_speech

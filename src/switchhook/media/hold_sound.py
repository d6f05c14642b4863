"""What a waiting party hears, without end: ringback as its country knows it, and hold sound."""

from __future__ import annotations

from math import exp
from pathlib import Path

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Encoding
from switchhook.media import g711, tones

FRAME_BYTES = g711.FRAME_SAMPLES
MAX_FILE_S = 600
_RINGBACK_PEAK = 0.3
_EUROPE = ((425,), (1000, 4000))
# Frequencies, then milliseconds on and off in turn (ITU-T E.180 supplement 2, "ringing tone").
_RINGBACKS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "US": ((440, 480), (2000, 4000)),
    "CA": ((440, 480), (2000, 4000)),
    "GB": ((400, 450), (400, 200, 400, 2000)),
    "IE": ((400, 450), (400, 200, 400, 2000)),
    "AU": ((400, 425, 450), (400, 200, 400, 2000)),
    "NZ": ((400, 450), (400, 200, 400, 2000)),
    "FR": ((440,), (1500, 3500)),
    "ES": ((425,), (1500, 3000)),
}
_MELODY_HZ = (525, 660, 785, 880, 785, 660, 590, 660, 525, 440, 525, 590, 660, 525, 440, 0)
"""A pentatonic of C, rounded to 5 Hz; 0 rests."""
_NOTE_MS = 600
_MELODY_PEAK = 0.06
_FADING_S = 0.3
_STEP_SAMPLES = 40


class Loop:
    """Sound that begins anew whenever it is over; a `SoundSource`. Its end and its beginning share a frame where they must."""

    __slots__ = ("_at", "_length", "_sound")

    def __init__(self, sound: bytes) -> None:
        if not sound:
            raise ValueError("there is no sound to repeat")
        self._length = len(sound)
        self._sound = sound + (sound * (FRAME_BYTES // len(sound) + 1))[:FRAME_BYTES]
        self._at = 0

    def next_frame(self, now: float) -> bytes:
        """Return the next 160 bytes."""
        at = self._at
        self._at = (at + FRAME_BYTES) % self._length
        return self._sound[at : at + FRAME_BYTES]


class WaitingSounds:
    """Ringback of a country and a server's hold sound, made once; each party gets a loop of its own."""

    def __init__(self, country: str = "US", hold: bytes | None = None) -> None:
        """`country`: ISO 3166, two letters; one that is not known rings as most of Europe does. `hold`: µ-law; None: a melody."""
        self._ringback = _in_both(ringback(country))
        self._hold = _in_both(melody() if hold is None else hold)

    def ringback(self, encoding: Encoding) -> Loop:
        """What is heard while the far side rings."""
        return Loop(self._ringback[encoding])

    def hold(self, encoding: Encoding) -> Loop:
        """What is heard by a party that was asked to wait."""
        return Loop(self._hold[encoding])


def waiting_sounds(country: str, hold_file: Path | None) -> WaitingSounds:
    """Return the sounds that the settings ask for. Raises SettingError for a file that cannot be used."""
    return WaitingSounds(country, read_hold_sound(hold_file) if hold_file else None)


def ringback(country: str) -> bytes:
    """Return one cycle of a country's ringback in µ-law."""
    frequencies_hz, cadence_ms = _RINGBACKS.get(country.upper(), _EUROPE)
    pieces = []
    for at, duration_ms in enumerate(cadence_ms):
        rings = at % 2 == 0
        pieces.append(
            tones.tone(frequencies_hz, duration_ms, Encoding.PCMU, _RINGBACK_PEAK)
            if rings
            else tones.silence(duration_ms, Encoding.PCMU)
        )
    return b"".join(pieces)


def melody() -> bytes:
    """Return some seconds of quiet bell tones in µ-law."""
    return b"".join(_note(hz) for hz in _MELODY_HZ)


def read_hold_sound(path: Path) -> bytes:
    """Return the µ-law sound of an operator's file: `.ulaw` is raw, everything else what libsndfile reads (WAV, FLAC, OGG, MP3).

    Raises SettingError, which names the file and what to do.
    """
    try:
        if path.suffix == ".ulaw":
            with path.open("rb") as file:
                sound = file.read(MAX_FILE_S * g711.RATE_HZ)
        else:
            sound = _decoded(path)
    except OSError as error:
        raise SettingError(f"hold_sound: {path} cannot be read: {error.strerror}") from None
    if not sound:
        raise SettingError(f"hold_sound: {path} holds no sound")
    return sound


def _decoded(path: Path) -> bytes:
    import numpy as np  # both are large, and only a server with a file of its own needs them
    import soundfile

    from switchhook.media.resample import Resampler

    try:
        with path.open("rb") as file, soundfile.SoundFile(file) as opened:
            rate_hz: int = opened.samplerate
            samples = opened.read(MAX_FILE_S * rate_hz, dtype="float32", always_2d=True).mean(axis=1)
    except soundfile.SoundFileError:
        raise SettingError(f"hold_sound: {path} is no sound file: give a WAV file, or raw µ-law with the ending .ulaw") from None
    linear = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    if rate_hz != g711.RATE_HZ:
        linear = Resampler(rate_hz, g711.RATE_HZ).process(linear)
    return g711.encode(linear, Encoding.PCMU)


def _note(hz: int) -> bytes:
    if not hz:
        return tones.silence(_NOTE_MS, Encoding.PCMU)
    bell = tones.linear_tone((hz,), _NOTE_MS, _MELODY_PEAK), tones.linear_tone((2 * hz,), _NOTE_MS, _MELODY_PEAK / 4)
    linear = g711.mixed(*bell)
    pieces = []
    for at in range(0, len(linear) // 2, _STEP_SAMPLES):
        strength = exp(-at / g711.RATE_HZ / _FADING_S)
        pieces.append(g711.scale(linear[2 * at : 2 * (at + _STEP_SAMPLES)], strength))
    return g711.encode(b"".join(pieces), Encoding.PCMU)


def _in_both(sound: bytes) -> dict[Encoding, bytes]:
    return {Encoding.PCMU: sound, Encoding.PCMA: sound.translate(g711.ULAW_TO_ALAW)}

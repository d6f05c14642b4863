"""What was heard, told by its content: frequencies, and numbered frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench import numbered
from switchhook_demo.rtp_line import Heard
from switchhook_demo.sound import RATE_HZ, decode, tone
from tests.peers.sound import read_wav

FRAME_MS = 20
PCM24_HZ = 24_000
CALLER_HZ = 440.0
AGENT_HZ = 700.0
NEAR_HZ = 12.0
"""How far off a tone's peak may lie."""
QUIET_RMS = 300.0

Signal = NDArray[np.float64]


def agent_tone(duration_ms: int) -> bytes:
    """The model's voice."""
    return tone(AGENT_HZ, duration_ms)


def caller_tone(duration_ms: int) -> bytes:
    """The caller's voice."""
    return tone(CALLER_HZ, duration_ms)


def peak_hz(signal: Signal, rate_hz: int = RATE_HZ) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal))))
    return float(np.argmax(spectrum) * rate_hz / len(signal))


def share_at(signal: Signal, frequency_hz: float, rate_hz: int = RATE_HZ) -> float:
    """How much of the signal's energy lies within 30 Hz of a frequency, 0 to 1."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
    frequencies = np.fft.rfftfreq(len(signal), 1 / rate_hz)
    return float(np.sum(spectrum[np.abs(frequencies - frequency_hz) <= 30])) / max(float(np.sum(spectrum)), 1e-9)


def linear(ulaw: bytes) -> Signal:
    """µ-law as samples."""
    return decode(ulaw).astype(np.float64)


def loud_part(signal: Signal, rate_hz: int = RATE_HZ, quiet_rms: float = QUIET_RMS) -> Signal:
    """The signal without its quiet frames."""
    size = rate_hz * FRAME_MS // 1000
    frames = signal[: len(signal) // size * size].reshape(-1, size)
    kept: Signal = frames[np.sqrt((frames**2).mean(axis=1)) > quiet_rms].reshape(-1)
    return kept


def pcm24_tone(frequency_hz: float, duration_ms: int) -> bytes:
    """A sine in 16-bit samples at 24 kHz."""
    at = np.arange(duration_ms * PCM24_HZ // 1000)
    return (8_000 * np.sin(2 * np.pi * frequency_hz * at / PCM24_HZ)).astype("<i2").tobytes()


def heard_tone(sound: bytes, frequency_hz: float, at_least_ms: int, pcm24: bool = False) -> bool:
    """Whether the loud part is this tone and long enough; the sound is µ-law unless said otherwise."""
    rate_hz = PCM24_HZ if pcm24 else RATE_HZ
    signal = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2").astype(np.float64) if pcm24 else linear(sound)
    loud = loud_part(signal, rate_hz)
    if len(loud) * 1000 // rate_hz < at_least_ms:
        return False
    return abs(peak_hz(loud, rate_hz) - frequency_hz) < NEAR_HZ and share_at(loud, frequency_hz, rate_hz) > 0.8


class ToneDetector:
    """Looks for a stretch that is this tone and nothing else in µ-law that grows, from the latest one on.

    Each frame is looked at, also when many come at once and silence after them.
    """

    def __init__(self, frequency_hz: float, duration_ms: int, sound: bytes) -> None:
        self._frequency_hz = frequency_hz
        self._duration_ms = duration_ms
        self._end = len(sound)

    def found(self, sound: bytes) -> bool:
        """Whether it has come."""
        while self._end <= len(sound):
            stretch = sound[max(0, self._end - 8 * self._duration_ms) : self._end]
            if heard_tone(stretch, self._frequency_hz, self._duration_ms - 60):
                return True
            self._end += 8 * FRAME_MS
        return False


def recorded(path: Path) -> tuple[Signal, Signal, int]:
    """(left, right, rate) of a two-channel recording, in 16-bit steps."""
    samples: NDArray[Any]
    samples, rate_hz = soundfile.read(path, always_2d=True)
    assert samples.shape[1] == 2
    return samples[:, 0] * 32_768, samples[:, 1] * 32_768, int(rate_hz)


def speech(duration_ms: int, turn: int = 0, first: int = 0) -> bytes:
    """Numbered frames of one turn of the model, so that each that is heard tells which it is."""
    frames = range(first, first + duration_ms // FRAME_MS)
    return b"".join(numbered.encode(numbered.DOWN, turn, frame) for frame in frames)


def frames_heard(packets: Sequence[Heard]) -> list[tuple[int, int]]:
    """(turn, frame) of each numbered packet, in order of arrival. A loud packet that carries no number is (-1, -1)."""
    found = []
    for packet in packets:
        number = numbered.decode(packet.payload)
        if number is not None:
            found.append(number[1:])
        elif packet.voiced:
            found.append((-1, -1))
    return found


def of_turn(packets: Sequence[Heard], turn: int) -> list[int]:
    """Frames of one turn that were heard."""
    return [frame for one, frame in frames_heard(packets) if one == turn]


def mono(path: Path) -> Signal:
    """The samples of a mono file at 8 kHz."""
    samples, rate_hz = read_wav(path)
    assert rate_hz == RATE_HZ
    return np.array(samples, dtype=np.float64)

"""Sound for peers to play, and what they recorded, judged by frequency."""

from __future__ import annotations

import wave
from array import array
from pathlib import Path

from switchhook.domain.model import Encoding
from switchhook.media import tones


def write_ulaw(path: Path, frequency_hz: float, duration_ms: int) -> None:
    """A raw µ-law file, as sipp's rtp_stream wants it."""
    path.write_bytes(tones.tone([frequency_hz], duration_ms, Encoding.PCMU))


def write_wav(path: Path, frequency_hz: float, duration_ms: int) -> None:
    """A mono 8 kHz 16-bit WAV file."""
    samples = tones.samples_of(tones.tone([frequency_hz], duration_ms, Encoding.PCMU), Encoding.PCMU)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(samples.tobytes())


def read_wav(path: Path) -> tuple[array[int], int]:
    """Samples of a mono WAV file and their rate; a file whose writer was stopped may have a wrong length in its header."""
    with wave.open(str(path), "rb") as found:
        assert found.getnchannels() == 1
        samples = array("h")
        samples.frombytes(found.readframes(found.getnframes()))
        return samples, found.getframerate()


def loud_part(samples: array[int], threshold: int = 500) -> array[int]:
    """From the first loud sample to the last."""
    loud = [at for at, sample in enumerate(samples) if abs(sample) > threshold]
    return samples[loud[0] : loud[-1] + 1] if loud else samples[:0]

"""Lines of a caller, spoken by flite: the voices that a grammar recogniser understands."""

from __future__ import annotations

import functools
import io
import subprocess
import tempfile
import wave
from pathlib import Path

from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.resample import Resampler


@functools.cache
def spoken(text: str, voice: str = "rms") -> bytes:
    """Return a text as µ-law at 8 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "line.wav")
        subprocess.run(["flite", "-voice", voice, "-o", str(target)], input=text.encode(), check=True, timeout=20)
        with wave.open(io.BytesIO(target.read_bytes())) as file:
            linear, rate_hz = file.readframes(file.getnframes()), file.getframerate()
    return g711.encode(Resampler(rate_hz, g711.RATE_HZ).process(linear), Encoding.PCMU)

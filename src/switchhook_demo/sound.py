"""Telephone sound as bytes: G.711 to and from linear samples, how loud a frame is, and text made into µ-law."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 8_000
FRAME_BYTES = 160
"""20 ms of G.711."""
ULAW_SILENCE = b"\xff"
VOICE_RMS = 300
"""A 20 ms frame louder than this (of 32,767) counts as voice."""
SYNTHESIS_TIMEOUT_S = 30

Samples = NDArray[np.int16]


def _ulaw_sample(code: int) -> int:
    """ITU-T G.711 µ-law: sign, three bits of segment, four of step, all inverted."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return 0x84 - magnitude if code & 0x80 else magnitude - 0x84


def _alaw_sample(code: int) -> int:
    """ITU-T G.711 A-law: even bits inverted."""
    code ^= 0x55
    magnitude, segment = (code & 0x0F) << 4, (code & 0x70) >> 4
    magnitude = magnitude + 8 if segment == 0 else (magnitude + 0x108) << (segment - 1)
    return magnitude if code & 0x80 else -magnitude


@functools.cache
def decode_table(encoding: str) -> Samples:
    """256 linear samples, one for each byte of PCMU or PCMA."""
    sample = _ulaw_sample if encoding == "PCMU" else _alaw_sample
    return np.array([sample(code) for code in range(256)], dtype=np.int16)


@functools.cache
def encode_table(encoding: str) -> NDArray[np.uint8]:
    """65,536 bytes, the nearest code for each 16-bit sample (index: sample + 32,768)."""
    linear = decode_table(encoding).astype(np.int32)
    order = np.argsort(linear, kind="stable")
    sorted_linear = linear[order]
    middles = (sorted_linear[1:] + sorted_linear[:-1]) / 2
    samples = np.arange(-32_768, 32_768)
    return np.asarray(order[np.searchsorted(middles, samples, side="right")], dtype=np.uint8)


def decode(payload: bytes, encoding: str = "PCMU") -> Samples:
    """Linear samples of G.711 bytes."""
    return np.asarray(decode_table(encoding)[np.frombuffer(payload, dtype=np.uint8)], dtype=np.int16)


def encode(samples: Samples, encoding: str = "PCMU") -> bytes:
    """G.711 bytes of linear samples."""
    return bytes(encode_table(encoding)[samples.astype(np.int32) + 32_768].tobytes())


def loudness(payload: bytes, encoding: str = "PCMU") -> float:
    """Root mean square of G.711 bytes, 0 to 32,767."""
    if not payload:
        return 0.0
    linear = decode(payload, encoding).astype(np.float64)
    return float(np.sqrt(np.mean(linear * linear)))


def tone(frequency_hz: float, duration_ms: int, amplitude: int = 8_000) -> bytes:
    """A sine in µ-law."""
    at = np.arange(duration_ms * RATE_HZ // 1000)
    return encode((amplitude * np.sin(2 * np.pi * frequency_hz * at / RATE_HZ)).astype(np.int16))


def pause(duration_ms: int) -> bytes:
    """Silence in µ-law."""
    return ULAW_SILENCE * (duration_ms * RATE_HZ // 1000)


def to_8khz(samples: Samples, rate_hz: int) -> Samples:
    """Resample a finished recording: everything above 3.6 kHz is cut in the spectrum, then read at 8 kHz."""
    spectrum = np.fft.rfft(samples.astype(np.float64))
    spectrum[np.fft.rfftfreq(len(samples), 1 / rate_hz) > 3_600] = 0
    clean = np.fft.irfft(spectrum, len(samples))
    wanted = np.arange(int(len(samples) * RATE_HZ / rate_hz)) * (rate_hz / RATE_HZ)
    heard = np.clip(np.interp(wanted, np.arange(len(samples)), clean), -32_768, 32_767)
    return np.asarray(heard, dtype=np.int16)


def read_wave(data: bytes) -> bytes:
    """µ-law of a 16-bit WAV file; of several channels the first."""
    with wave.open(io.BytesIO(data)) as file:
        if file.getsampwidth() != 2:
            raise ValueError("only 16-bit WAV files can be read")
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)[:: file.getnchannels()]
        return encode(to_8khz(samples, file.getframerate()))


def can_speak() -> bool:
    """Whether a speech program for `spoken` is installed."""
    return bool(shutil.which("flite") or shutil.which("espeak-ng"))


def spoken(text: str, voice: str = "rms") -> bytes:
    """Text as µ-law speech by flite (voice `rms`, `slt` or `awb`), else by espeak-ng, which recognisers understand less well.

    Raises RuntimeError when neither is installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        if shutil.which("flite"):
            command = ["flite", "-voice", voice, "-t", text, "-o", str(path)]
        elif shutil.which("espeak-ng"):
            command = ["espeak-ng", "-v", "en-us", "-s", "130", "-w", str(path), text]
        else:
            raise RuntimeError("no speech program: install flite or espeak-ng")
        subprocess.run(command, check=True, capture_output=True, timeout=SYNTHESIS_TIMEOUT_S)
        return read_wave(path.read_bytes())

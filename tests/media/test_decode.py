"""Sound files as a line plays them, asserted by their frequency."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.decode import UnreadableSound, decode


def sound_file(kind: str, rate_hz: int, hz: float = 440, seconds: float = 1.0, channels: int = 1) -> bytes:
    times = np.arange(int(rate_hz * seconds)) / rate_hz
    wave = 0.4 * np.sin(2 * np.pi * hz * times)
    file = io.BytesIO()
    soundfile.write(file, np.column_stack([wave] * channels), rate_hz, format=kind)
    return file.getvalue()


def loudest_hz(linear: bytes, rate_hz: int) -> float:
    samples = np.frombuffer(linear, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)


@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA])
@pytest.mark.parametrize(
    ("kind", "rate_hz", "channels"),
    [("MP3", 44_100, 2), ("MP3", 22_050, 1), ("WAV", 8_000, 1), ("WAV", 48_000, 2), ("OGG", 16_000, 1)],
)
def test_the_tone_is_heard_at_its_pitch(encoding: Encoding, kind: str, rate_hz: int, channels: int) -> None:
    sound = decode(sound_file(kind, rate_hz, channels=channels), encoding, 60)
    assert abs(len(sound) - 8000) < 900, "a codec may add a little silence"
    assert loudest_hz(g711.decode(sound, encoding), 8000) == pytest.approx(440, abs=5)


def test_24_khz_lines_get_linear_sound() -> None:
    sound = decode(sound_file("MP3", 44_100), Encoding.PCM24, 60)
    assert loudest_hz(sound, 24_000) == pytest.approx(440, abs=5)


def test_what_is_too_long_is_cut() -> None:
    assert len(decode(sound_file("WAV", 8_000, seconds=3), Encoding.PCMU, 2)) == 16_000


@pytest.mark.parametrize("content", [b"", b"<html>", b"ID3" + b"\0" * 100])
def test_what_is_no_sound_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableSound):
        decode(content, Encoding.PCMU, 60)


def test_a_file_without_sound_is_refused() -> None:
    with pytest.raises(UnreadableSound):
        decode(sound_file("WAV", 8_000, seconds=0), Encoding.PCMU, 60)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400), st.sampled_from([b"", b"RIFF", b"ID3\x03\x00", b"\xff\xfb\x90\x00", b"OggS", b"fLaC"]))
def test_any_bytes_are_sound_or_refused(content: bytes, head: bytes) -> None:
    with contextlib.suppress(UnreadableSound):
        assert decode(head + content, Encoding.PCMU, 1)

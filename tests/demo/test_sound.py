"""The telephone's own G.711 and speech."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from switchhook_demo.sound import decode, encode, loudness, pause, read_wave, spoken, tone


@pytest.mark.parametrize("encoding", ["PCMU", "PCMA"])
def test_every_code_survives_decoding_and_encoding(encoding: str) -> None:
    codes = bytes(range(256))
    linear = decode(codes, encoding)
    assert np.array_equal(decode(encode(linear, encoding), encoding), linear)


def test_known_values_of_g711() -> None:
    assert decode(b"\x00\x80\xff\x7f").tolist() == [-32124, 32124, 0, 0]
    assert decode(b"\xd5\x55\xaa\x2a", "PCMA").tolist() == [8, -8, 32256, -32256]
    assert encode(np.zeros(2, dtype=np.int16)) == b"\xff\xff"


def test_loudness_tells_voice_from_silence() -> None:
    assert loudness(pause(20)) == 0
    assert 5_000 < loudness(tone(440, 200)) < 6_000


def test_wave_of_another_rate_keeps_its_pitch() -> None:
    at = np.arange(22_050)
    samples = (9_000 * np.sin(2 * np.pi * 1000 * at / 22_050)).astype(np.int16)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(samples.tobytes())
    heard = decode(read_wave(out.getvalue())).astype(np.float64)
    assert len(heard) == 8_000
    assert int(np.argmax(np.abs(np.fft.rfft(heard)))) == 1000


@pytest.mark.peer("flite")
def test_text_becomes_speech() -> None:
    speech = spoken("friday")
    assert 3_000 < len(speech) < 16_000
    assert loudness(speech) > 500

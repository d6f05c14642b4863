"""A waiting party hears the ringing of its country, or something soft, for as long as it takes."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Encoding
from switchhook.media import g711, tones
from switchhook.media.hold_sound import Loop, WaitingSounds, melody, read_hold_sound, ringback, waiting_sounds

BOTH = (Encoding.PCMU, Encoding.PCMA)


def played(loop: Loop, seconds: float) -> bytes:
    return b"".join(loop.next_frame(at * 0.02) for at in range(round(seconds * 50)))


@pytest.mark.parametrize("encoding", BOTH)
@pytest.mark.parametrize(
    ("country", "frequencies_hz", "rings_ms", "rests_ms"),
    [
        ("US", (440, 480), (0, 2000), (2000, 6000)),
        ("GB", (400, 450), (600, 1000), (1000, 3000)),
        ("DE", (425,), (0, 1000), (1000, 5000)),
        ("FR", (440,), (0, 1500), (1500, 5000)),
        ("us", (440, 480), (0, 2000), (2000, 6000)),
        ("XX", (425,), (0, 1000), (1000, 5000)),
    ],
)
def test_it_rings_as_the_country_does_and_again_and_again(
    encoding: Encoding,
    country: str,
    frequencies_hz: tuple[int, ...],
    rings_ms: tuple[int, int],
    rests_ms: tuple[int, int],
) -> None:
    cycle_bytes = len(ringback(country))
    assert cycle_bytes == rests_ms[1] * 8
    sound = played(WaitingSounds(country).ringback(encoding), 13)
    for cycle in (0, cycle_bytes):
        rings = tones.samples_of(sound[cycle + rings_ms[0] * 8 : cycle + rings_ms[1] * 8][400:2000], encoding)
        assert min(tones.power(rings, hz) for hz in frequencies_hz) > 100 * tones.power(rings, 600)
        assert g711.level(sound[cycle + rests_ms[0] * 8 : cycle + rests_ms[1] * 8], encoding) < 16


@pytest.mark.parametrize("size", [1, 100, 160, 161, 8001])
def test_a_loop_of_any_length_has_no_seam(size: int) -> None:
    sound = bytes(n % 251 for n in range(size))
    assert played(Loop(sound), 3) == (sound * 24_001)[:24_000]


def test_nothing_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="no sound"):
        Loop(b"")


def test_each_party_hears_it_from_the_beginning() -> None:
    sounds = WaitingSounds()
    first = played(sounds.hold(Encoding.PCMU), 1)
    assert played(sounds.hold(Encoding.PCMU), 1) == first


def test_the_melody_is_soft_and_has_tones_of_its_own() -> None:
    sound = melody()
    assert tones.frequency_hz(sound[800:2400], Encoding.PCMU) == pytest.approx(525, abs=3)
    assert tones.frequency_hz(sound[4800 + 800 : 4800 + 2400], Encoding.PCMU) == pytest.approx(660, abs=3)
    loudest = max(g711.level(sound[at : at + 160], Encoding.PCMU) for at in range(0, len(sound), 160))
    assert 500 < loudest < 2000  # well below speech
    assert len(sound) >= 8 * 8000


def write_wav(path: Path, rate_hz: int, channels: int) -> None:
    from math import pi, sin

    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        for at in range(rate_hz):
            out.writeframesraw(round(8000 * sin(2 * pi * 700 * at / rate_hz)).to_bytes(2, "little", signed=True) * channels)


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (16000, 1), (44100, 2)])
def test_an_operators_wav_is_heard_at_its_pitch(tmp_path: Path, rate_hz: int, channels: int) -> None:
    path = tmp_path / "music.wav"
    write_wav(path, rate_hz, channels)
    sound = played(waiting_sounds("US", path).hold(Encoding.PCMA), 3)
    assert tones.frequency_hz(sound[800:2400], Encoding.PCMA) == pytest.approx(700, abs=3)
    assert tones.frequency_hz(sound[16_800:18_400], Encoding.PCMA) == pytest.approx(700, abs=3)


def test_raw_mu_law_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "music.ulaw"
    path.write_bytes(b"\x12\x34" * 1000)
    assert read_hold_sound(path) == b"\x12\x34" * 1000


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.wav", None, "cannot be read"),
        ("missing.ulaw", None, "cannot be read"),
        ("empty.ulaw", b"", "holds no sound"),
        ("text.wav", b"this is no sound", "is no sound file: give a WAV file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_cure(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=told) as raised:
        read_hold_sound(path)
    assert str(path) in str(raised.value)
    assert "hold_sound" in str(raised.value)

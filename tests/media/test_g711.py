"""G.711 both ways, and between its two laws."""

from __future__ import annotations

import subprocess
import sys

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import g711, tones

BOTH = (Encoding.PCMU, Encoding.PCMA)


@pytest.mark.parametrize("encoding", BOTH)
def test_every_byte_survives_decoding_and_encoding(encoding: Encoding) -> None:
    linear = g711.decode(bytes(range(256)), encoding)
    again = g711.encode(linear, encoding)
    assert g711.decode(again, encoding) == linear  # µ-law has two zeros: the bytes may differ, the samples may not


@pytest.mark.parametrize("encoding", BOTH)
def test_the_silence_of_an_encoding_is_silent(encoding: Encoding) -> None:
    assert g711.level(encoding.silence * 160, encoding) <= 8


@pytest.mark.parametrize(("source", "target"), [BOTH, BOTH[::-1]])
def test_a_tone_keeps_its_frequency_from_one_law_to_the_other(source: Encoding, target: Encoding) -> None:
    table = g711.translation(source, target)
    assert table is not None
    other = tones.tone((440,), 100, source).translate(table)
    assert tones.frequency_hz(other, target) == pytest.approx(440, abs=3)
    assert g711.level(other, target) == pytest.approx(g711.level(tones.tone((440,), 100, target), target), rel=0.05)


def test_the_same_law_needs_no_table() -> None:
    assert g711.translation(Encoding.PCMU, Encoding.PCMU) is None


def test_pcm_is_refused() -> None:
    with pytest.raises(ValueError, match="PCM24"):
        g711.decode(b"", Encoding.PCM24)
    with pytest.raises(ValueError, match="PCM24"):
        g711.encode(b"", Encoding.PCM24)
    with pytest.raises(ValueError, match="PCM24"):
        g711.translation(Encoding.PCM24, Encoding.PCMU)


def test_the_import_warns_of_nothing_and_brings_no_numpy() -> None:
    code = (
        "import sys; from switchhook.media import g711, playout, concealment, tones, transcode; sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

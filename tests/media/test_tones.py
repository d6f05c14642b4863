"""Tones are what they say, and the detector tells them apart from silence and from each other."""

from __future__ import annotations

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import tones

BOTH = (Encoding.PCMU, Encoding.PCMA)


@pytest.mark.parametrize("encoding", BOTH)
@pytest.mark.parametrize("hz", [250, 440, 1004, 2600, 3400])
def test_a_tone_is_found_again(encoding: Encoding, hz: int) -> None:
    payload = tones.tone((hz,), 100, encoding)
    assert len(payload) == 800
    assert tones.frequency_hz(payload, encoding) == pytest.approx(hz, abs=3)


@pytest.mark.parametrize("encoding", BOTH)
@pytest.mark.parametrize("digit", "0123456789*#ABCD")
def test_each_key_is_found_again(encoding: Encoding, digit: str) -> None:
    assert tones.dtmf_digit(tones.dtmf(digit, 60, encoding), encoding) == digit


@pytest.mark.parametrize("encoding", BOTH)
def test_silence_and_a_single_tone_are_no_key(encoding: Encoding) -> None:
    assert tones.frequency_hz(tones.silence(100, encoding), encoding) == 0
    assert tones.dtmf_digit(tones.silence(100, encoding), encoding) is None
    assert tones.dtmf_digit(tones.tone((941,), 100, encoding), encoding) is None
    assert tones.dtmf_digit(tones.tone((500, 2000), 100, encoding), encoding) is None
    assert tones.frequency_hz(b"", encoding) == 0


@pytest.mark.parametrize("digit", ["", "12", "E", "é", "a"])
def test_what_is_no_key_is_refused(digit: str) -> None:
    with pytest.raises(ValueError, match="no DTMF digit"):
        tones.dtmf(digit, 100, Encoding.PCMU)


def test_the_beep_is_short_and_high() -> None:
    beep = tones.beep(Encoding.PCMA)
    assert len(beep) == 1600
    assert tones.frequency_hz(beep, Encoding.PCMA) == pytest.approx(1000, abs=3)

"""A lost frame sounds like the one before, softer and softer, and after 60 ms like nothing."""

from __future__ import annotations

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import g711, tones
from switchhook.media.concealment import conceal

BOTH = (Encoding.PCMU, Encoding.PCMA)


@pytest.mark.parametrize("encoding", BOTH)
@pytest.mark.parametrize("samples", [0, 1, 80, 160, 240, 480, 800])
def test_the_length_is_exact(encoding: Encoding, samples: int) -> None:
    assert len(conceal(tones.tone((500,), 20, encoding), samples, encoding)) == samples


@pytest.mark.parametrize("encoding", BOTH)
def test_it_repeats_and_fades(encoding: Encoding) -> None:
    last = tones.tone((500,), 100, encoding)[160:320]
    out = conceal(last, 800, encoding)
    levels = [g711.level(out[at : at + 160], encoding) for at in range(0, 800, 160)]
    assert tones.frequency_hz(out[:320], encoding) == pytest.approx(500, abs=10)
    assert g711.level(last, encoding) > levels[0] > levels[1] > levels[2] > levels[3]
    assert out[480:] == encoding.silence * 320


def test_with_nothing_heard_before_it_is_silent() -> None:
    assert conceal(b"", 160, Encoding.PCMA) == Encoding.PCMA.silence * 160

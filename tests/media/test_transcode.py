"""The transcoder for each pair of encodings."""

from __future__ import annotations

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.media.transcode import transcoder


@pytest.mark.parametrize("encoding", list(Encoding))
def test_equal_ends_pass_through(encoding: Encoding) -> None:
    assert transcoder(encoding, encoding) is None


@pytest.mark.parametrize("source", list(Encoding))
@pytest.mark.parametrize("target", list(Encoding))
def test_a_tone_keeps_frequency_and_length(source: Encoding, target: Encoding) -> None:
    sound = tones.tone((1000,), 200, Encoding.PCMU)
    inward = transcoder(Encoding.PCMU, source)
    sound = sound if inward is None else inward(sound)
    outward = transcoder(source, target)
    if outward is not None:
        size = 20 * source.bytes_per_ms
        frames = [outward(sound[at : at + size]) for at in range(0, len(sound), size)]
        assert {len(frame) for frame in frames} == {20 * target.bytes_per_ms}
        sound = b"".join(frames)
    assert len(sound) == 200 * target.bytes_per_ms
    assert tones.dominant_hz(tones.samples_of(sound, target), target.rate_hz) == pytest.approx(1000, abs=3)


@pytest.mark.parametrize(("source", "target"), [(a, b) for a in Encoding for b in Encoding if a is not b])
def test_after_reset_an_utterance_sounds_as_the_first_did(source: Encoding, target: Encoding) -> None:
    convert = transcoder(source, target)
    assert convert is not None
    sound = bytes(range(96)) * 10
    first = convert(sound)
    convert(b"\x01\x02\x03")
    convert.reset()
    assert convert(sound) == first

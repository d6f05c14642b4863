"""The resampler: exact sizes, short delay, flat where speech is, deaf where aliases would come from."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.media import tones
from switchhook.media.resample import Resampler

RATES = [(8000, 24000), (24000, 8000), (8000, 16000), (16000, 8000), (24000, 16000), (16000, 24000)]


def sine(hz: float, rate_hz: int, ms: int, peak: int = 12000) -> bytes:
    return array("h", (round(peak * math.sin(2 * math.pi * hz * n / rate_hz)) for n in range(rate_hz * ms // 1000))).tobytes()


def samples(linear: bytes) -> array[int]:
    found = array("h")
    found.frombytes(linear)
    return found


def in_frames(resampler: Resampler, linear: bytes, size: int) -> list[bytes]:
    return [resampler.process(linear[at : at + size]) for at in range(0, len(linear), size)]


@pytest.mark.parametrize(("source_hz", "target_hz"), RATES)
def test_each_20_ms_frame_gives_exactly_20_ms(source_hz: int, target_hz: int) -> None:
    frames = in_frames(Resampler(source_hz, target_hz), sine(440, source_hz, 200), source_hz // 50 * 2)
    assert {len(frame) for frame in frames} == {target_hz // 50 * 2}


@pytest.mark.parametrize(("source_hz", "target_hz"), RATES)
@pytest.mark.parametrize("hz", [300, 1000, 3000])
def test_speech_frequencies_pass_unchanged(source_hz: int, target_hz: int, hz: int) -> None:
    out = samples(b"".join(in_frames(Resampler(source_hz, target_hz), sine(hz, source_hz, 200), source_hz // 50 * 2)))
    settled = out[target_hz // 20 :]
    assert tones.dominant_hz(settled, target_hz) == pytest.approx(hz, abs=2)
    assert math.sqrt(tones.power(settled, hz, target_hz)) == pytest.approx(12000, rel=0.03)


@pytest.mark.parametrize("hz", [4600, 5000, 6500, 9000])
def test_what_8_khz_cannot_carry_does_not_come_back_as_an_alias(hz: int) -> None:
    out = samples(Resampler(24000, 8000).process(sine(hz, 24000, 200)))[400:]
    assert math.sqrt(sum(sample * sample for sample in out) / len(out)) < 12000 * 0.001 + 1


def test_an_image_of_the_voice_is_inaudible_after_upsampling() -> None:
    out = samples(Resampler(8000, 24000).process(sine(3000, 8000, 200)))[2400:]
    assert tones.power(out, 5000, 24000) < tones.power(out, 3000, 24000) * 1e-5


@pytest.mark.parametrize(("source_hz", "target_hz"), RATES)
def test_the_delay_is_at_most_two_milliseconds(source_hz: int, target_hz: int) -> None:
    clicks = array("h", bytes(2 * source_hz // 10))
    clicks[source_hz // 20] = 20_000
    out = samples(Resampler(source_hz, target_hz).process(clicks.tobytes()))
    peak = max(range(len(out)), key=lambda at: out[at])
    assert 0 <= peak / target_hz - 0.05 <= 0.002


@given(st.lists(st.integers(0, 700), max_size=12), st.sampled_from(RATES))
def test_how_the_bytes_are_cut_does_not_change_the_sound(cuts: Iterable[int], rates: tuple[int, int]) -> None:
    linear = sine(700, rates[0], 60)
    whole = Resampler(*rates).process(linear)
    resampler, pieces, at = Resampler(*rates), [], 0
    for cut in cuts:
        pieces.append(resampler.process(linear[at : at + cut]))
        at += cut
    pieces.append(resampler.process(linear[at:]))
    ours, theirs = samples(b"".join(pieces)), samples(whole)
    assert len(ours) == len(theirs)
    assert all(abs(one - other) <= 1 for one, other in zip(ours, theirs, strict=True))


def test_reset_forgets_the_sound_before() -> None:
    resampler = Resampler(8000, 24000)
    resampler.process(sine(440, 8000, 21) + b"\x00")
    resampler.reset()
    assert set(resampler.process(bytes(320))) == {0}


def test_full_scale_does_not_wrap_around() -> None:
    square = array("h", ([32767] * 8 + [-32768] * 8) * 40).tobytes()
    out = samples(Resampler(8000, 24000).process(square))
    assert min(out) < -32000 and max(out) > 32000
    assert max(abs(a - b) for a, b in pairwise(out)) < 40_000

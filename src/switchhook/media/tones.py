"""Tones in G.711, and what finds them again: tests assert sound by its frequency."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import cos, gcd, pi, sin

from switchhook.domain.model import Encoding
from switchhook.media import g711

_ROWS_HZ = (697, 770, 852, 941)
_COLUMNS_HZ = (1209, 1336, 1477, 1633)
_KEYS = "123A456B789C*0#D"
_FADE_SAMPLES = 24
"""3 ms at both ends, so that a tone does not click."""


def tone(frequencies_hz: Sequence[float], duration_ms: int, encoding: Encoding, peak: float = 0.4) -> bytes:
    """Return a sum of sines of equal strength in G.711; `peak` is the share of full scale that the sum can reach."""
    return g711.encode(linear_tone(frequencies_hz, duration_ms, peak), encoding)


def linear_tone(frequencies_hz: Sequence[float], duration_ms: int, peak: float = 0.4) -> bytes:
    """Return the same in linear samples. Whole frequencies repeat, so that a long tone takes no longer than a short one."""
    count = duration_ms * g711.RATE_HZ // 1000
    each = 32767 * peak / max(1, len(frequencies_hz))
    steps = [2 * pi * hz / g711.RATE_HZ for hz in frequencies_hz]
    period = min(count, _period_samples(frequencies_hz) or count)
    wave = array("h", [round(each * sum(sin(step * at) for step in steps)) for at in range(period)])
    samples = (wave * (count // max(1, period) + 1))[:count]
    for at in range(min(_FADE_SAMPLES, count)):
        share = (at + 1) / _FADE_SAMPLES
        samples[at] = round(share * samples[at])
        samples[count - 1 - at] = round(share * samples[count - 1 - at])
    return samples.tobytes()


def _period_samples(frequencies_hz: Sequence[float]) -> int | None:
    """After so many samples a sum of whole frequencies repeats."""
    if not all(float(hz).is_integer() for hz in frequencies_hz):
        return None
    return g711.RATE_HZ // gcd(g711.RATE_HZ, *(int(hz) for hz in frequencies_hz))


def silence(duration_ms: int, encoding: Encoding) -> bytes:
    """Return silence in G.711."""
    return encoding.silence * (duration_ms * g711.RATE_HZ // 1000)


def dtmf(digit: str, duration_ms: int, encoding: Encoding) -> bytes:
    """Return the two tones of a key (ITU-T Q.23). Raises ValueError for what is no key."""
    if len(digit) != 1 or digit not in _KEYS:
        raise ValueError(f"{digit!r} is no DTMF digit: use 0-9, *, #, A-D")
    row, column = divmod(_KEYS.index(digit), 4)
    return tone((_ROWS_HZ[row], _COLUMNS_HZ[column]), duration_ms, encoding)


def beep(encoding: Encoding) -> bytes:
    """Return the short high tone that asks a caller to speak."""
    return tone((1000,), 200, encoding)


def power(linear: Sequence[int], frequency_hz: float, rate_hz: int = g711.RATE_HZ) -> float:
    """Return the strength of one frequency (Goertzel): the amplitude of a sine of that frequency, squared."""
    if not linear:
        return 0.0
    turn = 2 * cos(2 * pi * frequency_hz / rate_hz)
    before = last = 0.0
    for sample in linear:
        before, last = last, sample + turn * last - before
    return max(0.0, before * before + last * last - turn * before * last) * 4 / len(linear) ** 2


def frequency_hz(payload: bytes, encoding: Encoding) -> float:
    """Return the strongest frequency of the payload between 200 and 3,600 Hz, within 2 Hz for a tone of 100 ms; 0 for silence."""
    return dominant_hz(samples_of(payload, encoding))


def dominant_hz(linear: Sequence[int], rate_hz: int = g711.RATE_HZ) -> float:
    """Return the strongest frequency of linear samples between 200 and 3,600 Hz; 0 for silence. Looks at 0.2 s at most."""
    linear = linear[: rate_hz // 5]
    if not linear or sum(map(abs, linear)) / len(linear) < 64:
        return 0.0
    width = rate_hz / len(linear)
    step = max(width / 2, 5.0)
    best = max((200 + step * k for k in range(int(3400 / step))), key=lambda hz: power(linear, hz, rate_hz))
    while step > 1.0:
        step /= 2
        best = max((best - step, best, best + step), key=lambda hz: power(linear, hz, rate_hz))
    return best


def dtmf_digit(payload: bytes, encoding: Encoding) -> str | None:
    """Return the key whose two tones carry most of the payload's sound, or None."""
    linear = samples_of(payload, encoding)
    rows = [power(linear, hz) for hz in _ROWS_HZ]
    columns = [power(linear, hz) for hz in _COLUMNS_HZ]
    total = 2 * sum(sample * sample for sample in linear) / max(1, len(linear))
    if max(rows) + max(columns) < 0.6 * total or min(max(rows), max(columns)) < 0.1 * total or total < 1000:
        return None
    return _KEYS[4 * rows.index(max(rows)) + columns.index(max(columns))]


def samples_of(payload: bytes, encoding: Encoding) -> array[int]:
    """Return the linear samples of a payload in any encoding."""
    samples = array("h")
    samples.frombytes(payload if encoding is Encoding.PCM24 else g711.decode(payload, encoding))
    return samples

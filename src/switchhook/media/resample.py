"""A short polyphase resampler: frame for frame, at most 1.5 ms late, on numpy (import it only where it is used).

Out of M samples come L (8 → 24 kHz: 1 → 3). Each block of L is one product of a window of samples with a matrix that holds the
filter's phases: a windowed sinc (Kaiser) that stops what the lower rate cannot carry.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

_HALF_PERIODS = 12
"""Reach of the filter to each side, in samples of the lower rate."""
_KAISER_BETA = 6.0
_PASS_SHARE = 0.96
"""Cut-off as a share of half the lower rate."""


class Resampler:
    """Resamples one direction of signed 16-bit little-endian mono sound between two rates."""

    __slots__ = ("_history_samples", "_in_block", "_odd", "_out_block", "_phases", "_tail", "_window")

    def __init__(self, source_hz: int, target_hz: int) -> None:
        shared = gcd(source_hz, target_hz)
        self._out_block = target_hz // shared
        self._in_block = source_hz // shared
        self._phases = _phases(self._in_block, self._out_block)
        self._window = len(self._phases)
        self._history_samples = self._window - self._in_block
        self.reset()

    def reset(self) -> None:
        """Forget the sound before, as if silence had come first."""
        self._tail: NDArray[np.float32] = np.zeros(self._history_samples, np.float32)
        self._odd = b""

    def process(self, linear: bytes) -> bytes:
        """Return the resampled sound; samples that do not fill a block of the ratio wait for the next call."""
        if self._odd or len(linear) % 2:
            linear = self._odd + linear
            whole = len(linear) // 2 * 2
            linear, self._odd = linear[:whole], linear[whole:]
        samples = np.concatenate((self._tail, np.frombuffer(linear, "<i2")), dtype=np.float32)
        blocks = (len(samples) - self._history_samples) // self._in_block
        self._tail = samples[blocks * self._in_block :].copy()
        if blocks <= 0:
            return b""
        step = samples.itemsize
        windows: NDArray[np.float32] = np.ndarray(
            (blocks, self._window), np.float32, samples, strides=(self._in_block * step, step)
        )
        out = windows @ self._phases
        np.rint(out, out=out)
        np.minimum(out, 32767.0, out=out)
        np.maximum(out, -32768.0, out=out)
        return out.astype("<i2").tobytes()


def _phases(in_block: int, out_block: int) -> NDArray[np.float32]:
    """The filter as a matrix: row = sample of the window, column = place in the block of out-samples.

    Times are counted in steps of rate out_block × source rate. The out-sample j of a block lies at j·M − delay, the
    in-sample r of the window's newest block at r·L; the least delay that needs no sample to come is half − M.
    """
    widest = max(in_block, out_block)
    half = _HALF_PERIODS * widest
    delay = half - in_block
    oldest = -ceil((half + delay) / out_block)
    rows = np.arange(oldest, in_block)[:, None]
    columns = np.arange(out_block)[None, :]
    times = columns * in_block - delay - rows * out_block
    inside = np.clip(1.0 - (times / half) ** 2, 0.0, None)
    taps = np.sinc(times * _PASS_SHARE / widest) * np.i0(_KAISER_BETA * np.sqrt(inside)) * (np.abs(times) <= half)
    return np.ascontiguousarray(taps / taps.sum(axis=0), dtype=np.float32)

"""What is heard in place of a lost G.711 frame: the last sound again, fading, and after 60 ms silence."""

from __future__ import annotations

from switchhook.domain.model import Encoding
from switchhook.media import g711

CONCEAL_SAMPLES = 480
"""60 ms: longer losses are silence, for repeated sound turns into a buzz."""
_STEP_SAMPLES = 40
"""The fade falls every 5 ms."""


def conceal(last: bytes, samples: int, encoding: Encoding) -> bytes:
    """Return exactly `samples` bytes that go on from the last good payload, softer the longer the loss lasts."""
    if not last:
        return encoding.silence * samples
    heard = min(samples, CONCEAL_SAMPLES)
    turns = -(-heard // len(last))
    linear = (g711.decode(last, encoding) * turns)[: 2 * heard]
    return g711.encode(_faded(linear), encoding) + encoding.silence * (samples - heard)


def _faded(linear: bytes) -> bytes:
    """Fade linearly to nothing at CONCEAL_SAMPLES."""
    pieces = []
    for at in range(0, len(linear) // 2, _STEP_SAMPLES):
        factor = 1.0 - at / CONCEAL_SAMPLES
        pieces.append(g711.scale(linear[2 * at : 2 * (at + _STEP_SAMPLES)], factor))
    return b"".join(pieces)

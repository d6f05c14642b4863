"""G.711 (ITU-T): µ-law and A-law to linear samples and back, and between each other.

Linear sound is signed 16-bit in the machine's byte order; every supported machine is little-endian.
"""

from __future__ import annotations

import warnings
from math import acos, pi

from switchhook.domain.model import Encoding

with warnings.catch_warnings():
    # Python 3.11 and 3.12 announce that audioop leaves the standard library; audioop-lts takes its place in 3.13.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

RATE_HZ = 8_000
FRAME_SAMPLES = 160
"""Samples, and bytes, of the 20 ms that a packet carries."""

_ALL_BYTES = bytes(range(256))
ULAW_TO_ALAW: bytes = audioop.lin2alaw(audioop.ulaw2lin(_ALL_BYTES, 2), 2)
"""Table for `bytes.translate`."""
ALAW_TO_ULAW: bytes = audioop.lin2ulaw(audioop.alaw2lin(_ALL_BYTES, 2), 2)
"""Table for `bytes.translate`."""


def decode(payload: bytes, encoding: Encoding) -> bytes:
    """Return linear samples of a G.711 payload."""
    if encoding is Encoding.PCMU:
        return audioop.ulaw2lin(payload, 2)
    if encoding is Encoding.PCMA:
        return audioop.alaw2lin(payload, 2)
    raise ValueError(f"{encoding.name} is not G.711")


def encode(linear: bytes, encoding: Encoding) -> bytes:
    """Return the G.711 payload of linear samples."""
    if encoding is Encoding.PCMU:
        return audioop.lin2ulaw(linear, 2)
    if encoding is Encoding.PCMA:
        return audioop.lin2alaw(linear, 2)
    raise ValueError(f"{encoding.name} is not G.711")


def translation(source: Encoding, target: Encoding) -> bytes | None:
    """Return the table for `bytes.translate` between two G.711 encodings, or None where they are the same."""
    if source is target:
        return None
    if source is Encoding.PCMU and target is Encoding.PCMA:
        return ULAW_TO_ALAW
    if source is Encoding.PCMA and target is Encoding.PCMU:
        return ALAW_TO_ULAW
    raise ValueError(f"no table leads from {source.name} to {target.name}")


def scale(linear: bytes, factor: float) -> bytes:
    """Return the linear samples made louder or softer by a factor."""
    return audioop.mul(linear, 2, factor)


def mixed(linear: bytes, other: bytes) -> bytes:
    """Return the sum of two pieces of linear samples of the same length; what is too loud is clipped."""
    return audioop.add(linear, other, 2)


def level(payload: bytes, encoding: Encoding) -> int:
    """Return the root mean square of a G.711 payload, 0 to 32767."""
    return loudness(decode(payload, encoding))


def loudness(linear: bytes) -> int:
    """Return the root mean square of linear samples, 0 to 32767."""
    return audioop.rms(linear, 2)


def sine_fit(linear: bytes) -> tuple[float, float]:
    """Return the frequency in Hz of the one sine that fits linear samples best, and what is left over, as a share of the sound.

    A sine obeys x[n] + x[n-2] = 2 cos(w) x[n-1]: the factor tells the frequency, and the rest how pure the tone is. Three samples
    at least.
    """
    soft = audioop.mul(linear, 2, 0.25)  # the sum of two samples must fit
    outer, middle = audioop.add(soft[4:], soft[:-4], 2), soft[2:-2]
    strength = audioop.rms(middle, 2)
    if not strength:
        return 0.0, 1.0
    factor = max(-2.0, min(2.0, audioop.findfactor(outer, middle)))
    rest = audioop.rms(audioop.add(outer, audioop.mul(middle, 2, -factor), 2), 2)
    return acos(factor / 2) * RATE_HZ / (2 * pi), rest / strength

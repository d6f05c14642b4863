"""From one encoding to another, stateful for each direction; nothing is loaded that a call does not need."""

from __future__ import annotations

from typing import Protocol

from switchhook.domain.model import Encoding
from switchhook.media import g711


class Transcoder(Protocol):
    """Turns payloads of one direction into another encoding, in order."""

    def __call__(self, payload: bytes) -> bytes:
        """Return the same sound in the target encoding; what does not fill a sample waits for the next payload."""

    def reset(self) -> None:
        """Forget the sound before: another utterance begins."""


def transcoder(source: Encoding, target: Encoding) -> Transcoder | None:
    """Return what turns `source` into `target`, or None where payloads pass as they are."""
    if source is target:
        return None
    if source is Encoding.PCM24:
        return _FromPcm24(target)
    if target is Encoding.PCM24:
        return _ToPcm24(source)
    return _Companded(source, target)


class _Companded:
    """µ-law to A-law or back: one table look-up a byte."""

    __slots__ = ("_table",)

    def __init__(self, source: Encoding, target: Encoding) -> None:
        self._table = g711.translation(source, target)

    def __call__(self, payload: bytes) -> bytes:
        return payload.translate(self._table)

    def reset(self) -> None:
        """There is nothing to forget."""


class _ToPcm24:
    """G.711 to 24 kHz linear: n bytes in, 6 n bytes out."""

    __slots__ = ("_resampler", "_source")

    def __init__(self, source: Encoding) -> None:
        from switchhook.media.resample import Resampler  # numpy: 20 MiB that a pass-through server never needs

        self._source = source
        self._resampler = Resampler(g711.RATE_HZ, Encoding.PCM24.rate_hz)

    def __call__(self, payload: bytes) -> bytes:
        return self._resampler.process(g711.decode(payload, self._source))

    def reset(self) -> None:
        """Forget the sound before."""
        self._resampler.reset()


class _FromPcm24:
    """24 kHz linear to G.711: 6 n bytes in, n bytes out; a remainder waits."""

    __slots__ = ("_resampler", "_target")

    def __init__(self, target: Encoding) -> None:
        from switchhook.media.resample import Resampler  # numpy: 20 MiB that a pass-through server never needs

        self._target = target
        self._resampler = Resampler(Encoding.PCM24.rate_hz, g711.RATE_HZ)

    def __call__(self, payload: bytes) -> bytes:
        return g711.encode(self._resampler.process(payload), self._target)

    def reset(self) -> None:
        """Forget the sound before."""
        self._resampler.reset()

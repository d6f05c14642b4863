"""A sound file as a line plays it: a job for a worker process."""

from __future__ import annotations

from io import BytesIO

from switchhook.domain.model import Encoding


class UnreadableSound(Exception):
    """The bytes are no sound file that can be read, or hold no sound."""


def decode(content: bytes, encoding: Encoding, most_s: float) -> bytes:
    """Sound of an MP3, WAV, FLAC or OGG file as mono in `encoding`; cut after `most_s` seconds. Raises UnreadableSound."""
    import numpy as np  # both are large, and only workers need them
    import soundfile

    from switchhook.media import g711
    from switchhook.media.resample import Resampler

    try:
        with soundfile.SoundFile(BytesIO(content)) as opened:
            rate_hz: int = opened.samplerate
            samples = opened.read(int(most_s * rate_hz), dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise UnreadableSound(str(error)) from None
    if not len(samples):
        raise UnreadableSound("the file holds no sound")
    linear = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    if rate_hz != encoding.rate_hz:
        linear = Resampler(rate_hz, encoding.rate_hz).process(linear)
    return linear if encoding is Encoding.PCM24 else g711.encode(linear, encoding)

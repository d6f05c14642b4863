"""Makes the finished file of a recording from its spool. Runs in a worker process."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from switchhook.domain.errors import RecordingError
from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.recording import spool
from switchhook.media.recording.encryption import NONCE_BYTES, encrypt
from switchhook.media.recording.spool import SAMPLES, MadeFile, SpoolHeader

RATE_HZ = 8_000
FRAME_SAMPLES = 160
FORMATS: dict[str, dict[str, Any]] = {
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.5},
    "wav": {"format": "WAV", "subtype": "PCM_16"},
}
"""How soundfile writes each."""
SAMPLE_TYPES = {"opus": "int16", "mp3": "float32", "wav": "int16"}
"""What it is given: of 16-bit samples libsndfile 1.2.2 makes MP3 files that are silent half of the time."""
_FULL_SCALE = 32_768


def make_file(folder: Path, target: Path, data_key: bytes, file_key: bytes, salt: bytes) -> MadeFile:
    """Read the spool in `folder` and write the file into the folder `target`.

    Two channels, the caller left. With a `file_key` the file is encrypted and its plain form never touches the disk. Raises
    RecordingError when the spool is damaged.
    """
    header = spool.read_header(folder)
    samples, salvaged = spool.length(folder, header)
    suffix = header.format + (".enc" if header.sealed else "")
    path = target / f"{header.call_id}.{suffix}"
    draft = path.with_name(path.name + ".draft")
    damaged: list[int] = []
    seconds = _decoded(folder, header, data_key, samples, damaged)
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    if header.sealed:
        if not file_key:
            raise RecordingError("an encrypted recording needs its file key")
        plain = io.BytesIO()
        _encode(plain, header.format, seconds)
        draft.write_bytes(encrypt(plain.getvalue(), file_key, salt, os.urandom(NONCE_BYTES)))
    else:
        with draft.open("w+b") as file:
            _encode(file, header.format, seconds)
    draft.chmod(0o600)
    draft.replace(path)
    return MadeFile(path.name, path.stat().st_size, samples, header.sealed, salvaged or bool(damaged))


def _decoded(
    folder: Path, header: SpoolHeader, data_key: bytes, samples: int, damaged: list[int]
) -> Iterator[np.ndarray[Any, np.dtype[np.int16]]]:
    """Stereo blocks of at most one second, shape (samples, 2), 16-bit."""
    encoding = Encoding(header.encoding)
    left = samples
    for caller, agent in spool.records(folder, header, data_key, encoding.silence, damaged):
        if left <= 0:
            return
        count = min(left, SAMPLES)
        channels = [np.frombuffer(g711.decode(channel, encoding), dtype="<i2")[:count] for channel in (caller, agent)]
        yield np.stack(channels, axis=1)
        left -= count


def _encode(file: IO[bytes], kind: str, seconds: Iterator[np.ndarray[Any, np.dtype[np.int16]]]) -> None:
    with soundfile.SoundFile(file, "w", samplerate=RATE_HZ, channels=2, **FORMATS[kind]) as sound:
        empty = True
        for block in seconds:
            sound.write(block if SAMPLE_TYPES[kind] == "int16" else block.astype(np.float32) / _FULL_SCALE)
            empty = False
        if empty:
            # A call without any sound: some encoders write no file at all for nothing.
            sound.write(np.zeros((FRAME_SAMPLES, 2), dtype=np.int16))

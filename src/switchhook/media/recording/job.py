"""The job that a worker process does for a finished recording; the parent never loads the encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A finished recording."""

    name: str
    size_bytes: int
    samples: int
    encrypted: bool
    salvaged: bool


def make_in_worker(folder: Path, target: Path, data_key: bytes, file_key: bytes, salt: bytes) -> MadeFile:
    """`making.make_file`, imported where it runs."""
    from switchhook.media.recording.making import make_file

    return make_file(folder, target, data_key, file_key, salt)

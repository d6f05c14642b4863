"""The job that a worker process does for a finished recording; the parent never loads the encoders."""

from __future__ import annotations

from pathlib import Path

from switchhook.media.recording.spool import MadeFile


def make_in_worker(folder: Path, target: Path, data_key: bytes, file_key: bytes, salt: bytes) -> MadeFile:
    """`making.make_file`, imported where it runs."""
    from switchhook.media.recording.making import make_file

    return make_file(folder, target, data_key, file_key, salt)

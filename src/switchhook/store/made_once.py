"""Small files that a data directory gets at its first start and keeps for good: the server key, the server's name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def made_once(path: Path, content: bytes) -> bytes:
    """What the file holds; `content`, if it was not there yet. For the owner's eyes alone.

    The file is there whole or not at all, whatever dies when; of several processes that start together one makes it and all
    read the same.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link fails when the name exists; a rename would take its place.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    _settle(path.parent)
    return path.read_bytes()


def _settle(folder: Path) -> None:
    """A power cut must not take the name back that was read."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

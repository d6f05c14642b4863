"""The spool of one recording: a folder with `header.json` and `audio`, readable after the process was killed at any moment.

`audio` is a row of one-second records of equal size: 8,000 bytes of G.711 from the caller, then 8,000 from the agent. A sealed
record is AES-256-GCM under the recording's data key, with the record's index as nonce and the call id as associated data; the
data key stands in the header, wrapped by the server key. A hole in the file (all bytes zero) is a second of silence. `end` holds
the exact length in samples; without it the process died, and the recording is salvaged up to its last whole record. A record that
is short, unreadable or was changed is a second of silence in a recording that counts as salvaged.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from switchhook.domain.errors import RecordingError

log = logging.getLogger(__name__)

SAMPLES = 8_000
"""Samples of one channel in a record: one second."""
RECORD_BYTES = 2 * SAMPLES
TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class SpoolHeader:
    """What the maker of the file must know. Keys are hexadecimal and wrapped by the server key."""

    call_id: str
    account: str
    encoding: str
    """Media type of the line's G.711 flavour."""
    format: str
    started_at: str
    sealed: bool = False
    wrapped_data_key: str = ""


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A finished recording."""

    name: str
    size_bytes: int
    samples: int
    encrypted: bool
    salvaged: bool


def create(folder: Path, header: SpoolHeader) -> int:
    """Make the folder and give the descriptor of its audio file, open for writing.

    The audio comes last: without it nothing was recorded. Raises OSError.
    """
    folder.mkdir(parents=True, mode=0o700)
    (folder / "header.json").write_text(json.dumps(asdict(header)))
    return os.open(folder / "audio", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def read_header(folder: Path) -> SpoolHeader:
    """Raises RecordingError when the header is missing or damaged."""
    try:
        return SpoolHeader(**json.loads((folder / "header.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise RecordingError(f"the spool {folder.name} has no readable header: {error}") from None


def keep_file_key(folder: Path, salt: bytes, wrapped_key: bytes) -> None:
    """Put the key of the finished file (derived from the password, wrapped by the server key) beside the audio."""
    draft = folder / "file-key.draft"
    draft.write_text(json.dumps({"salt": salt.hex(), "wrapped_key": wrapped_key.hex()}))
    draft.replace(folder / "file-key")


def read_file_key(folder: Path) -> tuple[bytes, bytes]:
    """(salt, wrapped key). Raises RecordingError when it was never written."""
    try:
        kept = json.loads((folder / "file-key").read_text())
        return bytes.fromhex(kept["salt"]), bytes.fromhex(kept["wrapped_key"])
    except (OSError, ValueError, KeyError):
        raise RecordingError("the password's key was never written: deriving it failed or the process died") from None


def seal(record: bytes | bytearray, index: int, header: SpoolHeader, data_key: bytes) -> bytes | bytearray:
    """A record as it is written."""
    if not header.sealed:
        return record
    return AESGCM(data_key).encrypt(index.to_bytes(12, "big"), record, header.call_id.encode())


def record_size(header: SpoolHeader) -> int:
    """Bytes of one record on disk."""
    return RECORD_BYTES + (TAG_BYTES if header.sealed else 0)


def end(folder: Path, samples: int) -> None:
    """Mark the spool complete."""
    (folder / "end").write_text(str(samples))


def last_written(folder: Path) -> datetime | None:
    """When sound was last written: the recording's end, or shortly before its process died. None: nothing was recorded."""
    try:
        return datetime.fromtimestamp((folder / "audio").stat().st_mtime, UTC)
    except OSError:
        return None


def length(folder: Path, header: SpoolHeader) -> tuple[int, bool]:
    """(samples of the recording, whether it is salvaged: the end or the last records were never written)."""
    whole = (folder / "audio").stat().st_size // record_size(header)
    try:
        samples = int((folder / "end").read_text())
    except (OSError, ValueError):
        return whole * SAMPLES, True
    return samples, whole * SAMPLES < samples


def records(
    folder: Path, header: SpoolHeader, data_key: bytes, silence: bytes, damaged: list[int] | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """(caller, agent) second by second, each 8,000 bytes of G.711.

    A damaged second is silence, and its index is added to `damaged`. Raises RecordingError after the last second when
    records could be read but none could be opened: then the key is wrong.
    """
    samples, _ = length(folder, header)
    quiet = silence * SAMPLES
    lost = [] if damaged is None else damaged
    opened = refused = 0
    with (folder / "audio").open("rb") as file:
        for index in range(-(-samples // SAMPLES)):
            block = _read(file, index, record_size(header))
            if block is not None and not any(block):
                yield quiet, quiet
                continue
            plain = None if block is None else _unseal(block, index, header, data_key)
            if plain is not None:
                opened += 1
                yield plain[:SAMPLES], plain[SAMPLES:]
                continue
            refused += block is not None
            lost.append(index)
            yield quiet, quiet
    if refused and not opened:
        raise RecordingError(f"no second of the spool {folder.name} can be opened: its key is wrong")
    if lost:
        log.warning(
            "seconds of a recording are damaged", extra={"call_id": header.call_id, "seconds": len(lost), "first": lost[0]}
        )


def _read(file: IO[bytes], index: int, size: int) -> bytes | None:
    """A record as it was written; None for one that is short or that the disk does not give."""
    try:
        file.seek(index * size)
        block = file.read(size)
    except OSError:
        return None
    return block if len(block) == size else None


def _unseal(block: bytes, index: int, header: SpoolHeader, data_key: bytes) -> bytes | None:
    """The plain record; None for one that was changed or that another key sealed."""
    if not header.sealed:
        return block
    try:
        return AESGCM(data_key).decrypt(index.to_bytes(12, "big"), block, header.call_id.encode())
    except InvalidTag:
        return None

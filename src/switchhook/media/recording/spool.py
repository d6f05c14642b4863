"""The spool of one recording: a folder with `header.json` and `audio`, readable after the process was killed at any moment.

`audio` is a row of one-second records of equal size: 8,000 bytes of G.711 from the caller, then 8,000 from the agent. A sealed
record is AES-256-GCM under the recording's data key, with the record's index as nonce and the call id as associated data; the
data key stands in the header, wrapped by the server key. A hole in the file (all bytes zero) is a second of silence. `end` holds
the exact length in samples; without it the process died, and the recording is salvaged up to its last whole record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from switchhook.domain.errors import RecordingError

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
    """Make the folder and give the descriptor of its audio file, open for writing."""
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
        raise RecordingError("the process died before the password's key was derived") from None


def seal(record: bytes, index: int, header: SpoolHeader, data_key: bytes) -> bytes:
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


def length(folder: Path, header: SpoolHeader) -> tuple[int, bool]:
    """(samples of the recording, whether it was salvaged)."""
    try:
        return int((folder / "end").read_text()), False
    except (OSError, ValueError):
        whole = (folder / "audio").stat().st_size // record_size(header)
        return whole * SAMPLES, True


def records(folder: Path, header: SpoolHeader, data_key: bytes, silence: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(caller, agent) second by second, each 8,000 bytes of G.711. Raises RecordingError when a sealed record was changed."""
    size = record_size(header)
    quiet = silence * SAMPLES
    with (folder / "audio").open("rb") as file:
        index = 0
        while len(block := file.read(size)) == size:
            if not any(block):
                yield quiet, quiet
            else:
                plain = _unseal(block, index, header, data_key)
                yield plain[:SAMPLES], plain[SAMPLES:]
            index += 1


def _unseal(block: bytes, index: int, header: SpoolHeader, data_key: bytes) -> bytes:
    if not header.sealed:
        return block
    try:
        return AESGCM(data_key).decrypt(index.to_bytes(12, "big"), block, header.call_id.encode())
    except InvalidTag:
        raise RecordingError(f"second {index} of the spool was changed or its key is wrong") from None

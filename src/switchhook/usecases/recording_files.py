"""Where the spools and the finished files of recordings lie, and how they are removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingRecord


class RecordingFiles:
    """The folder of recordings: finished files in it, spools below. Every method touches the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spools = folder / "spool"

    def path(self, record: RecordingRecord) -> Path:
        """The finished file."""
        return self.folder / file_name(record)

    def discard(self, record: RecordingRecord) -> None:
        """Remove the file, a draft of it and the spool, as far as they are there. Raises OSError."""
        path = self.path(record)
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".draft").unlink(missing_ok=True)
        self.discard_spool(record.call_id)

    def discard_spool(self, call_id: CallId) -> None:
        """Remove a spool, if it is there; somebody else may be doing the same. Raises OSError."""
        folder = self.spools / call_id
        shutil.rmtree(folder, ignore_errors=True)
        if folder.is_dir():
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)

    def spooled(self) -> list[CallId]:
        """Calls that have a spool."""
        if not self.spools.is_dir():
            return []
        return sorted(CallId(entry.name) for entry in self.spools.iterdir() if entry.is_dir())

    def drafts(self) -> list[Path]:
        """Files that are being made, or were when the process died."""
        return list(self.folder.glob("*.draft"))

    def finished_before(self, time: datetime) -> dict[Path, CallId]:
        """Finished files that were last written before then, each with the call that its name begins with."""
        return {
            path: CallId(path.name.partition(".")[0])
            for path in self.folder.glob("*.*")
            if path.suffix != ".draft" and path.is_file() and path.stat().st_mtime < time.timestamp()
        }

    @staticmethod
    def unlink(paths: Iterable[Path]) -> None:
        """Remove files. Raises OSError."""
        for path in paths:
            path.unlink(missing_ok=True)


def file_name(record: RecordingRecord) -> str:
    """`<call id>.opus`, with `.enc` behind it when it is encrypted."""
    return f"{record.call_id}.{record.format}" + (".enc" if record.encrypted else "")

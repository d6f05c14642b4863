"""From a sealed spool to a finished file: after the call, or after a restart from what a killed process left."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from switchhook.domain.errors import RecordingError
from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.media.recording import spool
from switchhook.media.recording.job import make_in_worker
from switchhook.media.recording.recorder import KeyWrap
from switchhook.media.recording.spool import MadeFile, SpoolHeader

log = logging.getLogger(__name__)


class RecordingShelf(Protocol):
    """Where recordings are listed."""

    async def add(self, record: RecordingRecord) -> None:
        """Write a recording down, unless it is known."""

    async def put(self, record: RecordingRecord) -> bool:
        """Replace what is known."""


class RecordingDesk:
    """Makes files of spools. `run` runs a function in a worker process."""

    def __init__(self, folder: Path, keys: KeyWrap, shelf: RecordingShelf, run: Callable[..., Awaitable[Any]]) -> None:
        self.spools = folder / "spool"
        self._files = folder
        self._keys = keys
        self._shelf = shelf
        self._run = run

    async def make(self, call_id: CallId) -> None:
        """Make the file of one spool, list it and remove the spool. A spool that gives no file is kept and logged."""
        folder = self.spools / call_id
        try:
            header = spool.read_header(folder)
        except RecordingError as error:
            log.error("recording has no header", extra={"call_id": call_id, "error": str(error)})
            return
        await self._shelf.add(_record(header, None))
        try:
            made = await self._make(folder, header)
        except (RecordingError, OSError) as error:
            log.error("recording could not be made", extra={"call_id": call_id, "error": str(error)})
            await self._shelf.put(_record(header, None, RecordingState.FAILED))
            return
        except Exception:  # the edge of the recording's work: one that an encoder fails on must not stop the server
            log.exception("recording could not be made", extra={"call_id": call_id})
            await self._shelf.put(_record(header, None, RecordingState.FAILED))
            return
        await self._shelf.put(_record(header, made, path=Path(self._files.name) / made.name))
        shutil.rmtree(folder)
        log.info("recording made", extra={"call_id": call_id, "bytes": made.size_bytes, "salvaged": made.salvaged})

    async def salvage(self) -> int:
        """Make files of all spools that lie there; call it before calls are taken. Gives how many there were."""
        if not self.spools.is_dir():
            return 0
        left = sorted(folder.name for folder in self.spools.iterdir() if folder.is_dir())
        for name in left:
            await self.make(CallId(name))
        return len(left)

    async def _make(self, folder: Path, header: SpoolHeader) -> MadeFile:
        data_key, file_key, salt = b"", b"", b""
        if header.sealed:
            salt, wrapped = spool.read_file_key(folder)
            data_key, file_key = self._keys.unwrap(bytes.fromhex(header.wrapped_data_key)), self._keys.unwrap(wrapped)
        made: MadeFile = await self._run(make_in_worker, folder, self._files, data_key, file_key, salt)
        return made


def _record(
    header: SpoolHeader, made: MadeFile | None, state: RecordingState = RecordingState.MAKING, path: Path | None = None
) -> RecordingRecord:
    return RecordingRecord(
        call_id=CallId(header.call_id),
        account=header.account,
        format=header.format,
        encrypted=header.sealed,
        path=str(path or ""),
        state=RecordingState.READY if made else state,
        created_at=datetime.fromisoformat(header.started_at),
        size_bytes=made.size_bytes if made else 0,
        salvaged=made.salvaged if made else False,
        purge_at=None,
    )

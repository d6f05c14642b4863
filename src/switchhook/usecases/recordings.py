"""From a sealed spool to a finished file: after the call, or after a restart from what a killed process left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from switchhook.domain.errors import RecordingError
from switchhook.domain.model import CallId
from switchhook.domain.ports import Clock
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.media.recording import spool
from switchhook.media.recording.job import make_in_worker
from switchhook.media.recording.recorder import KeyWrap
from switchhook.media.recording.spool import MadeFile, SpoolHeader
from switchhook.usecases.recording_files import RecordingFiles
from switchhook.usecases.repositories import RecordingStore

log = logging.getLogger(__name__)

NAMES_AT_ONCE = 500
"""In one question to the database."""


class RecordingDesk:
    """Makes files of spools. `run` runs a function in a worker process; a file is kept for `keep` after its recording ended."""

    def __init__(
        self,
        files: RecordingFiles,
        keys: KeyWrap,
        store: RecordingStore,
        run: Callable[..., Awaitable[Any]],
        clock: Clock,
        keep: timedelta,
    ) -> None:
        self._files = files
        self._keys = keys
        self._store = store
        self._run = run
        self._clock = clock
        self._keep = keep

    async def opened(self, header: SpoolHeader) -> None:
        """Write down that a spool lies on the disk, so that it can be deleted before it is a file. Raises StoreUnavailable."""
        await self._store.add(_record(header, RecordingState.SPOOLING))

    async def make(self, call_id: CallId, salvaging: bool = False) -> None:
        """Make the file of one spool, list it and remove the spool. A spool that gives no file is kept and logged.

        One that was deleted meanwhile is removed. `salvaging`: it lay there when the server started. Raises StoreUnavailable.
        """
        folder = self._files.spools / call_id
        try:
            header = spool.read_header(folder)
        except RecordingError as error:
            await self._without_header(call_id, error)
            return
        record = _record(header, RecordingState.MAKING)
        await self._store.add(record)  # known already, unless the process died at once
        known = await self._store.get(call_id)
        if known is not None and known.state is RecordingState.READY:
            # The process died between the listing and the removal of the spool.
            await asyncio.to_thread(self._files.discard_spool, call_id)
        elif not await self._store.put(record, self._clock.utc()):
            await self._forget(record)
        else:
            await self._finish(header, await self._made(folder, header), self._purge_at(folder, salvaging))

    async def salvage(self) -> int:
        """Make files of all spools that lie there and sweep away what a crash left behind; begin it before calls are taken.

        Gives how many spools there were. One that fails is logged and does not keep the next one waiting.
        """
        drafts, left = self._files.drafts(), self._files.spooled()
        try:
            await asyncio.to_thread(self._files.unlink, drafts)
            await self._sweep()
        except Exception:
            log.exception("the folder of recordings could not be swept")
        for call_id in left:
            try:
                await self.make(call_id, salvaging=True)
            except Exception:
                log.exception("a recording could not be salvaged", extra={"call_id": call_id})
        return len(left)

    async def _sweep(self) -> None:
        """Files that nobody lists are kept as long as any other: the database may be the wrong one."""
        old = await asyncio.to_thread(self._files.finished_before, self._clock.utc() - self._keep)
        names = sorted(set(old.values()))
        listed: set[CallId] = set()
        for first in range(0, len(names), NAMES_AT_ONCE):
            listed |= await self._store.known(names[first : first + NAMES_AT_ONCE])
        unlisted = [path for path, call_id in old.items() if call_id not in listed]
        await asyncio.to_thread(self._files.unlink, unlisted)
        if unlisted:
            log.warning("old files of no known recording were removed", extra={"files": len(unlisted)})

    async def _made(self, folder: Path, header: SpoolHeader) -> MadeFile | None:
        try:
            return await self._encode(folder, header)
        except (RecordingError, OSError) as error:
            log.error("recording could not be made", extra={"call_id": header.call_id, "error": str(error)})
        except Exception:  # the edge of the recording's work: one that an encoder fails on must not stop the server
            log.exception("recording could not be made", extra={"call_id": header.call_id})
        return None

    async def _encode(self, folder: Path, header: SpoolHeader) -> MadeFile:
        data_key, file_key, salt = b"", b"", b""
        if header.sealed:
            salt, wrapped = spool.read_file_key(folder)
            data_key, file_key = self._keys.unwrap(bytes.fromhex(header.wrapped_data_key)), self._keys.unwrap(wrapped)
        made: MadeFile = await self._run(make_in_worker, folder, self._files.folder, data_key, file_key, salt)
        return made

    async def _finish(self, header: SpoolHeader, made: MadeFile | None, purge_at: datetime) -> None:
        failed = replace(_record(header, RecordingState.FAILED), purge_at=purge_at)
        if made is None:
            if not await self._store.put(failed, self._clock.utc()):
                await self._forget(failed)
            return
        ready = replace(
            failed,
            state=RecordingState.READY,
            path=f"{self._files.folder.name}/{made.name}",
            size_bytes=made.size_bytes,
            salvaged=made.salvaged,
        )
        if not await self._store.put(ready, self._clock.utc()):
            await self._forget(ready)
            return
        await asyncio.to_thread(self._files.discard_spool, ready.call_id)
        log.info("recording made", extra={"call_id": ready.call_id, "bytes": made.size_bytes, "salvaged": made.salvaged})

    async def _forget(self, record: RecordingRecord) -> None:
        """It was deleted while it was made."""
        await asyncio.to_thread(self._files.discard, record)
        await self._store.forget([record.call_id])
        log.info("recording deleted", extra={"call_id": record.call_id})

    async def _without_header(self, call_id: CallId, error: RecordingError) -> None:
        written = spool.last_written(self._files.spools / call_id)
        now = self._clock.utc()
        if written is None or written + self._keep <= now:
            # Nothing was recorded, or it may not be kept any longer.
            await asyncio.to_thread(self._files.discard_spool, call_id)
            await self._store.forget([call_id])
            return
        log.error("recording has no header", extra={"call_id": call_id, "error": str(error)})
        known = await self._store.get(call_id)
        if known is not None:
            await self._store.put(replace(known, state=RecordingState.FAILED, purge_at=written + self._keep), now)

    def _purge_at(self, folder: Path, salvaging: bool) -> datetime:
        """The contract counts from the end of the call."""
        ended = spool.last_written(folder) if salvaging else None
        return (ended or self._clock.utc()) + self._keep


def _record(header: SpoolHeader, state: RecordingState) -> RecordingRecord:
    return RecordingRecord(
        call_id=CallId(header.call_id),
        account=header.account,
        format=header.format,
        encrypted=header.sealed,
        path="",
        state=state,
        created_at=datetime.fromisoformat(header.started_at),
    )

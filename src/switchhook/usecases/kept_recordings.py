"""Finished recordings: an account lists, fetches and deletes its own; each is removed when its time is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId
from switchhook.domain.ports import Clock
from switchhook.domain.records import KeptRecording, RecordingQuery, RecordingRecord, RecordingState
from switchhook.usecases.recording_files import RecordingFiles
from switchhook.usecases.repositories import RecordingStore

log = logging.getLogger(__name__)

PURGE_EVERY_S = 30.0
PURGE_AT_ONCE = 100
"""Recordings in one question to the database and in one trip to the disk."""


class NodeRecordings(RecordingStore, Protocol):
    """The recordings of several servers that share a database and have disks of their own."""

    async def elsewhere(self, call_id: CallId) -> bool:
        """Whether the recording is known to lie on another server's disk."""


class KeptRecordings:
    """What is asked about recordings that were made. Every method may raise StoreUnavailable."""

    def __init__(self, files: RecordingFiles, store: NodeRecordings, clock: Clock) -> None:
        self._files = files
        self._store = store
        self._clock = clock
        self.kept = (0, 0)
        """(recordings, bytes) at the last look."""

    async def page(self, query: RecordingQuery) -> Sequence[KeptRecording]:
        """Finished recordings, newest first."""
        return await self._store.page(query)

    async def file(self, account: str, call_id: CallId) -> tuple[RecordingRecord, Path | None] | None:
        """A finished recording of the account and where it lies; None when there is none (yet, or any more).

        Without a path it lies on the disk of another server, which must be asked for it.
        """
        record = await self._finished(account, call_id)
        if record is None:
            return None
        path = self._files.path(record)
        if await asyncio.to_thread(path.is_file):
            return record, path
        if await self._store.elsewhere(call_id):
            return record, None
        log.error("the file of a recording is missing", extra={"call_id": call_id})
        return None

    async def delete(self, account: str, call_id: CallId) -> bool:
        """From now on nobody finds it, and its file is removed; one that is not made yet goes as soon as it is.

        False when the account has no such recording, or not any more.
        """
        record = await self._store.remove(account, call_id, self._clock.utc())
        if record is None:
            return False
        if record.state in (RecordingState.READY, RecordingState.FAILED) and not await self._store.elsewhere(call_id):
            # What this leaves behind when the process dies is purged, as is what another server keeps.
            await self._discard([record])
        log.info("recording deleted by its account", extra={"call_id": call_id, "account": account})
        return True

    async def run(self) -> None:
        """Purge what is due, at once and then every half minute, until cancelled."""
        while True:
            try:
                await self.purge()
                self.kept = await self._store.kept(self._clock.utc())
            except StoreUnavailable:
                log.warning("recordings could not be purged: the database is away")
            except Exception:
                # The edge of the task: what cannot be removed now must not end the purging of the rest.
                log.exception("recordings could not be purged")
            await asyncio.sleep(PURGE_EVERY_S)

    async def purge(self) -> int:
        """Remove all recordings whose time is over; gives how many. What cannot be removed does not keep the rest waiting."""
        now, size_bytes, count = self._clock.utc(), 0, 0
        batch = await self._store.expired(now, PURGE_AT_ONCE)
        while batch:
            removed = await self._discard(batch)
            count += len(removed)
            size_bytes += sum(record.size_bytes for record in removed)
            batch = await self._store.expired(now, PURGE_AT_ONCE, batch[-1]) if len(batch) == PURGE_AT_ONCE else []
        if count:
            log.info("recordings purged", extra={"recordings": count, "bytes": size_bytes})
        return count

    async def _finished(self, account: str, call_id: CallId) -> RecordingRecord | None:
        record = await self._store.get(call_id)
        if record is None or record.account != account or record.state is not RecordingState.READY:
            return None
        return None if record.gone(self._clock.utc()) else record

    async def _discard(self, records: Sequence[RecordingRecord]) -> list[RecordingRecord]:
        """Remove files, then rows; a file that cannot be removed keeps its row and is tried again by the next purge."""
        removed = await asyncio.to_thread(self._remove_files, records)
        if removed:
            await self._store.forget([record.call_id for record in removed])
        return removed

    def _remove_files(self, records: Sequence[RecordingRecord]) -> list[RecordingRecord]:
        removed = []
        for record in records:
            try:
                self._files.discard(record)
            except OSError as error:
                log.error("a recording could not be removed", extra={"call_id": record.call_id, "error": str(error.strerror)})
            else:
                removed.append(record)
        return removed

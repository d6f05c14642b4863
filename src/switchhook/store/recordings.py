"""Repository of recordings: which spool or file belongs to which call, and how far it is."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.store.database import Database, insert_missing
from switchhook.store.schema import recordings
from switchhook.store.writer import Writer

_ADD = insert_missing(recordings)
_UNFINISHED = (RecordingState.SPOOLING.value, RecordingState.MAKING.value)


class RecordingRepository:
    """What is known of recordings; the files themselves are the recorder's."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def add(self, record: RecordingRecord) -> None:
        """Write a recording down; one that is known already is left as it is."""
        row = _row(record)
        await self._writer.submit(lambda connection: connection.execute(_ADD(connection), row).rowcount)

    async def put(self, record: RecordingRecord) -> bool:
        """Replace what is known; False when the recording is gone (deleted meanwhile)."""
        change = update(recordings).where(recordings.c.call_id == record.call_id).values(_row(record))
        return await self._writer.submit(lambda connection: connection.execute(change).rowcount == 1)

    async def get(self, call_id: CallId) -> RecordingRecord | None:
        """The recording of a call."""
        found = await self._select(recordings.c.call_id == call_id)
        return found[0] if found else None

    async def of_account(self, account: str) -> list[RecordingRecord]:
        """An account's recordings, oldest first."""
        return await self._select(recordings.c.account == account)

    async def unfinished(self) -> list[RecordingRecord]:
        """Recordings whose file is not made yet, oldest first."""
        return await self._select(recordings.c.state.in_(_UNFINISHED))

    async def expired(self, now: datetime) -> list[RecordingRecord]:
        """Recordings whose time of purging has come, oldest first."""
        return await self._select(recordings.c.purge_at <= now)

    async def delete(self, call_id: CallId) -> bool:
        """Forget a recording; False when there is none."""
        removal = delete(recordings).where(recordings.c.call_id == call_id)
        return await self._writer.submit(lambda connection: connection.execute(removal).rowcount == 1)

    async def _select(self, condition: ColumnElement[bool]) -> list[RecordingRecord]:
        query = select(recordings).where(condition).order_by(recordings.c.created_at, recordings.c.call_id)

        def work(connection: Connection) -> list[RecordingRecord]:
            return [_record(row) for row in connection.execute(query)]

        return await self._database.read(work)


def _row(record: RecordingRecord) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {**values, "state": record.state.value}


def _record(row: Any) -> RecordingRecord:
    return RecordingRecord(
        CallId(row.call_id),
        row.account,
        row.format,
        row.encrypted,
        row.path,
        RecordingState(row.state),
        row.created_at,
        row.size_bytes,
        row.salvaged,
        row.purge_at,
    )

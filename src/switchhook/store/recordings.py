"""Repository of recordings: which spool or file belongs to which call, how far it is, and how long it is kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from switchhook.domain.model import CallId
from switchhook.domain.records import KeptRecording, RecordingQuery, RecordingRecord, RecordingState
from switchhook.store.database import Database, insert_missing
from switchhook.store.schema import calls, recordings
from switchhook.store.writer import Writer

_ADD = insert_missing(recordings)
_FINISHED = (RecordingState.READY.value, RecordingState.FAILED.value)
_NEVER_MADE_AFTER = timedelta(days=2)
"""No call and no encoder runs this long: what was deleted so long ago and is not made by now never will be."""


class RecordingRepository:
    """What is known of recordings; the files themselves are the recorder's."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def add(self, record: RecordingRecord) -> None:
        """Write a recording down; one that is known already is left as it is."""
        row = _row(record)
        await self._writer.submit(lambda connection: connection.execute(_ADD(connection), row).rowcount)

    async def put(self, record: RecordingRecord, now: datetime) -> bool:
        """Replace what is known; False when the recording is gone (deleted meanwhile)."""
        change = update(recordings).where(recordings.c.call_id == record.call_id, _not_gone(now)).values(_row(record))
        return await self._writer.submit(lambda connection: connection.execute(change).rowcount == 1)

    async def get(self, call_id: CallId) -> RecordingRecord | None:
        """The recording of a call, whatever its state."""
        query = select(recordings).where(recordings.c.call_id == call_id)

        def work(connection: Connection) -> RecordingRecord | None:
            row = connection.execute(query).first()
            return None if row is None else _record(row)

        return await self._database.read(work)

    async def page(self, query: RecordingQuery) -> list[KeptRecording]:
        """Finished recordings of an account, newest first."""
        began = func.coalesce(calls.c.started_at, recordings.c.created_at)
        wanted = (
            select(recordings, calls.c.started_at, calls.c.ended_at, calls.c.customer_call_id)
            .select_from(recordings.outerjoin(calls, calls.c.call_id == recordings.c.call_id))
            .where(*_wanted(query, began))
            .order_by(recordings.c.created_at.desc(), recordings.c.call_id.desc())
            .limit(query.limit)
        )

        def work(connection: Connection) -> list[KeptRecording]:
            return [
                KeptRecording(_record(row), row.started_at or row.created_at, row.ended_at, row.customer_call_id)
                for row in connection.execute(wanted)
            ]

        return await self._database.read(work)

    async def remove(self, account: str, call_id: CallId, now: datetime) -> RecordingRecord | None:
        """From now on nobody finds it; gives what it was, or None when the account has no such recording (any more)."""
        is_it = and_(recordings.c.call_id == call_id, recordings.c.account == account, _not_gone(now))
        find = select(recordings).where(is_it).with_for_update()
        mark = update(recordings).where(is_it).values(purge_at=now)

        def work(connection: Connection) -> RecordingRecord | None:
            row = connection.execute(find).first()
            if row is None:
                return None
            connection.execute(mark)
            return replace(_record(row), purge_at=now)

        return await self._writer.submit(work)

    async def expired(self, now: datetime, limit: int) -> list[RecordingRecord]:
        """Recordings that are gone and whose files may still lie there, longest first. Not those whose files are being made."""
        idle = or_(recordings.c.state.in_(_FINISHED), recordings.c.purge_at <= now - _NEVER_MADE_AFTER)
        query = select(recordings).where(recordings.c.purge_at <= now, idle).order_by(recordings.c.purge_at).limit(limit)

        def work(connection: Connection) -> list[RecordingRecord]:
            return [_record(row) for row in connection.execute(query)]

        return await self._database.read(work)

    async def forget(self, call_ids: Sequence[CallId]) -> None:
        """Nothing of these recordings is left."""
        removal = delete(recordings).where(recordings.c.call_id.in_(call_ids))
        await self._writer.submit(lambda connection: connection.execute(removal).rowcount)

    async def known(self, call_ids: Collection[CallId]) -> set[CallId]:
        """Those of the calls that have a recording."""
        query = select(recordings.c.call_id).where(recordings.c.call_id.in_(call_ids))
        return await self._database.read(lambda connection: {CallId(row.call_id) for row in connection.execute(query)})

    async def kept(self, now: datetime) -> tuple[int, int]:
        """(finished recordings that are kept, their bytes)."""
        query = select(func.count(), func.coalesce(func.sum(recordings.c.size_bytes), 0)).where(
            recordings.c.state == RecordingState.READY.value, _not_gone(now)
        )

        def work(connection: Connection) -> tuple[int, int]:
            count, size_bytes = connection.execute(query).one()
            return int(count), int(size_bytes)

        return await self._database.read(work)


def _not_gone(now: datetime) -> ColumnElement[bool]:
    return or_(recordings.c.purge_at.is_(None), recordings.c.purge_at > now)


def _wanted(query: RecordingQuery, began: ColumnElement[datetime]) -> list[ColumnElement[bool]]:
    conditions = [
        recordings.c.account == query.account,
        recordings.c.state == RecordingState.READY.value,
        _not_gone(query.now),
    ]
    if query.customer_call_id is not None:
        conditions.append(calls.c.customer_call_id == query.customer_call_id)
    if query.since is not None:
        conditions.append(began >= query.since)
    if query.until is not None:
        conditions.append(began < query.until)
    if query.after is not None:
        created_at, call_id = query.after
        here = recordings.c
        conditions.append(or_(here.created_at < created_at, and_(here.created_at == created_at, here.call_id < call_id)))
    return conditions


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

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
_NODE_GONE_AFTER = timedelta(days=30)
"""A server that has not purged what is its own for so long will not: the others forget it. Should it come back, it sweeps away
the files that nobody lists."""


class RecordingRepository:
    """What is known of recordings; the files are the recorder's, on the disk of the server (`node`) that took the call."""

    def __init__(self, database: Database, writer: Writer, node: str) -> None:
        self._database = database
        self._writer = writer
        self._node = node

    async def add(self, record: RecordingRecord) -> None:
        """Write a recording down; one that is known already is left as it is."""
        row = self._row(record)
        await self._writer.submit(lambda connection: connection.execute(_ADD(connection), row).rowcount)

    async def put(self, record: RecordingRecord, now: datetime) -> bool:
        """Replace what is known; False when the recording is gone (deleted meanwhile)."""
        change = update(recordings).where(recordings.c.call_id == record.call_id, _not_gone(now)).values(self._row(record))
        return await self._writer.submit(lambda connection: connection.execute(change).rowcount == 1)

    async def get(self, call_id: CallId) -> RecordingRecord | None:
        """The recording of a call, whatever its state."""
        query = select(recordings).where(recordings.c.call_id == call_id)

        def work(connection: Connection) -> RecordingRecord | None:
            row = connection.execute(query).first()
            return None if row is None else _record(row)

        return await self._database.read(work)

    async def elsewhere(self, call_id: CallId) -> bool:
        """Whether the recording is known to lie on another server's disk."""
        query = select(recordings.c.node).where(recordings.c.call_id == call_id)
        node = await self._database.read(lambda connection: connection.execute(query).scalar())
        return node is not None and node != self._node

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

    async def expired(self, now: datetime, limit: int, after: RecordingRecord | None = None) -> list[RecordingRecord]:
        """This server's recordings that are gone and whose files may still lie there, longest first, from behind `after` on.

        Not those whose files are being made.
        """
        here = recordings.c
        idle = or_(here.state.in_(_FINISHED), here.purge_at <= now - _NEVER_MADE_AFTER)
        own = or_(here.node.is_(None), here.node == self._node, here.purge_at <= now - _NODE_GONE_AFTER)
        query = select(recordings).where(here.purge_at <= now, idle, own).order_by(here.purge_at, here.call_id).limit(limit)
        if after is not None:
            same = and_(here.purge_at == after.purge_at, here.call_id > after.call_id)
            query = query.where(or_(here.purge_at > after.purge_at, same))

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
        """(finished recordings that are kept here, their bytes)."""
        own = or_(recordings.c.node.is_(None), recordings.c.node == self._node)
        query = select(func.count(), func.coalesce(func.sum(recordings.c.size_bytes), 0)).where(
            recordings.c.state == RecordingState.READY.value, _not_gone(now), own
        )

        def work(connection: Connection) -> tuple[int, int]:
            count, size_bytes = connection.execute(query).one()
            return int(count), int(size_bytes)

        return await self._database.read(work)

    def _row(self, record: RecordingRecord) -> dict[str, Any]:
        """Whoever writes a recording down, or makes it, has it on its disk."""
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        return {**values, "state": record.state.value, "node": self._node}


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

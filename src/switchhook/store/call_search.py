"""Calls of an account, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from switchhook.domain.records import CallRecord, CallSearch
from switchhook.store.calls import record_of
from switchhook.store.database import Database
from switchhook.store.schema import OVER_TWILIO, calls


class CallSearches:
    """Finds calls of any node, live and finished."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, wanted: CallSearch) -> Sequence[CallRecord]:
        """Newest first. Raises StoreUnavailable."""
        query = query_of(wanted)

        def work(connection: Connection) -> list[CallRecord]:
            return [record_of(row) for row in connection.execute(query)]

        return await self._database.read(work)


def query_of(wanted: CallSearch) -> Select[Any]:
    """What is asked of the database."""
    newest_first = calls.c.started_at.desc(), calls.c.call_id.desc()
    return select(calls).where(*_conditions(wanted)).order_by(*newest_first).limit(wanted.limit)


def _conditions(wanted: CallSearch) -> list[ColumnElement[bool]]:
    here = calls.c
    conditions: list[ColumnElement[bool]] = [here.account == wanted.account]
    for column, values in ((here.call_id, wanted.call_ids), (here.called, wanted.called), (here.caller, wanted.caller)):
        if values is not None:
            conditions.append(column.in_(sorted(values)))
    for column, there in ((here.ended_at, wanted.over), (here.connected_at, wanted.connected)):
        if there is not None:
            conditions.append(column.is_not(None) if there else column.is_(None))
    if wanted.since is not None:
        conditions.append(here.started_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(here.started_at < wanted.until)
    if wanted.reasons is not None:
        conditions.append(here.reason.in_(wanted.reasons))
    if wanted.other_reasons is not None:
        conditions.append(or_(here.reason.is_(None), here.reason.not_in(wanted.other_reasons)))
    return conditions + _places(wanted)


def _places(wanted: CallSearch) -> list[ColumnElement[bool]]:
    """Of one call by its name, and of where a page begins."""
    here = calls.c
    conditions: list[ColumnElement[bool]] = []
    if wanted.twilio_sid is not None:
        conditions += [OVER_TWILIO, here.line_call_id == wanted.twilio_sid]
    if wanted.after is not None:
        started_at, call_id = wanted.after
        conditions.append(or_(here.started_at < started_at, and_(here.started_at == started_at, here.call_id < call_id)))
    return conditions

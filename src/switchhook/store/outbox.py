"""Repository of the outbox: events that customers are to be told, until they acknowledge."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from switchhook.domain.model import CallId
from switchhook.domain.records import OutboxCounts, OutboxEvent, OutboxState
from switchhook.store.database import Database
from switchhook.store.schema import outbox
from switchhook.store.writer import Writer

_PENDING = OutboxState.PENDING.value
_COLUMNS = ("state", "attempts", "next_attempt_at", "last_error", "delivered_at")
_SETTLE = (
    update(outbox)
    .where(outbox.c.call_id == bindparam("wanted_call"), outbox.c.kind == bindparam("wanted_kind"), outbox.c.state == _PENDING)
    .values({name: bindparam(f"to_{name}") for name in _COLUMNS})
)
_COUNT = select(outbox.c.state, func.count()).where(outbox.c.state != OutboxState.DELIVERED.value).group_by(outbox.c.state)


class OutboxRepository:
    """The events of one node; `get`, `parked`, `resend` and `counts` see those of every node."""

    def __init__(self, database: Database, writer: Writer, node: str) -> None:
        self._database = database
        self._writer = writer
        self._node = node

    async def due(self, now: datetime, limit: int, without: Collection[str] = ()) -> list[OutboxEvent]:
        """Pending events whose time has come, the longest due first; none of the accounts in `without`."""
        query = (
            select(outbox)
            .where(outbox.c.state == _PENDING, outbox.c.node == self._node, outbox.c.next_attempt_at <= now)
            .where(outbox.c.account.not_in(sorted(without)))
            .order_by(outbox.c.next_attempt_at, outbox.c.created_at)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_event(row) for row in rows]

    async def next_due(self, now: datetime) -> datetime | None:
        """When the next pending event comes due after now."""
        query = select(func.min(outbox.c.next_attempt_at)).where(
            outbox.c.state == _PENDING, outbox.c.node == self._node, outbox.c.next_attempt_at > now
        )
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    async def settle(self, event: OutboxEvent) -> None:
        """Record how a delivery went; one that is recorded as delivered stays so. Committed on return.

        It waits for company like other changes: a commit costs more than the change. An acknowledgement that a crash overtakes
        is forgotten, and the event sent once more.
        """
        values = {
            "wanted_call": event.call_id,
            "wanted_kind": event.kind,
            "to_state": event.state.value,
            "to_attempts": event.attempts,
            "to_next_attempt_at": event.next_attempt_at,
            "to_last_error": event.last_error,
            "to_delivered_at": event.delivered_at,
        }
        await self._writer.submit(lambda connection: connection.execute(_SETTLE, values).rowcount)

    async def resend(self, call_id: CallId, now: datetime) -> int:
        """Make a call's parked events pending once more, with their ladder from the start; gives how many."""
        change = (
            update(outbox)
            .where(outbox.c.call_id == call_id, outbox.c.state == OutboxState.PARKED.value)
            .values(state=_PENDING, attempts=0, next_attempt_at=now)
        )
        return await self._writer.submit(lambda connection: connection.execute(change).rowcount, 0)

    async def get(self, call_id: CallId) -> list[OutboxEvent]:
        """The events of a call."""
        query = select(outbox).where(outbox.c.call_id == call_id).order_by(outbox.c.kind)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_event(row) for row in rows]

    async def parked(self, limit: int = 100) -> list[OutboxEvent]:
        """Events that were given up, the latest first."""
        query = (
            select(outbox)
            .where(outbox.c.state == OutboxState.PARKED.value)
            .order_by(outbox.c.next_attempt_at.desc())
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_event(row) for row in rows]

    async def counts(self) -> OutboxCounts:
        """How many events are pending and parked."""

        def work(connection: Connection) -> Sequence[Any]:
            return connection.execute(_COUNT).all()

        return OutboxCounts(**{row[0]: row[1] for row in await self._database.read(work)})


def event_row(event: OutboxEvent, node: str) -> dict[str, Any]:
    """The row of an event."""
    return {
        "call_id": event.call_id,
        "kind": event.kind,
        "node": node,
        "account": event.account,
        "number": event.number,
        "contract": event.contract,
        "body": event.body,
        "state": event.state.value,
        "attempts": event.attempts,
        "created_at": event.created_at,
        "next_attempt_at": event.next_attempt_at,
        "last_error": event.last_error,
        "delivered_at": event.delivered_at,
    }


def _event(row: Any) -> OutboxEvent:
    return OutboxEvent(
        CallId(row.call_id),
        row.kind,
        row.account,
        row.number,
        row.contract,
        bytes(row.body),
        row.created_at,
        row.next_attempt_at,
        row.attempts,
        OutboxState(row.state),
        row.last_error,
        row.delivered_at,
    )

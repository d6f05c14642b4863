"""Repository of calls and their journals. On the path of a call: one INSERT before its start webhook, one UPDATE at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from switchhook.domain.model import CallAttempt, CallId, Direction, TransferRecord
from switchhook.domain.outcome import Ending, Outcome
from switchhook.domain.plan import JournalSpec
from switchhook.domain.records import CallLine, CallProgress, CallRecord, LineKind, OutboxEvent
from switchhook.store.database import Database, insert_missing
from switchhook.store.outbox import event_row
from switchhook.store.schema import call_lines, calls, nodes, outbox
from switchhook.store.writer import Writer

logger = logging.getLogger(__name__)

BEGIN_WITHIN_S = 0.01
"""The start webhook waits for this row."""

_BEGIN = insert_missing(calls)
_LINES = insert_missing(call_lines)
_EVENT = insert_missing(outbox)
_PROGRESS_COLUMNS = ("journal_tool_requests", "journal_tool_replies", "journal_transcript", "customer_call_id", "connected_at")
_FINAL_COLUMNS = (
    *_PROGRESS_COLUMNS,
    "ended_at",
    "ending",
    "outcome",
    "reason",
    "message",
    "end_webhook_owed",
    "referred_out",
    "transfers",
    "usage",
    "figures",
    "costs",
)


def _update(columns: Sequence[str]) -> Any:
    wanted = calls.c.call_id == bindparam("wanted")
    return update(calls).where(wanted, calls.c.ended_at.is_(None)).values({name: bindparam(f"to_{name}") for name in columns})


_PROGRESS = _update(_PROGRESS_COLUMNS)
_FINISH = _update(_FINAL_COLUMNS)
_SEEN = update(nodes).where(nodes.c.name == bindparam("wanted")).values(seen_at=bindparam("to_seen_at"))
_GET = select(calls).where(calls.c.call_id == bindparam("wanted"))
_GET_LINES = select(call_lines).where(call_lines.c.call_id == bindparam("wanted")).order_by(call_lines.c.position)
_LAST_LINE = select(func.max(call_lines.c.at)).where(call_lines.c.call_id == bindparam("wanted"))
_LIVE = select(calls).where(calls.c.node == bindparam("wanted"), calls.c.ended_at.is_(None)).order_by(calls.c.started_at)


class CallRepository:
    """The calls of one node (a server process by its lasting name); `get` and `journal` find those of any."""

    def __init__(self, database: Database, writer: Writer, node: str) -> None:
        self._database = database
        self._writer = writer
        self._node = node

    async def begin(self, record: CallRecord) -> None:
        """Write a live call down; it is committed on return."""
        row = self._row(record)
        await self._writer.submit(lambda connection: connection.execute(_BEGIN(connection), row), BEGIN_WITHIN_S)

    async def progress(self, changes: Sequence[CallProgress], lines: Sequence[CallLine], now: datetime) -> None:
        """Write down what became known of live calls, and that this node lives."""
        change_rows = [{"wanted": change.call_id, **_to(_progress_values(change))} for change in changes]
        line_rows = [_line_row(line) for line in lines]

        def work(connection: Connection) -> None:
            if change_rows:
                connection.execute(_PROGRESS, change_rows)
            if line_rows:
                connection.execute(_LINES(connection), line_rows)
            if connection.execute(_SEEN, {"wanted": self._node, "to_seen_at": now}).rowcount == 0:
                connection.execute(insert(nodes), {"name": self._node, "seen_at": now})

        await self._writer.submit(work)

    async def finish(self, record: CallRecord, lines: Sequence[CallLine], event: OutboxEvent | None) -> bool:
        """Close the record, add its last lines and queue its event, all or none.

        False, and nothing is written, when the call is closed already.
        """
        row = self._row(record)
        final = {"wanted": row["call_id"], **_to({name: row[name] for name in _FINAL_COLUMNS})}
        line_rows = [_line_row(line) for line in lines]
        queued = None if event is None else event_row(event, self._node)

        def work(connection: Connection) -> bool:
            if connection.execute(_FINISH, final).rowcount == 0 and connection.execute(_BEGIN(connection), row).rowcount == 0:
                return False
            if line_rows:
                connection.execute(_LINES(connection), line_rows)
            if queued is not None:
                connection.execute(_EVENT(connection), queued)
            return True

        return await self._writer.submit(work)

    async def get(self, call_id: CallId) -> CallRecord | None:
        """The record of a call."""
        row = await self._database.read(lambda connection: connection.execute(_GET, {"wanted": call_id}).one_or_none())
        return None if row is None else record_of(row)

    async def journal(self, call_id: CallId) -> list[CallLine]:
        """The lines of a call in the order of writing."""
        rows = await self._database.read(lambda connection: connection.execute(_GET_LINES, {"wanted": call_id}).all())
        return [
            CallLine(CallId(r.call_id), r.position, LineKind(r.kind), r.at, r.text, r.spoken_order, r.interrupted) for r in rows
        ]

    async def live(self) -> list[tuple[CallRecord, datetime]]:
        """This node's calls without an end, each with the last time it is known to have lived; unreadable ones are left out."""

        def work(connection: Connection) -> list[tuple[Any, datetime | None]]:
            rows = connection.execute(_LIVE, {"wanted": self._node}).all()
            return [(row, connection.execute(_LAST_LINE, {"wanted": row.call_id}).scalar()) for row in rows]

        found = await self._database.read(work)
        seen_at = await self._database.read(
            lambda connection: connection.execute(select(nodes.c.seen_at).where(nodes.c.name == self._node)).scalar()
        )
        readable = []
        for row, line_at in found:
            try:
                readable.append((record_of(row), _last_known(row, line_at, seen_at)))
            except (ValueError, TypeError, KeyError, msgspec.MsgspecError):
                # One unreadable row must not keep the server from starting; it is looked at again at the next start.
                logger.exception("the record of a call cannot be read", extra={"call_id": row.call_id})
        return readable

    def _row(self, record: CallRecord) -> dict[str, Any]:
        attempt = record.attempt
        return {
            "call_id": attempt.call_id,
            "node": self._node,
            "account": record.account,
            "number": record.number,
            "contract": record.contract,
            "direction": attempt.direction.value,
            "called": attempt.called,
            "caller": attempt.caller,
            "caller_name": attempt.caller_name,
            "line": attempt.line,
            "line_call_id": attempt.line_call_id,
            "trunk": attempt.trunk,
            "started_at": attempt.started_at,
            "call_start_sent_at": record.call_start_sent_at,
            **_progress_values(CallProgress(attempt.call_id, record.journal, record.customer_call_id, record.connected_at)),
            "ended_at": record.ended_at,
            "ending": record.ending and record.ending.value,
            "outcome": record.outcome and record.outcome.value,
            "reason": record.reason,
            "message": record.message,
            "end_webhook_owed": record.end_webhook_owed,
            "referred_out": record.referred_out,
            "transfers": msgspec.to_builtins(record.transfers),
            "usage": dict(record.usage),
            "figures": dict(record.figures),
            "costs": dict(record.costs),
        }


def _to(values: dict[str, Any]) -> dict[str, Any]:
    return {f"to_{name}": value for name, value in values.items()}


def _progress_values(change: CallProgress) -> dict[str, Any]:
    return {
        "journal_tool_requests": change.journal.tool_requests,
        "journal_tool_replies": change.journal.tool_replies,
        "journal_transcript": change.journal.transcript,
        "customer_call_id": change.customer_call_id,
        "connected_at": change.connected_at,
    }


def _line_row(line: CallLine) -> dict[str, Any]:
    return {
        "call_id": line.call_id,
        "position": line.position,
        "kind": line.kind.value,
        "at": line.at,
        "text": line.text,
        "spoken_order": line.order,
        "interrupted": line.interrupted,
    }


def record_of(row: Any) -> CallRecord:
    """The record in a row."""
    attempt = CallAttempt(
        CallId(row.call_id),
        Direction(row.direction),
        row.called,
        row.caller,
        row.caller_name,
        row.account,
        row.line,
        row.started_at,
        row.line_call_id,
        row.trunk,
        row.customer_call_id,
    )
    return CallRecord(
        attempt,
        row.account,
        row.number,
        row.contract,
        row.call_start_sent_at,
        row.customer_call_id,
        JournalSpec(row.journal_tool_requests, row.journal_tool_replies, row.journal_transcript),
        row.connected_at,
        row.ended_at,
        row.ending and Ending(row.ending),
        row.outcome and Outcome(row.outcome),
        row.reason,
        row.message,
        row.end_webhook_owed,
        row.referred_out,
        msgspec.convert(row.transfers, tuple[TransferRecord, ...]),
        row.usage,
        row.figures,
        row.costs or {},
    )


def _last_known(row: Any, line_at: datetime | None, seen_at: datetime | None) -> datetime:
    known = (row.started_at, row.call_start_sent_at, row.connected_at, line_at, seen_at)
    return max(time for time in known if time is not None)

"""A database of an earlier version keeps what is in it."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from switchhook.domain.model import CallId, Trunk
from switchhook.domain.records import AccountSettings, CallLine, CallSearch, LineKind
from switchhook.store.database import Database
from switchhook.store.migrate import alembic_config
from switchhook.store.schema import metadata
from switchhook.store.secrets import SecretBox
from tests.store.opening import KEY, running_store
from tests.store.samples import START

ROWS = (
    "INSERT INTO accounts (name) VALUES ('acme')",
    "INSERT INTO trunks (name, account, address, allow_from, username, password_sealed, register)"
    " VALUES ('local', 'acme', 'sip:127.0.0.1:5070', '[\"127.0.0.0/8\"]', 'alice', :sealed, false)",
    "INSERT INTO calls (call_id, node, account, number, contract, direction, called, caller, line, line_call_id, started_at,"
    " ended_at, ending, outcome, journal_tool_requests, journal_tool_replies, journal_transcript, end_webhook_owed,"
    ' referred_out, transfers, "usage", figures)'
    " VALUES ('old', 'test-node', 'acme', '+17206999999', 'vns', 'inbound', '+17206999999', '+13035550123', 'sip', 'abc@host',"
    " '2026-04-17 16:26:12.560000+00:00', '2026-04-17 16:26:21+00:00', 'completed', 'success', true, false, true, true,"
    " false, :transfers, '{}', '{}')",
    "INSERT INTO calls (call_id, node, account, direction, called, caller, line, line_call_id, started_at, ended_at, ending,"
    " outcome, journal_tool_requests, journal_tool_replies, journal_transcript, end_webhook_owed, referred_out, transfers,"
    ' "usage", figures)'
    " VALUES ('carried', 'test-node', 'acme', 'inbound', '+17206999999', '+13035550123', 'twilio', :name,"
    " '2026-04-17 16:26:12.560000+00:00', '2026-04-17 16:26:21+00:00', 'completed', 'success', true, false, true, true,"
    " false, '[]', '{}', '{}')",
    "INSERT INTO call_lines (call_id, position, kind, at, text, spoken_order, interrupted)"
    " VALUES ('old', 0, 'caller', '2026-04-17 16:26:13+00:00', 'Hello!', 0, false)",
    "INSERT INTO recordings (call_id, account, format, encrypted, path, state, size_bytes, salvaged, created_at)"
    " VALUES ('old', 'acme', 'opus', false, 'recordings/old.opus', 'ready', 7, false, '2026-04-17 16:26:12+00:00')",
    "INSERT INTO recordings (call_id, account, format, encrypted, path, state, size_bytes, salvaged, created_at)"
    " VALUES ('without-call', 'acme', 'opus', false, 'recordings/x.opus', 'ready', 7, false, '2026-04-17 16:26:12+00:00')",
)
TRANSFERS = (
    '[{"called": "+13035550199", "caller": "+13035550123", "caller_name": null, "started_at": "2026-04-17T16:26:13Z",'
    ' "ended_at": "2026-04-17T16:26:20Z", "result": "Connected"}]'
)
LONG_NAME = "CA" + random.Random(1).randbytes(4000).hex()
"""Longer than what PostgreSQL takes into an index."""


def back_to_the_first(connection: Connection) -> None:
    metadata.drop_all(connection)
    connection.execute(text("DROP TABLE alembic_version"))
    command.upgrade(alembic_config(connection), "0001")
    sealed = SecretBox(KEY).seal(b"canary-sip", b"trunks:local")
    for row in ROWS:
        statement = text(row.replace("+00:00'", "'") if connection.dialect.name == "sqlite" else row)
        wanted = statement.compile().params
        connection.execute(
            statement,
            {
                name: value
                for name, value in {"sealed": sealed, "transfers": TRANSFERS, "name": LONG_NAME}.items()
                if name in wanted
            },
        )


async def test_the_first_version_comes_up_with_its_data(url: str) -> None:
    database = Database(url)
    await database.transact(back_to_the_first)
    await database.close()
    async with running_store(url) as store:
        found = await store.directory.read()
        assert found.accounts == {"acme": AccountSettings("acme")}
        assert found.trunks == {
            "local": Trunk("local", "acme", "sip:127.0.0.1:5070", ("127.0.0.0/8",), "alice", "canary-sip", False)
        }
        call = await store.calls.get(CallId("old"))
        assert call is not None
        assert call.attempt.started_at == START
        [transfer] = call.transfers
        assert (transfer.called, transfer.sip_status, transfer.referred) == ("+13035550199", None, False)
        assert transfer.ended_at - transfer.started_at == timedelta(seconds=7)
        [carried] = await store.searches.search(CallSearch("acme", 1, twilio_sid=LONG_NAME[:64]))
        assert carried.attempt.call_id == "carried"
        line = CallLine(CallId("old"), 1, LineKind.DESTINATION, START, "Who?", 1)
        await store.calls.progress((), (line,), START)
        assert [(said.kind, said.text) for said in await store.calls.journal(CallId("old"))] == [
            (LineKind.CALLER, "Hello!"),
            (LineKind.DESTINATION, "Who?"),
        ]
        with pytest.raises(IntegrityError):
            await store.writer.submit(lambda connection: connection.execute(text("UPDATE call_lines SET kind = 'other'")).close())
        await store.writer.submit(lambda connection: connection.execute(text("DELETE FROM calls")).close())
        assert await store.calls.journal(CallId("old")) == [], "they go with their call"
        assert not await store.recordings.elsewhere(CallId("old"))
        assert not await store.recordings.elsewhere(CallId("without-call"))
    async with running_store(url, node="other-node") as other:
        assert await other.recordings.elsewhere(CallId("old")), "it lies where its call was"
        assert not await other.recordings.elsewhere(CallId("without-call")), "nobody knows"

"""Calls of an account are found by what they were, a page at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection, text

from switchhook.domain.model import CallId
from switchhook.domain.records import CallRecord, CallSearch
from switchhook.store.call_search import query_of
from switchhook.store.opened import Store
from tests.store.samples import START, begun, ended


def call(number: int, **fields: object) -> CallRecord:
    record = begun()
    attempt = replace(
        record.attempt,
        call_id=CallId(f"00000000-0000-4000-8000-{number:012d}"),
        started_at=START + timedelta(minutes=number),
        called=f"+172055500{number:02d}",
    )
    return replace(record, attempt=attempt, account="acme", **fields)  # type: ignore[arg-type]  # fields of a record


async def found(store: Store, **wanted: object) -> list[int]:
    search = replace(CallSearch("acme", 10), **wanted)  # type: ignore[arg-type]  # fields of a search
    return [int(record.attempt.call_id[-12:]) for record in await store.searches.search(search)]


async def test_search(store: Store) -> None:
    for number in range(1, 6):
        await store.calls.begin(call(number))
    await store.calls.begin(replace(call(6), account="another"))
    for number, reason, connected in ((1, "busy", None), (2, "agent-ended", START), (3, "policy-country", None)):
        await store.calls.finish(replace(ended(call(number)), reason=reason, connected_at=connected), (), None)
    assert await found(store) == [5, 4, 3, 2, 1]
    assert await found(store, limit=2) == [5, 4]
    after = (START + timedelta(minutes=4), "00000000-0000-4000-8000-000000000004")
    assert await found(store, after=after) == [3, 2, 1]
    assert await found(store, over=False) == [5, 4]
    assert await found(store, over=True, connected=True) == [2]
    assert await found(store, over=True, connected=False) == [3, 1]
    assert await found(store, over=True, reasons=("busy",)) == [1]
    assert await found(store, over=True, connected=False, other_reasons=("busy",)) == [3]
    assert await found(store, called=frozenset({"+17205550002", "2"})) == [2]
    assert await found(store, caller=frozenset({"nobody"})) == []
    assert await found(store, since=START + timedelta(minutes=2), until=START + timedelta(minutes=4)) == [3, 2]
    mine = frozenset({CallId("00000000-0000-4000-8000-000000000001"), CallId("00000000-0000-4000-8000-000000000006")})
    assert await found(store, call_ids=mine) == [1]


async def test_a_call_is_found_by_the_name_that_twilio_has_for_it(store: Store) -> None:
    """Not by what another line calls it, and not by another account."""
    sid = "CA" + "7" * 32
    for number, line, account in ((1, "twilio", "acme"), (2, "sip", "acme"), (3, "twilio", "another")):
        record = replace(call(number), account=account)
        await store.calls.begin(replace(record, attempt=replace(record.attempt, line=line, line_call_id=sid)))
    assert await found(store, twilio_sid=sid) == [1]
    again = replace(call(4).attempt, line="twilio", line_call_id=sid)
    await store.calls.begin(replace(call(4), account="acme", attempt=again))
    assert await found(store, twilio_sid=sid) == [4, 1], "Twilio asked again after a restart: the newest one first"
    assert await found(store, twilio_sid=f"{sid}0") == []


async def test_a_call_is_found_by_its_name_without_looking_at_the_others(store: Store) -> None:
    query = query_of(CallSearch("acme", 1, twilio_sid="CA1"))

    def explain(connection: Connection) -> str:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # it would read a table of no rows
        how = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        asked = query.compile(connection, compile_kwargs={"literal_binds": True})
        return " ".join(str(row[-1]) for row in connection.execute(text(f"{how} {asked}")))

    assert "ix_calls_twilio" in await store.writer.submit(explain)

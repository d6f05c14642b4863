from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from switchhook.domain.model import CallId
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import JournalSpec
from switchhook.domain.records import CallLine, CallProgress, LineKind, split_journal
from switchhook.store.opened import Store
from tests.store.opening import NODE, killed_store, running_store
from tests.store.samples import START, begun, ended, event


def line(call_id: CallId, position: int, text: str = "said", kind: LineKind = LineKind.LOG, order: int = 0) -> CallLine:
    return CallLine(call_id, position, kind, START + timedelta(seconds=position), text, order)


async def test_a_call_is_written_down_and_closed(store: Store) -> None:
    record = begun()
    await store.calls.begin(record)
    assert await store.calls.get(record.attempt.call_id) == record
    final = ended(record)
    assert await store.calls.finish(final, (), event(record))
    assert await store.calls.get(record.attempt.call_id) == final
    assert await store.outbox.get(record.attempt.call_id) == [event(record)]


async def test_a_rejected_attempt_has_a_record_too(store: Store) -> None:
    final = replace(ended(begun()), number=None, ending=Ending.REJECTED, reason="unknown-number", end_webhook_owed=False)
    assert await store.calls.finish(final, (), None)
    assert await store.calls.get(final.attempt.call_id) == final
    assert await store.outbox.get(final.attempt.call_id) == []


async def test_of_many_ends_the_first_counts(store: Store) -> None:
    record = begun()
    await store.calls.begin(record)
    reasons = [f"reason-{number}" for number in range(20)]
    firsts = await asyncio.gather(
        *(
            store.calls.finish(replace(ended(record), reason=reason), (line(record.attempt.call_id, 0, reason),), event(record))
            for reason in reasons
        )
    )
    assert firsts == [True] + [False] * 19
    found = await store.calls.get(record.attempt.call_id)
    assert found is not None
    assert found.reason == "reason-0"
    assert [entry.text for entry in await store.calls.journal(record.attempt.call_id)] == ["reason-0"]
    assert len(await store.outbox.get(record.attempt.call_id)) == 1


async def test_two_servers_that_end_one_call_make_one_event(url: str) -> None:
    record = begun()
    async with running_store(url) as one, running_store(url) as other:
        await one.calls.begin(record)
        firsts = await asyncio.gather(*(store.calls.finish(ended(record), (), event(record)) for store in (one, other)))
        assert sorted(firsts) == [False, True]
        assert len(await one.outbox.get(record.attempt.call_id)) == 1


async def test_progress_is_kept_until_the_end(store: Store) -> None:
    records = [begun() for _ in range(3)]
    for record in records:
        await store.calls.begin(record)
    spec = JournalSpec(tool_replies=True)
    changes = [CallProgress(record.attempt.call_id, spec, "theirs", START + timedelta(seconds=2)) for record in records]
    lines = [line(record.attempt.call_id, position) for record in records for position in range(4)]
    await store.calls.progress(changes, lines, START + timedelta(seconds=30))
    await store.calls.progress([], lines, START + timedelta(seconds=31))
    for record in records:
        assert await store.calls.get(record.attempt.call_id) == replace(
            record,
            journal=spec,
            customer_call_id="theirs",
            connected_at=START + timedelta(seconds=2),
            attempt=replace(record.attempt, customer_call_id="theirs"),
        )
        assert len(await store.calls.journal(record.attempt.call_id)) == 4


async def test_late_progress_does_not_change_an_ended_call(store: Store) -> None:
    record = begun()
    await store.calls.finish(ended(record), (), None)
    await store.calls.progress([CallProgress(record.attempt.call_id, JournalSpec(), None, None)], [], START)
    assert await store.calls.get(record.attempt.call_id) == ended(record)


async def test_the_journal_comes_apart_in_order(store: Store) -> None:
    record = begun()
    call_id = record.attempt.call_id
    lines = [
        line(call_id, 0, "Tool Request"),
        line(call_id, 1, "second", LineKind.CALLER, order=2),
        replace(line(call_id, 2, "first", LineKind.AGENT, order=1), interrupted=True),
        line(call_id, 3, "Tool Reply"),
    ]
    await store.calls.finish(ended(record), lines, None)
    log, utterances = split_journal(await store.calls.journal(call_id))
    assert [text for _, text in log] == ["Tool Request", "Tool Reply"]
    assert [(said.text, said.interrupted, said.order) for said in utterances] == [("first", True, 1), ("second", False, 2)]


async def test_text_that_databases_refuse_is_kept_as_well_as_can_be(store: Store) -> None:
    record = begun()
    record = replace(record, attempt=replace(record.attempt, caller_name="nul\0 and \ud800 half", caller="\U0001f4de"))
    await store.calls.begin(record)
    await store.calls.finish(ended(record), (line(record.attempt.call_id, 0, "\0\udfff"),), None)
    found = await store.calls.get(record.attempt.call_id)
    assert found is not None
    assert found.attempt.caller == "\U0001f4de"
    assert found.attempt.caller_name is not None
    assert found.attempt.caller_name.startswith("nul\ufffd and ")


async def test_figures_that_are_no_numbers_do_not_stop_the_record(store: Store) -> None:
    final = replace(ended(begun()), figures={"jitter_ms": float("nan"), "loss": float("inf")})
    assert await store.calls.finish(final, (), None)


async def test_times_come_back_in_utc_and_need_a_zone(store: Store) -> None:
    record = begun()
    local = START.astimezone(timezone(timedelta(hours=-6)))
    await store.calls.begin(replace(record, attempt=replace(record.attempt, started_at=local)))
    found = await store.calls.get(record.attempt.call_id)
    assert found is not None
    assert found.attempt.started_at == START
    assert found.attempt.started_at.tzinfo is UTC
    naive = replace(record.attempt, started_at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(Exception, match="zone"):
        await store.calls.begin(replace(record, attempt=naive))


async def test_live_calls_of_a_killed_server_are_found_by_its_next_life_alone(url: str) -> None:
    quiet, talking, over, foreign = (begun() for _ in range(4))
    async with killed_store(url) as store:
        for record in (quiet, talking, over):
            await store.calls.begin(record)
        seen = START + timedelta(seconds=7)
        await store.calls.progress([], [line(talking.attempt.call_id, 9)], seen)
        await store.calls.finish(ended(over), (), None)
    async with running_store(url, node="another") as other:
        await other.calls.begin(foreign)
        assert [found[0] for found in await other.calls.live()] == [foreign]
    async with running_store(url, NODE) as store:
        found = {record.attempt.call_id: known for record, known in await store.calls.live()}
    assert found == {quiet.attempt.call_id: seen, talking.attempt.call_id: START + timedelta(seconds=9)}

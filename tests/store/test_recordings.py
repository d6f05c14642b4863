from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingQuery, RecordingRecord, RecordingState
from switchhook.store.opened import Store
from tests.store.opening import running_store
from tests.store.samples import START, begun, ended

WEEK = START + timedelta(days=7)


def recording(call_id: str, account: str = "acme", after_s: int = 0) -> RecordingRecord:
    return RecordingRecord(
        CallId(call_id), account, "opus", False, "", RecordingState.SPOOLING, START + timedelta(seconds=after_s)
    )


def made(record: RecordingRecord, size_bytes: int = 100, purge_at: datetime = WEEK) -> RecordingRecord:
    path = f"recordings/{record.call_id}.opus"
    return replace(record, state=RecordingState.READY, path=path, size_bytes=size_bytes, salvaged=True, purge_at=purge_at)


async def names(store: Store, **wanted: object) -> list[str]:
    query = replace(RecordingQuery("acme", START, 100), **wanted)  # type: ignore[arg-type]
    return [kept.record.call_id for kept in await store.recordings.page(query)]


async def test_a_recording_goes_its_way(store: Store) -> None:
    first = recording("a")
    await store.recordings.add(first)
    await store.recordings.add(replace(first, format="wav"))
    assert await store.recordings.get(CallId("a")) == first
    assert await names(store) == []
    ready = made(first, 1 << 33)
    assert await store.recordings.put(ready, START)
    assert await store.recordings.put(ready, START)
    assert await store.recordings.get(CallId("a")) == ready
    assert await names(store) == ["a"]
    assert await store.recordings.kept(START) == (1, 1 << 33)
    assert await store.recordings.expired(START + timedelta(days=6), 10) == []
    assert await store.recordings.expired(WEEK, 10) == [ready]
    assert await names(store, now=WEEK) == []
    assert await store.recordings.kept(WEEK) == (0, 0)
    await store.recordings.forget([CallId("a")])
    await store.recordings.forget([CallId("a"), CallId("never")])
    assert not await store.recordings.put(ready, START)
    assert await store.recordings.get(CallId("a")) is None


async def test_a_finished_recording_is_removed_once_and_left_to_the_purge(store: Store) -> None:
    record = made(recording("a"))
    await store.recordings.add(record)
    assert await store.recordings.remove("other", CallId("a"), START) is None
    assert await store.recordings.remove("acme", CallId("b"), START) is None
    assert await store.recordings.remove("acme", CallId("a"), START) == replace(record, purge_at=START)
    assert await store.recordings.remove("acme", CallId("a"), START) is None
    assert await names(store) == []
    assert await store.recordings.expired(START, 10) == [replace(record, purge_at=START)]


async def test_a_recording_that_is_being_made_is_not_made_after_its_removal(store: Store) -> None:
    record = recording("a")
    await store.recordings.add(record)
    assert await store.recordings.remove("acme", CallId("a"), START) is not None
    assert await store.recordings.remove("acme", CallId("a"), START) is None
    assert not await store.recordings.put(made(record), START)
    assert await store.recordings.expired(START + timedelta(days=1), 10) == []
    assert len(await store.recordings.expired(START + timedelta(days=2), 10)) == 1


async def test_an_account_sees_its_own_newest_first_page_by_page(store: Store) -> None:
    for record in (recording("b", after_s=5), recording("c"), recording("a"), recording("d", "other")):
        await store.recordings.add(made(record))
    await store.recordings.add(recording("e"))
    assert await names(store) == ["b", "c", "a"]
    assert await names(store, limit=2) == ["b", "c"]
    assert await names(store, after=(START, "c")) == ["a"]
    assert await names(store, after=(START, "a")) == []
    assert await store.recordings.known([CallId("a"), CallId("e"), CallId("x")]) == {"a", "e"}
    assert await store.recordings.known([]) == set()


async def test_the_list_knows_the_calls(store: Store) -> None:
    call = replace(begun(), customer_call_id="order 7")
    await store.calls.begin(call)
    await store.calls.finish(ended(call), (), None)
    call_id = call.attempt.call_id
    await store.recordings.add(made(recording(call_id, after_s=1)))
    await store.recordings.add(made(recording("no-call", after_s=60)))
    [unknown, kept] = await store.recordings.page(RecordingQuery("acme", START, 10))
    assert (kept.call_started_at, kept.call_ended_at) == (START, START + timedelta(seconds=9))
    assert kept.customer_call_id == "order 7"
    assert (unknown.call_started_at, unknown.call_ended_at) == (START + timedelta(seconds=60), None)
    assert await names(store, customer_call_id="order 7") == [call_id]
    assert await names(store, customer_call_id="order\0 8") == []
    assert await names(store, since=START, until=START + timedelta(seconds=60)) == [call_id]
    assert await names(store, since=START + timedelta(seconds=1)) == ["no-call"]
    assert await names(store, until=START) == []


async def test_what_is_over_longest_is_purged_first_in_batches(store: Store) -> None:
    for name, days in (("a", 2), ("b", 1), ("c", 3)):
        await store.recordings.add(made(recording(name), purge_at=START + timedelta(days=days)))
    found = await store.recordings.expired(WEEK, 2)
    assert [record.call_id for record in found] == ["b", "a"]


async def test_the_next_batch_begins_behind_the_last_one(store: Store) -> None:
    """Also among those whose time was over at the same moment."""
    for name, days in (("a", 2), ("c", 1), ("b", 1)):
        await store.recordings.add(made(recording(name), purge_at=START + timedelta(days=days)))
    batch: list[RecordingRecord] = await store.recordings.expired(WEEK, 1)
    found = []
    while batch:
        found += [record.call_id for record in batch]
        batch = await store.recordings.expired(WEEK, 1, batch[-1])
    assert found == ["b", "c", "a"]


async def test_each_server_has_its_own(store: Store, url: str) -> None:
    """Every server lists all; what lies on another's disk is not this one's to purge, to count or to take for missing."""
    async with running_store(url, node="other-node") as other:
        await store.recordings.add(made(recording("mine")))
        await other.recordings.add(recording("theirs"))
        await other.recordings.put(made(recording("theirs"), size_bytes=7), START)
        assert sorted(await names(store)) == sorted(await names(other)) == ["mine", "theirs"]
        assert [await store.recordings.elsewhere(CallId(name)) for name in ("mine", "theirs", "never")] == [False, True, False]
        assert (await store.recordings.kept(START), await other.recordings.kept(START)) == ((1, 100), (1, 7))
        assert [record.call_id for record in await store.recordings.expired(WEEK, 10)] == ["mine"]
        assert [record.call_id for record in await other.recordings.expired(WEEK, 10)] == ["theirs"]
        assert await store.recordings.remove("acme", CallId("theirs"), START) is not None
        assert [record.call_id for record in await other.recordings.expired(START, 10)] == ["theirs"]
        assert await store.recordings.expired(START, 10) == []


async def test_what_a_server_that_is_gone_has_left_is_forgotten_after_a_month(store: Store, url: str) -> None:
    async with running_store(url, node="other-node") as other:
        await other.recordings.add(made(recording("a")))
    assert await store.recordings.expired(WEEK + timedelta(days=29), 10) == []
    assert len(await store.recordings.expired(WEEK + timedelta(days=30), 10)) == 1

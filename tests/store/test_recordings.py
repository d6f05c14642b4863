from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.store.opened import Store
from tests.store.samples import START


def recording(call_id: str, account: str = "acme", after_s: int = 0) -> RecordingRecord:
    return RecordingRecord(
        CallId(call_id), account, "opus", False, "", RecordingState.SPOOLING, START + timedelta(seconds=after_s)
    )


async def test_a_recording_goes_its_way(store: Store) -> None:
    first = recording("a")
    await store.recordings.add(first)
    await store.recordings.add(replace(first, format="wav"))
    assert await store.recordings.get(CallId("a")) == first
    assert await store.recordings.unfinished() == [first]
    ready = replace(
        first,
        state=RecordingState.READY,
        path="recordings/a.opus",
        size_bytes=1 << 33,
        salvaged=True,
        purge_at=START + timedelta(days=7),
    )
    assert await store.recordings.put(ready)
    assert await store.recordings.get(CallId("a")) == ready
    assert await store.recordings.unfinished() == []
    assert await store.recordings.expired(START + timedelta(days=6)) == []
    assert await store.recordings.expired(START + timedelta(days=7)) == [ready]
    assert await store.recordings.delete(CallId("a"))
    assert not await store.recordings.delete(CallId("a"))
    assert not await store.recordings.put(ready)
    assert await store.recordings.get(CallId("a")) is None


async def test_an_account_sees_its_own_oldest_first(store: Store) -> None:
    younger, older, foreign = recording("b", after_s=5), recording("c"), recording("d", "other")
    for record in (younger, older, foreign):
        await store.recordings.add(record)
    assert await store.recordings.of_account("acme") == [older, younger]

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from switchhook.domain.model import CallId
from switchhook.domain.records import CallRecord, OutboxCounts, OutboxEvent, OutboxState
from switchhook.store.opened import Store
from tests.store.opening import killed_store, running_store
from tests.store.samples import START, begun, ended, event


async def queued(store: Store, account: str = "acme", after_s: float = 0, body: bytes = b"{}") -> OutboxEvent:
    record: CallRecord = begun()
    made = event(record, account, START + timedelta(seconds=after_s), body)
    assert await store.calls.finish(ended(record), (), made)
    return made


async def test_due_events_come_the_longest_due_first(store: Store) -> None:
    late, early, future = await queued(store, after_s=2), await queued(store, after_s=1), await queued(store, after_s=60)
    now = START + timedelta(seconds=5)
    assert await store.outbox.due(now, 10) == [early, late]
    assert await store.outbox.due(now, 1) == [early]
    assert await store.outbox.next_due(now) == future.next_attempt_at
    assert await store.outbox.next_due(now + timedelta(hours=1)) is None


async def test_accounts_can_be_left_out(store: Store) -> None:
    await queued(store, "dead")
    alive = await queued(store, "alive")
    assert await store.outbox.due(START, 10, {"dead", "other"}) == [alive]


async def test_a_delivery_is_recorded_once_and_for_all(store: Store) -> None:
    made = await queued(store)
    delivered = replace(made, state=OutboxState.DELIVERED, attempts=1, delivered_at=START)
    await store.outbox.settle(delivered)
    await store.outbox.settle(replace(made, attempts=2, last_error="late"))
    assert await store.outbox.get(made.call_id) == [delivered]
    assert await store.outbox.due(START + timedelta(days=9), 10) == []


async def test_a_failed_try_is_recorded(store: Store) -> None:
    made = await queued(store)
    failed = replace(made, attempts=1, last_error="HTTP 500", next_attempt_at=START + timedelta(seconds=5))
    await store.outbox.settle(failed)
    assert await store.outbox.due(START, 10) == []
    assert await store.outbox.due(START + timedelta(seconds=5), 10) == [failed]


async def test_parked_events_are_listed_counted_and_sent_again(store: Store) -> None:
    made, other = await queued(store), await queued(store)
    await store.outbox.settle(replace(made, state=OutboxState.PARKED, attempts=78, last_error="HTTP 500"))
    assert [found.call_id for found in await store.outbox.parked()] == [made.call_id]
    assert await store.outbox.counts() == OutboxCounts(pending=1, parked=1)
    now = START + timedelta(days=4)
    assert await store.outbox.resend(other.call_id, now) == 0
    assert await store.outbox.resend(CallId("nobody"), now) == 0
    assert await store.outbox.resend(made.call_id, now) == 1
    assert await store.outbox.counts() == OutboxCounts(pending=2)
    (again,) = await store.outbox.get(made.call_id)
    assert (again.state, again.attempts, again.next_attempt_at, again.body) == (OutboxState.PENDING, 0, now, made.body)


async def test_bodies_survive_byte_for_byte(url: str) -> None:
    body = bytes(range(256)) * 9 + '{"text":"¿Qué tal? 📞\r\n"}'.encode()
    async with killed_store(url) as store:
        made = await queued(store, body=body)
    async with running_store(url) as store:
        assert [found.body for found in await store.outbox.due(START, 10)] == [body]
        assert made.event_id == f"{made.call_id}:call-end"
    async with running_store(url, node="another") as store:
        assert await store.outbox.due(START, 10) == []

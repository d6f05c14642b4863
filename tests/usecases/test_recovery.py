from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId, Speaker, Utterance
from switchhook.domain.outcome import Ending, Outcome
from switchhook.domain.plan import CallPlan
from switchhook.domain.records import CallLine, CallRecord, DirectoryUpdate
from switchhook.store.opened import Store
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.incoming import Incoming
from switchhook.usecases.outbox import Delivery
from switchhook.usecases.recovery import recover
from tests.server.waiting import eventually
from tests.store.opening import killed_store, running_store
from tests.usecases.fakes import NUMBER, START, Customer, PlainContract, SteppedClock, attempt
from tests.usecases.running import background, until


async def a_call_until_the_server_dies(url: str, clock: SteppedClock) -> None:
    """Answered after 1 s, spoke after 2 s, last seen after 7 s."""
    contracts = {"plain": PlainContract()}
    customer = Customer()
    async with killed_store(url) as store:
        call = attempt()
        plan = await Incoming(store.directory, store.calls, contracts, customer, clock).route(call)
        assert isinstance(plan, CallPlan)
        book = CallBookkeeper(store.calls, contracts, customer, clock, lambda event: None)
        journal = book.open(call, replace(plan, customer_call_id="theirs-9"))
        journal.answered(START + timedelta(seconds=1))
        journal.log("AI Session: open", START)
        journal.utterance(Utterance(Speaker.AGENT, "Hello!", 1, START + timedelta(seconds=2)))
        clock.passed_s = 7.0
        await book.flush()
        journal.log("lost", START + timedelta(seconds=7.5))


async def recovered(store: Store, clock: SteppedClock) -> int:
    return await recover(store.calls, store.directory, {"plain": PlainContract()}, clock)


async def test_a_call_whose_server_died_is_closed_and_told_once(url: str, clock: SteppedClock, customer: Customer) -> None:
    await a_call_until_the_server_dies(url, clock)
    clock.passed_s = 60.0
    async with killed_store(url) as store:
        assert await recovered(store, clock) == 1
    async with running_store(url) as store:
        assert await recovered(store, clock) == 0
        record = await store.calls.get(CallId("call-1"))
        assert record is not None
        assert (record.ending, record.outcome, record.reason) == (
            Ending.INTERNAL_ERROR,
            Outcome.INDETERMINATE,
            "process-died",
        )
        assert record.ended_at == START + timedelta(seconds=7)
        machine = Delivery(store.outbox, store.directory, {"plain": PlainContract()}, customer, clock)
        async with background(machine.run()):
            await until(lambda: len(customer.requests) == 1 and machine.under_way == 0)
    assert json.loads(customer.requests[0].body) == {
        "call": "call-1",
        "ending": "internal-error",
        "reason": "process-died",
        "connected": (START + timedelta(seconds=1)).isoformat(),
        "ended": (START + timedelta(seconds=7)).isoformat(),
        "theirs": "theirs-9",
        "log": ["AI Session: open"],
        "said": ["agent: Hello!"],
    }


async def test_two_recoveries_at_once_tell_once(url: str, clock: SteppedClock) -> None:
    await a_call_until_the_server_dies(url, clock)
    async with running_store(url) as store:
        await asyncio.gather(recovered(store, clock), recovered(store, clock))
        assert len(await store.outbox.get(CallId("call-1"))) == 1


async def test_a_call_without_a_start_webhook_is_only_closed(url: str, clock: SteppedClock) -> None:
    async with killed_store(url) as store:
        await store.calls.begin(CallRecord(attempt(), "acme", NUMBER.number, "plain"))
    async with running_store(url) as store:
        assert await recovered(store, clock) == 1
        record = await store.calls.get(CallId("call-1"))
        assert record is not None
        assert record.ended_at == START
        assert await store.outbox.get(CallId("call-1")) == []


@pytest.mark.parametrize(
    "change", [DirectoryUpdate(remove_numbers=(NUMBER.number,)), DirectoryUpdate(numbers=(replace(NUMBER, account="other"),))]
)
async def test_of_a_number_that_is_gone_the_event_is_kept_for_a_person_to_see(
    url: str, clock: SteppedClock, customer: Customer, change: DirectoryUpdate
) -> None:
    await a_call_until_the_server_dies(url, clock)
    async with running_store(url) as store:
        await store.directory.write(change)
        assert await recovered(store, clock) == 1
        machine = Delivery(store.outbox, store.directory, {"plain": PlainContract()}, customer, clock)
        async with background(machine.run()):
            parked = await eventually(store.outbox.parked, "the event is parked")
    assert [event.call_id for event in parked] == ["call-1"]
    assert customer.requests == []


async def test_calls_that_ended_are_left_alone(store: Store, clock: SteppedClock) -> None:
    assert await recovered(store, clock) == 0


async def test_a_call_that_cannot_be_read_keeps_no_other_from_being_closed(
    store: Store, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("call-1", "call-2", "call-3"):
        await store.calls.begin(CallRecord(attempt(name), "acme", NUMBER.number, "plain", call_start_sent_at=START))
    journal = store.calls.journal

    async def unreadable(call_id: CallId) -> list[CallLine]:
        if call_id == "call-2":
            raise ValueError("on purpose")
        return await journal(call_id)

    with monkeypatch.context() as broken:
        broken.setattr(store.calls, "journal", unreadable)
        assert await recovered(store, clock) == 2
    assert [len(await store.outbox.get(CallId(name))) for name in ("call-1", "call-2", "call-3")] == [1, 0, 1]
    assert await recovered(store, clock) == 1


async def test_a_store_that_is_away_is_no_fault_of_a_call(
    store: Store, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.calls.begin(CallRecord(attempt(), "acme", NUMBER.number, "plain"))

    async def away(call_id: CallId) -> list[CallLine]:
        raise StoreUnavailable

    monkeypatch.setattr(store.calls, "journal", away)
    with pytest.raises(StoreUnavailable):
        await recovered(store, clock)

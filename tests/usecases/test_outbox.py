from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.records import DirectoryUpdate, OutboxEvent, OutboxState
from switchhook.domain.report import CallReport
from switchhook.store.opened import Store
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.outbox import Delivery, describe
from tests.peers.virtual_loop import run_virtual
from tests.store.opening import killed_store, running_store
from tests.usecases.fakes import (
    DOWN,
    EVERYTHING,
    NUMBER,
    START,
    Customer,
    LoopClock,
    PlainContract,
    SteppedClock,
    always,
    attempt,
)
from tests.usecases.memory import MemoryNumbers, MemoryOutbox
from tests.usecases.running import background, until

BODY = '{"text":"¿Qué tal? 📞"}\r\n'.encode()


def event(name: str = "call-1", account: str = "acme", number: str = NUMBER.number) -> OutboxEvent:
    return OutboxEvent(CallId(name), "call-end", account, number, "plain", BODY, START, START)


class Watched(Customer):
    """Notes when each request came, in virtual seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.times.append(round(asyncio.get_running_loop().time(), 3))
        return await super().send(request)


def failing(times: int, outcome: HttpOutcome) -> Callable[[HttpRequest], HttpOutcome]:
    left = [outcome] * times
    return lambda _: left.pop() if left else HttpReply(204, b"")


def delivery(outbox: MemoryOutbox, customer: Customer, numbers: MemoryNumbers | None = None) -> Delivery:
    return Delivery(outbox, numbers or MemoryNumbers(), {"plain": PlainContract()}, customer, LoopClock())


@pytest.mark.parametrize("outcome", [DOWN, HttpFailure("timeout", "10 s"), HttpReply(500, b""), HttpReply(302, b"")])
def test_an_event_is_sent_until_it_is_acknowledged(outcome: HttpOutcome) -> None:
    async def scenario() -> None:
        customer, outbox = Watched(), MemoryOutbox(event())
        customer.answers["end"] = failing(5, outcome)
        async with background(delivery(outbox, customer).run()):
            await asyncio.sleep(10 * 24 * 3600)
        assert customer.times == [0.0, 5.0, 35.0, 155.0, 3755.0, 7355.0]
        assert set(customer.bodies("end")) == {BODY}
        (left,) = outbox.events.values()
        assert (left.state, left.attempts, left.last_error) == (OutboxState.DELIVERED, 6, None)
        assert left.delivered_at == START + timedelta(seconds=7355)

    run_virtual(scenario())


def test_a_customer_who_never_answers_is_given_up_after_72_hours_and_can_be_tried_again() -> None:
    async def scenario() -> None:
        customer, outbox = Watched(), MemoryOutbox(event())
        customer.answers["end"] = always(HttpReply(500, b""))
        machine = delivery(outbox, customer)
        async with background(machine.run()):
            await asyncio.sleep(10 * 24 * 3600)
            (left,) = outbox.events.values()
            assert (left.state, left.attempts, left.last_error) == (OutboxState.PARKED, 76, "HTTP 500")
            assert customer.times[-1] == 155.0 + 72 * 3600
            customer.answers.clear()
            assert await machine.resend(CallId("call-1")) == 1
            assert await machine.resend(CallId("call-2")) == 0
            await asyncio.sleep(1)
            assert customer.times[-1] == 10 * 24 * 3600
            (left,) = outbox.events.values()
            assert left.state is OutboxState.DELIVERED

    run_virtual(scenario())


def test_a_dead_customer_holds_nobody_up() -> None:
    async def scenario() -> None:
        numbers = MemoryNumbers(
            *(
                replace(NUMBER, number=f"+1720699{index:04}", account=name, settings={**NUMBER.settings, "url": f"http://{name}"})
                for index, name in enumerate(("dead", "alive"))
            )
        )
        dead, alive = numbers.numbers.values()
        backlog = [event(f"dead-{index}", "dead", dead.number) for index in range(500)]
        customer = Watched()

        class Slow(Watched):
            async def send(self, request: HttpRequest) -> HttpOutcome:
                if request.url.startswith("http://dead"):
                    await asyncio.sleep(10)
                    return DOWN
                return await customer.send(request)

        outbox = MemoryOutbox(*backlog)
        machine = delivery(outbox, Slow(), numbers)
        async with background(machine.run()):
            await asyncio.sleep(3)
            for index in range(100):
                queued = event(f"alive-{index}", "alive", alive.number)
                outbox.events[queued.event_id] = queued
                machine.offer(queued)
            await asyncio.sleep(0.1)
            assert len(customer.times) == 100
            assert machine.under_way == 4
            await asyncio.sleep(500 / 4 * 10)
            assert all(found.attempts > 0 for found in outbox.events.values())

    run_virtual(scenario())


def test_an_idle_outbox_is_looked_at_once_a_minute() -> None:
    async def scenario() -> None:
        outbox = MemoryOutbox()
        async with background(delivery(outbox, Watched()).run()):
            await asyncio.sleep(3600)
        assert 60 <= outbox.looks <= 62

    run_virtual(scenario())


def test_many_events_of_one_account_all_go_out() -> None:
    async def scenario() -> None:
        outbox = MemoryOutbox(*(event(f"call-{index}") for index in range(300)))
        customer = Watched()
        async with background(delivery(outbox, customer).run()):
            await asyncio.sleep(1)
        assert len(customer.requests) == 300
        assert {found.state for found in outbox.events.values()} == {OutboxState.DELIVERED}

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (MemoryNumbers(replace(NUMBER, number="+17205550000")), "no longer configured"),
        (MemoryNumbers(replace(NUMBER, account="other")), "no longer configured"),
        (MemoryNumbers(replace(NUMBER, contract="veevo")), "no longer runs the contract plain"),
        (MemoryNumbers(replace(NUMBER, settings={})), "webhook settings cannot be used"),
    ],
)
def test_an_event_that_nobody_can_be_told_is_parked_with_the_reason(numbers: MemoryNumbers, words: str) -> None:
    async def scenario() -> None:
        outbox, customer = MemoryOutbox(event()), Watched()
        async with background(delivery(outbox, customer, numbers).run()):
            await asyncio.sleep(1)
        (left,) = outbox.events.values()
        assert left.state is OutboxState.PARKED
        assert words in (left.last_error or "")
        assert customer.requests == []

    run_virtual(scenario())


class Flaky(MemoryOutbox):
    """A store that is away for a while."""

    def __init__(self, *events: OutboxEvent) -> None:
        super().__init__(*events)
        self.away = 0

    async def next_due(self, now: object) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable


def test_a_store_that_is_away_is_waited_for() -> None:
    async def scenario() -> None:
        outbox, customer = Flaky(event()), Watched()
        outbox.away = 3
        async with background(delivery(outbox, customer).run()):
            await asyncio.sleep(60)
        assert outbox.looks >= 4
        assert customer.times == [0.0]

    run_virtual(scenario())


def test_an_acknowledgement_that_could_not_be_recorded_does_not_stop_the_rest() -> None:
    class Broken(MemoryOutbox):
        async def settle(self, event: OutboxEvent) -> None:
            if event.call_id == "call-1":
                raise RuntimeError("on purpose")
            await super().settle(event)

    async def scenario() -> None:
        outbox = Broken(event("call-1"), event("call-2"))
        async with background(delivery(outbox, Watched()).run()):
            await asyncio.sleep(1)
        assert outbox.events["call-2:call-end"].state is OutboxState.DELIVERED

    run_virtual(scenario())


class SlowLook(MemoryOutbox):
    """What a look reads arrives a second later."""

    async def due(self, now: datetime, limit: int, without: Collection[str] = ()) -> list[OutboxEvent]:
        found = await super().due(now, limit, without)
        await asyncio.sleep(1)
        return found


def test_an_event_acknowledged_while_its_row_was_being_read_is_not_sent_again() -> None:
    async def scenario() -> None:
        outbox, customer = SlowLook(event()), Watched()
        machine = delivery(outbox, customer)
        async with background(machine.run()):
            await asyncio.sleep(0.5)
            machine.offer(event())
            await asyncio.sleep(3600)
        assert customer.times == [0.5]
        assert outbox.events["call-1:call-end"].state is OutboxState.DELIVERED

    run_virtual(scenario())


def test_an_event_that_failed_while_its_row_was_being_read_keeps_to_its_ladder() -> None:
    async def scenario() -> None:
        outbox, customer = SlowLook(event()), Watched()
        customer.answers["end"] = failing(1, DOWN)
        machine = delivery(outbox, customer)
        async with background(machine.run()):
            await asyncio.sleep(0.5)
            machine.offer(event())
            await asyncio.sleep(3600)
        assert customer.times == [0.5, 6.5]
        assert outbox.events["call-1:call-end"].attempts == 2

    run_virtual(scenario())


def test_a_reply_that_the_contract_cannot_judge_is_a_failure() -> None:
    async def scenario() -> None:
        outbox, customer = MemoryOutbox(event()), Watched()
        contract = PlainContract(broken="acknowledges")
        machine = Delivery(outbox, MemoryNumbers(), {"plain": contract}, customer, LoopClock())
        async with background(machine.run()):
            await asyncio.sleep(100)
            (left,) = outbox.events.values()
            assert (left.state, left.attempts) == (OutboxState.PENDING, 3)
            assert left.last_error == "the contract could not judge HTTP 200"
            contract.broken = ""
            await asyncio.sleep(100)
        assert customer.times == [0.0, 5.0, 35.0, 155.0]
        assert outbox.events["call-1:call-end"].state is OutboxState.DELIVERED

    run_virtual(scenario())


def test_outcomes_in_words_hold_no_body() -> None:
    assert describe(HttpReply(503, b"secret")) == "HTTP 503"
    assert describe(DOWN) == "unreachable: no route"


class TestWithADatabase:
    """The same with real rows, across the deaths of the process."""

    @staticmethod
    def runner(store: Store, customer: Customer, clock: SteppedClock) -> Delivery:
        return Delivery(store.outbox, store.directory, {"plain": PlainContract()}, customer, clock)

    @staticmethod
    async def finish_a_call(
        store: Store, customer: Customer, clock: SteppedClock, machine: Delivery, name: str = "call-1"
    ) -> None:
        book = CallBookkeeper(store.calls, {"plain": PlainContract()}, customer, clock, machine.offer)
        verdict = Verdict(Ending.COMPLETED, "caller-hung-up")
        await book.finish(CallReport(attempt(name), NUMBER, verdict, START, START, journal=EVERYTHING, end_webhook_owed=True))

    async def test_a_finished_call_is_told_at_once_and_once(self, store: Store, customer: Customer, clock: SteppedClock) -> None:
        machine = self.runner(store, customer, clock)
        async with background(machine.run()):
            await asyncio.sleep(0)
            await self.finish_a_call(store, customer, clock, machine)
            await until(lambda: machine.under_way == 0 and len(customer.requests) == 1)
        (left,) = await store.outbox.get(CallId("call-1"))
        assert left.state is OutboxState.DELIVERED
        assert customer.bodies("end") == [left.body]

    async def test_killed_before_the_acknowledgement_it_is_sent_again_with_the_same_bytes(
        self, url: str, customer: Customer, clock: SteppedClock
    ) -> None:
        customer.gates["end"] = asyncio.Event()
        async with killed_store(url) as store:
            machine = self.runner(store, customer, clock)
            async with background(machine.run()):
                await asyncio.sleep(0)
                await self.finish_a_call(store, customer, clock, machine)
                await until(lambda: customer.waiting == 1)
        customer.gates.clear()
        async with running_store(url) as store:
            machine = self.runner(store, customer, clock)
            async with background(machine.run()):
                await until(lambda: len(customer.requests) == 2 and machine.under_way == 0)
            (left,) = await store.outbox.get(CallId("call-1"))
        assert left.state is OutboxState.DELIVERED
        assert customer.bodies("end") == [left.body, left.body]

    async def test_killed_after_the_acknowledgement_it_is_not_sent_again(
        self, url: str, customer: Customer, clock: SteppedClock
    ) -> None:
        async with killed_store(url) as store:
            machine = self.runner(store, customer, clock)
            async with background(machine.run()):
                await asyncio.sleep(0)
                await self.finish_a_call(store, customer, clock, machine)
                await until(lambda: machine.under_way == 0 and len(customer.requests) == 1)
        async with running_store(url) as store:
            machine = self.runner(store, customer, clock)
            async with background(machine.run()):
                await self.finish_a_call(store, customer, clock, machine, "call-2")
                await until(lambda: machine.under_way == 0 and len(customer.requests) == 2)
        assert customer.bodies("end")[0] != customer.bodies("end")[1]

    async def test_killed_between_two_tries_the_ladder_goes_on_where_it_was(
        self, url: str, customer: Customer, clock: SteppedClock
    ) -> None:
        customer.answers["end"] = always(DOWN)
        async with killed_store(url) as store:
            machine = self.runner(store, customer, clock)
            async with background(machine.run()):
                await asyncio.sleep(0)
                await self.finish_a_call(store, customer, clock, machine)
                await until(lambda: machine.under_way == 0 and len(customer.requests) == 1)
        async with running_store(url) as store:
            (waiting,) = await store.outbox.get(CallId("call-1"))
            assert (waiting.attempts, waiting.next_attempt_at) == (1, START + timedelta(seconds=5))
            machine = self.runner(store, customer, clock)
            clock.passed_s = 5.0
            async with background(machine.run()):
                await until(lambda: machine.under_way == 0 and len(customer.requests) == 2)
            (waiting,) = await store.outbox.get(CallId("call-1"))
            assert (waiting.attempts, waiting.next_attempt_at) == (2, START + timedelta(seconds=35))

    async def test_the_webhook_in_force_is_used(self, store: Store, customer: Customer, clock: SteppedClock) -> None:
        machine = self.runner(store, customer, clock)
        await self.finish_a_call(store, customer, clock, machine)
        moved = replace(NUMBER, settings={"url": "http://moved", "headers": {"Token": "new"}})
        await store.directory.write(DirectoryUpdate(numbers=(moved,)))
        async with background(machine.run()):
            await until(lambda: len(customer.requests) == 1 and machine.under_way == 0)
        (request,) = customer.requests
        assert (request.url, dict(request.headers)) == ("http://moved/end", {"Token": "new"})

    async def test_stopping_waits_for_the_replies_under_way(self, store: Store, customer: Customer, clock: SteppedClock) -> None:
        gate = customer.gates["end"] = asyncio.Event()
        machine = self.runner(store, customer, clock)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(machine.run())
            await asyncio.sleep(0)
            await self.finish_a_call(store, customer, clock, machine)
            await until(lambda: customer.waiting == 1)
            machine.stop()
            done, _ = await asyncio.wait({running}, timeout=0.05)
            assert not done
            gate.set()
        (left,) = await store.outbox.get(CallId("call-1"))
        assert left.state is OutboxState.DELIVERED

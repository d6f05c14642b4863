from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from switchhook.domain.contract import HttpReply
from switchhook.domain.model import CallAttempt, CallId, Speaker, ToolCall, Utterance
from switchhook.domain.outcome import Ending, Outcome, Verdict
from switchhook.domain.plan import CallPlan, JournalSpec
from switchhook.domain.records import CallLine, CallProgress, CallRecord, OutboxEvent
from switchhook.domain.report import CallReport
from switchhook.store.opened import Store
from switchhook.usecases import journal as journal_module
from switchhook.usecases import live_transcript
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.incoming import Incoming
from tests.usecases.fakes import (
    DOWN,
    EVERYTHING,
    NUMBER,
    START,
    Customer,
    PlainContract,
    SteppedClock,
    always,
    attempt,
    plan,
)
from tests.usecases.running import background, until


class House:
    """Everything around the bookkeeper."""

    def __init__(self, store: Store, contract: PlainContract, customer: Customer, clock: SteppedClock) -> None:
        self.store = store
        self.contract = contract
        self.customer = customer
        self.queued: list[OutboxEvent] = []
        contracts = {"plain": contract}
        self.incoming = Incoming(store.directory, store.calls, contracts, customer, clock)
        self.book = CallBookkeeper(store.calls, contracts, customer, clock, self.queued.append)

    async def routed(self, call: CallAttempt) -> CallPlan:
        decision = await self.incoming.route(call)
        assert isinstance(decision, CallPlan)
        return decision

    async def body(self, call_id: str = "call-1") -> dict[str, Any]:
        (event,) = await self.store.outbox.get(CallId(call_id))
        found: dict[str, Any] = json.loads(event.body)
        return found


@pytest.fixture
def house(store: Store, contract: PlainContract, customer: Customer, clock: SteppedClock) -> House:
    return House(store, contract, customer, clock)


def report(call: CallAttempt, **changes: Any) -> CallReport:
    made = CallReport(
        call,
        NUMBER,
        Verdict(Ending.COMPLETED, "caller-hung-up"),
        START + timedelta(seconds=1),
        START + timedelta(seconds=9),
        journal=EVERYTHING,
        end_webhook_owed=True,
        usage={"input_audio": 7},
        figures={"first_audio_ms": 210.5},
    )
    return replace(made, **changes)


def said(text: str, order: int, speaker: Speaker = Speaker.AGENT) -> Utterance:
    return Utterance(speaker, text, order, START + timedelta(seconds=order))


async def test_a_call_from_start_to_end(house: House) -> None:
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    journal.answered(START + timedelta(seconds=1))
    journal.log("AI Session: open", START)
    await journal.tools.run(ToolCall("c1", "lookup", "{}"))
    journal.utterance(said("Bye!", 3))
    journal.utterance(said("Hello?", 2, Speaker.CALLER))
    await house.book.finish(report(call, customer_call_id="theirs-9"))
    record = await house.store.calls.get(call.call_id)
    assert record is not None
    assert (record.outcome, record.reason, record.ended_at) == (Outcome.SUCCESS, "caller-hung-up", START + timedelta(seconds=9))
    assert (record.usage, record.figures) == ({"input_audio": 7}, {"first_audio_ms": 210.5})
    body = await house.body()
    assert body["log"] == ["AI Session: open", "request lookup {}", "reply lookup {}"]
    assert body["said"] == ["caller: Hello?", "agent: Bye!"]
    assert body["theirs"] == "theirs-9"
    assert [event.event_id for event in house.queued] == ["call-1:call-end"]


async def test_two_commits_a_call(house: House) -> None:
    call = attempt()
    before = house.store.writer.commits
    journal = house.book.open(call, await house.routed(call))
    journal.log("line", START)
    await house.book.finish(report(call))
    assert house.store.writer.commits - before == 2


async def test_what_the_customer_did_not_ask_for_is_kept_nowhere(house: House) -> None:
    house.contract.journal = JournalSpec()
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    journal.log("private line", START)
    journal.utterance(said("private word", 1))
    await house.book.flush()
    await house.book.finish(report(call, journal=JournalSpec()))
    assert await house.store.calls.journal(call.call_id) == []
    body = await house.body()
    assert (body["log"], body["said"]) == (None, None)


async def test_utterances_are_kept_only_for_a_transcript(house: House) -> None:
    house.contract.journal = JournalSpec(tool_requests=True)
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    journal.log("line", START)
    journal.utterance(said("private word", 1))
    await house.book.flush()
    assert [line.text for line in await house.store.calls.journal(call.call_id)] == ["line"]


async def test_live_calls_are_written_down_bit_by_bit(house: House) -> None:
    calls = [attempt(f"call-{number}") for number in range(5)]
    journals = [house.book.open(call, await house.routed(call)) for call in calls]
    for journal in journals:
        journal.answered(START + timedelta(seconds=1))
        journal.utterance(said("one", 1))
    before = house.store.writer.commits
    await house.book.flush()
    assert house.store.writer.commits == before + 1
    journals[0].utterance(said("two", 2))
    await house.book.flush()
    await house.book.flush()
    assert [line.text for line in await house.store.calls.journal(calls[0].call_id)] == ["one", "two"]
    record = await house.store.calls.get(calls[1].call_id)
    assert record is not None
    assert (record.connected_at, record.journal, record.ended_at) == (START + timedelta(seconds=1), EVERYTHING, None)
    journals[0].utterance(said("three", 3))
    await house.book.finish(report(calls[0]))
    assert (await house.body("call-0"))["said"] == ["agent: one", "agent: two", "agent: three"]
    assert len(await house.store.calls.journal(calls[0].call_id)) == 3


async def test_the_journal_is_written_every_second(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchhook.usecases.callbook.PROGRESS_EVERY_S", 0.01)
    async with background(house.book.run()):
        call = attempt()
        house.book.open(call, await house.routed(call)).log("line", START)
        before = house.store.writer.commits
        await until(lambda: house.store.writer.commits > before)
    assert len(await house.store.calls.journal(call.call_id)) == 1


async def test_a_second_end_changes_nothing(house: House) -> None:
    call = attempt()
    house.book.open(call, await house.routed(call))
    ends = [report(call, verdict=Verdict(Ending.COMPLETED, f"end-{number}")) for number in range(10)]
    await asyncio.gather(*(house.book.finish(end) for end in ends))
    assert (await house.body())["reason"] == "end-0"
    assert len(house.queued) == 1


async def test_an_attempt_that_was_rejected_has_a_record_and_owes_nothing(house: House) -> None:
    verdict = Verdict(Ending.REJECTED, "at-capacity")
    rejected = report(
        attempt(), number=None, verdict=verdict, connected_at=None, end_webhook_owed=False, journal=JournalSpec(), usage={}
    )
    await house.book.finish(rejected)
    record = await house.store.calls.get(CallId("call-1"))
    assert record is not None
    assert (record.outcome, record.reason, record.number) == (Outcome.CLIENT_ERROR, "at-capacity", None)
    assert house.queued == []


async def test_a_caller_who_gave_up_during_the_start_webhook_gets_the_end_webhook(house: House) -> None:
    house.customer.gates["start"] = asyncio.Event()
    call = attempt()
    routing = asyncio.ensure_future(house.incoming.route(call))
    await until(lambda: house.customer.waiting == 1)
    routing.cancel()
    await asyncio.gather(routing, return_exceptions=True)
    gone = report(
        call,
        number=None,
        verdict=Verdict(Ending.ABANDONED, "caller-cancelled"),
        connected_at=None,
        end_webhook_owed=False,
        journal=JournalSpec(),
    )
    await house.book.finish(gone)
    body = await house.body()
    assert (body["ending"], body["connected"], body["log"]) == ("abandoned", None, None)
    record = await house.store.calls.get(call.call_id)
    assert record is not None
    assert (record.number, record.end_webhook_owed) == ("+17206999999", True)
    assert len(house.queued) == 1


async def test_a_contract_that_cannot_render_does_not_keep_the_call_open(house: House) -> None:
    house.contract.broken = "end_body"
    call = attempt()
    house.book.open(call, await house.routed(call))
    await house.book.finish(report(call))
    record = await house.store.calls.get(call.call_id)
    assert record is not None
    assert record.ended_at is not None
    assert record.end_webhook_owed
    assert house.queued == []


async def test_an_endless_log_is_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_CHARACTERS", 100)
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    for number in range(50):
        journal.log(f"line {number:04}", START)
    await house.book.finish(report(call))
    log = (await house.body())["log"]
    assert len(log) == 13
    assert log[-1] == journal_module.FULL


class TestLiveTranscript:
    async def test_lines_arrive_in_order_one_at_a_time(self, house: House) -> None:
        house.contract.live = True
        gate = house.customer.gates["live"] = asyncio.Event()
        async with background(house.book.run()):
            await asyncio.sleep(0)
            journal = house.book.open(attempt(), plan(journal=JournalSpec()))
            for number in range(20):
                journal.utterance(said(f"line {number}", number))
            await until(lambda: house.customer.waiting == 1)
            assert len(house.customer.bodies("live")) == 1
            gate.set()
            await until(lambda: len(house.customer.bodies("live")) == 20)
            journal.utterance(said("later", 20))
            await until(lambda: len(house.customer.bodies("live")) == 21)
        assert house.customer.bodies("live") == [f"line {number}".encode() for number in range(20)] + [b"later"]
        assert {request.timeout_s for request in house.customer.requests} == {5.0}

    async def test_a_customer_who_falls_behind_loses_the_oldest_lines(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live_transcript, "QUEUE_LINES", 3)
        house.contract.live = True
        gate = house.customer.gates["live"] = asyncio.Event()
        async with background(house.book.run()):
            await asyncio.sleep(0)
            journal = house.book.open(attempt(), plan())
            journal.utterance(said("0", 0))
            await until(lambda: house.customer.waiting == 1)
            for number in range(1, 10):
                journal.utterance(said(str(number), number))
            gate.set()
            await until(lambda: len(house.customer.bodies("live")) == 4)
        assert house.customer.bodies("live") == [b"0", b"7", b"8", b"9"]

    @pytest.mark.parametrize("outcome", [DOWN, HttpReply(500, b"")])
    async def test_failures_stop_nothing(self, house: House, outcome: Any) -> None:
        house.contract.live = True
        house.customer.answers["live"] = always(outcome)
        async with background(house.book.run()):
            await asyncio.sleep(0)
            journal = house.book.open(attempt(), plan())
            journal.utterance(said("one", 1))
            journal.utterance(said("two", 2))
            await until(lambda: len(house.customer.bodies("live")) == 2)

    async def test_a_fault_of_the_contract_stops_nothing(self, house: House) -> None:
        house.contract.broken = "utterance_request"
        call = attempt()
        journal = house.book.open(call, await house.routed(call))
        journal.utterance(said("one", 1))
        await house.book.finish(report(call))
        assert (await house.body())["said"] == ["agent: one"]


class FailingCalls:
    """A store whose journal cannot be written."""

    def __init__(self) -> None:
        self.tried = 0

    async def progress(self, changes: list[CallProgress], lines: list[CallLine], now: object) -> None:
        self.tried += 1
        raise RuntimeError("on purpose")


async def test_a_journal_that_cannot_be_written_stops_no_call(
    customer: Customer, contract: PlainContract, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchhook.usecases.callbook.PROGRESS_EVERY_S", 0.001)
    calls: Any = FailingCalls()
    book = CallBookkeeper(calls, {"plain": contract}, customer, clock, lambda event: None)
    async with background(book.run()):
        book.open(attempt(), plan())
        await until(lambda: calls.tried > 2)


async def test_what_could_not_be_written_is_written_with_the_next_flush(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    journal.answered(START + timedelta(seconds=1))
    journal.utterance(said("one", 1))
    with monkeypatch.context() as broken:
        broken.setattr(house.store.calls, "progress", FailingCalls().progress)
        await house.book.flush()
    assert await house.store.calls.journal(call.call_id) == []
    journal.utterance(said("two", 2))
    await house.book.flush()
    assert [line.text for line in await house.store.calls.journal(call.call_id)] == ["one", "two"]
    record = await house.store.calls.get(call.call_id)
    assert record is not None
    assert record.connected_at == START + timedelta(seconds=1)


async def test_the_end_writes_exactly_what_is_unwritten(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    finish = house.store.calls.finish

    async def watched(record: CallRecord, lines: Sequence[CallLine], event: OutboxEvent | None) -> bool:
        written.extend(line.text for line in lines)
        return await finish(record, lines, event)

    monkeypatch.setattr(house.store.calls, "finish", watched)
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    journal.utterance(said("one", 1))
    await house.book.flush()
    journal.utterance(said("two", 2))
    with monkeypatch.context() as broken:
        broken.setattr(house.store.calls, "progress", FailingCalls().progress)
        await house.book.flush()
    journal.utterance(said("three", 3))
    await house.book.finish(report(call))
    assert written == ["two", "three"]
    assert [line.text for line in await house.store.calls.journal(call.call_id)] == ["one", "two", "three"]


async def test_a_call_that_ends_during_a_flush_has_each_line_once(house: House) -> None:
    call = attempt()
    journal = house.book.open(call, await house.routed(call))
    journal.utterance(said("one", 1))
    await asyncio.gather(house.book.flush(), house.book.finish(report(call)))
    assert [line.text for line in await house.store.calls.journal(call.call_id)] == ["one"]

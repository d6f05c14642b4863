"""The end webhook when a contract's folder cannot write a part of the report down: the customer is told all the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.vns import call_end
from switchhook.domain.contract import Contract
from switchhook.domain.model import CallAttempt, Number, Speaker, TransferRecord, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import JournalSpec
from switchhook.domain.records import CallLine, CallRecord, LineKind, OutboxEvent, split_journal, utterance_line
from switchhook.domain.report import CallReport
from switchhook.store.opened import Store
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.ending import end_event, final_record
from tests.api.veevo.cases import VEEVO
from tests.api.vns.cases import STARTED, VNS, attempt, number
from tests.usecases.fakes import NUMBER, START, Customer, PlainContract, SteppedClock
from tests.usecases.fakes import attempt as plain_attempt
from tests.usecases.fakes import plan as plain_plan

CALL = attempt()
EVERYTHING = JournalSpec(tool_requests=True, tool_replies=True, transcript=True)
ENDED = STARTED + timedelta(seconds=9)
SAID = Utterance(Speaker.DESTINATION, "Put her through.", 1, STARTED + timedelta(seconds=3))
LINES = [CallLine(CALL.call_id, 0, LineKind.LOG, STARTED, "AI Session: open"), utterance_line(CALL.call_id, 1, SAID)]
CONNECTED = TransferRecord("+13035550199", "+13032639999", None, STARTED, ENDED, "connected", 200)


def report(**changes: Any) -> CallReport:
    made = CallReport(
        CALL,
        number(),
        Verdict(Ending.COMPLETED, "callee-hung-up"),
        STARTED + timedelta(seconds=1),
        ENDED,
        "theirs-7",
        EVERYTHING,
        (CONNECTED,),
        end_webhook_owed=True,
        usage={"input_audio": 7},
    )
    return replace(made, **changes)


def event_of(told: CallReport, contract: Contract = VNS, lines: Sequence[CallLine] = LINES) -> OutboxEvent | None:
    return end_event(final_record(told), told, lines, {"vns": contract}, ENDED)


def body_of(told: CallReport, contract: Contract = VNS) -> dict[str, Any]:
    event = event_of(told, contract)
    assert event is not None
    found: dict[str, Any] = json.loads(event.body)
    return found


class Unwritable(datetime):
    """A time that no contract can write down."""

    def astimezone(self, tz: Any = None) -> Any:
        raise OverflowError("on purpose")


NEVER = Unwritable(1, 1, 1, tzinfo=STARTED.tzinfo)
WHO_AND_WHEN = {
    "sessionGuid": CALL.call_id,
    "status": 0,
    "errorMessage": "No Errors",
    "customerCallId": "theirs-7",
    "calledNumber": "7206999999",
    "callerId": "3032639999",
    "callEnd": "2026-03-12T10:42:24.0000000Z",
}


def test_a_report_that_can_be_written_down_is_told_in_full(caplog: pytest.LogCaptureFixture) -> None:
    body = body_of(report())
    assert body["transcription"] == ["2026-03-12 10:42:18.000 User: [transfer destination] Put her through."]
    assert body["transfers"][0]["transferCallResult"] == "Connected"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("changes", "fields", "lost", "kept"),
    [
        ({}, {"at": NEVER}, ("transcription", "logInformation"), ("transfers",)),
        ({"transfers": (replace(CONNECTED, ended_at=NEVER),)}, {}, ("transcription", "logInformation", "transfers"), ()),
        ({"number": Number("+17206999999", "acme", "vns", {"of": "another version"})}, {}, ("transfers",), ()),
    ],
    ids=["a line", "a transfer", "the number's settings"],
)
def test_what_cannot_be_written_down_is_left_out_and_the_rest_is_told(
    changes: dict[str, Any],
    fields: dict[str, Any],
    lost: tuple[str, ...],
    kept: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = report(**changes)
    event = event_of(told, lines=[replace(line, **fields) for line in LINES])
    assert event is not None
    body = json.loads(event.body)
    assert body | WHO_AND_WHEN == body
    assert [body[name] for name in lost] == [None] * len(lost)
    assert all(body[name] for name in kept)
    [record] = caplog.records
    assert (record.levelno, record.__dict__["call_id"]) == (logging.ERROR, CALL.call_id)


@given(st.sets(st.sampled_from(["lines", "transfers", "settings"])), st.sampled_from(Ending), st.booleans())
def test_the_end_and_its_verdict_survive_any_fault(faults: set[str], ending: Ending, answered: bool) -> None:
    told = report(verdict=Verdict(ending, "reason"), connected_at=STARTED if answered else None)
    if "transfers" in faults:
        told = replace(told, transfers=(replace(CONNECTED, started_at=NEVER),))
    if "settings" in faults:
        told = replace(told, number=Number("+17206999999", "acme", "vns", {}))
    lines = [replace(line, at=NEVER) for line in LINES] if "lines" in faults else LINES
    event = event_of(told, lines=lines)
    assert event is not None
    body = json.loads(event.body)
    assert (body["sessionGuid"], body["status"]) == (CALL.call_id, call_end._STATUS[ending])
    assert (body["callConnected"] is not None) is answered
    assert (body["transfers"] is None) is bool(faults & {"transfers", "settings"})


async def test_whose_words_a_line_holds_survives_the_store(store: Store) -> None:
    call = plain_attempt()
    told = [replace(SAID, speaker=speaker, order=order) for order, speaker in enumerate(Speaker)]
    lines = [utterance_line(call.call_id, line.order, line) for line in told]
    await store.calls.begin(begun(call))
    await store.calls.progress([], lines, START)
    _, found = split_journal(await store.calls.journal(call.call_id))
    assert [line.speaker for line in found] == list(Speaker)


def test_another_contract_tells_the_end_too() -> None:
    told = report(number=Number("+17206999999", "acme", "veevo", {"of": "another version"}))
    event = end_event(final_record(told), told, LINES, {"veevo": VEEVO}, ENDED)
    assert event is not None
    body = json.loads(event.body)
    assert (body["transcript"], body["durationSeconds"]) == ([], 8)
    body = json.loads(VEEVO.end_body(replace(told, number=None), [], [SAID]))
    assert [(line["role"], line["content"]) for line in body["transcript"]] == [
        ("user", "[transfer destination] Put her through.")
    ]


def test_a_contract_that_is_gone_leaves_an_error_and_nothing_to_send(caplog: pytest.LogCaptureFixture) -> None:
    told = report()
    assert end_event(final_record(told), told, LINES, {}, ENDED) is None
    [record] = caplog.records
    assert (record.levelno, record.__dict__["call_id"]) == (logging.ERROR, CALL.call_id)


def begun(call: CallAttempt) -> CallRecord:
    return CallRecord(call, "acme", NUMBER.number, "plain", call_start_sent_at=START)


async def test_a_call_whose_end_nobody_can_write_down_keeps_its_record_and_lines(
    store: Store, customer: Customer, clock: SteppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The lines are in the store, the record says that an end webhook is owed, and the log names the call."""
    call = plain_attempt()
    book = CallBookkeeper(store.calls, {"plain": PlainContract(broken="end_body")}, customer, clock, lambda event: None)
    await store.calls.begin(begun(call))
    journal = book.open(call, plain_plan())
    journal.log("line", START)
    told = CallReport(
        call, NUMBER, Verdict(Ending.COMPLETED, "agent-ended"), START, START, journal=EVERYTHING, end_webhook_owed=True
    )
    await book.finish(told)
    record = await store.calls.get(call.call_id)
    assert record is not None
    assert (record.reason, record.end_webhook_owed) == ("agent-ended", True)
    assert [line.text for line in await store.calls.journal(call.call_id)] == ["line"]
    assert list(await store.outbox.get(call.call_id)) == []
    assert {entry.__dict__.get("call_id") for entry in caplog.records if entry.levelno == logging.ERROR} == {call.call_id}


async def test_the_customer_is_told_of_an_end_whose_lines_cannot_be_written_down(
    store: Store, customer: Customer, clock: SteppedClock
) -> None:
    """From the report to the row of the outbox: one event, and the lines stay in the store."""

    class Forgetful(PlainContract):
        def end_body(self, report: CallReport, log: Sequence[tuple[datetime, str]], utterances: Sequence[Utterance]) -> bytes:
            if log:
                raise ValueError("on purpose")
            return super().end_body(report, log, utterances)

    queued: list[OutboxEvent] = []
    call: CallAttempt = plain_attempt()
    book = CallBookkeeper(store.calls, {"plain": Forgetful()}, customer, clock, queued.append)
    await store.calls.begin(begun(call))
    book.open(call, plain_plan()).log("line", START)
    await book.finish(
        CallReport(
            call, NUMBER, Verdict(Ending.COMPLETED, "agent-ended"), START, START, journal=EVERYTHING, end_webhook_owed=True
        )
    )
    [event] = await store.outbox.get(call.call_id)
    assert [event.event_id] == [other.event_id for other in queued]
    body = json.loads(event.body)
    assert (body["reason"], body["log"]) == ("agent-ended", None)
    assert [line.text for line in await store.calls.journal(call.call_id)] == ["line"]

"""CallEnd: exact fields, exact line formats, and what acknowledges it."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.contract import HttpFailure, HttpReply
from switchhook.domain.model import Direction, Speaker, ToolCall, TransferRecord, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import JournalSpec
from switchhook.domain.report import CallReport
from tests.api.vns.cases import STARTED, VNS, attempt, number, recorded

DONE = Verdict(Ending.COMPLETED, "caller-hung-up")


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-12T10:{text}+00:00")


def report(**fields: Any) -> CallReport:
    given: dict[str, Any] = {
        "attempt": attempt(),
        "number": number(),
        "verdict": DONE,
        "connected_at": at("42:15.826464"),
        "ended_at": at("43:20.384074"),
        "end_webhook_owed": True,
        **fields,
    }
    return CallReport(**given)


def body(log: Any = (), utterances: Any = (), **fields: Any) -> Any:
    return json.loads(VNS.end_body(report(**fields), log, utterances))


def test_the_recorded_call() -> None:
    call = ToolCall("c", "find_order", '{"order":"A-17"}')
    reply = HttpReply(201, b"", elapsed_ms=142)
    made = body(
        [(at("42:30.500"), VNS.log_tool_request(call)), (at("42:30.999999"), VNS.log_tool_reply(call, reply, '{"found":true}'))],
        [
            Utterance(Speaker.CALLER, "Where is my order?", 2, at("42:21.952")),
            Utterance(Speaker.AGENT, "Hello! How can I help you today?", 1, at("42:20.046")),
        ],
        number=number(log_timezone="America/Denver"),
        customer_call_id="CallId-001",
        journal=JournalSpec(True, True, True),
        transfers=(
            TransferRecord("+13035551212", "+13032639999", "Ada Caller", at("42:40.217876"), at("42:53.867902"), "connected"),
        ),
    )
    expected = recorded("call_end_request.json")
    assert made == expected
    assert list(made) == list(expected)


def test_a_bare_call() -> None:
    made = body(connected_at=None, attempt=attempt(caller_name=None), verdict=Verdict(Ending.ABANDONED, "caller-cancelled"))
    assert made["callConnected"] is None
    assert made["callerIdName"] is None
    assert (made["status"], made["errorMessage"]) == (0, "No Errors")
    assert made["transfers"] is None
    assert made["logInformation"] is None
    assert made["transcription"] is None
    assert made["callReferredOut"] is False
    assert made["customerCallId"] is None


@pytest.mark.parametrize("field", ["callStart", "callConnected", "callEnd"])
def test_times_have_seven_digits(field: str) -> None:
    for moment in (STARTED, STARTED + timedelta(microseconds=1), STARTED.astimezone(datetime.now().astimezone().tzinfo)):
        made = body(attempt=attempt(started_at=moment), connected_at=moment, ended_at=moment)
        assert re.fullmatch(r"2026-03-12T10:42:15\.\d{7}Z", made[field])


@pytest.mark.parametrize(
    ("ending", "reason", "message", "status", "text"),
    [
        (Ending.COMPLETED, "agent-ended", None, 0, "No Errors"),
        (Ending.COMPLETED, "caller-hung-up", "The caller hung up.", 0, "No Errors"),
        (Ending.COMPLETED, "max-duration", None, 0, "Maximum call duration reached"),
        (Ending.ABANDONED, "caller-cancelled", None, 0, "No Errors"),
        (
            Ending.CALL_START_FAILED,
            "call-start-timeout",
            "The CallStart webhook did not answer in 10 seconds.",
            1,
            "The CallStart webhook did not answer in 10 seconds.",
        ),
        (Ending.CALL_START_FAILED, "call-start-timeout", None, 1, "The CallStart webhook gave no usable reply."),
        (Ending.AGENT_NOT_ESTABLISHED, "x", None, 2, "The AI session could not be established."),
        (Ending.AGENT_LOST, "x", None, 3, "The AI session was lost."),
        (Ending.OUTBOUND_NOT_PLACED, "x", None, 4, "The outbound call could not be placed."),
        (Ending.INTERNAL_ERROR, "x", None, 5, "Internal error."),
    ],
)
def test_status(ending: Ending, reason: str, message: str | None, status: int, text: str) -> None:
    made = body(verdict=Verdict(ending, reason, message))
    assert (made["status"], made["errorMessage"]) == (status, text)


@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_has_a_status(ending: Ending) -> None:
    made = body(verdict=Verdict(ending, "x"))
    assert isinstance(made["status"], int)
    assert made["errorMessage"]


@pytest.mark.parametrize(
    ("connected", "verdict", "result"),
    [
        (True, DONE, "Connected"),
        (False, Verdict(Ending.COMPLETED, "busy"), "Busy"),
        (False, Verdict(Ending.COMPLETED, "no-answer"), "NoAnswer"),
        (False, Verdict(Ending.OUTBOUND_NOT_PLACED, "no-route"), "Failed"),
        (False, Verdict(Ending.CALL_START_FAILED, "call-start-timeout"), "Error"),
    ],
)
def test_outbound_result(connected: bool, verdict: Verdict, result: str) -> None:
    outbound = attempt(direction=Direction.OUTBOUND)
    made = body(attempt=outbound, connected_at=STARTED if connected else None, verdict=verdict)
    assert (made["outboundTriggered"], made["outboundCallResult"]) == (True, result)
    assert body()["outboundCallResult"] == "N/A"


@pytest.mark.parametrize(
    ("journal", "logs", "transcribes"),
    [
        (JournalSpec(), False, False),
        (JournalSpec(tool_requests=True), True, False),
        (JournalSpec(tool_replies=True), True, False),
        (JournalSpec(transcript=True), True, True),
    ],
)
def test_lists_are_null_unless_asked_for(journal: JournalSpec, logs: bool, transcribes: bool) -> None:
    made = body([(STARTED, "x")], [Utterance(Speaker.AGENT, "x", 1, STARTED)], journal=journal)
    assert (made["logInformation"] is not None) is logs
    assert (made["transcription"] is not None) is transcribes
    if logs:
        assert made["logInformation"][0] == "26/03/12 - 10:42:15.000 - Logging Started."
    assert body(journal=JournalSpec(transcript=True))["transcription"] == []


LOG = re.compile(r"^\d\d/\d\d/\d\d - \d\d:\d\d:\d\d\.\d{3} - ")
SAID = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (AI :|User:) ")


FIRST, LAST = datetime(2000, 1, 1), datetime(2099, 1, 1)  # noqa: DTZ001 - hypothesis takes naive bounds


@given(
    st.lists(st.tuples(st.datetimes(FIRST, LAST, timezones=st.just(UTC)), st.text()), max_size=3),
    st.sampled_from(["UTC", "America/Denver", "Asia/Kolkata"]),
)
def test_line_formats(texts: list[tuple[datetime, str]], zone: str) -> None:
    spoken = [Utterance(Speaker.AGENT if i % 2 else Speaker.CALLER, text, i, moment) for i, (moment, text) in enumerate(texts)]
    made = body(texts, spoken, journal=JournalSpec(transcript=True), number=number(log_timezone=zone))
    assert len(made["logInformation"]) == len(texts) + 1
    assert len(made["transcription"]) == len(spoken)
    assert all(LOG.match(line) and "\n" not in line for line in made["logInformation"])
    assert all(SAID.match(line) and "\n" not in line for line in made["transcription"])


def test_transcript_order_is_that_of_the_conversation() -> None:
    spoken = [Utterance(Speaker.AGENT, str(order), order, STARTED) for order in (3, 1, 2)]
    made = body((), spoken, journal=JournalSpec(transcript=True))
    assert [line[-1] for line in made["transcription"]] == ["1", "2", "3"]


def test_half_a_surrogate_pair_and_other_scripts_can_be_sent() -> None:
    made = body((), [Utterance(Speaker.CALLER, "日本 \ud83d", 1, STARTED)], journal=JournalSpec(transcript=True))
    assert made["transcription"][0].endswith("User: 日本 ?")


def test_numbers_are_those_of_call_start() -> None:
    for form in ("national", "e164", "raw"):
        at_number = number(number_format=form)
        started = json.loads(VNS.start_request(at_number, attempt(called="17206999999")).body)
        made = body(number=at_number, attempt=attempt(called="17206999999"))
        for field in ("sessionGuid", "calledNumber", "callerId", "callerIdName", "outboundTriggered"):
            assert made[field] == started[field]


def test_the_same_report_gives_the_same_bytes() -> None:
    assert VNS.end_body(report(), (), ()) == VNS.end_body(report(), (), ())


def test_a_report_without_number_can_be_rendered() -> None:
    assert body(number=None)["calledNumber"] == "7206999999"


def test_tool_lines() -> None:
    call = ToolCall("c", "find_order", "")
    assert VNS.log_tool_request(call) == "Tool Request: find_order {}"
    assert VNS.log_tool_reply(call, HttpReply(200, b"", elapsed_ms=7), "{}") == "Tool Reply: find_order 200 7ms {}"
    assert VNS.log_tool_reply(call, HttpFailure("timeout", "canary", 30_000), "{}") == "Tool Reply: find_order timeout 30000ms {}"
    assert VNS.log_tool_reply(call, None, "{}") == "Tool Reply: find_order none 0ms {}"
    assert len(VNS.log_tool_reply(call, None, "x" * 300_000)) < 40_000


def test_request_uses_the_numbers_present_webhook_and_the_stored_bytes() -> None:
    request = VNS.end_request(number(), b'{"stored":1}')
    assert request.url == "https://backend.example/callend"
    assert request.headers == {"Token": "canary-end", "Content-Type": "application/json"}
    assert (request.body, request.timeout_s) == (b'{"stored":1}', 10)


@pytest.mark.parametrize(
    ("reply", "received"),
    [
        (HttpReply(200, b'{"status": 0, "errorMessage": "Success"}'), True),
        (HttpReply(202, b""), True),
        (HttpReply(204, b""), True),
        (HttpReply(200, b"not json"), True),
        (HttpReply(200, b'{"status": 7}'), True),
        (HttpReply(199, b""), False),
        (HttpReply(302, b""), False),
        (HttpReply(404, b""), False),
        (HttpReply(500, b'{"status": 0}'), False),
    ],
)
def test_any_2xx_acknowledges(reply: HttpReply, received: bool) -> None:
    assert VNS.acknowledges(reply) is received


def test_no_reply_does_not_acknowledge() -> None:
    assert not VNS.acknowledges(HttpFailure("timeout", ""))


def test_a_status_in_the_acknowledgement_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        VNS.acknowledges(HttpReply(200, b'{"status": 0}'))
        assert not caplog.records
        VNS.acknowledges(HttpReply(200, b'{"status": 7, "errorMessage": "canary"}'))
    assert "status 7" in caplog.text


def test_the_ladder() -> None:
    assert list(VNS.retry_delays_s) == [5, 30, 120, 600, 3600]

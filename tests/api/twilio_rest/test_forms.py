"""Forms and queries of Twilio's clients."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.twilio_rest.forms import (
    CallChange,
    Form,
    page_number,
    page_size,
    page_token,
    read_change,
    read_order,
    read_query,
    read_recording_order,
    read_recording_status,
)
from switchhook.domain.plan import AskNext, RecordingSpec
from switchhook.usecases.live_calls import CallQuery
from switchhook.usecases.ordered_calls import StatusCallback
from switchhook.usecases.recording_news import RecordingCallback
from switchhook.usecases.steered import CallStatus, SteeringRefused

NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
ORDER = [("To", "+17205550199"), ("From", "+17206999999"), ("Url", "https://a.example/x")]


def form(*fields: tuple[str, str]) -> Form:
    return Form(fields)


def test_an_order_with_everything() -> None:
    more = [
        ("Method", "get"),
        ("Timeout", "9999"),
        ("TimeLimit", "60"),
        ("SendDigits", "ww1"),
        ("Record", "true"),
        ("StatusCallback", "https://a.example/told"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackEvent", "answered completed"),
        ("MachineDetection", ""),
        ("CallReason", "a reminder"),
    ]
    order = read_order(form(*ORDER, *more))
    assert (order.called, order.caller, order.keys) == ("+17205550199", "+17206999999", "ww1")
    assert (order.question, order.twiml) == (AskNext("https://a.example/x", "GET"), None)
    assert (order.ring_s, order.talk_s, order.recording) == (600.0, 60.0, RecordingSpec("wav"))
    events = frozenset({"ringing", "answered", "completed"})
    assert order.told == StatusCallback("https://a.example/told", "POST", events)


def test_an_order_by_default() -> None:
    order = read_order(form(*ORDER[:2], ("Twiml", "<Response/>")))
    assert (order.twiml, order.question, order.ring_s, order.told, order.recording) == (b"<Response/>", None, 60.0, None, None)


def test_changes_of_a_live_call() -> None:
    assert read_change(form(("Status", "completed"))) == CallChange(CallStatus.COMPLETED)
    assert read_change(form(("Url", "https://a.example/x"))) == CallChange(question=AskNext("https://a.example/x"))
    assert read_change(form()) == CallChange()


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        (ORDER[1:], 21201, "To"),
        (ORDER[:1] + ORDER[2:], 21213, "From"),
        (ORDER[:2], 21205, "Url"),
        ([*ORDER, ("Twiml", "<Response/>")], 20001, "Twiml"),
        ([*ORDER, ("Url", "file:///etc/passwd")], 21205, "Url"),
        ([*ORDER, ("Url", "https://[")], 21205, "Url"),
        ([*ORDER, ("Url", "https://a.example:99999/x")], 21205, "Url"),
        ([*ORDER, ("Method", "PUT")], 20001, "Method"),
        ([*ORDER, ("Timeout", "soon")], 20001, "Timeout"),
        ([*ORDER, ("SendDigits", "abc")], 20001, "SendDigits"),
        ([*ORDER, ("Record", "true"), ("RecordingChannels", "mono")], 20001, "RecordingChannels"),
        ([*ORDER, ("MachineDetection", "Enable")], 20001, "MachineDetection"),
        ([*ORDER, ("StatusCallback", "https://a.example"), ("StatusCallbackEvent", "lost")], 20001, "StatusCallbackEvent"),
    ],
)
def test_orders_that_cannot_be_honoured_name_the_field(fields: list[tuple[str, str]], code: int, named: str) -> None:
    with pytest.raises(SteeringRefused) as told:
        read_order(form(*fields))
    assert (told.value.status, told.value.code) == (400, code)
    assert str(told.value).startswith(f"{named}: ")


@pytest.mark.parametrize("field", [("Status", "busy"), ("StatusCallback", "https://a.example"), ("TimeLimit", "5")])
def test_changes_that_cannot_be_honoured(field: tuple[str, str]) -> None:
    with pytest.raises(SteeringRefused) as told:
        read_change(form(field))
    assert str(told.value).startswith(field[0])


def test_queries() -> None:
    query = read_query(form(*parse_qsl("Status=busy&To=%2B1&From=&StartTime%3E=2026-03-12T12:00:00Z&PageSize=2")))
    assert query == CallQuery(3, CallStatus.BUSY, "+1", None, since=NOON)
    assert read_query(form(("StartTime<", "2026-03-12"))).until == NOON.replace(hour=0)
    day = read_query(form(("StartTime", "2026-03-12T12:00:00Z")))
    assert (day.since, day.until) == (NOON.replace(hour=0), NOON.replace(day=13, hour=0))
    assert read_query(form(("PageToken", page_token(NOON, "an-id")))).after == (NOON, "an-id")
    assert (page_size(form(("PageSize", "99999"))), page_size(form(("PageSize", "0"))), page_number(form())) == (1000, 50, 0)


@given(st.lists(st.tuples(st.sampled_from(["Status", "StartTime", "StartTime<", "PageToken", "PageSize", "To"]), st.text())))
def test_whatever_a_client_asks_is_read_or_refused(fields: list[tuple[str, str]]) -> None:
    for read in (read_query, read_change, read_order, read_recording_status):
        try:
            read(Form(fields))
        except SteeringRefused as refused:
            assert refused.status == 400


def test_where_to_tell_of_a_recording() -> None:
    origin, url = "https://voice.example.com", ("RecordingStatusCallback", "https://a.example/recorded")
    assert read_recording_order(form(("RecordingChannels", "dual"), ("Trim", "do-not-trim")), origin) is None
    assert read_recording_order(form(url), origin) == RecordingCallback(url[1], origin)
    more = [("RecordingStatusCallbackMethod", "GET"), ("RecordingStatusCallbackEvent", "in-progress completed")]
    events = frozenset({"in-progress", "completed"})
    assert read_recording_order(form(url, *more), origin) == RecordingCallback(url[1], origin, "GET", events)


@pytest.mark.parametrize(
    "field",
    [
        ("RecordingChannels", "mono"),
        ("RecordingTrack", "inbound"),
        ("Trim", "trim-silence"),
        ("RecordingStatusCallback", "file:///etc/passwd"),
    ],
)
def test_another_kind_of_recording_is_refused_by_name(field: tuple[str, str]) -> None:
    with pytest.raises(SteeringRefused, match=f"^{field[0]}: "):
        read_recording_order(form(field), "https://voice.example.com")


def test_an_unknown_event_of_a_recording_is_refused_by_name() -> None:
    fields = ("RecordingStatusCallback", "https://a.example/"), ("RecordingStatusCallbackEvent", "completed done")
    with pytest.raises(SteeringRefused, match=r"^RecordingStatusCallbackEvent: "):
        read_recording_order(form(*fields), "https://voice.example.com")

"""Who may steer which call, what the customer is asked, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from switchhook.calls.recorded import RecordedLine
from switchhook.calls.steering import Moment, OrderedCall
from switchhook.domain.call_sid import call_sid, sid_of
from switchhook.domain.contract import HttpFailure, HttpReply
from switchhook.domain.dialling import DialPermit, DialPurpose, DialRefused
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallAttempt, CallId, Direction, Number, TransferRecord
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    Answer,
    AskNext,
    CallPlan,
    CarrierCredentials,
    HangUp,
    PlaySound,
    PressKeys,
    RecordingSpec,
    RouteTo,
    Say,
)
from switchhook.domain.records import CallRecord, CallSearch, TwilioCredentials
from switchhook.domain.report import CallReport
from switchhook.usecases.live_calls import REMEMBERED_S, CallQuery, LiveCalls, call_id_of
from switchhook.usecases.next_flows import APOLOGY, NextFlowDesk, trunk_user
from switchhook.usecases.ordered_calls import OrderedCalls, OutboundOrder, StatusCallback, Telling
from switchhook.usecases.outgoing import Outgoing
from switchhook.usecases.steered import CallStatus, FlowUnreadable, Principal, SteeringRefused
from tests.usecases.fakes import NUMBER, START, Customer, SteppedClock, always

ACCOUNT_SID, CALL_SID = "AC" + "1" * 32, "AC" + "2" * 32
PAIRS = {NUMBER.account: TwilioCredentials(ACCOUNT_SID, "account-token")}
ID = CallId("9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1")
URL = "https://backend.example/next"


class Session:
    """A live call."""

    def __init__(self, call_id: CallId = ID, pair: tuple[str, str] | None = None, account: str = NUMBER.account) -> None:
        self.attempt = CallAttempt(call_id, Direction.INBOUND, NUMBER.number, "+13032639999", None, account, "sip", START)
        self.account = account
        given = CarrierCredentials(*pair) if pair is not None else None
        self.plan: CallPlan | None = CallPlan(NUMBER, (), carrier_credentials=given)
        self.connected_at = START
        self.in_progress = True
        self.redirected: list[tuple[Action, ...]] = []
        self.stopped: list[Verdict] = []

    @property
    def recorded(self) -> RecordedLine:
        raise AssertionError("nobody asks for recordings here")

    def record(self, spec: RecordingSpec) -> bool:
        return False

    def redirect(self, flow: tuple[Action, ...]) -> None:
        self.redirected.append(flow)

    def stop(self, verdict: Verdict) -> None:
        self.stopped.append(verdict)


class House:
    """Calls, their board, their records and the customer."""

    def __init__(self, *sessions: Session) -> None:
        self.live = list(sessions)
        self.records: dict[CallId, CallRecord] = {}
        self.searched: list[CallSearch] = []
        self.http, self.clock = Customer(), SteppedClock()
        self.flows = NextFlowDesk(
            self.http, self.read, self.sign, self, lambda account, uri: trunk_user(["sip:pbx.example"], uri)
        )
        self.calls = LiveCalls(self, self, self, self.flows, lambda: PAIRS, self.clock)
        self.refusal: DialRefused | None = None
        self.ordered: list[OrderedCall] = []
        self.spawned: list[asyncio.Task[None]] = []
        outgoing = Outgoing(self, self, self, lambda account: "sip", self.clock, lambda: ID)
        telling = Telling(self.http, self.sign, self.clock, self.spawn)
        self.orders = OrderedCalls(outgoing, self, (self, self), self.flows, telling)

    # -- what the use cases ask for

    def find(self, call_id: CallId) -> Session | None:
        return next((session for session in self.live if session.attempt.call_id == call_id), None)

    def sessions(self) -> Sequence[Session]:
        return self.live

    async def get(self, call_id: CallId) -> CallRecord | None:
        return self.records.get(call_id)

    async def begin(self, record: CallRecord) -> None:
        self.records[record.attempt.call_id] = record

    async def search(self, wanted: CallSearch) -> Sequence[CallRecord]:
        self.searched.append(wanted)
        return list(self.records.values())

    async def find_number(self, number: str) -> Number | None:
        return NUMBER if number == NUMBER.number else None

    def read(self, text: bytes, base_url: str | None) -> tuple[Action, ...]:
        if text == b"bad":
            raise FlowUnreadable(12100, "no XML")
        return (Say(text.decode()),)

    def sign(self, token: str, url: str, fields: Sequence[tuple[str, str]]) -> Mapping[str, str]:
        return {"Signed": f"{token} {url} {len(fields)}"}

    async def admit(self, account: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        return self.refusal or DialPermit(number, 3600, 7)

    def release(self, permit: DialPermit, seconds: float) -> None:
        pass

    def place(self, attempt: CallAttempt, permit: DialPermit, ordered: OrderedCall | None = None) -> bool:
        assert ordered is not None
        self.ordered.append(ordered)
        session = Session(attempt.call_id)
        session.attempt = attempt
        self.live.append(session)
        return True

    def not_placed(self, attempt: CallAttempt, verdict: Verdict) -> None:
        pass

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.spawned.append(asyncio.ensure_future(work))

    def who(self) -> Principal:
        found = self.calls.principal(ACCOUNT_SID, "account-token")
        assert found is not None
        return found


async def refused(work: Coroutine[Any, Any, object]) -> int:
    with pytest.raises(SteeringRefused) as told:
        await work
    return told.value.code


def test_names_lead_back_to_calls() -> None:
    assert call_id_of(sid_of(ID)) == ID
    assert call_id_of("CAshort") is None


def test_pairs_open_what_is_theirs() -> None:
    one, other = Session(pair=(CALL_SID, "one")), Session(CallId("other"), (CALL_SID, "other"))
    house = House(one, other)
    assert house.who().calls is None
    mine = house.calls.principal(CALL_SID, "one")
    assert mine is not None
    assert mine.calls == frozenset({ID})
    assert house.calls.live(mine, call_sid(one.attempt)) is one
    assert house.calls.live(mine, call_sid(other.attempt)) is None
    for pair in ((CALL_SID, ""), (CALL_SID, "wrong"), (ACCOUNT_SID, "one"), (CALL_SID, "account-token"), ("", "")):
        assert house.calls.principal(*pair) is None
    assert "one" not in repr(mine)


def test_a_pair_that_was_used_reads_its_call_for_an_hour() -> None:
    house = House(Session(pair=(CALL_SID, "one")), Session(CallId("other"), (CALL_SID, "other")))
    house.calls.principal(CALL_SID, "one")
    house.live.clear()
    found = house.calls.principal(CALL_SID, "one")
    assert found is not None
    assert found.calls == frozenset({ID})
    assert house.calls.principal(CALL_SID, "other") is None, "it was never used"
    house.clock.passed_s = REMEMBERED_S
    assert house.calls.principal(CALL_SID, "one") is None


async def test_a_call_of_another_account_is_not_there() -> None:
    session = Session(account="another")
    house = House(session)
    assert await refused(house.calls.call(house.who(), call_sid(session.attempt))) == 20404
    assert await refused(house.calls.redirect(house.who(), call_sid(session.attempt), b"x", None)) == 20404
    house.live.clear()
    house.records[ID] = CallRecord(session.attempt, "another", NUMBER.number, "vns", ended_at=START, reason="busy")
    assert await refused(house.calls.call(house.who(), sid_of(ID))) == 20404
    house.records[ID] = replace(house.records[ID], account=NUMBER.account)
    assert (await house.calls.call(house.who(), sid_of(ID))).status is CallStatus.BUSY


async def test_redirects() -> None:
    session = Session(pair=(CALL_SID, "one"))
    house, sid = House(session), call_sid(session.attempt)
    await house.calls.redirect(house.who(), sid, b"hello", None)
    await house.calls.redirect(house.who(), sid, None, AskNext(URL))
    assert session.redirected == [(Say("hello"),), (AskNext(URL),)]
    assert await refused(house.calls.redirect(house.who(), sid, b"bad", None)) == 12100
    session.in_progress = False
    assert await refused(house.calls.redirect(house.who(), sid, b"hello", None)) == 21220
    assert len(session.redirected) == 2


async def test_hang_up_and_cancel() -> None:
    session = Session()
    house, sid = House(session), call_sid(session.attempt)
    assert (await house.calls.hang_up(house.who(), sid, only_unanswered=True)).status is CallStatus.IN_PROGRESS
    assert session.stopped == []
    assert (await house.calls.hang_up(house.who(), sid)).status is CallStatus.COMPLETED
    session.connected_at = None  # type: ignore[assignment]  # it rings
    assert (await house.calls.hang_up(house.who(), sid, only_unanswered=True)).status is CallStatus.CANCELED
    assert [verdict.ending for verdict in session.stopped] == [Ending.COMPLETED, Ending.ABANDONED]


async def test_lists() -> None:
    session = Session()
    house = House(session)
    [view] = await house.calls.calls(house.who(), CallQuery(10, CallStatus.IN_PROGRESS, caller="3032639999"))
    assert view.attempt is session.attempt
    assert await house.calls.calls(house.who(), CallQuery(10, CallStatus.RINGING)) == []
    assert house.searched == []
    house.records[ID] = CallRecord(session.attempt, NUMBER.account, NUMBER.number, "vns")
    [view] = await house.calls.calls(house.who(), CallQuery(10))
    assert view.status is CallStatus.IN_PROGRESS, "the live call knows better than its record"
    await house.calls.calls(house.who(), CallQuery(10, CallStatus.FAILED, called="(303) 263-9999"))
    assert house.searched[-1].other_reasons
    assert house.searched[-1].called == frozenset({"(303) 263-9999", "+13032639999", "13032639999", "3032639999"})


# -- the customer is asked


def dialled(result: str, seconds: float | None) -> TransferRecord:
    clock = SteppedClock()
    clock.passed_s = seconds or 0
    return TransferRecord("+1", "+2", None, START, clock.utc(), result, connected_at=None if seconds is None else START)


async def test_the_customer_is_asked_as_twilio_asks() -> None:
    house = House(Session(pair=(CALL_SID, "one")))
    house.http.answers["next"] = always(HttpReply(200, b"hello", {"content-type": "text/xml; charset=utf-8"}))
    question = AskNext(URL, after_dial=True)
    assert await house.flows.ask(ID, question, dialled("declined", None)) == (Say("hello"),)
    assert await house.flows.ask(ID, question, dialled("connected", 12.4)) == (Say("hello"),)
    first, second = (dict(parse_qsl(request.body.decode())) for request in house.http.requests)
    assert (first["CallSid"], first["AccountSid"], first["CallStatus"]) == (sid_of(ID), CALL_SID, "in-progress")
    assert (first["DialCallStatus"], first["DialBridged"]) == ("busy", "false")
    assert "DialCallDuration" not in first
    assert (second["DialCallStatus"], second["DialCallDuration"]) == ("completed", "12")
    assert house.http.requests[0].headers["Signed"].startswith(f"one {URL} ")


async def test_a_get_carries_its_fields_in_the_address() -> None:
    house = House(Session())
    await house.flows.ask(ID, AskNext(f"{URL}?a=1#top", "GET"), None)
    [request] = house.http.requests
    assert (request.method, request.body) == ("GET", b"")
    assert request.url.startswith(f"{URL}?a=1&CallSid=CA")
    assert request.headers["Signed"] == f"account-token {request.url} 0"


@pytest.mark.parametrize(
    ("reply", "flow"),
    [
        (HttpReply(200, b"x", {"content-type": "audio/mpeg"}), (PlaySound(URL),)),
        (HttpReply(200, b"plain words", {"content-type": "text/plain"}), (Say("plain words"),)),
        (HttpReply(200, b"x", {}), (Say("x"),)),
        (HttpReply(200, b"bad", {"content-type": "text/xml"}), APOLOGY),
        (HttpReply(200, b"{}", {"content-type": "application/json"}), APOLOGY),
        (HttpReply(200, b"x", {}, truncated=True), APOLOGY),
        (HttpReply(500, b"x", {}), APOLOGY),
        (HttpReply(302, b"", {}), APOLOGY),
        (HttpFailure("refused", "private"), APOLOGY),
    ],
)
async def test_what_the_customer_answers(reply: HttpReply | HttpFailure, flow: tuple[Action, ...]) -> None:
    house = House(Session())
    house.http.answers["next"] = always(reply)
    assert await house.flows.ask(ID, AskNext(URL), None) == flow


@pytest.mark.parametrize("trouble", [HttpFailure("timeout", "15 s"), HttpFailure("refused", "private"), HttpReply(500, b"x", {})])
async def test_a_fallback_is_asked_once_signed_for_its_own_address(trouble: HttpReply | HttpFailure) -> None:
    house = House(Session(pair=(CALL_SID, "one")))
    house.http.answers["next"] = always(trouble)
    question = AskNext(URL, fallback=AskNext("https://backend.example/instead"))
    house.http.answers["instead"] = always(HttpReply(200, b"hello", {}))
    assert await house.flows.ask(ID, question, None) == (Say("hello"),)
    [_, second] = house.http.requests
    told = dict(parse_qsl(second.body.decode()))
    assert (told["ErrorCode"], told["ErrorUrl"], told["CallSid"]) == ("11200", URL, sid_of(ID))
    assert second.headers["Signed"] == f"one {second.url} {len(told)}", "as much as it says"
    house.http.answers["instead"] = always(trouble)
    assert await house.flows.ask(ID, question, None) == APOLOGY
    assert len(house.http.requests) == 4


async def test_a_call_that_nobody_knows_any_more_is_hung_up() -> None:
    assert await House().flows.ask(ID, AskNext(URL), None) == (HangUp(),)


async def test_destinations_and_shown_numbers_are_judged() -> None:
    house = House()

    async def checked(route: RouteTo) -> Action:
        [found] = await house.flows.checked((route,), NUMBER.account, ("3032639999",))
        return found

    assert await checked(RouteTo("sip:+13035551212@PBX.example:5070")) == RouteTo("+13035551212")
    assert await checked(RouteTo("sip:1001@pbx.example")) == RouteTo("sip:1001@pbx.example"), "another trunk may have a 1001 too"
    assert await checked(RouteTo("+1", caller=NUMBER.number)) == RouteTo("+1", caller=NUMBER.number)
    assert await checked(RouteTo("+1", caller="(303) 263-9999")) == RouteTo("+1", caller="+13032639999")
    for route, code in (
        (RouteTo("sip:x@elsewhere.example"), 13223),
        (RouteTo("sip:pbx.example"), 13223),
        (RouteTo("+1", caller="+17200000000"), 13214),
        (RouteTo("+1", caller="anonymous"), 13214),
    ):
        assert await refused(checked(route)) == code


# -- outbound


ORDER = OutboundOrder("+13035551212", NUMBER.number, question=AskNext(URL), keys="1")


async def test_an_ordered_call_and_what_is_told_of_it() -> None:
    house = House()
    told = StatusCallback(f"{URL}/told", events=frozenset({"initiated", "answered", "completed"}))
    view = await house.orders.place(house.who(), replace(ORDER, told=told))
    assert view.status is CallStatus.QUEUED
    [ordered] = house.ordered
    assert ordered.plan.flow == (Answer(), PressKeys("1"), AskNext(URL))
    assert not ordered.plan.end_webhook_owed
    assert not house.records[ID].end_webhook_owed
    report = CallReport(view.attempt, NUMBER, Verdict(Ending.COMPLETED, "busy"), None, START)
    for moment, given in ((Moment.RINGING, None), (Moment.ANSWERED, None), (Moment.OVER, report)):
        ordered.told(moment, given)
    await asyncio.gather(*house.spawned)
    forms = [dict(parse_qsl(request.body.decode())) for request in house.http.requests]
    assert [(form["CallStatus"], form["SequenceNumber"]) for form in forms] == [
        ("initiated", "0"),
        ("in-progress", "1"),
        ("busy", "2"),
    ]
    assert (forms[2]["CallDuration"], forms[2]["Duration"]) == ("0", "0")
    assert {request.headers["Signed"].split()[0] for request in house.http.requests} == {"account-token"}


async def test_a_call_that_cannot_be_written_down_is_not_made() -> None:
    """Its orderer is told to try again, and would have two of them."""
    house = House()

    async def begin(record: CallRecord) -> None:
        raise StoreUnavailable("the disk is full")

    house.begin = begin  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await house.orders.place(house.who(), replace(ORDER, told=StatusCallback(URL, events=frozenset({"initiated"}))))
    [session] = house.live
    assert [verdict.reason for verdict in session.stopped] == ["store-unavailable"]
    assert house.spawned == [], "and nobody is told of it"


@pytest.mark.parametrize(
    ("order", "refusal", "code"),
    [
        (replace(ORDER, caller="+17200000000"), None, 21210),
        (replace(ORDER, called="nobody"), None, 21211),
        (replace(ORDER, twiml=b"bad"), None, 12100),
        (ORDER, DialRefused("country", "not allowed"), 21215),
        (ORDER, DialRefused("rate", "too fast"), 20429),
        (ORDER, DialRefused("unavailable", "no database"), 20503),
    ],
)
async def test_orders_that_are_refused(order: OutboundOrder, refusal: DialRefused | None, code: int) -> None:
    house = House()
    house.refusal = refusal
    assert await refused(house.orders.place(house.who(), order)) == code
    assert house.ordered == []
    assert house.records == {}

"""The Twilio line on a virtual clock: offers, answers, orders that cross, and webhooks in any order."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.domain.contract import HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import CallAttempt, CallId, Number
from switchhook.domain.plan import CallPlan, CarrierCredentials, Refusal
from switchhook.domain.ports import LegEnded, LegEvent, LegProgress, OfferedLeg
from switchhook.domain.records import TwilioCredentials
from switchhook.telephony.line_dialer import LineDialer
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.twilio_carrier import Places
from switchhook.telephony.twilio_leg import TwilioLeg
from switchhook.telephony.twilio_legs import TwilioLegs
from switchhook.telephony.twilio_line import DECIDE_S, FORGET_S, LineParts, TwilioLine
from switchhook.telephony.twilio_rest import TwilioRest
from tests.peers.virtual_loop import run_virtual

NUMBER, CALLER = "+17206999999", "+14155550100"
PLACES = Places("https://h", "wss://m")
PAIR = TwilioCredentials("AC1", "token", "https://api.example.com")
CALL = {"CallSid": "CA1", "From": CALLER, "To": NUMBER, "CallStatus": "ringing", "Direction": "inbound"}
REQUEST = DialRequest(CallId("call-1"), "acme", "+12025550147", CALLER, ring_s=30)


class Clock:
    """The loop's time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return datetime(2026, 4, 17, tzinfo=UTC)


@dataclass
class Case:
    """A line, what it offered, and Twilio's REST side."""

    line: TwilioLine
    offered: list[tuple[CallAttempt, OfferedLeg]] = field(default_factory=list)
    events: list[LegEvent] = field(default_factory=list)
    requests: list[HttpRequest] = field(default_factory=list)
    replies: list[HttpOutcome] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.requests.append(request)
        await self.gate.wait()
        return self.replies.pop(0) if self.replies else reply(201, sid="CA9", status="queued")

    def forms(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(request.body.decode())) for request in self.requests]

    def ends(self) -> list[LegEnded]:
        return [event for event in self.events if isinstance(event, LegEnded)]


def reply(status: int, /, **body: Any) -> HttpReply:
    return HttpReply(status, json.dumps(body).encode())


def make(places: Places | None = PLACES, pair: TwilioCredentials | None = PAIR) -> Case:
    def offer(attempt: CallAttempt, leg: OfferedLeg) -> None:
        leg.subscribe(case.events.append)
        case.offered.append((attempt, leg))

    case = Case(None)  # type: ignore[arg-type]
    ids = (CallId(f"call-{number}") for number in itertools.count(1))
    legs = TwilioLegs(Pacer(asyncio.get_running_loop().time))
    rest = TwilioRest(case, asyncio.sleep)
    case.line = TwilioLine(LineParts(rest, legs, places, lambda account: pair, Clock(), lambda: next(ids)), offer)
    case.gate.set()
    return case


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtual(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def verbs(text: str | None) -> list[str]:
    return [verb.tag for verb in ElementTree.fromstring(text or "")]


@virtual
async def test_an_answer_and_the_same_one_again() -> None:
    case = make()
    asked = [asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", None)) for _ in range(3)]
    await asyncio.sleep(3)
    [(attempt, leg)] = case.offered
    assert (attempt.called, attempt.caller, attempt.line, attempt.line_call_id) == (NUMBER, CALLER, "twilio", "CA1")
    leg.answer()
    [text] = {await one for one in asked}
    assert verbs(text) == ["Connect", "Hangup"]
    assert await case.line.voice(CALL, NUMBER, "acme", None) == text
    assert case.line.auth_token_of("", "CA1") == "token"
    assert case.line.stream_tokens() == {"token"}


@virtual
async def test_a_call_that_nobody_decides_on_is_rejected_in_time() -> None:
    case = make()
    text = await case.line.voice(CALL, NUMBER, "acme", None)
    assert asyncio.get_running_loop().time() == pytest.approx(DECIDE_S)
    assert verbs(text) == ["Reject"]
    await settle()
    assert [end.reason for end in case.ends()] == ["line-failed"]
    case.offered[0][1].answer()
    assert await case.line.voice(CALL, NUMBER, "acme", None) == text


@virtual
async def test_without_public_addresses_calls_are_rejected() -> None:
    case = make(places=None)
    assert verbs(await case.line.voice(CALL, NUMBER, "acme", None)) == ["Reject"]
    assert case.offered == []
    assert not case.line.serves("acme")


@virtual
async def test_a_finished_call_is_forgotten_after_a_while() -> None:
    case = make()
    asked = asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", None))
    await settle()
    case.offered[0][1].reject(486)
    first = await asked
    assert await case.line.voice(CALL, NUMBER, "acme", None) == first
    assert case.line.live == 1
    await asyncio.sleep(FORGET_S + 1)
    assert case.line.live == 0
    assert case.line.auth_token_of("", "CA1") is None


@virtual
async def test_the_start_webhook_proves_a_call_or_not() -> None:
    number = Number(NUMBER, "acme", "veevo", {})
    for right in (True, False):
        case = make(pair=None)
        asked = asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", lambda token: token == "right"))
        await settle()
        [(attempt, leg)] = case.offered
        assert case.line.auth_token_of("", "CA1") == ""
        plan = CallPlan(number, (), carrier_credentials=CarrierCredentials("AC2", "right" if right else "wrong"))
        decision = case.line.prove(attempt, plan)
        if isinstance(decision, Refusal):
            assert (decision.status, decision.end_webhook_owed) == (403, False)
            leg.reject(decision.status)
            assert await asked is None
        else:
            leg.answer()
            assert verbs(await asked) == ["Connect", "Hangup"]
            assert case.line.stream_tokens() == {"right"}
        assert isinstance(decision, CallPlan) is right


@virtual
async def test_a_plan_without_credentials_proves_nothing() -> None:
    case = make(pair=None)
    asked = asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", lambda token: True))
    await settle()
    [(attempt, leg)] = case.offered
    assert isinstance(case.line.prove(attempt, CallPlan(Number(NUMBER, "acme", "vns", {}), ())), Refusal)
    leg.reject(403)
    assert await asked is None


@virtual
async def test_an_outbound_call_that_is_given_up_before_it_has_a_name() -> None:
    case = make()
    case.gate.clear()
    leg = case.line.dial(REQUEST)
    leg.subscribe(case.events.append)
    await settle()
    leg.hang_up()
    case.replies = [reply(201, sid="CA9", status="queued"), reply(200, sid="CA9", status="canceled")]
    case.gate.set()
    await settle()
    assert [form.get("Status") for form in case.forms()] == [None, "canceled"]
    assert case.requests[1].url.endswith("/Calls/CA9.json")
    assert [end.reason for end in case.ends()] == ["hung-up"]


@virtual
async def test_a_status_that_overtakes_the_reply_to_the_order() -> None:
    case = make()
    case.gate.clear()
    leg = case.line.dial(REQUEST)
    leg.subscribe(case.events.append)
    await settle()
    stream = dict(parse_qsl(case.forms()[0]["StatusCallback"].partition("?")[2]))["leg"]
    case.line.status({"leg": stream, "CallSid": "CA9", "CallStatus": "ringing"})
    case.line.status({"leg": stream, "CallSid": "CA9", "CallStatus": "busy", "SipResponseCode": "486"})
    case.line.status({"leg": stream, "CallSid": "CA9", "CallStatus": "busy"})
    case.gate.set()
    await settle()
    assert [type(event) for event in case.events] == [LegProgress, LegEnded]
    assert case.ends()[0].status == 486


@virtual
async def test_an_order_that_is_refused_ends_the_leg_with_the_reason() -> None:
    for case, told in (
        (make(pair=None), "credentials"),
        (make(places=None), "SWITCHHOOK_PUBLIC_URL"),
        (make(), "error 21211"),
    ):
        case.replies = [reply(400, code=21211)]
        leg = case.line.dial(REQUEST)
        leg.subscribe(case.events.append)
        await settle()
        [end] = case.ends()
        assert end.reason == "trunk-failed"
        assert told in end.detail


class Quiet:
    """A stream on which nothing is said."""

    stream_sid = "MZ1"

    def send(self, frame: bytes) -> None:
        pass

    def close(self) -> None:
        pass


async def streaming(case: Case) -> TwilioLeg:
    """A call that is answered and whose stream is open."""
    asked = asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", None))
    await settle()
    leg = case.offered[0][1]
    assert isinstance(leg, TwilioLeg)
    leg.answer()
    await asked
    assert leg.open_stream(Quiet(), encrypted=True)
    return leg


@pytest.mark.parametrize(("ring_s", "timeout"), [(30.0, "30"), (12.4, "12"), (1.0, "5"), (1000.0, "600")])
def test_whom_the_carrier_dials_rings_as_long_as_the_order_says(ring_s: float, timeout: str) -> None:
    """Within what Twilio takes."""

    async def live() -> None:
        case = make()
        leg = await streaming(case)
        leg.refer("+12025550147", caller=NUMBER, ring_s=ring_s)
        await settle()
        [dial] = ElementTree.fromstring(case.forms()[0]["Twiml"]).iter("Dial")
        assert (dial.attrib["timeout"], dial.attrib["callerId"]) == (timeout, NUMBER)
        leg.hang_up()
        await case.line.close()

    run_virtual(live())


@virtual
async def test_a_caller_is_taken_back_after_the_order_to_dial() -> None:
    """The orders do not overtake one another, and a `<Dial>` that is over meanwhile leaves the call to the one that is coming."""
    case = make()
    leg = await streaming(case)
    case.gate.clear()
    leg.refer("+12025550147")
    leg.recall()
    await settle()
    assert [verbs(form["Twiml"]) for form in case.forms()] == [["Dial"]]
    assert verbs(case.line.dial_over({**CALL, "CallStatus": "in-progress", "DialCallStatus": "completed"})) == ["Pause", "Hangup"]
    case.gate.set()
    await settle()
    assert [verbs(form["Twiml"]) for form in case.forms()] == [["Dial"], ["Connect", "Hangup"]]
    assert leg.open_stream(Quiet(), encrypted=True)
    assert case.ends() == []
    leg.hang_up()
    await case.line.close()


class Sip:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.dialled: list[DialRequest] = []

    def dial(self, request: DialRequest) -> Any:
        self.dialled.append(request)


@virtual
async def test_which_line_an_outgoing_call_takes() -> None:
    case, sip = make(), Sip()
    with_trunk, without = LineDialer(sip, case.line, lambda account: True), LineDialer(sip, case.line, lambda account: False)
    assert (with_trunk.line_of("acme"), without.line_of("acme")) == ("sip", "twilio")
    assert LineDialer(sip, make(pair=None).line, lambda account: False).line_of("acme") is None
    with_trunk.dial(REQUEST)
    assert len(sip.dialled) == 1
    without.dial(REQUEST)
    assert len(sip.dialled) == 1
    asked = asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", None))
    await settle()
    with_trunk.dial(REQUEST)  # the call came over Twilio: so does what belongs to it
    assert len(sip.dialled) == 1
    case.offered[0][1].reject(480)
    await asked
    await case.line.close()


STATUSES = ["queued", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled", "", "odd"]
webhooks = st.tuples(
    st.sampled_from(["voice", "status", "dial", "answered", "answer", "refer", "recall", "hang up", "reject", "wait"]),
    st.sampled_from(STATUSES),
    st.sampled_from(["CA1", "CA2", ""]),
)


def happen(case: Case, what: str, form: dict[str, str]) -> None:
    leg = case.offered[0][1]
    match what:
        case "status":
            case.line.status(form)
        case "dial":
            assert verbs(case.line.dial_over(form)) in (["Hangup"], ["Connect", "Hangup"], ["Pause", "Hangup"])
        case "answered":
            case.line.dial_answered(form)
        case "answer":
            leg.answer()
        case "refer":
            leg.refer("+12025550147")
        case "recall":
            leg.recall()
        case "hang up":
            leg.hang_up()
        case _:
            leg.reject(486)


@settings(max_examples=60, deadline=None)
@given(st.lists(webhooks, max_size=12), st.sampled_from([200, 404, 500]))
def test_webhooks_in_any_order_end_every_call_once(arrivals: list[tuple[str, str, str]], rest_status: int) -> None:
    async def live() -> None:
        case = make()
        case.replies = [reply(rest_status, sid="CA1") for _ in range(40)]
        asked = [asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", None))]
        await settle()
        for what, status, sid in arrivals:
            form = {**CALL, "CallSid": sid, "CallStatus": status, "DialCallStatus": status, "SipResponseCode": status}
            if what == "voice":
                asked.append(asyncio.create_task(case.line.voice(CALL, NUMBER, "acme", None)))
            elif what == "wait":
                await asyncio.sleep(3)
            else:
                happen(case, what, form)
        await asyncio.sleep(600)
        assert len(set(await asyncio.gather(*asked))) == 1
        assert len(case.ends()) == 1
        assert case.line.live == 0
        await case.line.close()

    run_virtual(live())

"""Every final answer of a callee, from the wire to the words of CallEnd: outboundCallResult and transferCallResult (§1.8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from switchhook.calls.machine import CallLimits, CallMachine, Ended
from switchhook.calls.transfer import TransferMachine, TransferOver
from switchhook.domain.dialling import DialPermit, DialResult
from switchhook.domain.model import Direction, TransferMode, TransferRecord
from switchhook.domain.outcome import Verdict
from switchhook.domain.plan import AgentSpec, Answer, CallPlan, Converse, TransferOrder
from switchhook.domain.ports import LegEnded, LegProgress
from switchhook.domain.report import CallReport
from tests.api.vns.cases import STARTED, VNS, attempt, number
from tests.peers.sip_callee import Callee
from tests.peers.sip_caller import AgentOnClock

STATUSES = range(300, 700)
MOST_ASKED = 4
RESULTS: Mapping[int, DialResult] = {
    404: DialResult.UNREACHABLE,
    408: DialResult.NO_ANSWER,
    410: DialResult.UNREACHABLE,
    480: DialResult.NO_ANSWER,
    484: DialResult.UNREACHABLE,
    486: DialResult.BUSY,
    487: DialResult.NO_ANSWER,
    600: DialResult.BUSY,
    603: DialResult.DECLINED,
    604: DialResult.UNREACHABLE,
    607: DialResult.DECLINED,
    608: DialResult.DECLINED,
}
"""What is neither here nor 5xx has failed."""
WORDS: Mapping[DialResult, str] = {
    DialResult.NO_ANSWER: "NoAnswer",
    DialResult.BUSY: "Busy",
    DialResult.UNREACHABLE: "OperatorIntercept",
    DialResult.DECLINED: "Failed",
    DialResult.TRUNK_ERROR: "Failed",
    DialResult.FAILED: "Failed",
}


def expected(status: int) -> DialResult:
    """By the contract."""
    return DialResult.TRUNK_ERROR if 500 <= status < 600 else RESULTS.get(status, DialResult.FAILED)


def ended_on_the_wire(status: int, rang: bool) -> LegEnded:
    """What our user agent makes of a callee's final answer."""
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(100)
    if rang:
        callee.reply(180)
    for _ in range(MOST_ASKED):
        if not ua.ended:
            callee.reply(status)  # to some answers (422, say) the INVITE is made again
    [ended] = ua.ended
    assert callee.methods[-1] == "ACK"
    return LegEnded(ended.reason, ended.detail, ended.status)


def verdict_of(end: LegEnded) -> Verdict:
    """What an outbound call makes of it."""
    machine = CallMachine(CallLimits(), outbound=True)
    machine.start(0)
    machine.routed(CallPlan(number(), (Answer(), Converse(AgentSpec("wss://ai.example")))), 0)
    machine.leg_event(LegProgress(180, False), 1)
    machine.leg_event(end, 2)
    [over] = [effect for effect in machine.take() if isinstance(effect, Ended)]
    return over.verdict


def over_of(end: LegEnded, attended: bool) -> TransferOver:
    """What a transfer makes of it."""
    machine = TransferMachine(TransferOrder("+13035551212", "+13032639999", attended=attended), TransferMode.BRIDGE)
    machine.start(0)
    machine.admitted(DialPermit("+13035551212", 60), 0)
    machine.quiet(0)
    machine.callee(end, 1)
    [over] = [effect for effect in machine.take() if isinstance(effect, TransferOver)]
    return over


def call_end(verdict: Verdict, **fields: Any) -> dict[str, Any]:
    """The CallEnd of a call that nobody answered."""
    given: dict[str, Any] = {"attempt": attempt(direction=Direction.OUTBOUND), "connected_at": None, "end_webhook_owed": True}
    report = CallReport(number=number(), verdict=verdict, ended_at=STARTED + timedelta(seconds=9), **given | fields)
    body: dict[str, Any] = json.loads(VNS.end_body(report, (), ()))
    return body


@pytest.mark.parametrize("rang", [False, True])
def test_every_status_of_a_called_party(rang: bool) -> None:
    """The call has done its work (status 0), but for 5xx: then it could not be placed (status 4)."""
    told = {}
    for status in STATUSES:
        end = call_end(verdict_of(ended_on_the_wire(status, rang)))
        told[status] = (end["outboundCallResult"], end["status"], end["callConnected"])
    assert told == {status: (WORDS[expected(status)], 4 if 500 <= status < 600 else 0, None) for status in STATUSES}


@pytest.mark.parametrize("attended", [False, True])
def test_every_status_of_a_destination(attended: bool) -> None:
    """The caller is not put through; the result, the SIP status and the word are the destination's."""
    told = {}
    for status in STATUSES:
        over = over_of(ended_on_the_wire(status, rang=True), attended)
        assert not over.put_through
        result = over.result
        record = TransferRecord("+13035551212", "+13032639999", None, STARTED, STARTED, result.value, over.status, over.detail)
        end = call_end(verdict_of(ended_on_the_wire(486, True)), transfers=(record,))
        told[status] = (result, over.status, end["transfers"][0]["transferCallResult"])
    assert told == {status: (expected(status), status, WORDS[expected(status)]) for status in STATUSES}

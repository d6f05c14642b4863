"""The life of a call: every order of events ends it, once, with one verdict and nothing left open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.agents.conversation import FailureKind
from switchhook.calls.machine import (
    AgentMayBegin,
    AnswerLeg,
    CallEffect,
    CallLimits,
    CallMachine,
    CloseLeg,
    DialLeg,
    Ended,
    HangUpLeg,
    OpenAgent,
    RejectLeg,
    Ring,
    Route,
    Speak,
    Stage,
    StartTransfer,
    StopAgent,
)
from switchhook.domain.model import Number
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import Action, AgentSpec, Answer, CallPlan, Converse, HangUp, Refusal, RouteTo, Say
from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded, PlayoutDrained
from switchhook.driver import simulate

NUMBER = Number("+17206999999", "acme", "vns", {})
SPEC = AgentSpec("wss://model.example")
TALK: tuple[Action, ...] = (Answer(), Converse(SPEC, (Say("sorry"), HangUp())), HangUp())


def plan(flow: tuple[Action, ...] = TALK, max_seconds: float = 300, ending: Ending = Ending.COMPLETED) -> CallPlan:
    return CallPlan(NUMBER, flow, max_seconds=max_seconds, ending=ending)


class Call:
    """A machine with its effects so far."""

    def __init__(self) -> None:
        self.machine = CallMachine(CallLimits())
        self.now = 0.0
        self.effects: list[CallEffect] = []
        self.do(self.machine.start)

    def do(self, change: Callable[[float], None]) -> list[CallEffect]:
        change(self.now)
        new = self.machine.take()
        self.effects += new
        return new

    def wait(self, seconds: float) -> list[CallEffect]:
        end, new = self.now + seconds, []
        while (due := self.machine.deadline) is not None and due <= end:
            self.now = due
            new += self.do(self.machine.tick)
        self.now = end
        return new

    @property
    def over(self) -> bool:
        return self.verdict is not None

    @property
    def verdict(self) -> Verdict | None:
        ended = [effect for effect in self.effects if isinstance(effect, Ended)]
        assert len(ended) <= 1
        return ended[0].verdict if ended else None


def talking() -> Call:
    call = Call()
    call.do(lambda now: call.machine.routed(plan(), now))
    call.do(lambda now: call.machine.leg_event(LegAnswered(), now))
    return call


def ended(reason: str) -> LegEnded:
    return LegEnded(reason)


def test_it_rings_and_asks_for_the_plan_at_once() -> None:
    assert Call().effects == [Ring(), Route()]


def test_answer_and_model_start_together() -> None:
    call = Call()
    assert call.do(lambda now: call.machine.routed(plan(), now)) == [AnswerLeg(), OpenAgent(SPEC)]


def test_caller_hangs_up() -> None:
    call = talking()
    effects = call.do(lambda now: call.machine.leg_event(ended("caller-hung-up"), now))
    assert effects == [StopAgent(), CloseLeg(), Ended(Verdict(Ending.COMPLETED, "caller-hung-up"))]


def test_agent_says_goodbye() -> None:
    call = talking()
    assert call.do(call.machine.agent_over) == [StopAgent(), HangUpLeg()]
    call.do(lambda now: call.machine.leg_event(ended("hung-up"), now))
    assert call.verdict == Verdict(Ending.COMPLETED, "agent-ended")


def test_maximum_duration_runs_from_the_answer() -> None:
    call = Call()
    call.wait(5)
    call.do(lambda now: call.machine.routed(plan(max_seconds=60), now))
    call.wait(2)
    call.do(lambda now: call.machine.leg_event(LegAnswered(), now))
    assert call.wait(59.9) == []
    assert call.wait(0.1) == [StopAgent(), HangUpLeg()]
    call.do(lambda now: call.machine.leg_event(ended("hung-up"), now))
    assert call.verdict is not None
    assert call.verdict.message == "Maximum call duration reached"


@pytest.mark.parametrize(
    ("kind", "ending"),
    [(FailureKind.NOT_ESTABLISHED, Ending.AGENT_NOT_ESTABLISHED), (FailureKind.LOST, Ending.AGENT_LOST)],
)
def test_failed_agent_plays_the_message_then_hangs_up(kind: FailureKind, ending: Ending) -> None:
    call = talking()
    assert call.do(lambda now: call.machine.agent_failed(kind, "gone", now)) == [StopAgent(), Speak("sorry")]
    # The caller hangs up during the message: the agent's failure stays the verdict.
    call.do(lambda now: call.machine.leg_event(ended("caller-hung-up"), now))
    assert call.verdict == Verdict(ending, call.verdict.reason if call.verdict else "", "gone")


def test_failure_route_is_a_transfer_and_its_failure_the_end() -> None:
    call = Call()
    flow: tuple[Action, ...] = (Answer(), Converse(SPEC, (RouteTo("+13035551212"),)))
    call.do(lambda now: call.machine.routed(plan(flow), now))
    call.do(lambda now: call.machine.leg_event(LegAnswered(), now))
    effects = call.do(lambda now: call.machine.agent_failed(FailureKind.NOT_ESTABLISHED, "401", now))
    assert effects == [StopAgent(), StartTransfer(RouteTo("+13035551212"))]
    assert call.do(lambda now: call.machine.transfer_over(False, "transfer-busy", now)) == [HangUpLeg()]


def test_the_time_limit_is_the_agents_and_two_people_may_talk_on() -> None:
    call = talking()
    call.do(call.machine.transfer_begun)
    assert call.do(call.machine.put_through) == [StopAgent()]
    assert call.wait(3000) == []
    assert call.do(lambda now: call.machine.transfer_over(True, "callee-hung-up", now)) == [HangUpLeg()]
    call.do(lambda now: call.machine.leg_event(ended("hung-up"), now))
    assert call.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")


def test_an_agent_that_is_lost_during_a_transfer_is_missed_when_it_fails() -> None:
    call = talking()
    call.do(call.machine.transfer_begun)
    assert call.do(lambda now: call.machine.agent_failed(FailureKind.LOST, "gone", now)) == []
    effects = call.do(lambda now: call.machine.transfer_over(False, "transfer-busy", now))
    assert effects == [StopAgent(), Speak("sorry")]


def test_an_outbound_call_dials_when_its_plan_is_there_and_the_agent_waits_for_the_answer() -> None:
    machine = CallMachine(CallLimits(), outbound=True)
    machine.start(0)
    assert machine.take() == [Route()]
    machine.routed(plan(), 1)
    assert machine.take() == [DialLeg(45.0), OpenAgent(SPEC, waiting=True)]
    machine.leg_event(LegAnswered(), 9)
    assert machine.take() == [AgentMayBegin()]


@pytest.mark.parametrize(
    ("end", "ending", "reason"),
    [
        (LegEnded("refused", "", 486), Ending.COMPLETED, "busy"),
        (LegEnded("no-answer"), Ending.COMPLETED, "no-answer"),
        (LegEnded("refused", "", 404), Ending.COMPLETED, "unreachable"),
        (LegEnded("trunk-failed", "", 503), Ending.OUTBOUND_NOT_PLACED, "trunk-error"),
        (LegEnded("line-failed"), Ending.INTERNAL_ERROR, "error"),
    ],
)
def test_an_outbound_call_that_is_not_answered_tells_why(end: LegEnded, ending: Ending, reason: str) -> None:
    machine = CallMachine(CallLimits(), outbound=True)
    machine.start(0)
    machine.routed(plan(), 1)
    machine.take()
    machine.leg_event(end, 5)
    assert [type(effect) for effect in machine.take()] == [StopAgent, CloseLeg, Ended]
    assert machine.verdict is not None
    assert (machine.verdict.ending, machine.verdict.reason) == (ending, reason)


@pytest.mark.parametrize("reason", ["caller-hung-up", "media-timeout", "session-expired"])
def test_a_talk_whose_caller_goes_or_is_gone_is_complete(reason: str) -> None:
    call = talking()
    call.do(lambda now: call.machine.leg_event(ended(reason), now))
    assert call.verdict is not None
    assert (call.verdict.ending, call.verdict.reason) == (Ending.COMPLETED, reason)


def test_a_failed_start_webhook_dials_nobody() -> None:
    machine = CallMachine(CallLimits(), outbound=True)
    machine.start(0)
    machine.routed(Refusal(480, Ending.CALL_START_FAILED, "call-start-timeout"), 10)
    assert [type(effect) for effect in machine.take()] == [Route, Ended]


def test_refusal_rejects_with_its_status() -> None:
    call = Call()
    refusal = Refusal(404, Ending.REJECTED, "unknown-number")
    assert call.do(lambda now: call.machine.routed(refusal, now)) == [RejectLeg(404)]
    call.do(lambda now: call.machine.leg_event(ended("rejected"), now))
    assert call.verdict == Verdict(Ending.REJECTED, "unknown-number")


def test_caller_who_gives_up_while_ringing_waits_for_the_webhook() -> None:
    call = Call()
    call.do(lambda now: call.machine.leg_event(ended("caller-cancelled"), now))
    assert not call.over, "the end webhook needs what the start webhook replied"
    call.do(lambda now: call.machine.routed(plan(), now))
    assert call.verdict == Verdict(Ending.ABANDONED, "caller-cancelled")
    assert not any(isinstance(effect, AnswerLeg | OpenAgent) for effect in call.effects)


def test_fallback_flow_keeps_its_ending() -> None:
    call = Call()
    call.do(lambda now: call.machine.routed(plan((Answer(), Say("closed")), ending=Ending.CALL_START_FAILED), now))
    call.do(lambda now: call.machine.leg_event(LegAnswered(), now))
    assert call.do(call.machine.spoken) == [], "a phone plays the last of it a little later"
    assert call.wait(0.3) == [HangUpLeg()]
    call.do(lambda now: call.machine.leg_event(ended("hung-up"), now))
    assert call.verdict is not None
    assert call.verdict.ending is Ending.CALL_START_FAILED


def test_line_that_never_confirms_the_hang_up_is_closed() -> None:
    call = talking()
    call.do(call.machine.agent_over)
    assert [type(effect) for effect in call.wait(60)] == [CloseLeg, Ended]


def test_routing_that_never_returns_ends_the_call() -> None:
    call = Call()
    call.wait(120)
    assert call.verdict is not None
    assert call.verdict.reason == "call-start-timeout"


def test_drain_ends_a_talk_in_good_order() -> None:
    call = talking()
    assert call.do(lambda now: call.machine.stop(Verdict(Ending.COMPLETED, "server-draining"), now)) == [StopAgent(), HangUpLeg()]


INPUTS: dict[str, Callable[[CallMachine, float], None]] = {
    "plan": lambda m, now: m.routed(plan(), now),
    "fallback": lambda m, now: m.routed(plan((Answer(), Say("x"), RouteTo("+1")), ending=Ending.CALL_START_FAILED), now),
    "refusal": lambda m, now: m.routed(Refusal(480, Ending.CALL_START_FAILED, "timeout", end_webhook_owed=True), now),
    "answered": lambda m, now: m.leg_event(LegAnswered(), now),
    "hung-up": lambda m, now: m.leg_event(ended("caller-hung-up"), now),
    "cancelled": lambda m, now: m.leg_event(ended("caller-cancelled"), now),
    "gone": lambda m, now: m.leg_event(ended("hung-up"), now),
    "dead": lambda m, now: m.leg_event(ended("media-timeout"), now),
    "expired": lambda m, now: m.leg_event(ended("session-expired"), now),
    "no-ack": lambda m, now: m.leg_event(ended("no-ack"), now),
    "failed": lambda m, now: m.leg_event(ended("line-failed"), now),
    "digit": lambda m, now: m.leg_event(DigitPressed("5"), now),
    "drained": lambda m, now: m.leg_event(PlayoutDrained(), now),
    "over": lambda m, now: m.agent_over(now),
    "not-established": lambda m, now: m.agent_failed(FailureKind.NOT_ESTABLISHED, "x", now),
    "lost": lambda m, now: m.agent_failed(FailureKind.LOST, "x", now),
    "spoken": lambda m, now: m.spoken(now),
    "transfer": lambda m, now: m.transfer_begun(now),
    "put through": lambda m, now: m.put_through(now),
    "transfer over": lambda m, now: m.transfer_over(True, "callee-hung-up", now),
    "transfer failed": lambda m, now: m.transfer_over(False, "transfer-busy", now),
    "busy": lambda m, now: m.leg_event(LegEnded("refused", "", 486), now),
    "stop": lambda m, now: m.stop(Verdict(Ending.COMPLETED, "server-draining"), now),
}


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 90), st.sampled_from(sorted(INPUTS))), max_size=14), st.booleans())
def test_every_order_of_events_ends_the_call_once(script: list[tuple[float, str]], outbound: bool) -> None:
    machine = CallMachine(CallLimits(), outbound)
    at, inputs = 0.0, [(0.0, machine.start)]
    for gap, name in script:
        at += gap
        inputs.append((at, lambda now, name=name: INPUTS[name](machine, now)))  # type: ignore[misc]  # default binds the loop's name
    seen = [effect for _, effect in simulate(machine, inputs, until=1e6)]
    assert machine.stage is Stage.ENDED
    assert machine.deadline is None
    assert [type(effect) for effect in seen].count(Ended) == 1
    assert isinstance(seen[-1], Ended)
    opened = [effect for effect in seen if isinstance(effect, OpenAgent | StopAgent)]
    assert len(opened) % 2 == 0, "an agent that was opened is stopped"
    assert all(isinstance(effect, OpenAgent) for effect in opened[::2])
    assert sum(isinstance(effect, AnswerLeg) for effect in seen) <= 1
    assert sum(isinstance(effect, HangUpLeg) for effect in seen) <= 1

"""A flow runs in order, takes the failure branch when its conversation fails, and always ends with a hang-up."""

from __future__ import annotations

from switchhook.domain.plan import AgentSpec, Answer, Converse, HangUp, RouteTo, Say
from switchhook.flows.interpreter import FlowRun

TALK = Converse(AgentSpec("wss://model.example"), (Say("sorry"), RouteTo("+13035551212")))


def test_actions_come_in_order_and_a_hang_up_at_the_end() -> None:
    run = FlowRun((Answer(), Say("hello")))
    assert [run.next(), run.done(), run.done(), run.done()] == [Answer(), Say("hello"), HangUp(), HangUp()]


def test_failed_conversation_continues_with_its_branch_alone() -> None:
    run = FlowRun((Answer(), TALK, Say("never")))
    run.next()
    assert run.done() == TALK
    assert [run.failed(), run.done(), run.done()] == [Say("sorry"), RouteTo("+13035551212"), HangUp()]


def test_other_actions_fail_into_the_next_one() -> None:
    run = FlowRun((Say("a"), Say("b")))
    run.next()
    assert run.failed() == Say("b")


def test_the_following_action_is_seen_without_being_taken() -> None:
    run = FlowRun((Answer(), Say("hello")))
    run.next()
    assert (run.following, run.current) == (Say("hello"), Answer())
    run.done()
    assert run.following == HangUp()

"""A transfer: whatever happens, in whatever order, it ends once, with its evidence, and drops what it does not need."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.calls.transfer import (
    REPLACED_S,
    Admit,
    Consult,
    DialCallee,
    DropCallee,
    HoldCaller,
    Join,
    ReferCaller,
    ReleaseAgent,
    Step,
    TransferEffect,
    TransferMachine,
    TransferOver,
    WaitingSound,
)
from switchhook.domain.dialling import DialPermit, DialPurpose, DialRefused, DialResult
from switchhook.domain.model import TransferMode
from switchhook.domain.plan import TransferOrder
from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded, LegProgress, PlayoutDrained, ReferProgress
from switchhook.driver import simulate

PERMIT = DialPermit("+13035551212", 600)


def blind() -> TransferMachine:
    return TransferMachine(TransferOrder("303 555 1212", "+17206999999"), TransferMode.BRIDGE)


def test_nothing_is_dialled_before_the_policy_has_spoken_and_the_last_words_are_heard() -> None:
    machine = blind()
    machine.start(0)
    assert machine.take() == [Admit("303 555 1212", DialPurpose.TRANSFER)]
    machine.admitted(PERMIT, 0.1)
    assert machine.take() == []
    machine.quiet(0.9)
    assert machine.take() == [HoldCaller(WaitingSound.RINGBACK), DialCallee("+13035551212", 30.0)]


def test_long_last_words_are_cut_after_three_seconds() -> None:
    machine = blind()
    seen = simulate(machine, [(0, machine.start), (0.1, lambda now: machine.admitted(PERMIT, now))], until=3.0)
    assert (3.0, DialCallee("+13035551212", 30.0)) in seen


def test_the_talk_of_a_transfer_has_the_limit_of_the_policy() -> None:
    machine = blind()
    script: list[tuple[float, Callable[[float], None]]] = [
        (0, machine.start),
        (0.1, lambda now: machine.admitted(PERMIT, now)),
        (0.2, machine.quiet),
        (5, lambda now: machine.callee(LegAnswered(), now)),
    ]
    seen = simulate(machine, script, until=1000)
    over = TransferOver(DialResult.CONNECTED, put_through=True, status=200, detail="max-duration")
    assert seen[-2:] == [(605, DropCallee()), (605, over)]


def test_a_peer_that_ends_the_call_without_a_word_leaves_the_result_open() -> None:
    machine = TransferMachine(TransferOrder("+13035551212", ""), TransferMode.REFER)
    machine.start(0)
    machine.admitted(PERMIT, 0)
    machine.quiet(0)
    assert machine.take()[-1] == ReferCaller("+13035551212", attended=False)
    machine.refer_progress(ReferProgress(202, final=False), 1)
    machine.caller_gone(2)
    assert machine.take() == [TransferOver(DialResult.REFERRED, put_through=True, referred=True, status=202)]


def consulting_before_a_refer() -> TransferMachine:
    """The agent talks with the destination; the caller's peer does transfers."""
    machine = TransferMachine(TransferOrder("+13035551212", "", attended=True), TransferMode.REFER)
    machine.start(0)
    machine.admitted(PERMIT, 0)
    machine.quiet(0)
    machine.callee(LegAnswered(), 3)
    return machine


def test_attended_by_refer_takes_the_place_of_the_destinations_leg() -> None:
    machine = consulting_before_a_refer()
    assert machine.take()[-1] == Consult()
    machine.accept(9)
    assert machine.take() == [HoldCaller(WaitingSound.HOLD), ReferCaller("+13035551212", attended=True)]
    machine.refer_progress(ReferProgress(202, final=False), 10)
    machine.callee(LegEnded("callee-hung-up"), 11)
    assert machine.take() == [], "the destination's leg goes when another call takes its place"
    machine.refer_progress(ReferProgress(200, final=True), 12)
    assert machine.take() == [TransferOver(DialResult.CONNECTED, put_through=True, referred=True, status=200)]


def handed_over() -> TransferMachine:
    """The caller's peer has taken our attended REFER, and ends the call at 11 s."""
    machine = consulting_before_a_refer()
    machine.accept(9)
    machine.refer_progress(ReferProgress(202, final=False), 10)
    machine.take()
    machine.caller_gone(11)
    return machine


@pytest.mark.parametrize(
    ("reason", "result", "referred"),
    [("callee-hung-up", DialResult.REFERRED, True), ("media-timeout", DialResult.DROPPED, False)],
)
def test_the_destinations_leg_outlives_a_caller_whose_peer_has_taken_the_refer(
    reason: str, result: DialResult, referred: bool
) -> None:
    machine = handed_over()
    assert machine.take() == [], "another call may take its place"
    machine.caller_gone(12)
    machine.callee(LegEnded(reason), 13)
    [over] = machine.take()
    assert isinstance(over, TransferOver)
    assert (over.result, over.put_through, over.referred, over.status) == (result, referred, referred, 202)


def test_a_place_that_nobody_takes_is_given_up() -> None:
    machine = handed_over()
    assert machine.deadline == 11 + REPLACED_S
    machine.tick(11 + REPLACED_S)
    drop, over = machine.take()
    assert drop == DropCallee()
    assert isinstance(over, TransferOver)
    assert (over.result, over.put_through, over.referred) == (DialResult.CANCELLED, False, False)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_caller_is_not_put_through_to_a_destination_that_has_left(accepted: bool) -> None:
    machine = consulting_before_a_refer()
    machine.accept(9)
    machine.refer_progress(ReferProgress(202, final=False), 10)
    machine.callee(LegEnded("callee-hung-up"), 11)
    machine.take()
    machine.refer_progress(ReferProgress(487, final=True, accepted=accepted), 12)
    [over] = machine.take()
    assert isinstance(over, TransferOver)
    assert (over.result, over.put_through) == (DialResult.DROPPED, False)


def test_a_carriers_talk_has_the_limit_of_the_order() -> None:
    machine = TransferMachine(TransferOrder("+13035551212", "", talk_s=60), TransferMode.CARRIER)
    script: list[tuple[float, Callable[[float], None]]] = [
        (0, machine.start),
        (0.1, lambda now: machine.admitted(PERMIT, now)),
        (0.2, machine.quiet),
        (5, lambda now: machine.refer_progress(ReferProgress(200, final=False), now)),
    ]
    seen = simulate(machine, script, until=1000)
    assert seen[-1] == (70, TransferOver(DialResult.CONNECTED, put_through=True, status=200, detail="max-duration"))


def test_a_carriers_talk_lets_the_agent_go_when_it_is_answered_and_ends_with_its_word() -> None:
    machine = TransferMachine(TransferOrder("+13035551212", ""), TransferMode.CARRIER)
    machine.start(0)
    machine.admitted(PERMIT, 0)
    machine.quiet(0)
    machine.take()
    machine.refer_progress(ReferProgress(200, final=False), 5)
    assert machine.take() == [ReleaseAgent()]
    machine.refer_progress(ReferProgress(200, final=True), 500)
    assert machine.take() == [TransferOver(DialResult.CONNECTED, put_through=True, status=200)]


INPUTS: dict[str, Callable[[TransferMachine, float], None]] = {
    "permit": lambda m, now: m.admitted(PERMIT, now),
    "refusal": lambda m, now: m.admitted(DialRefused("rate", "too many"), now),
    "quiet": lambda m, now: m.quiet(now),
    "early": lambda m, now: m.callee(LegProgress(183, True), now),
    "answered": lambda m, now: m.callee(LegAnswered(), now),
    "busy": lambda m, now: m.callee(LegEnded("refused", "", 486), now),
    "gone": lambda m, now: m.callee(LegEnded("callee-hung-up"), now),
    "one": lambda m, now: m.callee(DigitPressed("1"), now),
    "two": lambda m, now: m.callee(DigitPressed("2"), now),
    "drained": lambda m, now: m.callee(PlayoutDrained(), now),
    "accept": lambda m, now: m.accept(now),
    "decline": lambda m, now: m.decline(now),
    "carrier answered": lambda m, now: m.refer_progress(ReferProgress(200, False), now),
    "refer taken": lambda m, now: m.refer_progress(ReferProgress(202, False), now),
    "refer done": lambda m, now: m.refer_progress(ReferProgress(200, True), now),
    "refer failed": lambda m, now: m.refer_progress(ReferProgress(486, True), now),
    "refer refused": lambda m, now: m.refer_progress(ReferProgress(405, True, accepted=False), now),
    "agent gone": lambda m, now: m.agent_gone(now),
    "caller gone": lambda m, now: m.caller_gone(now),
    "stop": lambda m, now: m.stop(now),
}


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from(sorted(INPUTS))), max_size=14),
    st.booleans(),
    st.sampled_from(TransferMode),
)
def test_every_order_of_events_ends_the_transfer_once(
    script: list[tuple[float, str]], attended: bool, mode: TransferMode
) -> None:
    machine = TransferMachine(TransferOrder("+13035551212", "", attended=attended), mode)
    at, inputs = 0.0, [(0.0, machine.start)]
    for gap, name in script:
        at += gap
        inputs.append((at, lambda now, name=name: INPUTS[name](machine, now)))  # type: ignore[misc]  # default binds the loop's name
    told = simulate(machine, inputs, until=1e6)
    seen: list[TransferEffect] = [effect for _, effect in told]
    assert machine.step is Step.OVER
    assert machine.deadline is None
    assert [type(effect) for effect in seen].count(TransferOver) == 1
    over = seen[-1]
    assert isinstance(over, TransferOver)
    if any(name == "caller gone" for _, name in script):
        left_at = sum(gap for gap, _ in script[: 1 + [name for _, name in script].index("caller gone")])
        assert told[-1][0] <= left_at + REPLACED_S + 1e-6, "nobody is kept for long without a caller"
    dialled = [effect for effect in seen if isinstance(effect, DialCallee)]
    assert len(dialled) <= 1
    if over.put_through and not over.referred and mode is not TransferMode.CARRIER:
        assert Join() in seen, "nobody is put through who was not joined"
    if over.put_through and mode is TransferMode.CARRIER and Join() not in seen:
        assert over.result is DialResult.CONNECTED
    if over.referred:
        assert any(isinstance(effect, ReferCaller) for effect in seen)
    if dialled and not over.put_through:
        gone = any(name in ("busy", "gone") for _, name in script)
        assert DropCallee() in seen or gone, "whoever was dialled for nothing is dropped"

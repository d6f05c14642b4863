"""The life of a call on a carrier with Twilio's interface: every way in, every way out, exactly one end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, LegProgress, ReferProgress
from switchhook.driver import simulate
from switchhook.telephony.twilio_call import (
    DIAL_SPARE_S,
    GRACE_S,
    RECALL_S,
    START_S,
    AnswerWebhook,
    CallEffect,
    CloseStream,
    EndCall,
    Recall,
    Redirect,
    RejectWebhook,
    Stage,
    Tell,
    TwilioCall,
)

TIMEOUT_S = 30.0


class Run:
    """A call on a virtual clock: inputs by name, effects with their times."""

    def __init__(self, ring_s: float | None = None) -> None:
        self.call = TwilioCall(TIMEOUT_S, 0.0, ring_s)
        self.now = 0.0
        self.effects: list[tuple[float, CallEffect]] = []

    def at(self, now: float, name: str | None = None, *arguments: Any) -> Any:
        self.effects += simulate(self.call, [], until=now)
        self.now = now
        result = getattr(self.call, name)(*arguments, now) if name else None
        self.effects += [(now, effect) for effect in self.call.take()]
        return result

    @property
    def told(self) -> list[LegEvent]:
        return [effect.event for _, effect in self.effects if isinstance(effect, Tell)]

    @property
    def asked(self) -> list[tuple[float, CallEffect]]:
        return [(at, effect) for at, effect in self.effects if not isinstance(effect, Tell)]


def talking(ring_s: float | None = None) -> Run:
    run = Run(ring_s)
    if ring_s is None:
        run.at(0.0, "answer")
    run.at(1.0, "stream_started")
    assert run.told == [LegAnswered()]
    run.effects.clear()
    return run


def test_an_offered_call_is_answered_by_webhook_and_is_up_with_its_stream() -> None:
    run = Run()
    run.at(1.0, "stream_started")  # of nobody: it was not asked for
    run.at(2.0, "answer")
    assert run.call.wants_stream
    run.at(2.5, "stream_started")
    assert run.effects == [(2.0, AnswerWebhook()), (2.5, Tell(LegAnswered()))]


@pytest.mark.parametrize(
    ("status", "reason"), [(486, "busy"), (503, "busy"), (600, "busy"), (480, "rejected"), (603, "rejected")]
)
def test_a_refusal_is_busy_or_rejected(status: int, reason: str) -> None:
    run = Run()
    run.at(1.0, "reject", status)
    assert run.effects == [(1.0, RejectWebhook(reason)), (1.0, Tell(LegEnded("rejected")))]
    assert run.call.stage is Stage.OVER


def test_a_stream_that_never_opens_ends_the_line() -> None:
    run = Run()
    run.at(0.0, "answer")
    run.at(START_S)
    assert run.effects[1:] == [
        (START_S, EndCall()),
        (START_S, Tell(LegEnded("line-failed", "the carrier opened no media stream"))),
    ]


def test_a_hang_up_closes_the_stream_and_rest_is_asked_only_when_nothing_shows_the_end() -> None:
    quiet, told = talking(), talking()
    for run in (quiet, told):
        run.at(10.0, "hang_up")
        assert run.effects == [(10.0, CloseStream()), (10.0, Tell(LegEnded("hung-up")))]
    told.at(11.0, "status", "completed", None)
    for run in (quiet, told):
        run.at(100.0)
    assert quiet.asked == [(10.0, CloseStream()), (10.0 + GRACE_S, EndCall())]
    assert told.asked == [(10.0, CloseStream())]
    assert quiet.call.stage is told.call.stage is Stage.OVER


@pytest.mark.parametrize(
    ("name", "arguments", "owed"),
    [("stream_gone", (True,), False), ("stream_gone", (False,), True), ("status", ("completed", None), False)],
)
def test_the_party_hangs_up(name: str, arguments: tuple[Any, ...], owed: bool) -> None:
    for ring_s, reason in ((None, "caller-hung-up"), (20.0, "callee-hung-up")):
        run = talking(ring_s)
        run.at(5.0, name, *arguments)
        run.at(6.0, "status", "in-progress", None)
        run.at(60.0)
        assert run.told == [LegEnded(reason)]
        assert (EndCall() in [effect for _, effect in run.asked]) == owed


def test_silence_on_the_socket_is_a_media_timeout() -> None:
    run = talking()
    for second in range(2, 50):
        run.call.media_at = float(second)
        run.at(float(second))
    assert run.effects == []
    run.at(49.0 + TIMEOUT_S - 0.01)
    assert run.effects == []
    run.at(49.0 + TIMEOUT_S)
    assert run.effects[:2] == [
        (79.0, CloseStream()),
        (79.0, Tell(LegEnded("media-timeout", "no sound came from the party"))),
    ]


def test_a_caller_that_gives_up_before_the_answer_has_cancelled() -> None:
    run = Run()
    run.at(1.0, "status", "completed", None)
    assert run.effects == [(1.0, Tell(LegEnded("caller-cancelled")))]


@pytest.mark.parametrize(
    ("status", "sip_code", "told"),
    [
        ("busy", None, LegEnded("refused", status=486)),
        ("busy", 603, LegEnded("refused", status=603)),
        ("failed", 404, LegEnded("refused", status=404)),
        ("failed", None, LegEnded("trunk-failed", "the carrier could not place the call")),
        ("no-answer", None, LegEnded("no-answer")),
        ("canceled", None, LegEnded("refused", status=487)),
        ("completed", None, LegEnded("callee-hung-up")),
    ],
)
def test_a_dialled_call_that_does_not_come_about(status: str, sip_code: int | None, told: LegEnded) -> None:
    run = Run(ring_s=30.0)
    for told_status in ("queued", "initiated", "ringing"):
        run.at(1.0, "status", told_status, None)
    run.at(3.0, "status", status, sip_code)
    assert run.told == [LegProgress(180, early_media=False), told]
    assert run.asked == []


def test_a_dialled_call_is_up_with_its_stream_and_given_up_in_time() -> None:
    run = Run(ring_s=30.0)
    run.at(4.0, "status", "in-progress", None)
    assert run.told == []
    run.at(4.2, "stream_started")
    assert run.told == [LegAnswered()]
    silent = Run(ring_s=30.0)
    silent.at(100.0)
    assert silent.effects == [(45.0, EndCall()), (45.0, Tell(LegEnded("no-answer")))]
    left = Run(ring_s=30.0)
    left.at(3.0, "hang_up")
    assert left.effects == [(3.0, EndCall()), (3.0, Tell(LegEnded("hung-up")))]
    unplaced = Run(ring_s=30.0)
    unplaced.at(0.1, "fail", "trunk-failed", "REST answered 401")
    assert unplaced.effects == [(0.1, Tell(LegEnded("trunk-failed", "REST answered 401")))]


@pytest.mark.parametrize(
    ("dial_status", "status"), [("busy", 486), ("no-answer", 480), ("failed", 503), ("canceled", 487), ("?", 503)]
)
def test_a_transfer_that_fails_brings_the_party_back_on_a_new_stream(dial_status: str, status: int) -> None:
    run = talking()
    run.at(2.0, "refer", "+15550001111", 30.0)
    run.at(2.3, "stream_gone", True)
    assert run.at(20.0, "dial_over", dial_status) is True
    assert run.at(20.0, "dial_over", dial_status) is True, "a repeated request gets the same answer"
    run.at(20.5, "stream_started")
    run.call.media_at = 40.0
    run.at(40.0, "hang_up")
    assert run.effects == [
        (2.0, Redirect("+15550001111", 30.0)),
        (20.0, Tell(ReferProgress(status, final=True))),
        (40.0, CloseStream()),
        (40.0, Tell(LegEnded("hung-up"))),
    ]


def test_a_transfer_that_is_answered_and_over_ends_the_line_without_rest() -> None:
    run = talking()
    run.at(2.0, "refer", "+15550001111", 30.0)
    run.at(2.3, "stream_gone", True)
    run.at(9.0, "dial_answered")
    run.at(9.1, "dial_answered")
    assert run.at(900.0, "dial_over", "completed") is False
    run.at(900.0, "hang_up")
    run.at(900.4, "status", "completed", None)
    run.at(2_000.0)
    assert run.told == [ReferProgress(200, final=False), ReferProgress(200, final=True), LegEnded("hung-up")]
    assert run.asked == [(2.0, Redirect("+15550001111", 30.0))]


def test_ends_while_the_carrier_dials() -> None:
    gone = talking()
    gone.at(2.0, "refer", "+15550001111", 30.0)
    gone.at(2.3, "stream_gone", True)
    gone.at(5.0, "status", "completed", None)
    assert gone.told == [LegEnded("caller-hung-up")]
    assert gone.at(5.1, "dial_over", "canceled") is False
    stopped = talking()
    stopped.at(2.0, "refer", "+15550001111", 30.0)
    stopped.at(2.3, "stream_gone", True)
    stopped.at(3.0, "dial_answered")
    stopped.at(60.0, "hang_up")
    assert stopped.asked[1:] == [(60.0, EndCall())]
    assert stopped.told[-1] == LegEnded("hung-up")
    mute = talking()
    mute.at(2.0, "refer", "+15550001111", 30.0)
    mute.at(2.3, "stream_gone", True)
    mute.at(500.0)
    assert mute.effects[-2:] == [
        (32.0 + DIAL_SPARE_S, EndCall()),
        (32.0 + DIAL_SPARE_S, Tell(LegEnded("line-failed", "the carrier did not tell what became of the transfer"))),
    ]


def test_a_long_ring_time_is_waited_for() -> None:
    run = talking()
    run.at(2.0, "refer", "+15550001111", 300.0)
    run.at(2.3, "stream_gone", True)
    run.at(300.0)
    assert run.told == []
    assert run.at(303.0, "dial_over", "no-answer") is True
    assert run.told == [ReferProgress(480, final=True)]


def test_an_order_that_is_refused_leaves_the_call_where_it_is() -> None:
    run = talking()
    run.at(2.0, "refer", "+15550001111", 30.0)
    run.at(2.2, "redirect_failed", 503)
    assert run.told == [ReferProgress(503, final=True, accepted=False)]
    assert run.call.stage is Stage.TALKING
    gone = talking()
    gone.at(2.0, "refer", "+15550001111", 30.0)
    gone.at(2.1, "stream_gone", True)
    gone.at(2.2, "redirect_failed", 404)
    assert gone.told == [LegEnded("caller-hung-up")]
    early = Run()
    early.at(1.0, "refer", "+15550001111", 30.0)
    assert early.told == [ReferProgress(481, final=True, accepted=False)]


@pytest.mark.parametrize("talks", [False, True])
def test_a_party_that_was_handed_on_is_taken_back(talks: bool) -> None:
    run = talking()
    run.at(1.5, "recall")
    assert run.effects == [], "it is here"
    run.at(2.0, "refer", "+15550001111", 30.0)
    run.at(2.3, "stream_gone", True)
    if talks:
        run.at(3.0, "dial_answered")
    told = len(run.told)
    run.at(4.0, "recall")
    run.at(4.0, "recall")
    run.at(4.1, "dial_answered")
    on_its_way = [run.call.recalled]
    run.at(5.0, "stream_started")
    assert [*on_its_way, run.call.recalled] == [True, False]
    run.call.media_at = 20.0
    run.at(20.0, "hang_up")
    assert run.asked == [(2.0, Redirect("+15550001111", 30.0)), (4.0, Recall()), (20.0, CloseStream())]
    assert run.told[told:] == [LegEnded("hung-up")]


def test_a_party_is_taken_back_before_the_carrier_has_begun_to_dial() -> None:
    run = talking()
    run.at(2.0, "refer", "+15550001111", 30.0)
    run.at(2.1, "recall")
    run.at(2.2, "redirect_failed", 503)
    run.at(2.3, "stream_gone", True)
    run.at(2.6, "stream_started")
    assert run.call.stage is Stage.TALKING
    assert run.told == []


def test_a_party_that_cannot_be_taken_back_ends_the_line() -> None:
    for name, at, ended in (("recall_failed", 4.5, "caller-hung-up"), (None, 4.0 + RECALL_S, "line-failed")):
        run = talking()
        run.at(2.0, "refer", "+15550001111", 30.0)
        run.at(2.3, "stream_gone", True)
        run.at(4.0, "recall")
        run.at(at, name)
        assert [event.reason for event in run.told if isinstance(event, LegEnded)] == [ended]
        run.at(100.0)
        assert run.asked[-1][1] == EndCall()


STATUSES = st.sampled_from(
    ["queued", "ringing", "in-progress", "answered", "completed", "busy", "failed", "no-answer", "canceled", "x", ""]
)
INPUTS = st.one_of(
    st.sampled_from([("answer",), ("hang_up",), ("stream_started",), ("dial_answered",), ("recall",), ("recall_failed",)]),
    st.tuples(st.just("reject"), st.integers(400, 699)),
    st.tuples(st.just("refer"), st.just("+15550001111"), st.floats(1, 600)),
    st.tuples(st.just("stream_gone"), st.booleans()),
    st.tuples(st.just("status"), STATUSES, st.none() | st.integers(400, 699)),
    st.tuples(st.just("fail"), st.just("line-failed"), st.just("")),
    st.tuples(st.just("redirect_failed"), st.integers(400, 599)),
    st.tuples(st.just("dial_over"), STATUSES),
)


@given(
    outbound=st.booleans(),
    steps=st.lists(st.tuples(st.floats(0, 20), INPUTS), max_size=25),
    ending=st.sampled_from(["hang_up", "nothing more"]),
)
def test_whatever_comes_the_line_ends_once_and_nothing_is_left_open(
    outbound: bool, steps: list[tuple[float, tuple[Any, ...]]], ending: str
) -> None:
    run = Run(ring_s=20.0 if outbound else None)
    answered = False
    for wait_s, (name, *arguments) in steps:
        run.at(run.now + wait_s, name, *arguments)
        answered = answered or name == "answer"
    if ending == "hang_up" or not (outbound or answered):
        run.at(run.now, "hang_up")
    run.at(run.now + 1_000.0)
    if run.call.stage is Stage.HANDED_OVER:  # an answered transfer lasts until the call core ends it
        run.at(run.now, "hang_up")
        run.at(run.now + 1_000.0)
    assert run.call.stage is Stage.OVER
    assert run.call.deadline is None
    told = run.told
    assert sum(isinstance(event, LegEnded) for event in told) == 1
    assert isinstance(told[-1], LegEnded)
    assert sum(isinstance(event, LegAnswered) for event in told) <= 1
    asked = [effect for _, effect in run.asked]
    assert sum(isinstance(effect, AnswerWebhook | RejectWebhook) for effect in asked) <= 1
    assert asked.count(EndCall()) <= 1

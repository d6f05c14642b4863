"""A live call that is steered from outside: whatever it was doing, the new flow runs, and it comes to its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.calls.session import CallSession
from switchhook.calls.steering import Moment, OrderedCall
from switchhook.domain.dialling import DialPurpose
from switchhook.domain.errors import GreetingUnavailable
from switchhook.domain.model import CallId, Direction, Encoding, TransferMode, TransferRecord
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    Answer,
    AskNext,
    CallPlan,
    Pause,
    PlaySound,
    PressKeys,
    RecordingSpec,
    RouteTo,
    Say,
)
from switchhook.domain.ports import LegAnswered, LegEnded, LegProgress
from switchhook.domain.report import CallReport
from tests.calls.fakes import FakePlayout, attempt
from tests.calls.house import EVENTS, NUMBER, House, asked_to_transfer, call_item, live

AFTER = AskNext("https://backend.example/after", after_dial=True)
NEXT = AskNext("https://backend.example/next")
DIAL = RouteTo("+13035551212", returns=True, purpose=DialPurpose.TRANSFER)


class Customer:
    """Sounds and flows of the customer."""

    def __init__(self) -> None:
        self.asked: list[tuple[AskNext, TransferRecord | None]] = []
        self.flow: tuple[Action, ...] = (Say("goodbye"),)
        self.answers_in_s = 0.05
        self.answered = 0

    async def ask(self, call_id: CallId, question: AskNext, dialled: TransferRecord | None) -> tuple[Action, ...]:
        self.asked.append((question, dialled))
        await asyncio.sleep(self.answers_in_s)
        self.answered += 1
        return self.flow

    async def fetch(self, url: str, encoding: Encoding) -> bytes:
        await asyncio.sleep(0.05)
        if "missing" in url:
            raise GreetingUnavailable
        return b"\x11" * 1600


class SteeredHouse(House):
    def __init__(self, decision: CallPlan | None = None, tool_s: float = 0.0) -> None:
        super().__init__(decision, tool_s)
        self.customer = Customer()
        self.parts = replace(self.parts, greetings=self.customer, next_flows=self.customer)
        self.session = CallSession(attempt(), self.leg, self.parts)

    @property
    def played(self) -> list[bytes]:
        assert isinstance(self.leg.playout, FakePlayout)
        return [sound for _, sound in self.leg.playout.played]


async def talking(house: House) -> None:
    await asyncio.sleep(0.2)
    house.establish()


def test_a_redirected_conversation_ends_the_agent_and_runs_the_flow() -> None:
    house = SteeredHouse(tool_s=1.0)

    async def story() -> None:
        await talking(house)
        house.model("response.created", response={"id": "r1"})
        house.model("response.output_item.done", response_id="r1", item=call_item(1))
        house.session.redirect((Say("one moment"), PlaySound("https://a.example/x.mp3", 2), Pause(3)))
        assert house.sent("response.cancel")
        house.model("response.done", response={"id": "r1", "status": "cancelled"})
        assert not any(link.is_open for link in house.agents.links)

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "flow-ended")
    assert house.played == [b"\xff" * 8000, b"\x11" * 1600, b"\x11" * 1600]
    assert house.journal.tools_finished == 1, "a tool that runs is let finish, as at a hang-up"


def test_a_call_that_is_not_answered_is_not_redirected() -> None:
    house = SteeredHouse()

    async def story() -> None:
        house.session.redirect((Say("x"),))
        await talking(house)
        assert house.agents.links[-1].is_open
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict.reason == "caller-hung-up"


def test_dial_returns_to_the_next_verb_when_the_far_side_hangs_up() -> None:
    house = SteeredHouse()

    async def story() -> None:
        await talking(house)
        house.session.redirect((replace(DIAL, caller="+17206999999", ring_s=20.0), Say("goodbye")))
        await asyncio.sleep(0.1)
        [request] = house.dialer.requests
        assert (request.called, request.caller, request.ring_s) == ("+13035551212", "+17206999999", 20.0)
        house.callee(LegAnswered())
        assert house.joining.joined
        await asyncio.sleep(5)
        house.callee(LegEnded("callee-hung-up"))
        assert house.joining.joined == []

    live(house, story)
    assert house.played == [b"\xff" * 8000]
    assert house.verdict.reason == "flow-ended"
    [transfer] = house.book.reports[0].transfers
    assert transfer.result == "connected"
    assert transfer.connected_at is not None
    assert (transfer.ended_at - transfer.connected_at).total_seconds() == 5


def test_dial_asks_its_action_however_it_went() -> None:
    house = SteeredHouse()
    house.customer.flow = (replace(DIAL, asks=None),)

    async def story() -> None:
        await talking(house)
        house.session.redirect((replace(DIAL, asks=AFTER), Say("never heard")))
        await asyncio.sleep(0.1)
        house.callee(LegEnded("refused", "", 486))
        await asyncio.sleep(0.2)
        [(question, dialled)] = house.customer.asked
        assert question is AFTER
        assert dialled is not None
        assert dialled.result == "busy"
        house.callee(LegAnswered())
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.played == []
    assert house.verdict.reason == "caller-hung-up"


def test_a_caller_who_hangs_up_during_dial_is_not_asked_for() -> None:
    house = SteeredHouse()

    async def story() -> None:
        await talking(house)
        house.session.redirect((replace(DIAL, asks=AFTER),))
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.customer.asked == []


def test_a_redirect_drops_who_was_dialled_and_who_was_put_through() -> None:
    house = SteeredHouse()

    async def story() -> None:
        await talking(house)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        house.session.redirect((DIAL,))
        assert house.dialer.legs[0].closed
        assert house.leg.done[-1] == "recall", "whatever the line's peer was asked to do with the caller"
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        assert house.joining.joined == [(house.leg, house.dialer.legs[1])]
        house.session.redirect((Say("goodbye"),))
        assert house.dialer.legs[1].closed
        assert house.joining.joined == []

    live(house, story)
    assert house.verdict.reason == "flow-ended"
    assert [transfer.result for transfer in house.book.reports[0].transfers] == ["cancelled", "connected"]


def test_a_second_redirect_silences_the_first() -> None:
    house = SteeredHouse()

    async def story() -> None:
        await talking(house)
        house.session.redirect((PlaySound("https://a.example/x.mp3", 1000), Say("never heard")))
        await asyncio.sleep(0.3)
        house.session.redirect((Say("never synthesised"),))
        house.session.redirect((PlaySound("https://a.example/missing.mp3"), PressKeys("1w2"), Say("bye")))

    live(house, story)
    assert house.played[-1] == b"\xff" * 8000
    assert house.played.count(b"\xff" * 8000) == 1
    assert [done for done in house.leg.done if done.startswith("digit")] == ["digit 1", "digit 2"]


def test_a_customer_who_always_redirects_to_himself_is_asked_a_bounded_number_of_times() -> None:
    house = SteeredHouse()
    house.customer.flow = (NEXT,)

    async def story() -> None:
        await talking(house)
        house.session.redirect((NEXT,))

    live(house, story)
    assert house.verdict.reason == "too-many-redirects"
    assert len(house.customer.asked) == 1000


def test_an_address_and_its_fallback_are_waited_for() -> None:
    house = SteeredHouse()
    house.customer.answers_in_s = 31.0  # the one in 15 s not at all, the other at the last moment

    async def story() -> None:
        await talking(house)
        house.session.redirect((NEXT,))

    live(house, story)
    assert house.verdict.reason == "flow-ended"


def test_a_question_that_is_not_asked_any_more_is_given_up() -> None:
    house = SteeredHouse()
    house.customer.answers_in_s = 5.0

    async def story() -> None:
        await talking(house)
        house.session.redirect((NEXT,))
        await asyncio.sleep(1.0)
        house.session.redirect((Pause(10), Say("goodbye")))

    live(house, story)
    assert (len(house.customer.asked), house.customer.answered) == (1, 0)
    assert house.verdict.reason == "flow-ended"


def test_a_recording_that_begins_late_pauses_and_ends_once() -> None:
    house = SteeredHouse(CallPlan(NUMBER, (Answer(), Pause(60))))

    async def story() -> None:
        await asyncio.sleep(1)
        session, recorded = house.session, house.session.recorded
        assert session.record(RecordingSpec("wav"))
        assert house.recorders.lines == 2, "its time begins now, not with the answer"
        recorded.pause(True)
        silent = [house.recorders.paused, recorded.paused]
        recorded.pause(False)
        assert [*silent, house.recorders.paused, recorded.paused] == [True, True, False, False]
        recorded.stop()
        assert not session.record(RecordingSpec("wav")), "a call has one recording"
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.recorders.opened == 1


def test_an_ordered_call_waits_for_its_party_and_tells_each_moment_once() -> None:
    house = SteeredHouse()
    told: list[tuple[Moment, CallReport | None]] = []
    plan = CallPlan(NUMBER, (Answer(), Say("hello")), end_webhook_owed=False)
    house.leg.closed = True
    called = replace(attempt(), direction=Direction.OUTBOUND)
    ordered = OrderedCall(plan, lambda moment, report: told.append((moment, report)))
    ordered.written.set()
    house.session = CallSession(called, None, house.parts, house.gate.permit("+13035551212"), ordered)

    async def story() -> None:
        await asyncio.sleep(1)
        house.callee(LegProgress(180, False))
        house.callee(LegProgress(180, False))
        await asyncio.sleep(5)
        playout = house.dialer.legs[0].playout
        assert isinstance(playout, FakePlayout)
        assert playout.played == [], "nobody is there to hear it"
        house.callee(LegAnswered())
        await asyncio.sleep(0.06)
        assert len(playout.played) == 1

    live(house, story)
    assert [moment for moment, _ in told] == [Moment.RINGING, Moment.ANSWERED, Moment.OVER]
    assert told[-1][1] is house.book.reports[0]


@pytest.mark.parametrize(("store_works", "reason"), [(True, "busy"), (False, "store-unavailable")])
def test_an_ordered_call_is_dialled_once_it_is_written_down(store_works: bool, reason: str) -> None:
    house = SteeredHouse()
    house.leg.closed = True
    ordered = OrderedCall(CallPlan(NUMBER, (Answer(), Say("hello")), end_webhook_owed=False), lambda moment, report: None)
    called = replace(attempt(), direction=Direction.OUTBOUND)
    house.session = CallSession(called, None, house.parts, house.gate.permit("+13035551212"), ordered)

    async def story() -> None:
        await asyncio.sleep(1)
        assert house.dialer.legs == []
        if not store_works:
            house.session.stop(Verdict(Ending.INTERNAL_ERROR, reason))
        ordered.written.set()
        await asyncio.sleep(1)
        assert len(house.dialer.legs) == store_works
        house.callee(LegEnded("refused", status=486))

    live(house, story)
    assert house.verdict.reason == reason


STEPS = st.sampled_from(
    [
        Say("x"),
        Pause(2),
        PlaySound("https://a.example/x.mp3", 3),
        PlaySound("https://a.example/missing.mp3"),
        PressKeys("12w3"),
        DIAL,
        replace(DIAL, asks=AFTER, talk_s=10.0),
        RouteTo("+13035551212"),
        NEXT,
        Answer(),
    ]
)
FLOWS = st.lists(STEPS, max_size=4).map(tuple)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(st.tuples(st.floats(0, 10), st.one_of(st.sampled_from(sorted(EVENTS)), FLOWS)), max_size=20),
    following=FLOWS,
    mode=st.sampled_from(TransferMode),
    outbound=st.booleans(),
)
def test_every_redirect_at_any_moment_leads_the_call_to_its_end(
    script: list[tuple[float, str | tuple[Action, ...]]], following: tuple[Action, ...], mode: TransferMode, outbound: bool
) -> None:
    house = SteeredHouse()
    house.customer.flow = following
    house.leg.transfer_mode = mode
    if outbound:
        house.call_out()

    async def story() -> None:
        for gap, step in script:
            await asyncio.sleep(gap)
            if isinstance(step, str):
                EVENTS[step](house)
            else:
                house.session.redirect(step)

    live(house, story)
    items = [frame["item"] for frame in house.sent("conversation.item.create")]
    outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    assert len(outputs) == len(set(outputs)), "a tool is answered once"

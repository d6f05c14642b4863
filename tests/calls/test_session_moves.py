"""Whole calls on virtual time, with the real agent: lines that a phone system moves or replaces."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from switchhook.calls.transfer import WaitingSound
from switchhook.domain.dialling import DialRefused
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Answer,
    CallPlan,
    Converse,
)
from switchhook.domain.ports import (
    LegAnswered,
    LegEnded,
    LegProgress,
    TransferAsked,
)
from tests.calls.fakes import (
    FakeLeg,
    FakePlayout,
)
from tests.calls.house import (
    NUMBER,
    SPEC,
    House,
    bridged,
    live,
    transferring,
)


async def moving(house: House) -> None:
    """From the beginning of a call to the new telephone that rings: the caller's phone system asked us to dial it."""
    await asyncio.sleep(0.2)
    house.establish()
    house.leg.emit(TransferAsked("+13035551212", "abc;to-tag=1;from-tag=2"))
    await asyncio.sleep(0.1)


def test_a_phone_system_that_refers_us_moves_the_talk_to_another_line() -> None:
    house = House()

    async def story() -> None:
        await moving(house)
        [request] = house.dialer.requests
        assert (request.called, request.replaces) == ("+13035551212", "abc;to-tag=1;from-tag=2")
        house.callee(LegProgress(180, early_media=False))
        assert house.leg.on_audio is not None, "until the new line stands nothing changes"
        house.callee(LegAnswered())
        new = house.dialer.legs[0]
        assert new.on_audio is not None
        assert new.tapped is not None, "the recording goes on"
        await asyncio.sleep(0.1)
        assert house.leg.done[-3:] == ["refer result 180", "refer result 200", "hang up"]
        assert house.leg.closed
        new.emit(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")


def test_a_move_that_fails_leaves_the_talk_where_it_is() -> None:
    house = House()

    async def story() -> None:
        await moving(house)
        house.callee(LegEnded("refused", "", 486))
        assert house.leg.done[-1] == "refer result 486"
        assert house.leg.on_audio is not None
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")


def test_a_call_that_we_end_does_not_wait_for_a_move_under_way() -> None:
    house = House()

    async def story() -> None:
        await moving(house)
        house.session.stop(Verdict(Ending.COMPLETED, "hung-up-by-us"))
        await asyncio.sleep(0.1)
        assert house.dialer.legs[0].closed, "nobody is rung for a call that is over"
        assert house.book.reports

    live(house, story)
    assert house.verdict.reason == "hung-up-by-us"


def test_a_call_that_we_end_after_its_phone_hung_up_during_a_move_ends_at_once() -> None:
    house = House()

    async def story() -> None:
        await moving(house)
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(0.1)
        house.session.stop(Verdict(Ending.INTERNAL_ERROR, "server-draining"))
        await asyncio.sleep(0.1)
        assert house.book.reports, "there is no line that could end any more"
        assert house.dialer.legs[0].closed

    live(house, story)
    assert house.verdict.reason == "server-draining"


@pytest.mark.parametrize("answered", [True, False])
def test_a_phone_that_hangs_up_once_its_refer_is_taken(answered: bool) -> None:
    house = House()

    async def story() -> None:
        await moving(house)
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)
        assert house.book.reports == [], "somebody else is being called"
        if answered:
            house.callee(LegAnswered())
            assert house.dialer.legs[0].on_audio is not None
            house.callee(LegEnded("callee-hung-up"))
        else:
            house.callee(LegEnded("refused", "", 486))

    live(house, story)
    assert house.verdict.reason == ("callee-hung-up" if answered else "caller-hung-up")


def test_a_move_stays_inside_the_dialling_policy() -> None:
    house = House()
    house.gate.refusal = DialRefused("country", "not allowed")

    async def story() -> None:
        await moving(house)
        assert house.leg.done[-1] == "refer result 403"
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.dialer.requests == []


def test_a_line_that_replaces_anothers_goes_on_with_its_talk() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        new = FakeLeg()
        assert house.session.has(house.leg)
        house.session.replace_line(new, house.leg)
        await asyncio.sleep(0.1)
        assert new.done == ["answer"]
        assert house.leg.closed
        assert new.on_audio is not None
        new.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)
        assert new.closed

    live(house, story)


def test_the_destinations_phone_system_moves_the_caller() -> None:
    house = House()

    async def story() -> None:
        first = await bridged(house)
        first.emit(TransferAsked("+13035550000"))
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        second = house.dialer.legs[1]
        assert house.joining.joined == [(house.leg, second)]
        await asyncio.sleep(0.1)
        assert first.closed
        second.emit(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict.reason == "callee-hung-up"


def test_a_moved_line_has_the_limit_of_the_policy() -> None:
    spec = replace(SPEC, speaks_first=False, roll_over_after_ms=None)
    house = House(CallPlan(NUMBER, (Answer(), Converse(spec, ())), max_seconds=3 * 3600))

    async def story() -> None:
        await moving(house)
        house.callee(LegAnswered())
        await asyncio.sleep(3601)
        assert house.dialer.legs[0].done == ["hang up"]

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "max-duration", "Maximum call duration reached")


@pytest.mark.parametrize("answered", [True, False])
def test_a_destination_that_refers_the_caller_and_hangs_up(answered: bool) -> None:
    house = House()

    async def story() -> None:
        first = await bridged(house)
        first.emit(TransferAsked("+13035550000"))
        await asyncio.sleep(0.1)
        first.emit(LegEnded("callee-hung-up"))
        assert house.joining.waiting == {id(house.leg): WaitingSound.RINGBACK}
        third = house.dialer.legs[1]
        if answered:
            third.emit(LegAnswered())
            assert house.joining.joined == [(house.leg, third)]
            assert house.joining.waiting == {}
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)
        assert third.closed, "nobody is left for whom it rings"

    live(house, story)


def test_a_caller_who_is_moved_while_a_transfer_rings_hears_the_agent_again_on_the_new_line() -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=False)
        new = FakeLeg()
        house.session.replace_line(new, house.leg)
        await asyncio.sleep(0.1)
        house.callee(LegEnded("refused", "", 486))
        house.model("response.created", response={"id": "r2"})
        house.speaks("r2", "m2")
        assert isinstance(new.playout, FakePlayout)
        assert new.playout.played
        assert new.on_audio is not None
        new.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)

    live(house, story)

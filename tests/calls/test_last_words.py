"""The model writes down what the caller said last while the call is already over."""

from __future__ import annotations

import asyncio
import logging

import pytest

from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.ports import LegAnswered, LegEnded
from tests.calls.house import EVENTS, House, live


def _spoken(house: House) -> None:
    """The party has said something, whose text is to come."""
    for name in ("speech", "quiet", "committed"):
        EVENTS[name](house)


def test_the_record_has_the_last_words_and_the_time_of_the_hang_up() -> None:
    house = House()
    house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.callee(LegAnswered())
        await asyncio.sleep(5)
        _spoken(house)
        house.callee(LegEnded("callee-hung-up"))
        assert house.dialer.legs[0].closed
        await asyncio.sleep(2)
        assert not house.book.reports
        assert house.gate.live == set(), "the account may call somebody else"
        EVENTS["text"](house)

    live(house, story)
    [report] = house.book.reports
    assert report.connected_at is not None
    assert [line.text for line in house.journal.utterances] == ["the caller's words"]
    assert house.gate.talked_s == [(report.ended_at - report.connected_at).total_seconds()] == [pytest.approx(5.0)]


def test_a_fault_waits_for_no_words(caplog: pytest.LogCaptureFixture) -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        _spoken(house)
        with caplog.at_level(logging.CRITICAL, "switchhook.calls.session"):
            house.session.fault(RuntimeError("broken"))
        await asyncio.sleep(0.1)
        assert house.book.reports

    live(house, story)
    assert house.verdict == Verdict(Ending.INTERNAL_ERROR, "internal-error", "The server failed")


def test_a_text_that_never_comes_holds_the_record_for_three_seconds() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        _spoken(house)
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(2.9)
        assert not house.book.reports
        await asyncio.sleep(0.2)
        assert house.book.reports

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")


def test_a_fault_keeps_the_permit_while_the_line_is_up(caplog: pytest.LogCaptureFixture) -> None:
    """A tool may still finish then; the account's concurrency counts what is on the line."""
    house = House(tool_s=2)
    house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.callee(LegAnswered())
        EVENTS["created"](house)
        EVENTS["tool"](house)
        with caplog.at_level(logging.CRITICAL, "switchhook.calls.session"):
            house.session.fault(RuntimeError("broken"))
        await asyncio.sleep(1)
        assert (house.dialer.legs[0].closed, len(house.gate.live)) == (False, 1)

    live(house, story)
    assert house.verdict.ending is Ending.INTERNAL_ERROR

"""The model writes down what the caller said last while the call is already over."""

from __future__ import annotations

import asyncio
import logging

import pytest

from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.ports import LegAnswered, LegEnded
from tests.calls.house import House, live

TEXT = "conversation.item.input_audio_transcription.completed"


def _spoken(house: House) -> None:
    """The party has said something, whose text is to come."""
    house.model("input_audio_buffer.speech_started", item_id="u1")
    house.model("input_audio_buffer.speech_stopped", item_id="u1")
    house.model("input_audio_buffer.committed", item_id="u1")


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
        house.model(TEXT, item_id="u1", transcript="Bye!")

    live(house, story)
    [report] = house.book.reports
    assert report.connected_at is not None
    assert [line.text for line in house.journal.utterances] == ["Bye!"]
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

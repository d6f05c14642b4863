"""Whose words a transcript holds: the caller's, or those of the person whom the agent consults before a transfer."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from switchhook.calls.consultation import Consultations
from switchhook.domain.model import Speaker, Utterance
from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded
from tests.calls.fakes import EPOCH
from tests.calls.house import House, asked_to_transfer, live


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def said(seconds: float, speaker: Speaker = Speaker.CALLER) -> Utterance:
    return Utterance(speaker, "words", 1, at(seconds))


def test_a_line_belongs_to_whoever_was_heard_when_it_began() -> None:
    consultations = Consultations()
    consultations.end(at(1))
    consultations.begin(at(10))
    consultations.end(at(20))
    consultations.end(at(25))
    consultations.begin(at(30))
    whose = [consultations.attributed(said(seconds)).speaker for seconds in (9.9, 10, 19.9, 20, 29.9, 31)]
    caller, destination = Speaker.CALLER, Speaker.DESTINATION
    assert whose == [caller, destination, destination, caller, caller, destination]
    assert consultations.attributed(said(15, Speaker.AGENT)) == said(15, Speaker.AGENT)


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(0, 100))
def test_an_odd_number_of_changes_before_it_makes_a_line_the_destinations(changes: list[int], moment: int) -> None:
    consultations = Consultations()
    for index, change in enumerate(sorted(changes)):
        (consultations.end if index % 2 else consultations.begin)(at(change))
    inside = sum(change <= moment for change in changes) % 2 == 1
    assert (consultations.attributed(said(moment)).speaker is Speaker.DESTINATION) is inside


def heard(house: House, item: str) -> None:
    """The model hears somebody; the words come later."""
    house.model("input_audio_buffer.speech_started", item_id=item, audio_start_ms=0)
    house.model("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=500)
    house.model("input_audio_buffer.committed", item_id=item, previous_item_id=None)


def words(house: House, item: str) -> None:
    house.model("conversation.item.input_audio_transcription.completed", item_id=item, content_index=0, transcript=item)


def test_the_destinations_words_do_not_stand_as_the_callers() -> None:
    """Texts that arrive late are told by when they were spoken, on both edges of the consultation."""
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        heard(house, "before")
        await asyncio.sleep(1)
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        words(house, "before")
        await asyncio.sleep(1)
        heard(house, "asked")
        words(house, "asked")
        await asyncio.sleep(1)
        heard(house, "late")
        await asyncio.sleep(0.5)
        house.callee(DigitPressed("2"))
        await asyncio.sleep(1)
        words(house, "late")
        await asyncio.sleep(1)
        heard(house, "after")
        words(house, "after")
        await asyncio.sleep(5)
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    lines = {line.text: line.speaker for line in house.journal.utterances}
    caller, destination = Speaker.CALLER, Speaker.DESTINATION
    assert lines == {"before": caller, "asked": destination, "late": destination, "after": caller}

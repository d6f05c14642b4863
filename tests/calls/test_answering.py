"""What is done about a voicemail, a screener and the network's announcement."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.calls.answering import (
    Answered,
    AnswerEffect,
    AnswerWatch,
    GiveUp,
    LeaveMessage,
    LetAgentSpeak,
    SilenceAgent,
    TellAgent,
)
from switchhook.domain.model import Encoding
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import AnswerDetection, CallPlan, OnMachine
from switchhook.domain.ports import LegAnswered, LegEnded, LegProgress
from switchhook.media import tones
from tests.calls.fakes import FakeLeg, FakePlayout
from tests.calls.house import NUMBER, TALK, House, asked_to_transfer, live
from tests.media.test_answer_detection import babble, quiet

U = Encoding.PCMU
LEAVE = AnswerDetection(OnMachine.LEAVE_MESSAGE, "Please call us back.")


def watched(wanted: AnswerDetection, *sound: bytes, words: str = "") -> list[AnswerEffect]:
    watch = AnswerWatch(wanted, U, 0.0)
    effects: list[AnswerEffect] = []
    if words:
        watch.words(words, 0.5)
    whole = b"".join(sound)
    for at in range(0, len(whole), 160):
        now = at / 8000
        watch.hear(whole[at : at + 160], now)
        if watch.deadline is not None and watch.deadline <= now:
            watch.tick(now)
        effects += watch.take()
    return effects


def kinds(effects: list[AnswerEffect]) -> list[type]:
    return [type(effect) for effect in effects]


def test_a_message_is_left_after_the_beep() -> None:
    effects = watched(LEAVE, babble(4500), quiet(400), tones.tone((1000,), 400, U), quiet(400))
    assert kinds(effects) == [Answered, SilenceAgent, Answered, LeaveMessage]


def test_nobody_is_hung_up_on_for_talking_long() -> None:
    hang_up = AnswerDetection(OnMachine.HANG_UP)
    assert kinds(watched(hang_up, babble(6000), quiet(2000))) == [Answered]
    assert kinds(watched(hang_up, babble(6000), quiet(500), tones.tone((1000,), 400, U), quiet(400))) == [
        Answered,
        Answered,
        GiveUp,
    ]


def test_a_message_is_left_when_the_machine_falls_silent_without_a_beep() -> None:
    assert kinds(watched(LEAVE, babble(4500), quiet(3000))) == [Answered, SilenceAgent, LeaveMessage]


def test_a_machine_that_does_not_stop_gets_its_message_all_the_same() -> None:
    assert kinds(watched(LEAVE, babble(40_000))) == [Answered, SilenceAgent, LeaveMessage]


@pytest.mark.parametrize(
    ("wanted", "words", "expected"),
    [
        (AnswerDetection(OnMachine.HANG_UP), "please leave a message", [Answered, GiveUp]),
        (AnswerDetection(OnMachine.TELL_AGENT), "please leave a message", [Answered, TellAgent]),
        (AnswerDetection(OnMachine.HANG_UP), "the number you have dialed is not in service", [Answered, GiveUp]),
        (AnswerDetection(OnMachine.HANG_UP), "please state your name", [Answered, TellAgent]),
    ],
)
def test_words_decide(wanted: AnswerDetection, words: str, expected: list[type]) -> None:
    assert kinds(watched(wanted, quiet(1000), words=words)) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("please state your name", [Answered, TellAgent, LetAgentSpeak]),
        ("the number you have dialed is not in service", [Answered, GiveUp]),
    ],
)
def test_words_correct_what_a_long_greeting_seemed_to_be(words: str, expected: list[type]) -> None:
    """The agent that was silenced for a message speaks to a screener after all; no message is left to the network."""
    watch = AnswerWatch(LEAVE, U, 0.0)
    sound = babble(4500) + quiet(500)
    for at in range(0, len(sound), 160):
        watch.hear(sound[at : at + 160], at / 8000)
    assert kinds(watch.take()) == [Answered, SilenceAgent]
    watch.words(words, 5.1)
    assert kinds(watch.take()) == expected
    assert watch.deadline is None
    for at in range(300):
        watch.hear(quiet(20), 5.2 + at / 50)
    assert watch.take() == []


def test_the_agent_learns_how_sure_it_is_that_a_voicemail_answered() -> None:
    """A long greeting is told as what it is; the beep makes it certain."""
    tell = AnswerDetection(OnMachine.TELL_AGENT)
    effects = watched(tell, babble(4500), quiet(400), tones.tone((1000,), 400, U), quiet(400))
    perhaps, certain = [effect.text for effect in effects if isinstance(effect, TellAgent)]
    assert "if it is a person" in perhaps
    assert certain.startswith("A voicemail has answered")


def test_nothing_is_done_about_a_person() -> None:
    assert kinds(watched(LEAVE, quiet(400), babble(600), quiet(3000), babble(6000))) == [Answered]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["talk", "quiet", "beep", "words"]), max_size=8), st.sampled_from(OnMachine))
def test_it_ends_with_one_deed_at_most(script: list[str], on_machine: OnMachine) -> None:
    watch = AnswerWatch(AnswerDetection(on_machine, "hello"), U, 0.0)
    now, effects = 0.0, []
    sounds = {"talk": babble(1500), "quiet": quiet(1500), "beep": tones.tone((1000,), 300, U)}
    for step in script:
        if step == "words":
            watch.words("leave a message after the tone", now)
        for at in range(0, len(sounds.get(step, b"")), 160):
            watch.hear(sounds[step][at : at + 160], now)
            now += 0.02
        effects += watch.take()
    watch.tick(now + 60)
    effects += watch.take()
    assert sum(isinstance(effect, GiveUp | LeaveMessage) for effect in effects) <= 1
    assert watch.deadline is None


def outbound(wanted: AnswerDetection) -> House:
    house = House(CallPlan(NUMBER, TALK, answer_detection=wanted))
    house.call_out()
    return house


async def played_to(leg: FakeLeg, house: House, sound: bytes) -> None:
    for at in range(0, len(sound), 160):
        if leg.on_audio is not None:
            leg.on_audio(sound[at : at + 160], house.clock.now())
        await asyncio.sleep(0.02)


def test_a_call_leaves_its_message_and_ends() -> None:
    house = outbound(LEAVE)

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        leg = house.dialer.legs[0]
        leg.emit(LegAnswered())
        await played_to(leg, house, babble(4500) + quiet(400) + tones.tone((1000,), 400, U) + quiet(400))
        await asyncio.sleep(1)
        assert isinstance(leg.playout, FakePlayout)
        assert ("message", U.silence * 8000) in leg.playout.played
        assert leg.done[-1] == "hang up"

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "message-left")
    assert house.book.reports[0].answered_by == "voicemail"


def test_a_person_talks_with_the_agent_as_ever() -> None:
    house = outbound(AnswerDetection(OnMachine.HANG_UP))

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        leg = house.dialer.legs[0]
        leg.emit(LegAnswered())
        await played_to(leg, house, quiet(300) + babble(500) + quiet(60_000))
        assert house.sent("input_audio_buffer.append"), "the model hears all the while"
        leg.emit(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.book.reports[0].answered_by == "human"


def test_an_inbound_call_is_not_judged() -> None:
    plan = CallPlan(NUMBER, TALK, answer_detection=AnswerDetection(OnMachine.HANG_UP))
    house = House(replace(plan, max_seconds=60))

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        await played_to(house.leg, house, babble(9000))
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.book.reports[0].answered_by is None


SPECIAL = b"".join(tones.tone((hz,), 330, U) for hz in (950.0, 1400.0, 1776.7)) + quiet(300)


@pytest.mark.parametrize("answers", [False, True])
def test_an_announcement_before_the_answer_tells_until_somebody_answers(answers: bool) -> None:
    """Also where nobody watches the answer: the agent has failed by then, and a message is spoken in its place."""
    house = outbound(AnswerDetection(OnMachine.HANG_UP))

    async def story() -> None:
        await asyncio.sleep(0.2)
        leg = house.dialer.legs[0]
        leg.emit(LegProgress(183, early_media=True))
        await played_to(leg, house, SPECIAL)
        if answers:
            house.lost(retryable=False)
            leg.emit(LegAnswered())
            assert leg.on_audio is None, "what the party says is not judged as the network's"
        await asyncio.sleep(0.5)
        leg.emit(LegEnded("callee-hung-up") if answers else LegEnded("refused", status=503))

    live(house, story)
    assert house.book.reports[0].answered_by == (None if answers else "announcement")


def test_the_destination_of_a_transfer_is_not_taken_for_the_party_that_answered() -> None:
    house = outbound(AnswerDetection(OnMachine.HANG_UP))

    async def story() -> None:
        await asyncio.sleep(0.2)
        leg = house.dialer.legs[0]
        house.establish()
        leg.emit(LegAnswered())
        await played_to(leg, house, quiet(300) + babble(500) + quiet(1000))
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        destination = house.dialer.legs[1]
        destination.emit(LegAnswered())
        await played_to(destination, house, babble(9000))
        destination.emit(LegEnded("callee-hung-up"))
        leg.emit(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.book.reports[0].answered_by == "human"

"""Who answers: people, machines and the network, by made-up sound of the right rhythm and by words."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.media.answer_detection import AnswerDetector, Answerer, BeepHeard, Detected
from switchhook.media.g711 import encode

U = Encoding.PCMU


def babble(duration_ms: int, seed: int = 1) -> bytes:
    """Sound with a wide spectrum that is no tone, like speech."""
    noise = random.Random(seed)
    samples = [noise.randint(-6000, 6000) for _ in range(duration_ms * 8)]
    return encode(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples), U)


def quiet(duration_ms: int) -> bytes:
    return tones.silence(duration_ms, U)


def told(*sound: bytes) -> list[Detected | BeepHeard]:
    detector = AnswerDetector(U, 0.0)
    whole = b"".join(sound)
    for at in range(0, len(whole), 160):
        detector.hear(whole[at : at + 160], at / 8000)
    return detector.take()


def kinds(found: list[Detected | BeepHeard]) -> list[Answerer | None]:
    return [item.answerer if isinstance(item, Detected) else None for item in found]


def test_a_hello_and_a_pause_is_a_person() -> None:
    assert kinds(told(quiet(600), babble(700), quiet(1500))) == [Answerer.HUMAN]


def test_a_short_silence_does_not_end_a_greeting() -> None:
    assert kinds(told(quiet(300), babble(1500), quiet(400), babble(2500), quiet(1000))) == [Answerer.VOICEMAIL]


def test_silence_alone_tells_nothing() -> None:
    assert told(quiet(20_000)) == []


def test_the_beep_is_told_when_it_has_ended() -> None:
    found = told(babble(4000), quiet(500), tones.tone((1000,), 400, U), quiet(500))
    assert kinds(found) == [Answerer.VOICEMAIL, Answerer.VOICEMAIL, None]
    assert [item.sure for item in found if isinstance(item, Detected)] == [False, True]
    assert isinstance(found[-1], BeepHeard)


def test_a_beep_corrects_a_short_greeting() -> None:
    assert kinds(told(babble(1500), quiet(1000), tones.tone((1400,), 300, U), quiet(300)))[:2] == [
        Answerer.HUMAN,
        Answerer.VOICEMAIL,
    ]


def test_a_key_is_no_beep() -> None:
    assert not any(isinstance(item, BeepHeard) for item in told(babble(800), quiet(900), tones.dtmf("5", 300, U), quiet(500)))


def test_special_information_tones_are_the_networks() -> None:
    special = [tones.tone((hz,), 330, U) for hz in (950.0, 1400.0, 1776.7)]
    assert kinds(told(*special, quiet(300)))[:1] == [Answerer.ANNOUNCEMENT]


@pytest.mark.parametrize(
    "before",
    [
        pytest.param((tones.tone((425,), 1000, U) + quiet(4000)) * 3, id="European ringback is as pure as a beep"),
        pytest.param(babble(5000) + quiet(500), id="music in its place"),
    ],
)
def test_special_information_tones_are_heard_after_ringback(before: bytes) -> None:
    special = [tones.tone((hz,), 330, U) for hz in (950.0, 1400.0, 1776.7)]
    assert kinds(told(before, *special, quiet(300)))[-1] is Answerer.ANNOUNCEMENT


@pytest.mark.parametrize("burst_ms", [100, 300, 700])
def test_a_network_that_delivers_in_bursts_changes_nothing(burst_ms: int) -> None:
    """Tones are as long as they were when they were sent."""
    special = [tones.tone((hz,), 330, U) for hz in (950.0, 1400.0, 1776.7)]
    whole = b"".join((quiet(40), *special, quiet(1400)))
    detector = AnswerDetector(U, 0.0)
    for at in range(0, len(whole), 160):
        arrived_ms = -(-(at // 8 + 20) // burst_ms) * burst_ms
        detector.hear(whole[at : at + 160], arrived_ms / 1000)
    assert kinds(detector.take())[:1] == [Answerer.ANNOUNCEMENT]


@pytest.mark.parametrize(
    ("text", "answerer"),
    [
        ("Hi, you've reached Ada. Please leave a message after the tone.", Answerer.VOICEMAIL),
        ("The person you are calling is not available right now.", Answerer.VOICEMAIL),
        ("I can\u2019t come to the phone.", Answerer.VOICEMAIL),
        ("Your call has been forwarded to an automated voice messaging system.", Answerer.VOICEMAIL),
        ("The number you have dialed is not in service.", Answerer.ANNOUNCEMENT),
        ("Please state your name and reason for your call.", Answerer.SCREENER),
        ("Hello, this is Ada speaking, who is calling?", None),
        ("We are available from nine to five.", None),
    ],
)
def test_words(text: str, answerer: Answerer | None) -> None:
    detector = AnswerDetector(U, 0.0)
    detector.words(text, 3.0)
    assert detector.answerer is answerer


def test_words_outweigh_rhythm_and_not_the_other_way_round() -> None:
    detector = AnswerDetector(U, 0.0)
    sound = babble(900) + quiet(900)
    for at in range(0, len(sound), 160):
        detector.hear(sound[at : at + 160], at / 8000)
    detector.words("please say your name", 4.0)
    assert kinds(detector.take()) == [Answerer.HUMAN, Answerer.SCREENER]


def test_nothing_is_concluded_after_its_time() -> None:
    detector = AnswerDetector(U, 0.0)
    detector.words("leave a message", 46.0)
    assert detector.answerer is None
    assert detector.over(46.0)


@given(st.lists(st.binary(max_size=700), max_size=40), st.sampled_from([Encoding.PCMU, Encoding.PCMA]), st.text())
def test_any_sound_and_any_words_are_taken(frames: list[bytes], encoding: Encoding, text: str) -> None:
    detector = AnswerDetector(encoding, 0.0)
    for number, frame in enumerate(frames):
        detector.hear(frame, number * 0.02)
    detector.words(text, 1.0)
    detector.take()

"""Recognition with flite's voices over 8 kHz µ-law: what is in the grammar is understood, what is not is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from switchhook.agents.providers import grammar_decoder
from switchhook.agents.providers.grammar import Grammar, GrammarInvalid
from switchhook.agents.providers.grammar_stt import GrammarRecognizer
from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.workers import Workers
from tests.peers.flite import spoken

pytestmark = pytest.mark.peer("flite")

DAYS = ("day", ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"))
MENU = Grammar(
    (
        "[what are your] opening hours [please]",
        "[i (want | would like) to] (book | make) an appointment [please]",
        "(book | make) an appointment on <day>",
        "[i want to] speak to (a person | an operator)",
        "[no] [thank you] (goodbye | bye)",
    ),
    (DAYS,),
)
DAY = Grammar(("[on] <day> [please]", "[no] [thank you] (goodbye | bye)"), (DAYS,))
YES_NO = Grammar(("yes [please]", "no [thank you]", "goodbye"))
INSIDE = [
    (MENU, "what are your opening hours"),
    (MENU, "i would like to book an appointment"),
    (MENU, "thank you goodbye"),
    (DAY, "on tuesday please"),
    (DAY, "friday"),
    (YES_NO, "yes please"),
    (YES_NO, "no thank you"),
]
OUTSIDE = [
    "could you tell me what the weather is like in paris",
    "how much does a new car cost these days",
    "hold on a moment i am looking for my glasses",
]


@pytest_asyncio.fixture
async def recognizer() -> AsyncIterator[GrammarRecognizer]:
    workers = Workers(1)
    yield GrammarRecognizer(workers)
    await workers.close()


def test_phrases_of_the_grammar_are_understood_and_other_speech_is_mostly_refused() -> None:
    wrong: list[str] = []
    passed: list[str] = []
    for voice in ("rms", "awb", "slt"):
        for grammar, text in INSIDE:
            found = grammar_decoder.recognize(g711.decode(spoken(text, voice), Encoding.PCMU), grammar)
            wrong += [f"{voice}: {text} → {found}"] if found.text != text else []
        for text in OUTSIDE:
            sound = g711.decode(spoken(text, voice), Encoding.PCMU)
            passed += [f"{voice}: {text}"] if grammar_decoder.recognize(sound, MENU).text else []
    assert len(wrong) <= 1, wrong
    assert len(passed) <= 1, passed


async def test_a_worker_understands_both_companding_laws(recognizer: GrammarRecognizer) -> None:
    sound = spoken("what are your opening hours")
    await recognizer.warm_up()
    assert (await recognizer.recognize(sound, Encoding.PCMU, MENU)).text == "what are your opening hours"
    as_alaw = sound.translate(g711.ULAW_TO_ALAW)
    assert (await recognizer.recognize(as_alaw, Encoding.PCMA, MENU)).text == "what are your opening hours"


async def test_silence_noise_and_crumbs_are_refused(recognizer: GrammarRecognizer) -> None:
    for sound in (b"", b"\xff" * 800, b"\xff" * 16_000, bytes(range(256)) * 40):
        assert (await recognizer.recognize(sound, Encoding.PCMU, MENU)).text == ""


async def test_phrases_with_words_that_no_one_can_pronounce_are_left_out(recognizer: GrammarRecognizer) -> None:
    grammar = Grammar(("ask for <name>", "zzyzxqq", "opening hours"), (("name", ("qqzzyx",)),))
    assert (await recognizer.recognize(spoken("opening hours"), Encoding.PCMU, grammar)).text == "opening hours"
    with pytest.raises(GrammarInvalid):
        await recognizer.recognize(spoken("opening hours"), Encoding.PCMU, Grammar(("zzyzxqq",)))
    with pytest.raises(GrammarInvalid):
        await recognizer.recognize(spoken("opening hours"), Encoding.PCMU, Grammar(("(((",)))


async def test_many_grammars_come_and_go(recognizer: GrammarRecognizer) -> None:
    sound = spoken("opening hours")
    for place in range(40):
        grammar = Grammar(("opening hours", f"{['monday', 'tuesday', 'friday'][place % 3]} " + "one " * (place + 1)))
        await recognizer.recognize(sound[:2000], Encoding.PCMU, grammar)
    assert (await recognizer.recognize(sound, Encoding.PCMU, MENU)).text == "opening hours"

"""Phrases: what they match, what they say to the recogniser, and that bad ones are refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.agents.embedded import slots
from switchhook.agents.embedded.phrases import PhraseInvalid, parse, words_of

ENDS = {name: slot.ends for name, slot in slots.built_in().items()}


def matched(phrase: str, text: str) -> dict[str, str] | None:
    words = words_of(text)
    spans = parse(phrase).match(words, ENDS)
    return None if spans is None else {name: " ".join(words[a:b]) for name, (a, b) in spans.items()}


def test_words_options_and_alternatives() -> None:
    assert matched("[what are your] opening hours [please]", "Opening hours, please!") == {}
    assert matched("[what are your] opening hours [please]", "what are your opening hours") == {}
    assert matched("[what are your] opening hours", "your opening hours") is None
    assert matched("(book | make) an appointment | help", "make an appointment") == {}
    assert matched("(book | make) an appointment | help", "help") == {}
    assert matched("nine o'clock", "nine o’clock") == {}


def test_slots_are_found_where_they_lie() -> None:
    assert matched("book [on] {day} [at {time}]", "book on tuesday at half past two") == {
        "day": "tuesday",
        "time": "half past two",
    }
    assert matched("book [on] {day} [at {time}]", "book Friday") == {"day": "friday"}
    assert matched("order {digits} [please]", "order four two seven one please") == {"digits": "four two seven one"}


def test_the_expansion_is_jsgf() -> None:
    assert parse("[i want to] book (on | for) {day}").expansion == "[i want to] book (on | for) <day>"
    assert parse("a | b").expansion == "(a | b)"


@pytest.mark.parametrize(
    "text", ["", "  ", "[", "(a", "a]", "a | ", "[]", "{", "{Day!}", "a.b", "<b>", "(" * 20 + "a" + ")" * 20, "a " * 300]
)
def test_what_is_no_phrase_is_refused(text: str) -> None:
    with pytest.raises(PhraseInvalid):
        parse(text)


@given(st.text("ab[]()|{} ", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        phrase = parse(text)
    except PhraseInvalid:
        return
    assert phrase.expansion


@given(st.text(max_size=200))
def test_words_hold_only_letters(text: str) -> None:
    assert all(set(word) <= set("abcdefghijklmnopqrstuvwxyz'") for word in words_of(text))


def test_matching_takes_no_longer_than_phrase_times_text() -> None:
    before = time.perf_counter()
    assert matched("[a] " * 120 + "b", "a " * 120) is None
    assert time.perf_counter() - before < 10

"""Values in words and by key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.agents.embedded import slots
from switchhook.agents.embedded.phrases import words_of

SLOTS = slots.built_in()


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("day", "tuesday", "Tuesday"),
        ("time", "nine", "09:00"),
        ("time", "nine o'clock", "09:00"),
        ("time", "two thirty", "14:30"),
        ("time", "half past two", "14:30"),
        ("time", "quarter to three in the afternoon", "14:45"),
        ("time", "eight in the evening", "20:00"),
        ("time", "seven forty five a m", "07:45"),
        ("time", "twelve", "12:00"),
        ("time", "noon", "12:00"),
        ("time", "quarter to one", "12:45"),
        ("digits", "four two oh one", "4201"),
        ("number", "seventeen", "17"),
    ],
)
def test_words(name: str, said: str, value: str) -> None:
    words = words_of(said)
    assert len(words) in SLOTS[name].ends(words, 0)
    assert SLOTS[name].read(words) == value


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("day", "2", "Tuesday"),
        ("day", "9", None),
        ("time", "3", "15:00"),
        ("time", "10", "10:00"),
        ("time", "230", "14:30"),
        ("time", "1430", "14:30"),
        ("time", "2575", None),
        ("time", "*", None),
        ("digits", "4271", "4271"),
        ("digits", "427", None),
        ("number", "12", "12"),
    ],
)
def test_keys(name: str, keys: str, value: str | None) -> None:
    assert SLOTS[name].read_keys(keys) == value


@given(st.sampled_from(sorted(SLOTS)), st.text("0123456789*#ABCD", max_size=20))
def test_any_keys_are_read_or_refused(name: str, keys: str) -> None:
    assert SLOTS[name].read_keys(keys) is None or keys.isdigit()


@given(
    st.sampled_from(sorted(SLOTS)),
    st.lists(st.sampled_from(words_of("one two half past quarter to noon monday oh thirty in the morning"))),
)
def test_whatever_matches_can_be_read(name: str, words: list[str]) -> None:
    for end in SLOTS[name].ends(words, 0):
        assert SLOTS[name].read(words[:end])

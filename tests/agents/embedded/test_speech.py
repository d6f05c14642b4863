"""How texts are spoken, and which instruction asks for a text word for word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.agents.embedded.speech import spoken, verbatim


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("at 14:30.", "at 2 thirty p m."),
        ("09:05", "9 oh 5 a m"),
        ("12:00 or 00:00", "noon or midnight"),
        ("order 51430", "order 5 1 4 3 0"),
        ("12 people, 3.1415", "12 people, 3.1415"),
        ("25:99", "25:99"),
    ],
)
def test_times_and_long_numbers(text: str, sound: str) -> None:
    assert spoken(text) == sound


@pytest.mark.parametrize(
    ("instructions", "text"),
    [
        (None, None),
        ("Be kind.", None),
        ('The caller\'s name is "Ann".', None),
        ('Say: "Hello"', "Hello"),
        ("Tell the caller, verbatim: “Wait.”", "Wait."),
        ('Say " "', None),
    ],
)
def test_verbatim(instructions: str | None, text: str | None) -> None:
    assert verbatim(instructions) == text


@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    spoken(text)
    verbatim(text)

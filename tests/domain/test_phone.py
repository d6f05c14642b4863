"""Telephone numbers: every common form in, E.164 inside, the national form out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.phone import e164, national


@pytest.mark.parametrize(
    "text",
    [
        "+17206999999",
        "17206999999",
        "7206999999",
        "(720) 699-9999",
        "720.699.9999",
        "+1 720 699 9999",
        "1-720-699-9999",
        "tel:+1-720-699-9999",
    ],
)
def test_common_forms_of_one_number(text: str) -> None:
    assert e164(text) == "+17206999999"


@pytest.mark.parametrize(
    ("text", "country", "number"),
    [
        ("011 44 20 7946 0000", "US", "+442079460000"),
        ("0044 20 7946 0000", "GB", "+442079460000"),
        ("+49 30 123456", "US", "+4930123456"),
        ("5550100000", "US", "+15550100000"),
        ("7206999999", "CA", "+17206999999"),
    ],
)
def test_other_plans_and_countries(text: str, country: str, number: str) -> None:
    assert e164(text, country) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "anonymous",
        "1001",
        "911",
        "+",
        "+0123456789",
        "+1720699999",
        "+11206999999",
        "0720699999",
        "72069999999",
        "+1234567890123456",
        "７２０６９９９９９９",
        "720699999a",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert e164(text) is None


def test_a_national_number_needs_a_known_country() -> None:
    assert e164("7206999999", "GB") is None


@pytest.mark.parametrize(
    ("number", "shown"), [("+17206999999", "7206999999"), ("+442079460000", "+442079460000"), ("+4912", "+4912")]
)
def test_national(number: str, shown: str) -> None:
    assert national(number) == shown


@given(st.text(max_size=30))
def test_any_text_gives_a_number_or_nothing(text: str) -> None:
    number = e164(text)
    assert number is None or re.fullmatch(r"\+[1-9][0-9]{6,14}", number)


@given(st.from_regex(r"\A\+[1-9][0-9]{6,14}\Z"))
def test_round_trip_through_the_national_form(text: str) -> None:
    number = e164(text)
    if number is not None:
        assert e164(national(number)) == number

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchhook.usecases.numbering import COUNTRIES, NO_COUNTRY, DialledNumber, NumberRefused, country_of, read_number


def known(text: str, country: str = "US") -> DialledNumber:
    number = read_number(text, country)
    assert isinstance(number, DialledNumber), number
    return number


@pytest.mark.parametrize(
    ("text", "country", "e164"),
    [
        ("+17205551212", "DE", "+17205551212"),
        ("(720) 555-1212", "US", "+17205551212"),
        ("1-720-555-1212", "CA", "+17205551212"),
        (" tel:+1-720-555-1212 ", "US", "+17205551212"),
        ("011 44 20 7946 0018", "US", "+442079460018"),
        ("0011 44 20 7946 0018", "AU", "+442079460018"),
        ("0044 20 7946 0018", "DE", "+442079460018"),
        ("0151 12345678", "DE", "+4915112345678"),
        ("+39 06 698 12345", "IT", "+390669812345"),
    ],
)
def test_a_number_is_read_as_its_country_writes_it(text: str, country: str, e164: str) -> None:
    assert known(text, country).e164 == e164


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "alice",
        "1-800-FLOWERS",
        "*67 7205551212",
        "#31#7205551212",
        "7205551212x99",
        "+17205551212;ext=5",
        "sip:+17205551212@pbx.example",
        "+17205551212\r\nX: y",
        "+1720555121",
        "+172055512129",
        "+9999999999",
        "5551212",
        "1001",
        "+1" + "2" * 70,
        "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660",
    ],
)
def test_what_is_no_number_is_refused_with_the_cure(text: str) -> None:
    refused = read_number(text, "US")
    assert isinstance(refused, NumberRefused)
    assert "write" in refused.message
    assert refused.message.isprintable()


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("911", "US"),
        ("9-1-1", "US"),
        ("112", "US"),
        ("112", "DE"),
        ("+49112", "DE"),
        ("+49 110", "US"),
        ("999", "GB"),
        ("000", "AU"),
    ],
)
def test_an_emergency_number_is_never_read(text: str, country: str) -> None:
    refused = read_number(text, country)
    assert isinstance(refused, NumberRefused)
    assert "emergency" in refused.message


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+17205551212", "US"),
        ("+14165551234", "CA"),
        ("+18765551234", "JM"),
        ("+12425551234", "BS"),
        ("+17871234567", "PR"),
        ("+17201234567", "US"),
        ("+16041234567", "CA"),
        ("+15551234567", "US"),
        ("+442079460018", "GB"),
        ("+441481960194", "GG"),
        ("+74951234567", "RU"),
        ("+77172123456", "KZ"),
        ("+4915112345678", "DE"),
        ("+881612345678", NO_COUNTRY),
        ("+80012345678", NO_COUNTRY),
        ("+17105551234", None),
        ("+11234567890", None),
    ],
)
def test_a_number_has_one_country(number: str, country: str | None) -> None:
    assert known(number).country == country
    assert country_of(number) == (None if country == NO_COUNTRY else country)


@pytest.mark.parametrize(
    ("number", "premium"),
    [
        ("+17205551212", False),
        ("+18005551234", False),
        ("+15551234567", False),
        ("+19005551234", True),
        ("+12129761234", True),
        ("+442079460018", False),
        ("+449098790879", True),
        ("+448431234567", True),
        ("+447012345678", True),
        ("+33899123456", True),
        ("+61131234", True),
        ("+870776123456", True),
        ("+881612345678", True),
        ("+882161234567", True),
        ("+883510012345678", True),
        ("+979123456789", True),
        ("+80012345678", False),
        ("+4911833", True),
    ],
)
def test_ranges_that_cost_more_are_known(number: str, premium: bool) -> None:
    assert known(number).premium is premium


def test_the_time_zones_are_those_of_the_callee() -> None:
    assert known("+17205551212").zones == ("America/Denver",)
    assert len(known("+18005551234").zones) > 10
    assert known("+881612345678").zones == ()


WRITTEN = st.text(alphabet="+0123456789-(). /*#x;tel:\u00a0\u0661\uff11\0", max_size=40)


@given(st.text(max_size=80) | WRITTEN, st.sampled_from(sorted(COUNTRIES)))
@example("+", "US")
@example("tel:", "US")
@example("00", "DE")
def test_any_text_is_a_number_or_is_none(text: str, country: str) -> None:
    number = read_number(text, country)
    if isinstance(number, NumberRefused):
        assert number.message.isprintable()
        return
    assert re.fullmatch(r"\+[1-9][0-9]{3,16}", number.e164)
    again = read_number(number.e164, country)
    assert isinstance(again, DialledNumber)
    assert (again.e164, again.country, again.premium) == (number.e164, number.country, number.premium)

"""Whom a call shows, in each trunk's own way of writing numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import CallId, Trunk
from switchhook.telephony.caller_identity import CallerIdentity, clean_name, identify_call, shown_number, write_number
from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.headers import Headers

TRUNK = Trunk("carrier", "acme", "sip:carrier.example:5080")
REQUEST = DialRequest(CallId("c"), "acme", "+17205550100", "+17205550111", "Ann")


def shown(trunk: Trunk = TRUNK, **changes: str | None) -> CallerIdentity:
    return identify_call(replace(REQUEST, **changes), trunk, "192.0.2.5")  # type: ignore[arg-type]  # fields of DialRequest


@pytest.mark.parametrize(
    ("number", "form", "written"),
    [
        ("+17205550100", "e164", "+17205550100"),
        ("+17205550100", "plain", "17205550100"),
        ("+17205550100", "national", "7205550100"),
        ("+442079460000", "plain", "442079460000"),
        ("+442079460000", "national", "+442079460000"),
        ("101", "national", "101"),
        ("reception", "plain", "reception"),
    ],
)
def test_numbers_are_written_as_the_trunk_wants_them(number: str, form: str, written: str) -> None:
    assert write_number(number, form) == written


@pytest.mark.parametrize(
    ("trunk", "target", "from_"),
    [
        (TRUNK, "sip:+17205550100@carrier.example:5080", '"Ann" <sip:+17205550111@192.0.2.5>'),
        (
            replace(TRUNK, number_form="plain"),
            "sip:17205550100@carrier.example:5080",
            '"Ann" <sip:17205550111@192.0.2.5>',
        ),
        (
            replace(TRUNK, register=True, username="u", password="p", number_form="national"),
            "sip:7205550100@carrier.example:5080",
            '"Ann" <sip:7205550111@carrier.example>',
        ),
        (
            replace(TRUNK, transport="tcp"),
            "sip:+17205550100@carrier.example:5080;transport=tcp",
            '"Ann" <sip:+17205550111@192.0.2.5>',
        ),
        (
            replace(TRUNK, address="sip:carrier.example;lr;user=phone"),
            "sip:+17205550100@carrier.example;user=phone",
            '"Ann" <sip:+17205550111@192.0.2.5>',
        ),
    ],
)
def test_parties(trunk: Trunk, target: str, from_: str) -> None:
    identity = shown(trunk)
    assert str(identity.target) == target
    assert str(identity.from_) == from_
    assert identity.headers() == (("P-Asserted-Identity", from_),)


@pytest.mark.parametrize(
    ("caller", "allowed", "default", "expected"),
    [
        ("+17205550111", (), None, "+17205550111"),
        ("+17205550111", ("+17205550111",), None, "+17205550111"),
        ("+17205550111", ("+17205550199",), None, "+17205550199"),
        ("+17205550111", ("+17205550199", "+17205550198"), "+17205550198", "+17205550198"),
        ("sip:+17205550111@pbx.example", (), None, "+17205550111"),
        ("101", ("+17205550199",), None, "+17205550199"),
        ("101", (), None, "101"),
        ("", ("+17205550199",), "+17205550199", None),
        ("Anonymous", (), None, None),
        ("sip:anonymous@anonymous.invalid", (), None, None),
        ("sip:nobody at all", (), None, None),
    ],
)
def test_only_numbers_that_the_trunk_allows_are_shown(
    caller: str, allowed: tuple[str, ...], default: str | None, expected: str | None
) -> None:
    assert shown_number(caller, replace(TRUNK, caller_ids=allowed, default_caller_id=default)) == expected


@pytest.mark.parametrize(
    ("trunk", "asserted"),
    [
        (TRUNK, None),
        (replace(TRUNK, default_caller_id="+17205550199"), "<sip:+17205550199@192.0.2.5>"),
        (replace(TRUNK, caller_ids=("+17205550198",), number_form="plain"), "<sip:17205550198@192.0.2.5>"),
        (replace(TRUNK, username="acme-1", password="p", register=True), "<sip:acme-1@carrier.example>"),
    ],
)
def test_an_anonymous_call_is_known_to_the_carrier_alone(trunk: Trunk, asserted: str | None) -> None:
    identity = shown(trunk, caller="", caller_name="Ann")
    assert str(identity.from_) == '"Anonymous" <sip:anonymous@anonymous.invalid>'
    expected = (("P-Asserted-Identity", asserted),) if asserted else ()
    assert identity.headers() == (*expected, ("Privacy", "id"))


def test_a_sip_uri_is_called_as_it_stands() -> None:
    identity = shown(called="sip:bob@pbx.example;transport=tcp")
    assert str(identity.target) == "sip:bob@pbx.example;transport=tcp"
    assert str(identity.to) == "<sip:bob@pbx.example>"


@pytest.mark.parametrize("called", ["", "+1720\r\nX: y", "sip:", "+" + "1" * 200])
def test_what_cannot_be_called_is_refused(called: str) -> None:
    with pytest.raises(GrammarError):
        shown(called=called)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (None, ""),
        ("Ann", "Ann"),
        ("Ann\r\nVia: evil", "Ann Via: evil"),
        ('Dr. "A" <b>', 'Dr. "A" <b>'),
        ("x" * 200, "x" * 80),
        ("Ana\u0000 Núñez\u2028", "Ana Núñez"),
    ],
)
def test_display_names(name: str | None, clean: str) -> None:
    assert clean_name(name) == clean


@given(st.text(max_size=100), st.text(max_size=300))
def test_nothing_that_callers_write_leaves_its_field(name: str, caller: str) -> None:
    """Whatever the name and the number hold, the fields are one line each and read back as what was shown."""
    identity = shown(caller_name=name, caller=caller)
    headers = Headers()
    headers.add("From", str(identity.from_))
    for field_name, value in identity.headers():
        headers.add(field_name, value)
    assert "\r" not in str(identity.from_)
    assert "\n" not in str(identity.from_)
    back = NameAddr.parse(str(identity.from_))
    assert str(back.uri) == str(identity.from_.uri)
    assert back.display_name == identity.from_.display_name

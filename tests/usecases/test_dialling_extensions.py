"""Extensions behind an account's own trunks: who is one, where it is dialled, and what the policy makes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.dialling import DiallingRules, DialPermit, DialRefused, allows_extension
from switchhook.domain.model import Trunk
from switchhook.usecases.dialling_extensions import Extensions
from switchhook.usecases.dialling_policy import Usage, judge

NOON = datetime(2026, 4, 17, 18, 0, tzinfo=UTC)
PBX = Trunk("pbx", "acme", "sip:PBX.example:5070;transport=tcp", extensions=("0", "1000-1999", "911", "reception"))
CARRIER = Trunk("carrier", "acme", "sip:carrier.example", priority=1)
KNOWN = Extensions([CARRIER, PBX], own_hosts=("203.0.113.5", "[2001:db8::5]"))


def called(text: str, known: Extensions = KNOWN, rules: DiallingRules = DiallingRules()) -> str | None:  # noqa: B008
    decision = judge(rules, ("US",), text, Usage(), NOON, known).decision
    return decision.called if isinstance(decision, DialPermit) else None


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("1001", "1001"),
        (" 1001 ", "1001"),
        ("tel:1999", "1999"),
        ("0", "0"),
        ("reception", "reception"),
        ("sip:1001@pbx.example", "1001"),
        ("SIP:1001@PBX.example.:5099;user=phone", "1001"),
        ("sips:reception@pbx.example", "reception"),
        ("sip:1001@pbx.example;maddr=192.0.2.66", "1001"),
        ("sip:1001@203.0.113.5:5060", "1001"),
        ("sip:1001@[2001:db8::5]", "1001"),
    ],
)
def test_an_extension_is_dialled_at_the_trunks_own_address(text: str, user: str) -> None:
    assert called(text) == f"sip:{user}@PBX.example:5070;transport=tcp"
    assert called(text, Extensions([CARRIER, replace(PBX, extensions=())])) is None, "none is allowed by default"


@pytest.mark.parametrize(
    "text",
    [
        "2000",
        "999",
        "01001",
        "10 01",
        "+1001",
        "1000-1999",
        "\u0661\u0660\u0660\u0661",
        "Reception",
        "sip:1001@elsewhere.example",
        "sip:1001@carrier.example",
        "sip:1001@pbx.example.evil.example",
        "sip:2000@pbx.example",
        "sip:pbx.example",
        "sip:1001;phone-context=x@pbx.example",
        "sip:",
        "911",
        "sip:911@pbx.example",
        "tel:911",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    assert called(text) is None


def test_the_emergency_numbers_of_the_accounts_own_countries_are_no_extensions_either() -> None:
    known = Extensions([replace(PBX, extensions=("100-999",))])
    for text in ("999", "sip:999@pbx.example"):
        dialled = [judge(DiallingRules(), own, text, Usage(), NOON, known).allowed for own in (("US",), ("US", "GB"))]
        assert dialled == [True, False]


def test_a_telephone_number_is_judged_as_ever() -> None:
    assert called("+17205551212") == "+17205551212"
    assert called("+14165551212") is None


def test_of_two_trunks_that_allow_it_the_one_with_the_lower_priority_has_it() -> None:
    second = Trunk("branch", "acme", "sip:branch.example", priority=2, extensions=("1001",))
    known = Extensions([PBX, second])
    assert called("1001", known) == "sip:1001@branch.example"
    assert called("1002", known) == "sip:1002@PBX.example:5070;transport=tcp"
    assert called("sip:1001@pbx.example", known) == "sip:1001@PBX.example:5070;transport=tcp"


def test_the_limits_hold_for_extensions_too() -> None:
    for usage, rule in ((Usage(live=100), "concurrency"), (Usage(calls_ready=0.5), "rate")):
        decision = judge(DiallingRules(), ("US",), "1001", usage, NOON, KNOWN).decision
        assert isinstance(decision, DialRefused)
        assert decision.rule == rule


def test_the_explanation_names_the_trunk_and_a_refusal_the_key() -> None:
    lines = judge(DiallingRules(max_seconds=60), ("US",), "1001", Usage(), NOON, KNOWN).lines(NOON)
    assert lines[0] == "allowed: sip:1001@PBX.example:5070;transport=tcp for 60 seconds at most"
    assert lines[1].split()[:2] == ["ok", "number"]
    assert "1001 is in extensions of the trunk pbx" in lines[1]
    for text in ("2001", "sip:2001@pbx.example"):
        assert "when extensions of its trunk names it" in judge(DiallingRules(), ("US",), text, Usage(), NOON).lines(NOON)[0]
    assert "extensions" not in judge(DiallingRules(), ("US",), "911", Usage(), NOON).lines(NOON)[0]


@given(
    st.text(max_size=40)
    | st.from_regex(r"(sips?:|tel:)?[0-9a-z;@.]{1,12}(@(pbx|carrier)\.example)?[;:?=a-z0-9]{0,8}", fullmatch=True)
)
def test_whatever_is_written_nothing_but_what_is_listed_is_dialled(text: str) -> None:
    uri = called(text, rules=DiallingRules(countries=()))
    if uri is not None:
        user, _, place = uri.removeprefix("sip:").partition("@")
        assert allows_extension(PBX.extensions, user)
        assert user != "911"
        assert place == "PBX.example:5070;transport=tcp"

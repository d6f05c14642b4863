from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.dialling import DiallingRules, DialPermit, DialRefused
from switchhook.usecases.dialling_policy import RULES, Usage, decide, judge

NOON = datetime(2026, 4, 17, 18, 0, tzinfo=UTC)
"""12:00 in Denver, 14:00 in New York, 08:00 in Honolulu."""
DENVER, TORONTO, LONDON = "+17205551212", "+14165551234", "+442079460018"


def rule(number: str, usage: Usage = Usage(), now: datetime = NOON, own: tuple[str, ...] = ("US",), **keys: Any) -> str | None:  # noqa: B008
    decision = decide(DiallingRules(**keys), own, number, usage, now)
    return decision.rule if isinstance(decision, DialRefused) else None


@pytest.mark.parametrize(
    ("number", "keys", "refused_by"),
    [
        (DENVER, {}, None),
        ("(720) 555-1212", {}, None),
        ("0151 12345678", {"countries": ("DE",), "default_country": "DE"}, None),
        ("911", {}, "number"),
        ("1001", {}, "number"),
        (TORONTO, {}, "country"),
        (TORONTO, {"countries": ("US", "CA")}, None),
        (TORONTO, {"countries": ("CA",)}, None),
        (DENVER, {"countries": ("CA",)}, "country"),
        (DENVER, {"countries": ()}, "country"),
        ("+18765551234", {}, "country"),
        ("+17105551234", {"countries": ("US", "CA")}, "country"),
        (LONDON, {}, "country"),
        (LONDON, {"countries": ("US", "GB")}, None),
        (DENVER, {"deny_prefixes": ("+1303", "+1720555")}, "deny-prefix"),
        (DENVER, {"deny_prefixes": ("+1303",)}, None),
        (DENVER, {"allow_prefixes": ("+1303",)}, "allow-prefix"),
        (DENVER, {"allow_prefixes": ("+1303", "+1720")}, None),
        (LONDON, {"allow_prefixes": ("+44",)}, "country"),
        (DENVER, {"do_not_call": (DENVER,)}, "do-not-call"),
        ("720.555.1212", {"do_not_call": (DENVER,), "deny_prefixes": ("+1",)}, "do-not-call"),
        ("+19005551234", {}, "premium"),
        ("+12129761234", {}, "premium"),
        ("+19005551234", {"allow_premium": True}, None),
        ("+449098790879", {"countries": ("GB",)}, "premium"),
        ("+881612345678", {"countries": ("US", "GB")}, "premium"),
        ("+881612345678", {"allow_premium": True}, None),
        ("+80012345678", {}, None),
        (DENVER, {"calling_hours": ("09:00", "20:00")}, None),
        (DENVER, {"calling_hours": ("12:00", "12:01")}, None),
        (DENVER, {"calling_hours": ("09:00", "12:00")}, "hours"),
        (DENVER, {"calling_hours": ("12:01", "24:00")}, "hours"),
        (LONDON, {"countries": ("GB",), "calling_hours": ("09:00", "19:30")}, None),
        (LONDON, {"countries": ("GB",), "calling_hours": ("09:00", "18:30")}, "hours"),
        ("+18005551234", {"calling_hours": ("09:00", "20:00")}, "hours"),
        ("+18005551234", {"calling_hours": ("00:00", "24:00")}, None),
        ("+881612345678", {"allow_premium": True, "calling_hours": ("00:00", "24:00")}, "hours"),
    ],
)
def test_a_number_is_judged(number: str, keys: dict[str, Any], refused_by: str | None) -> None:
    assert rule(number, **keys) == refused_by


def test_without_a_number_of_its_own_an_account_dials_nobody() -> None:
    assert rule(DENVER, own=()) == "country"
    assert rule(DENVER, own=(), countries=("US",)) is None


@pytest.mark.parametrize(
    ("usage", "keys", "refused_by"),
    [
        (Usage(calls_ready=0.99), {}, "rate"),
        (Usage(live=100), {}, "concurrency"),
        (Usage(live=99), {}, None),
        (Usage(), {"concurrent": 0}, "concurrency"),
        (Usage(spent_microdollars=9_990_000), {"max_spend_per_day": 10.0, "price_per_minute": 0.01}, None),
        (Usage(spent_microdollars=9_990_001), {"max_spend_per_day": 10.0, "price_per_minute": 0.01}, "spend"),
        (Usage(), {"max_spend_per_day": 0.0, "price_per_minute": 0.0}, None),
        (Usage(), {"max_spend_per_day": 0.005, "price_per_minute": 0.01, "max_seconds": 30}, None),
        (Usage(), {"max_spend_per_day": 0.0, "price_per_minute": 0.01}, "spend"),
    ],
)
def test_what_is_used_counts(usage: Usage, keys: dict[str, Any], refused_by: str | None) -> None:
    assert rule(DENVER, usage, **keys) == refused_by


def test_a_permit_names_the_number_in_e164_and_its_longest_duration() -> None:
    decision = decide(DiallingRules(max_seconds=90), ("US",), "(720) 555-1212", Usage(), NOON)
    assert decision == DialPermit(DENVER, 90)


def test_a_permit_is_no_longer_than_the_money_lasts() -> None:
    rules = DiallingRules(max_seconds=600, max_spend_per_day=1.0, price_per_minute=0.1)
    decision = decide(rules, ("US",), DENVER, Usage(spent_microdollars=600_000), NOON)
    assert isinstance(decision, DialPermit)
    assert decision.max_seconds == pytest.approx(240)


@pytest.mark.parametrize(
    ("number", "keys", "key"),
    [
        (LONDON, {}, "add GB to countries"),
        ("+19005551234", {}, "allow_premium: true"),
        (DENVER, {"deny_prefixes": ("+1720",)}, "deny_prefixes"),
        (DENVER, {"allow_prefixes": ("+1303",)}, "allow_prefixes"),
        (DENVER, {"do_not_call": (DENVER,)}, "do_not_call"),
        (DENVER, {"calling_hours": ("09:00", "12:00")}, "12:00 in America/Denver; calling_hours"),
        (DENVER, {"concurrent": 0}, "concurrent"),
        (DENVER, {"max_spend_per_day": 0.0, "price_per_minute": 1.0}, "max_spend_per_day"),
    ],
)
def test_a_refusal_names_the_key_that_changes_it(number: str, keys: dict[str, Any], key: str) -> None:
    decision = decide(DiallingRules(**keys), ("US",), number, Usage(), NOON)
    assert isinstance(decision, DialRefused)
    assert key in decision.message


def test_the_explanation_shows_every_rule_in_order() -> None:
    rules = DiallingRules(deny_prefixes=("+1720",), calling_hours=("13:00", "14:00"))
    lines = judge(rules, ("US",), "7205551212", Usage(), NOON).lines(NOON)
    assert lines[:3] == [
        f"refused by the rule deny-prefix: {DENVER} begins with +1720, which is in deny_prefixes",
        f"number {DENVER}, country US, type fixed-line-or-mobile",
        "local time: America/Denver Fri 12:00",
    ]
    assert [tuple(line.split()[:2]) for line in lines[3:]] == [
        ("NO" if name in ("deny-prefix", "hours") else "ok", name) for name in RULES
    ]
    assert judge(rules, ("US",), "sip:x", Usage(), NOON).lines(NOON)[1].split()[:2] == ["NO", "number"]
    assert judge(DiallingRules(), ("US",), DENVER, Usage(), NOON).lines(NOON)[0].startswith(f"allowed: {DENVER} for 3600 seconds")


@given(st.text(max_size=30) | st.from_regex(r"\+?[0-9 ()-]{3,20}", fullmatch=True))
def test_no_text_gets_past_the_country(text: str) -> None:
    decision = decide(DiallingRules(countries=("CA",)), (), text, Usage(), NOON)
    if isinstance(decision, DialPermit):
        assert decision.called.startswith(("+1", "+800", "+808"))

"""Whom a trunk's 3xx may send a call to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.dialling import DialPermit, DialRefused, DialRequest
from switchhook.domain.model import CallId, Trunk
from switchhook.telephony.trunk_redirects import RedirectRefused, TrunkRedirects
from switchhook.telephony.wire.sip.uri import SipUri

REQUEST = DialRequest(CallId("c1"), "acme", "+17205550199", "+17205550100")
TRUNK = Trunk("carrier", "acme", "sip:carrier.example", extensions=("1000-1999",), follow_redirects=True)
FIRST = SipUri.parse("sip:+17205550199@carrier.example")


def review(account: str, number: str) -> DialPermit | DialRefused:
    """A policy that knows one country and another trunk's extension beside ours."""
    assert account == "acme"
    if number in ("1001", "5001"):
        return DialPermit(f"sip:{number}@carrier.example", 60)
    if not number.startswith("+1"):
        return DialRefused("country", "not there")
    return DialPermit(number, 60)


def redirects(transport: str = "udp", first: SipUri = FIRST, **trunk: Any) -> TrunkRedirects:
    return TrunkRedirects(REQUEST, replace(TRUNK, **trunk), first, transport, lambda host: host.startswith("192.0.2."), review)


@pytest.mark.parametrize(
    "contact",
    [
        "sip:+17205550199@192.0.2.5:5080",
        "sip:+17205550111@CARRIER.example",
        "sip:+17205550111@192.0.2.5;transport=tcp",
        "sip:1001@192.0.2.5",
        "sips:+17205550111@192.0.2.5",
    ],
)
def test_followed_to_the_trunks_own_addresses_and_numbers_that_may_be_dialled(contact: str) -> None:
    judge = redirects()
    assert judge.may_follow(SipUri.parse(contact))
    assert judge.refused is None


@pytest.mark.parametrize(
    ("contact", "reason", "detail"),
    [
        ("sip:+17205550199@198.51.100.1", "refused", "198.51.100.1"),
        ("sip:+17205550199@192.0.2.5;maddr=198.51.100.1", "refused", "198.51.100.1"),
        ("sip:+17205550199@evil.example", "refused", "evil.example"),
        ("sip:+442079460000@192.0.2.5", "policy-country", "+442079460000: not there"),
        ("sip:5001@192.0.2.5", "policy-number", "no extension of trunk carrier"),
        ("sip:192.0.2.5", "policy-country", "nobody"),
    ],
)
def test_refused_elsewhere(contact: str, reason: str, detail: str) -> None:
    judge = redirects()
    assert not judge.may_follow(SipUri.parse(contact))
    assert judge.refused is not None
    assert judge.refused.reason == reason
    assert detail in judge.refused.detail


@pytest.mark.parametrize(("contact", "followed"), [("sip:+1@192.0.2.5;transport=udp", False), ("sip:+1@192.0.2.5", True)])
def test_a_call_over_tls_is_not_led_out_of_it(contact: str, followed: bool) -> None:
    """Be it that the trunk names TLS, or that DNS does (RFC 3263 §4.1)."""
    judge = redirects("tls")
    assert judge.may_follow(SipUri.parse(contact)) is followed
    assert judge.refused == (None if followed else RedirectRefused("refused", "redirected to udp, but trunk carrier uses TLS"))


@pytest.mark.parametrize(
    ("form", "user", "followed"),
    [
        ("plain", "17205550111", True),
        ("plain", "442079460000", False),
        ("plain", "1001", True),
        ("national", "7205550111", True),
        ("national", "+442079460000", False),
        ("national", "1001", True),
        ("national", "911", False),
    ],
)
def test_a_number_is_read_in_the_trunks_own_form(form: str, user: str, followed: bool) -> None:
    """44… of a trunk that writes no plus sign is another country's, and ten digits are North America's: never numbers of ours."""
    assert redirects(number_form=form).may_follow(SipUri("192.0.2.5", user)) is followed


@given(st.text(), st.text(), st.sampled_from(["e164", "plain", "national"]))
def test_whatever_a_trunk_names_is_judged(user: str, host: str, form: str) -> None:
    judge = redirects(number_form=form)
    assert judge.may_follow(SipUri(host, user)) is (judge.refused is None)

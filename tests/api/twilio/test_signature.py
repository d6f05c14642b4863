"""Signatures against the official package: what it signs we take, what we sign it takes, and nothing else is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from switchhook.api.twilio.handshake import Handshakes
from switchhook.api.twilio.signature import SignedRequest, is_signed_by, signature_of

TOKEN = "canary-auth-token"
URL = "https://voice.example.com/twilio/voice"
FORM = {"CallSid": "CA1", "From": "+14155550100", "To": "+17206999999", "CallerName": "Zoë & Söhne", "Empty": ""}
OFFICIAL = RequestValidator(TOKEN)
SHA256 = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def official(url: str, fields: Mapping[str, str] | MultiDict[str] | None = None, algorithm: str | None = None) -> str:
    return str(OFFICIAL.compute_signature(url, fields or {}, algorithm))


@pytest.mark.parametrize(
    ("asked", "signed"),
    [
        (URL, URL),
        (URL, "https://voice.example.com:443/twilio/voice"),
        ("https://voice.example.com:8443/voice", "https://voice.example.com:8443/voice"),
        ("https://voice.example.com:8443/voice", "https://voice.example.com/voice"),
        ("http://voice.example.com/voice?a=b%20c&d=", "http://voice.example.com:80/voice?a=b%20c&d="),
        ("https://[2001:db8::1]:8443/voice", "https://[2001:db8::1]/voice"),
    ],
)
def test_the_port_may_be_signed_or_not(asked: str, signed: str) -> None:
    assert is_signed_by(SignedRequest(asked, official(signed, FORM), list(FORM.items())), TOKEN)


def test_the_examples_of_the_official_documentation() -> None:
    """Twilio's own worked example, also in its package's tests."""
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    fields = {"CallSid": "CA1234567890ABCDE", "Digits": "1234", "From": "+14158675309", "To": "+18005551212"}
    fields["Caller"] = "+14158675309"
    assert signature_of("12345", url, fields.items()) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_equal_values_of_one_field_count_once() -> None:
    fields = [("Digit", "2"), ("Digit", "1"), ("Digit", "2"), ("A", "x")]
    assert is_signed_by(SignedRequest(URL, official(URL, MultiDict(fields)), fields), TOKEN)


def test_a_json_body_is_covered_by_the_hash_in_its_url() -> None:
    body = '{"ü": 1}'.encode()
    url = f"{URL}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    assert is_signed_by(SignedRequest(url, official(url), body=body), TOKEN)
    assert OFFICIAL.validate(url, body.decode(), signature_of(TOKEN, url))
    assert not is_signed_by(SignedRequest(url, official(url), body=body + b" "), TOKEN)
    assert not is_signed_by(SignedRequest(URL, official(URL), body=body), TOKEN), "a body that nothing covers"


def test_the_newer_algorithm_is_named_by_a_header() -> None:
    good = official(URL, FORM, "HMAC_SHA256")
    assert is_signed_by(SignedRequest(URL, good, list(FORM.items()), settings=SHA256), TOKEN)
    assert not is_signed_by(SignedRequest(URL, good, list(FORM.items())), TOKEN)
    assert not is_signed_by(SignedRequest(URL, good, list(FORM.items()), settings="algorithm=HMAC_MD5"), TOKEN)
    with pytest.raises(ValueError, match="no algorithm"):
        signature_of(TOKEN, URL, algorithm="HMAC_MD5")


@pytest.mark.parametrize("signature", ["", "A" * 28, "=", "ü", "\ud800"])
def test_a_missing_or_wrong_signature_is_refused(signature: str) -> None:
    assert not is_signed_by(SignedRequest(URL, signature, list(FORM.items())), TOKEN)


def test_an_empty_secret_signs_nothing() -> None:
    assert not is_signed_by(SignedRequest(URL, signature_of("", URL)), "")


@pytest.mark.parametrize("url", ["", "voice", "https://[", "https://h:port/", "https://h:99999/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    assert not is_signed_by(SignedRequest(url, "A" * 28), TOKEN)


@given(st.dictionaries(texts, texts, max_size=6), st.sampled_from(["", "?a=1", "?x=%C3%BC&x=2"]), st.booleans())
def test_both_directions_agree(fields: dict[str, str], query: str, newer: bool) -> None:
    algorithm, settings = ("HMAC_SHA256", SHA256) if newer else ("HMAC_SHA1", "")
    ours = signature_of(TOKEN, URL + query, fields.items(), algorithm)
    assert OFFICIAL.validate(URL + query, fields, ours, algorithm)
    theirs = official(URL + query, fields, algorithm)
    assert is_signed_by(SignedRequest(URL + query, theirs, list(fields.items()), settings=settings), TOKEN)
    assert not is_signed_by(SignedRequest(URL + query, theirs, list(fields.items()), settings=settings), TOKEN + "x")


@given(st.text(max_size=60), st.text(max_size=40), st.lists(st.tuples(st.text(), st.text()), max_size=4), st.binary(), st.text())
def test_nothing_made_up_is_taken(url: str, signature: str, fields: list[tuple[str, str]], body: bytes, settings: str) -> None:
    assert not is_signed_by(SignedRequest(url, signature, fields, body, settings), TOKEN)


@pytest.mark.parametrize("signed", ["wss://m.example.com/twilio/media", "wss://m.example.com/twilio/media/"])
def test_handshakes_are_signed_over_the_public_wss_address(signed: str) -> None:
    handshakes = Handshakes("wss://m.example.com/", lambda: {"another", TOKEN})
    assert handshakes.signed("/twilio/media", official(signed))
    assert not handshakes.signed("/twilio/media", official("ws://m.example.com/twilio/media"))
    assert not handshakes.signed("/twilio/media", "")
    assert not Handshakes("wss://m.example.com", lambda: {"another"}).signed("/twilio/media", official(signed))
    assert not Handshakes(None, lambda: {TOKEN}).signed("/twilio/media", official("/twilio/media"))

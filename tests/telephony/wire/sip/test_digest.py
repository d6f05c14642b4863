"""Digest: the RFCs' own vectors, both sides against each other, replay and expiry."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.digest import (
    Account,
    Challenge,
    Credentials,
    NonceCounts,
    NonceMint,
    Verdict,
    challenges,
    choose,
    matches,
    respond,
    verify,
)
from switchhook.telephony.wire.sip.errors import GrammarError

ACCOUNT = Account("bot", "pass word", "switchhook")
MINT = NonceMint(b"k" * 32, lifetime_s=60)
URI = "sip:+17206999999@example.com"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc7616_section_3_9_1(algorithm: str, expected: str) -> None:
    challenge = Challenge.parse(
        'Digest realm="http-auth@example.org", qop="auth, auth-int", '
        f"algorithm={algorithm}, "
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    account = Account("Mufasa", "Circle of Life", "")
    proof = respond(challenge, account, "GET", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    assert proof.response == expected
    assert proof.nc == "00000001"
    assert Credentials.parse(str(proof)) == proof
    assert matches(proof, "Circle of Life", "GET")
    assert not matches(proof, "Circle of life", "GET")
    assert not matches(proof, "Circle of Life", "POST")


def test_rfc2617_and_its_predecessor_without_quality() -> None:
    vector = Credentials.parse(
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", '
        'response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    assert matches(vector, "Circle Of Life", "GET")
    plain = respond(Challenge("r", "n", qop=None), ACCOUNT, "INVITE", URI, "ignored")
    assert (plain.qop, plain.cnonce, plain.nc) == (None, "", "")
    assert matches(plain, ACCOUNT.password, "INVITE")
    assert "qop" not in str(plain)


def asked(now: float = 100.0, algorithm: str = "SHA-256") -> Challenge:
    offered = [Challenge.parse(str(challenge)) for challenge in challenges("switchhook", MINT.mint(now, "ab12"))]
    assert [challenge.algorithm for challenge in offered] == ["SHA-256", "MD5"]
    return next(challenge for challenge in offered if challenge.algorithm == algorithm)


def judged(proof: Credentials, now: float = 101.0, counts: NonceCounts | None = None) -> Verdict:
    return verify(Credentials.parse(str(proof)), ACCOUNT, "INVITE", MINT, counts, now)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_right_password_is_good_until_its_nonce_is_old(algorithm: str) -> None:
    proof = respond(asked(algorithm=algorithm), ACCOUNT, "INVITE", URI, "c")
    assert judged(proof) is Verdict.GOOD
    assert judged(proof, now=160.0) is Verdict.GOOD
    assert judged(proof, now=160.5) is Verdict.STALE
    assert judged(proof, now=99.0) is Verdict.STALE, "from the future"


@pytest.mark.parametrize(
    "change",
    [
        {"username": "bob"},
        {"realm": "other"},
        {"uri": "sip:x@y"},
        {"response": "0" * 64},
        {"response": "\udcff"},
        {"qop": "auth-int"},
        {"algorithm": "MD4"},
        {"nc": "xyz"},
        {"nc": "+0000001"},
    ],
)
def test_anything_changed_is_bad(change: dict[str, str]) -> None:
    proof = respond(asked(), ACCOUNT, "INVITE", URI, "c")
    assert judged(dataclasses.replace(proof, **change), counts=NonceCounts()) is Verdict.BAD


def test_an_honest_proof_for_another_user_is_bad() -> None:
    other = respond(asked(), Account("eve", ACCOUNT.password, ""), "INVITE", URI, "c")
    assert judged(other) is Verdict.BAD


@pytest.mark.parametrize("nonce", ["", ".", "..", "zz.ab12.00", "\udcff.\udcff.\udcff", "1.é.2"])
def test_a_nonce_that_is_not_ours_is_stale_with_the_right_password_only(nonce: str) -> None:
    assert judged(respond(Challenge("switchhook", nonce), ACCOUNT, "INVITE", URI, "c")) is Verdict.STALE
    wrong = dataclasses.replace(ACCOUNT, password="guess")
    assert judged(respond(Challenge("switchhook", nonce), wrong, "INVITE", URI, "c")) is Verdict.BAD


def test_a_proof_is_taken_once() -> None:
    counts = NonceCounts(capacity=2)
    challenge = asked()
    first, second = (respond(challenge, ACCOUNT, "INVITE", URI, "c", count) for count in (1, 2))
    assert judged(second, counts=counts) is Verdict.GOOD
    assert judged(second, counts=counts) is Verdict.STALE
    assert judged(first, counts=counts) is Verdict.STALE
    for nonce in ("x", "y"):
        assert counts.accept(nonce, 1)
    assert counts.accept(challenge.nonce, 1), "forgotten, the longest unused first"


def test_without_quality_a_nonce_serves_once() -> None:
    counts = NonceCounts()
    proof = respond(dataclasses.replace(asked(), qop=None), ACCOUNT, "INVITE", URI, "")
    assert judged(proof, counts=counts) is Verdict.GOOD
    assert judged(proof, counts=counts) is Verdict.STALE


def test_a_count_that_cannot_be_read_is_bad() -> None:
    proof = respond(asked(), ACCOUNT, "INVITE", URI, "c", count=2**33)
    assert len(proof.nc) == 9
    assert judged(proof, counts=NonceCounts()) is Verdict.BAD


def test_nonces_differ_by_salt_and_key() -> None:
    assert MINT.mint(1.0, "00") != MINT.mint(1.0, "01")
    assert not NonceMint(b"x" * 32).is_fresh(MINT.mint(1.0, "00"), 1.0)
    with pytest.raises(ValueError, match="16 bytes"):
        NonceMint(b"short")


def test_a_client_answers_the_first_challenge_it_can() -> None:
    offered = [Challenge("r", "n", "SHA-512-256"), Challenge("r", "n", "MD5")]
    assert choose(offered) == offered[1]
    assert choose(offered[:1]) is None
    with pytest.raises(GrammarError, match="algorithm"):
        respond(offered[0], ACCOUNT, "INVITE", URI, "c")
    assert Challenge.parse(str(Challenge("a, b", 'n"x', stale=True))) == Challenge("a, b", 'n"x', stale=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Basic abc",
        "Digest",
        'Digest realm="x"',
        'Digest realm="x", nonce="y',
        'Digest realm="x", nonce="y", qop="auth-int"',
        "Digest x",
        "Digest " + "a=b," * 40,
    ],
)
def test_what_is_no_challenge(text: str) -> None:
    with pytest.raises(GrammarError):
        Challenge.parse(text)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_credentials_or_an_error(text: str) -> None:
    for data in (text, f"Digest {text}", f'Digest username="u", realm="r", nonce="n", uri="x", response="y", {text}'):
        try:
            proof = Credentials.parse(data)
        except GrammarError:
            continue
        assert judged_text(proof) is Verdict.BAD


def judged_text(proof: Credentials) -> Verdict:
    return verify(proof, ACCOUNT, "INVITE", MINT, None, 1.0)


def test_secrets_stay_out_of_reprs() -> None:
    proof = respond(asked(), ACCOUNT, "INVITE", URI, "c")
    assert ACCOUNT.password not in repr(ACCOUNT)
    assert proof.response not in repr(proof)

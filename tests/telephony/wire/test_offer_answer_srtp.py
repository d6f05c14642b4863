"""Offer and answer with SRTP keys: what each mode of a trunk takes, refuses, offers and keeps."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.offer_answer import LocalMedia, NotAcceptable, accept_answer, answer, offer, versioned
from switchhook.telephony.wire.sdes import SUITES, SrtpMode, fresh_keys
from switchhook.telephony.wire.sdp import SessionDescription

OFF, OFFERED, REQUIRED = SrtpMode.OFF, SrtpMode.OFFERED, SrtpMode.REQUIRED
US = LocalMedia("192.0.2.1", 20_000, session_id=7, srtp=OFFERED, srtp_keys=fresh_keys(os.urandom))
THEM = LocalMedia("198.51.100.7", 4000, session_id=9, srtp=OFFERED, srtp_keys=fresh_keys(os.urandom))
KEY = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
CM80 = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY}"
PLAIN, SECURE = "m=audio 4000 RTP/AVP 0", "m=audio 4000 RTP/SAVP 0"


def described(*lines: str) -> SessionDescription:
    head = ["v=0", "o=- 1 1 IN IP4 198.51.100.7", "s=-", "c=IN IP4 198.51.100.7", "t=0 0"]
    return SessionDescription.parse("\r\n".join([*head, *lines, ""]).encode())


@pytest.mark.parametrize(
    ("mode", "lines", "protocol", "secured"),
    [
        (OFF, [PLAIN], "RTP/AVP", False),
        (OFF, [PLAIN, CM80], "RTP/AVP", False),
        (OFF, [SECURE, CM80], None, False),
        (OFFERED, [PLAIN], "RTP/AVP", False),
        (OFFERED, [PLAIN, CM80], "RTP/AVP", True),
        (OFFERED, [SECURE, CM80], "RTP/SAVP", True),
        (OFFERED, [SECURE.replace("SAVP", "SAVPF"), CM80], "RTP/SAVPF", True),
        (OFFERED, [SECURE], None, False),
        (OFFERED, [PLAIN, "a=crypto:1 F8_128_HMAC_SHA1_80 inline:x"], "RTP/AVP", False),
        (OFFERED, [SECURE, "a=crypto:1 F8_128_HMAC_SHA1_80 inline:x"], None, False),
        (REQUIRED, [PLAIN], None, False),
        (REQUIRED, [PLAIN, CM80], "RTP/AVP", True),
        (REQUIRED, [SECURE, CM80], "RTP/SAVP", True),
        (REQUIRED, ["m=audio 4000 UDP/TLS/RTP/SAVP 0"], None, False),
    ],
)
def test_what_each_mode_answers(mode: SrtpMode, lines: list[str], protocol: str | None, secured: bool) -> None:
    local = replace(US, srtp=mode)
    if protocol is None:
        with pytest.raises(NotAcceptable):
            answer(described(*lines), local)
        return
    ours, both = answer(described(*lines), local)
    assert ours.media[0].protocol == protocol
    assert (both.srtp is not None) is secured
    assert len(ours.media[0].crypto) == secured


@pytest.mark.parametrize(("mode", "why"), [(OFF, "SRTP is off on this trunk"), (REQUIRED, "this trunk requires SRTP")])
def test_a_refusal_says_why(mode: SrtpMode, why: str) -> None:
    with pytest.raises(NotAcceptable, match=why):
        answer(described(*([SECURE, CM80] if mode is OFF else [PLAIN])), replace(US, srtp=mode))


def test_the_offerer_s_first_suite_that_we_know_is_taken_with_its_tag() -> None:
    unknown = "a=crypto:4 AES_256_CM_HMAC_SHA1_80 inline:x"
    several = f"a=crypto:5 AES_CM_128_HMAC_SHA1_80 {KEY}|2^20|1:4;{KEY}|2^20|2:4"
    short = f"a=crypto:6 AES_CM_128_HMAC_SHA1_32 {KEY}|2^20|1:4"
    ours, both = answer(described(SECURE, unknown, several, short, CM80), US)
    [line] = ours.media[0].crypto
    assert (line.tag, line.suite) == (6, "AES_CM_128_HMAC_SHA1_32")
    assert both.srtp is not None
    assert (both.srtp.theirs.suite, both.srtp.theirs.mki_bytes) == ("AES_CM_128_HMAC_SHA1_32", 4)
    assert both.srtp.ours == US.srtp_keys[SUITES.index("AES_CM_128_HMAC_SHA1_32")]


@pytest.mark.parametrize(("mode", "taken"), [(OFF, 0), (OFFERED, 1), (REQUIRED, 1)])
def test_of_two_lines_the_secure_one_is_taken_unless_srtp_is_off(mode: SrtpMode, taken: int) -> None:
    ours, _ = answer(described(PLAIN, SECURE, CM80), replace(US, srtp=mode))
    assert [line.port != 0 for line in ours.media] == [at == taken for at in (0, 1)]


@pytest.mark.parametrize(("mode", "protocol", "count"), [(OFF, "RTP/AVP", 0), (OFFERED, "RTP/AVP", 4), (REQUIRED, "RTP/SAVP", 4)])
def test_what_each_mode_offers(mode: SrtpMode, protocol: str, count: int) -> None:
    [line] = offer(replace(US, srtp=mode)).media
    assert line.protocol == protocol
    assert [crypto.suite for crypto in line.crypto] == list(SUITES)[:count]
    assert [crypto.tag for crypto in line.crypto] == list(range(1, count + 1))


@pytest.mark.parametrize(("ours", "theirs"), list(product(SrtpMode, SrtpMode)))
def test_both_sides_agree_or_neither_talks(ours: SrtpMode, theirs: SrtpMode) -> None:
    offered = offer(replace(US, srtp=ours))
    try:
        answered, at_their_end = answer(SessionDescription.parse(offered.serialize()), replace(THEM, srtp=theirs))
    except NotAcceptable:
        assert {ours, theirs} == {OFF, REQUIRED}
        return
    at_our_end = accept_answer(offered, SessionDescription.parse(answered.serialize()))
    if OFF in (ours, theirs):
        assert at_our_end.srtp is at_their_end.srtp is None
        return
    assert at_our_end.srtp is not None
    assert at_their_end.srtp is not None
    assert (at_our_end.srtp.ours, at_our_end.srtp.theirs) == (at_their_end.srtp.theirs, at_their_end.srtp.ours)


@pytest.mark.parametrize(
    ("mode", "lines", "secured"),
    [
        (OFFERED, [PLAIN], False),
        (OFFERED, [PLAIN, CM80], True),
        (OFFERED, [PLAIN, CM80.replace(":1", ":9")], True),
        (OFFERED, [SECURE, CM80], True),
        (OFFERED, [SECURE], None),
        (OFFERED, [PLAIN, "a=crypto:1 F8_128_HMAC_SHA1_80 inline:x"], None),
        (OFFERED, [PLAIN, f"{CM80} UNENCRYPTED_SRTP"], None),
        (REQUIRED, [PLAIN], None),
        (REQUIRED, [PLAIN, CM80], True),
        (REQUIRED, [SECURE, CM80], True),
        (REQUIRED, [SECURE], None),
        (OFF, [PLAIN, CM80], False),
    ],
)
def test_the_answers_that_peers_give(mode: SrtpMode, lines: list[str], secured: bool | None) -> None:
    """The tag is not looked at; with a key that we cannot use the peer would send us noise, or hear it."""
    offered = offer(replace(US, srtp=mode))
    if secured is None:
        with pytest.raises(NotAcceptable):
            accept_answer(offered, described(*lines))
    else:
        assert (accept_answer(offered, described(*lines)).srtp is not None) is secured


def test_a_later_offer_keeps_the_keys_and_is_no_new_version() -> None:
    answered, _ = answer(described(SECURE, CM80), replace(US, srtp=REQUIRED))
    for current in (offer(US), offer(replace(US, srtp=REQUIRED)), answered):
        again = versioned(offer(US, current), current)
        assert again.media[0].crypto == current.media[0].crypto
        assert again.media[0].protocol == current.media[0].protocol
    plain, _ = answer(described(PLAIN), US)
    assert not offer(US, plain).media[0].crypto


def test_our_key_stays_when_the_peer_changes_its_own() -> None:
    _, first = answer(described(SECURE, CM80), US)
    _, second = answer(described(SECURE, CM80.replace("inline:W", "inline:X"), "a=sendonly"), US)
    assert first.srtp is not None
    assert second.srtp is not None
    assert first.srtp.ours == second.srtp.ours
    assert first.srtp.theirs != second.srtp.theirs


def test_no_key_in_what_is_shown_for_logs() -> None:
    offered = offer(US)
    answered, both = answer(offered, THEM)
    shown = repr((offered, answered, both, US))
    for line in [*offered.media[0].crypto, *answered.media[0].crypto]:
        assert line.key_params.removeprefix("inline:") not in shown
    assert all(repr(key.master) not in shown for key in (*US.srtp_keys, *THEM.srtp_keys))


LINES = st.sampled_from([PLAIN, SECURE, "m=audio 0 RTP/SAVP 0"])
CRYPTO = st.sampled_from(["", CM80, f"{CM80}|2^20|1:4", f"{CM80};{KEY}", "a=crypto:x", "a=crypto", "a=crypto:1 A b:", CM80[:40]])


@settings(max_examples=300)
@given(st.lists(st.tuples(LINES, CRYPTO), max_size=4), st.sampled_from(SrtpMode))
def test_any_offer_is_answered_by_the_terms_of_the_mode_or_refused(lines: list[tuple[str, str]], mode: SrtpMode) -> None:
    try:
        ours, both = answer(described(*(line for pair in lines for line in pair if line)), replace(US, srtp=mode))
    except NotAcceptable:
        return
    if mode is REQUIRED:
        assert both.srtp is not None
    if mode is OFF:
        assert both.srtp is None
    for line in ours.media:
        assert line.port == 0 or bool(line.crypto) is (both.srtp is not None)
        assert line.port == 0 or line.protocol == "RTP/AVP" or line.crypto

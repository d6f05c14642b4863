"""`a=crypto` lines as RFC 4568 and other people's devices write them, and garbage."""

from __future__ import annotations

import os
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.wire.sdes import SUITES, SrtpKey, fresh_keys, read_key, write_key
from switchhook.telephony.wire.sdp import Attribute, Crypto, SdpError

CM = "AES_CM_128_HMAC_SHA1_80"
KEY_30 = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
"""Of RFC 4568 §4.1's example."""
KEY_44 = b64encode(bytes(range(44))).decode()


def read(text: str) -> SrtpKey | None:
    return read_key(Crypto.parse(text))


@pytest.mark.parametrize(
    ("text", "mki_bytes"),
    [
        (f"1 {CM} inline:{KEY_30}", 0),
        (f"1 {CM} inline:{KEY_30}|2^20|1:4 FEC_ORDER=FEC_SRTP", None),
        (f"1 {CM} inline:{KEY_30}|2^20|1:4", 4),
        (f"1 {CM} inline:{KEY_30}|2^31|1:1", 1),
        (f"1 {CM} inline:{KEY_30}|1:32", 32),
        (f"1 {CM} inline:{KEY_30}|2^48", 0),
        (f"1 {CM} inline:{KEY_30}|1048576", 0),
        (f"2 aes_cm_128_hmac_sha1_32 INLINE:{KEY_30}", 0),
        (f"1 {CM} inline:{KEY_30} WSH=128 -x=1", 0),
        (f"1 AEAD_AES_256_GCM inline:{KEY_44}", 0),
        (f"1 AEAD_AES_256_GCM inline:{KEY_44.rstrip('=')}", 0),
        # What we cannot do, or what nobody may ask for.
        (f"1 {CM} inline:{KEY_30}|2^49", None),
        (f"1 {CM} inline:{KEY_30}|0", None),
        (f"1 {CM} inline:{KEY_30}|2^20|1:0", None),
        (f"1 {CM} inline:{KEY_30}|2^20|1:129", None),
        (f"1 {CM} inline:{KEY_30}|2^20|2^20", None),
        (f"1 {CM} inline:{KEY_30}|1:4|2^20", None),
        (f"1 {CM} inline:{KEY_30}|", None),
        (f"1 {CM} inline:{KEY_30}|2^20|1:4;inline:{KEY_30}|2^20|2:4", None),
        (f"1 {CM} inline:{KEY_30[:-4]}", None),
        (f"1 {CM} inline:{KEY_44}", None),
        (f"1 {CM} inline:", None),
        (f"1 {CM} inline:§§§§", None),
        (f"1 {CM} mikey:{KEY_30}", None),
        (f"1 F8_128_HMAC_SHA1_80 inline:{KEY_30}", None),
        (f"1 {CM} inline:{KEY_30} UNENCRYPTED_SRTP", None),
        (f"1 {CM} inline:{KEY_30} UNAUTHENTICATED_SRTP", None),
        (f"1 {CM} inline:{KEY_30} KDR=1", None),
    ],
)
def test_what_a_line_says(text: str, mki_bytes: int | None) -> None:
    key = read(text)
    assert (key.mki_bytes if key else None) == mki_bytes


def test_our_lines_read_as_they_were_meant() -> None:
    keys = fresh_keys(os.urandom)
    assert [key.suite for key in keys] == list(SUITES)
    assert len({key.master[:16] for key in keys}) == len(keys)
    for tag, key in enumerate(keys, 1):
        line = str(write_key(tag, key))
        assert line.startswith(f"{tag} {key.suite} inline:")
        assert read(line) == key


def test_no_key_in_what_is_shown_for_logs() -> None:
    line = Crypto.parse(f"1 {CM} inline:{KEY_30}|2^20")
    key = read_key(line)
    assert KEY_30 not in repr(line) + repr(key) + repr(Attribute("crypto", str(line)))
    assert KEY_30 in str(Attribute("crypto", str(line)))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        line = Crypto.parse(text)
    except SdpError:
        return
    assert Crypto.parse(str(line)) == line
    read_key(line)


@given(
    st.lists(st.sampled_from(["inline:", KEY_30, KEY_44, "|", "2^20", "1:4", ";", "=", "0"]), max_size=8).map("".join),
    st.sampled_from(SUITES),
)
def test_any_key_parameters_are_read_or_passed_over(params: str, suite: str) -> None:
    key = read_key(Crypto(1, suite, params))
    assert key is None or (key.suite == suite and 0 <= key.mki_bytes <= 128)

"""Session descriptions as carriers, phones and strangers write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sdp import MAX_BYTES, MediaDirection, RtpMap, SdpError, SessionDescription
from switchhook.telephony.wire.sip.message import parse_message
from tests.telephony.wire.sip.samples import names, sample

# RFC 8866 §5, with the addresses and lines of its example.
EXAMPLE = b"""v=0
o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1
s=Call to John Smith
i=SDP Offer #1
u=http://www.jdoe.example.com/home.html
e=Jane Doe <jane@jdoe.example.com>
p=+1 617 555-6011
c=IN IP4 198.51.100.1
b=CT:128
t=2873397496 2873404696
r=604800 3600 0 90000
a=recvonly
m=audio 49170 RTP/AVP 0
m=audio 49180 RTP/AVP 0
m=video 51372 RTP/AVP 99
i=Camera
c=IN IP6 2001:db8::2
b=AS:64
a=rtpmap:99 h263-1998/90000
"""


def bodies() -> list[bytes]:
    found = [parse_message(sample(name)).body_of("application/sdp") for name in [*names("peers"), *names("valid")]]
    return [EXAMPLE, *(body for body in found if body)]


def minimal(*lines: str) -> bytes:
    return "\n".join(["v=0", "o=- 1 1 IN IP4 192.0.2.1", *lines]).encode()


@pytest.mark.parametrize("data", bodies())
def test_what_is_written_reads_the_same(data: bytes) -> None:
    first = SessionDescription.parse(data)
    assert SessionDescription.parse(first.serialize()) == first


def test_the_rfc_example_comes_back_byte_for_byte() -> None:
    assert SessionDescription.parse(EXAMPLE).serialize() == EXAMPLE.replace(b"\n", b"\r\n")


def test_levels_of_address_and_direction() -> None:
    session = SessionDescription.parse(EXAMPLE)
    assert [session.address_of(media) for media in session.media] == ["198.51.100.1", "198.51.100.1", "2001:db8::2"]
    assert session.direction_of(session.media[0]) is MediaDirection.RECVONLY
    own = SessionDescription.parse(minimal("a=inactive", "m=audio 1 RTP/AVP 0", "a=sendonly", "m=audio 2 RTP/AVP 0"))
    assert own.direction_of(own.media[0]) is MediaDirection.SENDONLY
    assert own.direction_of(own.media[1]) is MediaDirection.INACTIVE
    plain = SessionDescription.parse(minimal("m=audio 1 RTP/AVP 0"))
    assert plain.direction_of(plain.media[0]) is MediaDirection.SENDRECV
    assert plain.address_of(plain.media[0]) is None


def test_payload_types() -> None:
    session = SessionDescription.parse(
        minimal(
            "m=audio 4000/2 RTP/AVP 18 0 97 101 8 44 999 x",
            "a=rtpmap:97 opus/48000/2",
            "a=rtpmap:101 telephone-event/8000",
            "a=rtpmap:8 pcma/8000/1",
            "a=rtpmap:44",
            "a=fmtp:101  0-16",
            "a=ptime: 30",
        )
    )
    (media,) = session.media
    assert media.port == 4000
    assert media.rtp_maps() == [
        RtpMap(18, "G729", 8000),
        RtpMap(0, "PCMU", 8000),
        RtpMap(97, "opus", 48000, 2),
        RtpMap(101, "telephone-event", 8000),
        RtpMap(8, "pcma", 8000),
    ]
    assert media.fmtp(101) == "0-16"
    assert media.fmtp(0) is None
    assert media.ptime_ms == 30
    assert str(media.rtp_maps()[2]) == "97 opus/48000/2"


def test_keys_are_kept_and_stay_out_of_reprs() -> None:
    session = SessionDescription.parse(
        minimal(
            "m=audio 4000 RTP/SAVP 0",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:secretkey|2^20|1:4 KDR=1 UNENCRYPTED_SRTP",
            "a=crypto:x",
        )
    )
    (crypto,) = session.media[0].crypto
    assert (crypto.tag, crypto.suite, crypto.key_params) == (1, "AES_CM_128_HMAC_SHA1_80", "inline:secretkey|2^20|1:4")
    assert crypto.session_params == "KDR=1 UNENCRYPTED_SRTP"
    assert "secretkey" not in repr(crypto)
    assert b"inline:secretkey" in session.serialize()


@pytest.mark.parametrize(
    "origin",
    [
        "- 123456789012345678901234567890 -5 IN IP4 192.0.2.1",
        "Some Box 1.0 7 8 IN IP4 192.0.2.1",
        "7 8 IN IP4 192.0.2.1",
        "- 7 8 IN IP6 ::1",
    ],
)
def test_origins_in_the_wild(origin: str) -> None:
    data = f"v=0\r\no={origin}\r\nm=audio 4000 RTP/AVP 0\r\n\r\n\x00".encode()
    session = SessionDescription.parse(data)
    assert SessionDescription.parse(session.serialize()).origin == session.origin


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"v=1\no=- 1 1 IN IP4 a\n",
        b"v=0\n",
        b"v=0\no=- a b IN IP4 c\n",
        b"v=0\no=- 1 1\n",
        minimal("m=audio"),
        minimal("m=audio 70000 RTP/AVP 0"),
        minimal("m=audio x RTP/AVP 0"),
        minimal("c=IN IP4"),
        minimal("c=IN IP4 a b;c", "c=IN IP4 <x>").replace(b"a b;c", b"<>"),
        minimal("=x"),
        minimal("x"),
        minimal(*["m=audio 1 RTP/AVP 0"] * 33),
        minimal(*["a=x"] * 1001),
        minimal("a=" + "x" * MAX_BYTES),
    ],
)
def test_what_cannot_be_used(data: bytes) -> None:
    with pytest.raises(SdpError):
        SessionDescription.parse(data)


def read_everything(data: bytes) -> None:
    try:
        session = SessionDescription.parse(data)
    except SdpError:
        return
    for media in session.media:
        session.direction_of(media)
        _ = media.rtp_maps(), media.crypto, media.ptime_ms, media.fmtp(0), session.address_of(media)
    assert SessionDescription.parse(session.serialize()) == session


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_description_or_an_error(data: bytes) -> None:
    read_everything(data)
    read_everything(minimal("") + data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(bodies()), st.data())
def test_any_damage_is_a_description_or_an_error(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        junk = st.one_of(st.binary(max_size=6), st.sampled_from([b"=", b" ", b":", b"\n", b"m=", b"a=", b"/"]))
        damaged[at : at + data.draw(st.integers(0, 8))] = data.draw(junk)
    read_everything(bytes(damaged))

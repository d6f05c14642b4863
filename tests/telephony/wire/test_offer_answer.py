"""Offer and answer: what a caller may put to us, and what becomes of what we put to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.offer_answer import LocalMedia, Negotiated, NotAcceptable, accept_answer, answer, offer, versioned
from switchhook.telephony.wire.sdp import MediaDirection, SdpError, SessionDescription
from switchhook.telephony.wire.sip.message import parse_message
from tests.telephony.wire.sip.samples import sample

LOCAL = LocalMedia("192.0.2.1", 20_000, session_id=7, version=3)


def offered(*lines: str, connection: str | None = "198.51.100.7") -> SessionDescription:
    head = ["v=0", "o=- 1 1 IN IP4 198.51.100.7", "s=-"]
    if connection is not None:
        head.append(f"c=IN {'IP6' if ':' in connection else 'IP4'} {connection}")
    return SessionDescription.parse("\r\n".join([*head, "t=0 0", *lines, ""]).encode())


def negotiated(*lines: str, connection: str | None = "198.51.100.7", local: LocalMedia = LOCAL) -> Negotiated:
    return answer(offered(*lines, connection=connection), local)[1]


def test_an_ordinary_offer() -> None:
    body = parse_message(sample("peers/sipp-invite")).body
    ours, both = answer(SessionDescription.parse(body), LOCAL)
    assert both == Negotiated("127.0.0.1", 42_000, 42_001, "PCMU", 0, 101, 20, True, True)
    assert ours.serialize().decode().split("\r\n") == [
        "v=0",
        "o=- 7 3 IN IP4 192.0.2.1",
        "s=-",
        "c=IN IP4 192.0.2.1",
        "t=0 0",
        "m=audio 20000 RTP/AVP 0 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
        "",
    ]


@pytest.mark.parametrize(
    ("name", "encoding", "dtmf"),
    [
        ("baresip-invite", "PCMU", 101),
        ("asterisk-pjsip-invite", "PCMU", 101),
        ("twilio-like-invite", "PCMU", 101),
        ("avaya-like-invite", "PCMU", 120),
        ("carrier-183", "PCMA", 101),
    ],
)
def test_offers_of_real_stacks(name: str, encoding: str, dtmf: int) -> None:
    body = parse_message(sample(f"peers/{name}")).body_of("application/sdp")
    assert body is not None
    ours, both = answer(SessionDescription.parse(body), LOCAL)
    assert (both.encoding, both.dtmf_payload_type, both.we_send, both.we_receive) == (encoding, dtmf, True, True)
    assert ours.media[0].formats[1] == str(dtmf)


def test_the_offerer_s_order_wins_unless_ours_is_preferred() -> None:
    lines = ("m=audio 4000 RTP/AVP 8 0",)
    assert negotiated(*lines).encoding == "PCMA"
    assert negotiated(*lines, local=replace(LOCAL, prefer_ours=True)).encoding == "PCMU"
    assert negotiated(*lines, local=replace(LOCAL, encodings=("PCMU",))).encoding == "PCMU"


def test_the_offerer_s_payload_types_are_kept() -> None:
    lines = ("m=audio 4000 RTP/AVP 96 110 109", "a=rtpmap:96 pcmu/8000", "a=rtpmap:110 telephone-event/48000")
    ours, both = answer(offered(*lines, "a=rtpmap:109 Telephone-Event/8000"), LOCAL)
    assert (both.encoding, both.payload_type, both.dtmf_payload_type) == ("PCMU", 96, 109)
    assert ours.media[0].formats == ("96", "109")
    assert ours.media[0].get("fmtp") == "109 0-16"
    remapped = ("m=audio 4000 RTP/AVP 0 8", "a=rtpmap:0 L16/44100")
    assert negotiated(*remapped).encoding == "PCMA", "a map overrides the static meaning"


def test_an_offer_without_digits() -> None:
    ours, both = answer(offered("m=audio 4000 RTP/AVP 0"), LOCAL)
    assert both.dtmf_payload_type is None
    assert ours.media[0].formats == ("0",)


@pytest.mark.parametrize(
    ("theirs", "ours", "sends", "receives"),
    [
        ("sendrecv", "sendrecv", True, True),
        ("sendonly", "recvonly", False, True),
        ("recvonly", "sendonly", True, False),
        ("inactive", "inactive", False, False),
        ("x-none", "sendrecv", True, True),
    ],
)
def test_the_direction_is_mirrored(theirs: str, ours: str, sends: bool, receives: bool) -> None:
    ours_sdp, both = answer(offered("m=audio 4000 RTP/AVP 0", f"a={theirs}"), LOCAL)
    assert ours_sdp.direction_of(ours_sdp.media[0]).value == ours
    assert (both.we_send, both.we_receive) == (sends, receives)
    session_level = offered(f"a={theirs}", "m=audio 4000 RTP/AVP 0")
    assert answer(session_level, LOCAL)[1] == both


def test_our_own_hold() -> None:
    held = replace(LOCAL, direction=MediaDirection.SENDONLY)
    ours, both = answer(offered("m=audio 4000 RTP/AVP 0"), held)
    assert ours.direction_of(ours.media[0]) is MediaDirection.SENDONLY
    assert (both.we_send, both.we_receive) == (True, False)


@pytest.mark.parametrize("nowhere", ["0.0.0.0", "::"])
def test_hold_by_an_address_that_is_none(nowhere: str) -> None:
    ours, both = answer(offered("m=audio 4000 RTP/AVP 0", connection=nowhere), LOCAL)
    assert (both.we_send, both.we_receive) == (False, True)
    assert ours.direction_of(ours.media[0]) is MediaDirection.RECVONLY


def test_addresses_and_ports() -> None:
    own = negotiated("m=audio 4000 RTP/AVP 0", "c=IN IP4 203.0.113.5", "a=rtcp:4105 IN IP4 203.0.113.5", "a=ptime:30")
    assert (own.remote_host, own.remote_rtcp_port, own.ptime_ms) == ("203.0.113.5", 4105, 30)
    assert negotiated("m=audio 4000 RTP/AVP 0", connection="2001:DB8::1").remote_host == "2001:db8::1"
    assert negotiated("m=audio 65535 RTP/AVP 0", "a=rtcp:99999").remote_rtcp_port == 65535
    ours, _ = answer(offered("m=audio 4000 RTP/AVP 0", "a=rtcp-mux"), replace(LOCAL, host="2001:db8::2"))
    assert b"c=IN IP6 2001:db8::2" in ours.serialize()
    assert ours.media[0].get("rtcp-mux") is None


def test_the_first_line_we_can_take_is_taken() -> None:
    ours, both = answer(
        offered(
            "m=image 5000 udptl t38",
            "m=audio 0 RTP/AVP 0",
            "m=audio 4000 RTP/SAVP 0",
            "m=audio 4002 RTP/AVP 9",
            "m=audio 4004 RTP/AVPF 0",
            "m=audio 4006 RTP/AVP 0",
            "m=video 4008 RTP/AVP 31 34",
        ),
        LOCAL,
    )
    assert both.remote_port == 4004
    assert [(line.kind, line.port, line.protocol) for line in ours.media] == [
        ("image", 0, "udptl"),
        ("audio", 0, "RTP/AVP"),
        ("audio", 0, "RTP/SAVP"),
        ("audio", 0, "RTP/AVP"),
        ("audio", 20_000, "RTP/AVPF"),
        ("audio", 0, "RTP/AVP"),
        ("video", 0, "RTP/AVP"),
    ]
    assert all(line.formats for line in ours.media)


@pytest.mark.parametrize(
    ("lines", "connection", "why"),
    [
        ((), "198.51.100.7", "no audio"),
        (("m=video 4000 RTP/AVP 31",), "198.51.100.7", "no audio"),
        (("m=audio 0 RTP/AVP 0",), "198.51.100.7", "no audio"),
        (("m=audio 4000 RTP/SAVP 0",), "198.51.100.7", "RTP/SAVP"),
        (("m=audio 4000 RTP/AVP 18 9",), "198.51.100.7", "no common codec"),
        (("m=audio 4000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"), "198.51.100.7", "no common codec"),
        (("m=audio 4000 RTP/AVP 96", "a=rtpmap:96 PCMU/16000"), "198.51.100.7", "no common codec"),
        (("m=audio 4000 RTP/AVP 0",), None, "no c= line"),
        (("m=audio 4000 RTP/AVP 0",), "media.example.com", "no IP address"),
    ],
)
def test_what_is_not_acceptable(lines: tuple[str, ...], connection: str | None, why: str) -> None:
    with pytest.raises(NotAcceptable, match=why) as caught:
        negotiated(*lines, connection=connection)
    assert caught.value.status_hint == 488


def test_our_offer_and_its_answer() -> None:
    ours = offer(LOCAL)
    assert ours.media[0].formats == ("0", "8", "101")
    assert ours.media[0].get_all("rtpmap") == ["0 PCMU/8000", "8 PCMA/8000", "101 telephone-event/8000"]
    theirs = offered("m=audio 4000 RTP/AVP 8 101", "a=rtpmap:101 telephone-event/8000", "a=recvonly")
    assert accept_answer(ours, theirs) == Negotiated("198.51.100.7", 4000, 4001, "PCMA", 8, 101, 20, True, False)
    held = offer(replace(LOCAL, direction=MediaDirection.INACTIVE))
    both = accept_answer(held, offered("m=audio 4000 RTP/AVP 0"))
    assert (both.we_send, both.we_receive) == (False, False)


@pytest.mark.parametrize("lines", [(), ("m=audio 0 RTP/AVP 0",), ("m=audio 4000 RTP/AVP 18",), ("m=audio 4000 RTP/SAVP 0",)])
def test_answers_that_refuse(lines: tuple[str, ...]) -> None:
    with pytest.raises(NotAcceptable):
        accept_answer(offer(LOCAL), offered(*lines))


def test_a_later_offer_keeps_lines_and_payload_types() -> None:
    first, _ = answer(offered("m=video 5000 RTP/AVP 31", "m=audio 4000 RTP/AVP 8 97", "a=rtpmap:97 telephone-event/8000"), LOCAL)
    later = offer(replace(LOCAL, version=4, direction=MediaDirection.SENDONLY), first)
    assert [(line.kind, line.port) for line in later.media] == [("video", 0), ("audio", 20_000)]
    assert later.media[1].formats == ("0", "8", "97")
    assert later.origin.version == 4
    both = accept_answer(later, offered("m=video 0 RTP/AVP 31", "m=audio 4000 RTP/AVP 0", "a=recvonly"))
    assert (both.we_send, both.we_receive, both.dtmf_payload_type) == (True, False, None)


def test_the_version_rises_only_with_a_change() -> None:
    first = versioned(offer(LOCAL), None)
    assert first.origin.version == 3
    again = versioned(offer(replace(LOCAL, version=1)), first)
    assert again == first
    moved = versioned(offer(replace(LOCAL, port=20_002)), first)
    assert moved.origin.version == 4


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "m=audio 4000 RTP/AVP 0 8 101",
                "m=audio 0 RTP/AVP 8",
                "m=video 1 RTP/AVP 9",
                "m=audio 9 RTP/AVP 18",
                "a=rtpmap:101 telephone-event/8000",
                "a=sendonly",
                "a=inactive",
                "c=IN IP4 0.0.0.0",
                "c=IN IP4 x",
                "a=ptime:0",
                "a=rtcp:x",
                "a=rtpmap:0",
            ]
        ),
        max_size=12,
    )
)
def test_an_answer_has_a_line_for_each_offered(lines: list[str]) -> None:
    try:
        theirs = offered(*lines)
        ours, both = answer(theirs, LOCAL)
    except (NotAcceptable, SdpError):
        return
    assert [line.kind for line in ours.media] == [line.kind for line in theirs.media]
    (taken,) = [line for line in ours.media if line.port]
    assert str(both.payload_type) in taken.formats
    assert SessionDescription.parse(ours.serialize()) == ours
    # Two of us, one answering the other, agree on what flows.
    mirrored = accept_answer(
        replace(
            theirs,
            media=tuple(
                line if mine.port else replace(line, port=0) for line, mine in zip(theirs.media, ours.media, strict=True)
            ),
        ),
        ours,
    )
    assert (mirrored.encoding, mirrored.payload_type) == (both.encoding, both.payload_type)

"""RTP packets: golden bytes, the odd ones of RFC 3550 §5, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.wire import rtp

GOLDEN = bytes.fromhex("8080 1234 00000a00 deadbeef".replace(" ", "")) + b"\xd5" * 160


def test_a_packet_is_these_bytes() -> None:
    assert rtp.pack(rtp.MARKER | 0, 0x1234, 2560, 0xDEADBEEF, b"\xd5" * 160) == GOLDEN
    packet = rtp.parse(GOLDEN)
    assert packet is not None
    assert packet == rtp.RtpPacket(0, True, 0x1234, 2560, 0xDEADBEEF, b"\xd5" * 160)


def test_csrc_extension_and_padding_are_passed_over() -> None:
    head = bytes((0xB0 | 2, 8)) + GOLDEN[2:12] + b"CSR1CSR2" + b"\xbe\xde\x00\x01extn"
    packet = rtp.parse(head + b"sound" + b"\x00\x00\x03")
    assert packet is not None
    assert (packet.payload, packet.payload_type, packet.marker) == (b"sound", 8, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOLDEN[:11],
        b"\x40" + GOLDEN[1:],  # version 1
        b"\x8f" + GOLDEN[1:40],  # 15 CSRC do not fit
        b"\x90" + GOLDEN[1:14],  # an extension header does not fit
        b"\x90" + GOLDEN[1:12] + b"\xbe\xde\xff\xff",  # an extension longer than the packet
        b"\xa0" + GOLDEN[1:12] + b"\x00",  # padding of zero bytes
        b"\xa0" + GOLDEN[1:12] + b"\x09",  # more padding than packet
    ],
)
def test_lengths_that_do_not_fit_are_refused(data: bytes) -> None:
    assert rtp.parse(data) is None


@given(st.binary(max_size=80))
def test_garbage_is_refused_or_read_within_its_bounds(data: bytes) -> None:
    packet = rtp.parse(data)
    assert packet is None or packet.payload in data
    rtp.is_rtcp(data)


def test_rtcp_on_the_same_port_is_known_by_its_type() -> None:
    assert rtp.is_rtcp(bytes.fromhex("80c90001deadbeef"))
    assert not rtp.is_rtcp(GOLDEN)

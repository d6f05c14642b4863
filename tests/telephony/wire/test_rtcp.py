"""RTCP: golden bytes, round trips, the interval, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.wire import rtcp
from switchhook.telephony.wire.rtcp import ReceptionBlock, Report, Reporter, SenderInfo

BLOCK = ReceptionBlock(0x11223344, 64, -2, 0x10005, 33, 0xAABBCCDD, 65536)
SENDER = SenderInfo(0x0102030405060708, 0x99887766, 10, 1600)


def test_a_compound_is_these_bytes() -> None:
    data = rtcp.build(0xDEADBEEF, "ab", SENDER, BLOCK, goodbye=True)
    assert data.hex() == (
        "81c8000c" "deadbeef" "0102030405060708" "99887766" "0000000a" "00000640"
        "11223344" "40fffffe" "00010005" "00000021" "aabbccdd" "00010000"
        "81ca0003" "deadbeef" "0102" "6162" "00000000"
        "81cb0001" "deadbeef"
    )  # fmt: skip
    assert rtcp.parse(data) == Report(0xDEADBEEF, SENDER, (BLOCK,), "ab", True)


@given(
    st.integers(0, 2**32 - 1),
    st.text(max_size=40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_is_built_is_read_again_and_fills_whole_words(ssrc: int, cname: str, sends: bool, hears: bool, leaves: bool) -> None:
    data = rtcp.build(ssrc, cname, SENDER if sends else None, BLOCK if hears else None, leaves)
    assert len(data) % 4 == 0
    assert rtcp.parse(data) == Report(ssrc, SENDER if sends else None, (BLOCK,) if hears else (), cname, leaves)


@given(st.binary(max_size=120))
def test_garbage_never_raises(data: bytes) -> None:
    rtcp.parse(data)
    rtcp.parse(rtcp.build(1, "x", SENDER, BLOCK)[:52] + data)
    rtcp.parse(b"\x9f\xc8" + data)
    rtcp.parse(b"\x81\xc9\x00\x01" + data)


@given(st.integers(0, 99), st.integers(0, 255))
def test_a_damaged_report_never_raises(at: int, byte: int) -> None:
    data = bytearray(rtcp.build(1, "name", SENDER, BLOCK, goodbye=True))
    data[at % len(data)] = byte
    rtcp.parse(bytes(data))


def test_unknown_packets_within_a_compound_are_passed_over() -> None:
    data = rtcp.build(1, "x") + bytes.fromhex("80cc00020000000161626364")  # APP
    assert rtcp.parse(data) == Report(1, cname="x")


def pair() -> tuple[Reporter, Reporter]:
    return Reporter(1, 0.0, lambda: 0.5), Reporter(2, 0.0, lambda: 0.5)


def nothing(last_sr: int, delay: int) -> None:
    return None


def test_the_round_trip_is_told_by_the_peers_report() -> None:
    ours, theirs = pair()
    sender = SenderInfo(rtcp.ntp_time(1000.0), 0, 5, 800)
    theirs.receive(ours.report(1000.0, sender, nothing), 77.0)  # their clock is another one
    told: list[tuple[int, int]] = []

    def reception(last_sr: int, delay: int) -> ReceptionBlock:
        told.append((last_sr, delay))
        return ReceptionBlock(1, 0, 3, 0, 0, last_sr, delay)

    ours.receive(theirs.report(79.5, SENDER, reception), 1002.58)
    assert ours.round_trip_s == pytest.approx(0.08, abs=0.001)
    assert ours.peer_lost == 3
    assert told == [(rtcp.ntp_middle(sender.ntp), int(2.5 * 65536))]


def test_a_report_about_nobodys_sr_tells_no_round_trip() -> None:
    ours, theirs = pair()
    ours.receive(theirs.report(1.0, SENDER, lambda last_sr, delay: ReceptionBlock(1, 0, 0, 0, 0, last_sr, delay)), 5.0)
    assert ours.round_trip_s is None


def test_who_sent_nothing_since_the_last_report_sends_a_receiver_report() -> None:
    reporter, _ = pair()
    first = rtcp.parse(reporter.report(1.0, SENDER, nothing))
    second = rtcp.parse(reporter.report(2.0, SENDER, nothing))
    assert first is not None and first.sender == SENDER
    assert second is not None and second.sender is None


@given(st.floats(0, 1, exclude_max=True))
def test_reports_are_two_and_a_half_to_seven_and_a_half_seconds_apart(chance: float) -> None:
    reporter = Reporter(1, 100.0, lambda: chance)
    assert 101.25 <= reporter.deadline <= 103.75
    reporter.report(103.0, SENDER, nothing)
    assert 105.5 <= reporter.deadline <= 110.5

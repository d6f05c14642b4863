"""Streams: however the bytes are cut, the same messages come out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.framing import PING, Frame, Keepalive, StreamFramer
from switchhook.telephony.wire.sip.message import MAX_MESSAGE_BYTES, MalformedMessage, Message
from tests.telephony.wire.sip.samples import message, names, sample

EVERYTHING = [*names("valid"), *names("tolerated"), *names("invalid"), *names("peers")]
ONE = message("Content-Length: 3", body=b"abc")
TWO = message("Content-Length: 0", replace={"Call-ID": "Call-ID: c2"})


def shown(frame: Frame) -> tuple[object, ...]:
    if isinstance(frame, MalformedMessage):
        return (frame.status_hint, frame.reason, frame.partial and frame.partial.serialize())
    return (frame.serialize(),) if isinstance(frame, Message) else (frame,)


def cut(data: bytes, pieces: list[int]) -> tuple[list[tuple[object, ...]], bool]:
    framer = StreamFramer()
    frames: list[Frame] = []
    at = 0
    for piece in [*pieces, len(data)]:
        frames += framer.feed(data[at : at + piece])
        at += piece
    return [shown(frame) for frame in frames], framer.broken


def test_messages_and_keepalives_in_order() -> None:
    framer = StreamFramer()
    frames = framer.feed(PING + ONE + b"\r\n" + TWO + PING + PING + ONE[:20])
    assert [type(frame).__name__ for frame in frames] == ["Keepalive", "Request", "Request", "Keepalive", "Keepalive"]
    assert isinstance(frames[1], Message)
    assert frames[1].body == b"abc"
    (last,) = framer.feed(ONE[20:])
    assert isinstance(last, Message)
    assert not framer.broken


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(EVERYTHING), min_size=1, max_size=3),
    st.lists(st.sampled_from([b"", b"\r\n", PING, b"\n", b"\r"]), min_size=3, max_size=3),
)
def test_byte_by_byte_is_all_at_once(chosen: list[str], between: list[bytes]) -> None:
    data = b"".join(gap + sample(name) for gap, name in zip(between, chosen, strict=False))
    assert cut(data, [1] * len(data)) == cut(data, [])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([ONE, TWO + ONE, PING + ONE + TWO, b"\r\n\r" + ONE]), st.data())
def test_any_cut_of_damaged_streams(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"9", b"", b"l:", b"\x00"])
        )
    whole = bytes(damaged)
    assert cut(whole, data.draw(st.lists(st.integers(1, 40), max_size=40))) == cut(whole, [])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    assert cut(data, [1] * len(data)) == cut(data, [])


@pytest.mark.parametrize(
    ("data", "status", "answerable"),
    [
        (message(body=b"no length"), 400, True),
        (message("Content-Length: -1"), 400, True),
        (message("Content-Length: 1", "l: 2"), 400, True),
        (message("Content-Length: 99999999"), 513, True),
        (message("X: " + "\r\n ".join(["a" * 60] * 1200)), 513, True),
        (b"GET / HTTP/1.1\r\n", 400, False),
        (b"\x16\x03\x01\x02\x00" * 30_000, 400, False),
    ],
)
def test_a_stream_that_cannot_be_framed_is_broken(data: bytes, status: int, answerable: bool) -> None:
    framer = StreamFramer()
    (frame,) = framer.feed(data)
    assert isinstance(frame, MalformedMessage)
    assert frame.status_hint == status
    assert (frame.partial is not None) == answerable
    assert framer.broken
    assert framer.feed(ONE) == []


def test_a_malformed_message_does_not_break_the_stream() -> None:
    framer = StreamFramer()
    bad, good = framer.feed(message("Content-Length: 3", replace={"CSeq": "CSeq: x"}, body=b"abc") + ONE)
    assert isinstance(bad, MalformedMessage)
    assert bad.partial is not None
    assert isinstance(good, Message)


def test_an_endless_head_is_not_collected() -> None:
    framer = StreamFramer()
    fed = 0
    while not framer.broken:
        framer.feed((message() if not fed else b"")[:-2] + b"X: " + b"a" * 500 + b"\r\n")
        fed += 500
    assert fed <= MAX_MESSAGE_BYTES + 500


def test_a_ping_in_pieces() -> None:
    framer = StreamFramer()
    assert [framer.feed(byte) for byte in (b"\r", b"\n", b"\r")] == [[], [], []]
    assert framer.feed(b"\n") == [Keepalive()]

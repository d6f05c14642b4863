"""Media Streams frames: those that the vendor documents, those that other senders write, and garbage."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchhook.telephony.wire.twilio_stream import (
    MAX_MESSAGE_BYTES,
    Digit,
    FrameError,
    Mark,
    Media,
    Start,
    Stop,
    StreamWriter,
    read,
    read_sound,
    read_timestamp_ms,
)

SOUND = bytes(range(96, 256))
USUAL = (
    b'{"event":"media","sequenceNumber":"3","media":{"track":"inbound","chunk":"1","timestamp":"540","payload":"%s"},'
    b'"streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0"}'
) % base64.b64encode(SOUND)


def frame(**fields: Any) -> bytes:
    return json.dumps({"sequenceNumber": "1", "streamSid": "MZ1", **fields}).encode()


def media(**fields: Any) -> bytes:
    return frame(event="media", media={"track": "inbound", "chunk": "2", "timestamp": "20", **fields})


def test_a_usual_frame_is_read_without_reading_all_of_it() -> None:
    assert read_sound(USUAL) == SOUND
    assert read_timestamp_ms(USUAL) == 540
    assert read(USUAL) == Media(SOUND, 540)


def test_other_shapes_of_the_same_frame_are_read_in_full() -> None:
    spaced = json.dumps(json.loads(USUAL), indent=1).encode()
    slashed = USUAL.replace(b"/", b"\\/")
    assert b"\\/" in slashed
    for shape in (spaced, slashed):
        assert read_sound(shape) is None
        assert read(shape) == Media(SOUND, 540)
    number = json.loads(USUAL)
    number["media"]["timestamp"] = 540
    assert read(json.dumps(number).encode()) == Media(SOUND, 540)
    assert read(media(payload=base64.b64encode(b"ab").decode(), timestamp=None)) == Media(b"ab", None)


def test_our_own_sound_and_empty_frames_are_not_heard() -> None:
    for shape in (
        USUAL.replace(b'"inbound"', b'"outbound"'),
        media(payload=""),
        media(payload=7),
        media(track="outbound", payload=""),
    ):
        assert read_sound(shape) is None
        assert read(shape) is None


def test_the_beginning() -> None:
    start = {
        "accountSid": "AC1",
        "callSid": "CA2",
        "streamSid": "MZ3",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"leg": "opaque", "number": 7},
    }
    assert read(frame(event="connected", protocol="Call", version="1.0.0")) is None
    assert read(frame(event="start", start=start)) == Start("MZ3", "CA2", {"leg": "opaque"})
    assert read(frame(event="start", start={"callSid": "CA2"})) == Start("MZ1", "CA2", {})
    for broken in (
        {},
        {"callSid": "CA2", "streamSid": "M" * 129},
        {"callSid": ["CA2"]},
        {"callSid": "CA2", "customParameters": {str(n): "" for n in range(33)}},
        {"callSid": "CA2", "customParameters": "leg"},
        {"callSid": "CA2", "mediaFormat": {"encoding": "audio/x-l16"}},
    ):
        with pytest.raises(FrameError):
            read(frame(event="start", start=broken))


def test_digits_marks_and_the_end() -> None:
    assert read(frame(event="dtmf", dtmf={"track": "inbound_track", "digit": "#"})) == Digit("#")
    assert read(frame(event="dtmf", dtmf={"digit": "55"})) is None
    assert read(frame(event="mark", mark={"name": "7"})) == Mark("7")
    assert read(frame(event="mark")) is None
    assert read(frame(event="mark", mark={"name": 7})) is None
    assert read(frame(event="stop", stop={"accountSid": "AC1", "callSid": "CA1"})) == Stop()
    assert read(frame(event="something-new", media="x")) is None
    assert read(b'{"event":"stop","streamSid":null}') == Stop()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"media"',
        b"{",
        b"\xff\xfe",
        b'{"event":7}',
        b"[" * 5_000,
        media(payload="not base64!"),
        media(payload="\u00e9"),
        media(payload="A" * 16_000),
        frame(event="media", media=[]),
        frame(event="dtmf"),
        b" " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_what_no_peer_may_send_is_refused(data: bytes) -> None:
    assert read_sound(data) is None
    with pytest.raises(FrameError):
        read(data)


def test_more_than_a_second_at_once_is_no_frame_of_sound() -> None:
    large = USUAL.replace(base64.b64encode(SOUND), base64.b64encode(bytes(8_001)))
    assert read_sound(large) is None
    with pytest.raises(FrameError, match="8000 bytes"):
        read(large)


def test_ours_are_as_documented() -> None:
    writer = StreamWriter('MZ"1')
    assert json.loads(writer.media(SOUND)) == {
        "event": "media",
        "streamSid": 'MZ"1',
        "media": {"payload": base64.b64encode(SOUND).decode()},
    }
    assert json.loads(writer.mark(12)) == {"event": "mark", "streamSid": 'MZ"1', "mark": {"name": "12"}}
    assert json.loads(writer.clear) == {"event": "clear", "streamSid": 'MZ"1'}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop", "other"])


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, len(USUAL)), st.integers(0, 40), st.binary(max_size=6)).map(
            lambda cut: USUAL[: cut[0]] + cut[2] + USUAL[cut[0] + cut[1] :]
        ),
        st.builds(lambda name, body, sid: json.dumps({"event": name, "streamSid": sid, name: body}).encode(), NAMES, JSON, JSON),
    )
)
@example(USUAL[:-40])
@example(USUAL.replace(b'"540"', b'"' + b"9" * 400 + b'"'))
def test_garbage_is_ignored_or_refused(data: bytes) -> None:
    fast = read_sound(data)
    stamp = read_timestamp_ms(data)
    assert stamp is None or 0 <= stamp < 10**15
    assert fast is None or 0 < len(fast) <= 8_000
    try:
        message = read(data)
    except FrameError as error:
        assert str(error)
        return
    if fast is not None and isinstance(message, Media):
        assert message.payload == fast

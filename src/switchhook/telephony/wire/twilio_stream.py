"""Frames of Twilio's Media Streams WebSocket, read and written (contract `vns-veevo` §4.3).

Numbers come as strings. What is not understood is ignored, as the protocol asks; what is no JSON object of its shape is refused.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

MAX_MESSAGE_BYTES = 64 * 1024
"""Far more than Twilio ever sends; larger messages are refused unread."""
MAX_SOUND_BYTES = 8_000
"""One frame holds 160 bytes; a second of sound is the most that is taken for one."""
_MAX_SID = 128
_MAX_PARAMETERS = 32
_HEAD = b'{"event":"media"'
_INBOUND = b'"track":"inbound"'
_PAYLOAD = b'"payload":"'
_TIMESTAMP = b'"timestamp":"'
_FAR = 200
"""Within so many bytes of the beginning a usual frame names its track, time and payload."""
_DIGITS = frozenset("0123456789*#ABCD")


class FrameError(ValueError):
    """A message that no Media Streams peer may send; the text says why."""


@dataclass(frozen=True, slots=True)
class Start:
    """The stream begins."""

    stream_sid: str
    call_sid: str
    parameters: dict[str, str]
    """What the TwiML gave as `<Parameter>`."""


@dataclass(frozen=True, slots=True)
class Media:
    """Sound of the party: G.711 µ-law, 8,000 Hz."""

    payload: bytes
    timestamp_ms: int | None
    """Since the stream began; None when the peer does not say."""


@dataclass(frozen=True, slots=True)
class Digit:
    """A DTMF digit: 0–9, `*`, `#`, A–D."""

    digit: str


@dataclass(frozen=True, slots=True)
class Mark:
    """What was sent before the mark of this name has been played, or was cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The carrier ends the stream."""


Message: TypeAlias = Start | Media | Digit | Mark | Stop


class _Frame(msgspec.Struct):
    event: str = ""
    streamSid: str | None = None
    start: Any = None
    media: Any = None
    dtmf: Any = None
    mark: Any = None


_decode = msgspec.json.Decoder(_Frame).decode


def read_sound(data: bytes) -> bytes | None:
    """The sound of a `media` frame of the usual shape, without reading the rest of it; None: ask `read`."""
    if not data.startswith(_HEAD) or data.find(_INBOUND, 16, _FAR) < 0:
        return None
    start = data.find(_PAYLOAD, 16, _FAR) + 11
    if start < 27:
        return None
    try:
        payload = a2b_base64(data[start : data.find(b'"', start)], strict_mode=True)
    except Base64Error:
        return None
    return payload if 0 < len(payload) <= MAX_SOUND_BYTES else None


def read_timestamp_ms(data: bytes) -> int | None:
    """The time of a frame that `read_sound` has read."""
    start = data.find(_TIMESTAMP, 16, _FAR) + 13
    if start < 29:
        return None
    text = data[start : data.find(b'"', start, start + 20)]
    return int(text) if text.isdigit() and len(text) <= 15 else None


def read(data: bytes) -> Message | None:
    """Any frame; None for one that says nothing to us. Raises FrameError."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise FrameError(f"a message has {len(data)} bytes: at most {MAX_MESSAGE_BYTES} are taken")
    try:
        frame = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FrameError("a message is no JSON object with the name of an event") from None
    match frame.event:
        case "media":
            return _media(_object(frame.media, "media"))
        case "start":
            return _start(frame)
        case "dtmf":
            digit = _object(frame.dtmf, "dtmf").get("digit")
            return Digit(digit) if isinstance(digit, str) and digit in _DIGITS else None
        case "mark":
            name = frame.mark.get("name") if isinstance(frame.mark, dict) else None
            return Mark(name) if isinstance(name, str) else None
        case "stop":
            return Stop()
        case _:
            return None


class StreamWriter:
    """Writes our frames for one stream."""

    __slots__ = ("_mark_head", "_media_head", "clear")

    def __init__(self, stream_sid: str) -> None:
        sid = msgspec.json.encode(stream_sid)
        self._media_head = b'{"event":"media","streamSid":%s,"media":{"payload":"' % sid
        self._mark_head = b'{"event":"mark","streamSid":%s,"mark":{"name":"' % sid
        self.clear = b'{"event":"clear","streamSid":%s}' % sid
        """Forget what was sent and is not yet played."""

    def media(self, payload: bytes) -> bytes:
        """Sound to be played behind what was sent: G.711 µ-law of any length."""
        return self._media_head + b2a_base64(payload, newline=False) + b'"}}'

    def mark(self, number: int) -> bytes:
        """A mark named by a number; it comes back when what was sent before it has been played."""
        return b'%s%d"}}' % (self._mark_head, number)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FrameError(f"{name}: must be an object")
    return value


def _start(frame: _Frame) -> Start:
    start = _object(frame.start, "start")
    sid = start.get("streamSid") or frame.streamSid
    call = start.get("callSid")
    if not isinstance(sid, str) or not isinstance(call, str) or not 0 < len(sid) <= _MAX_SID or len(call) > _MAX_SID:
        raise FrameError("start: streamSid and callSid must be texts of at most 128 characters")
    parameters = start.get("customParameters") or {}
    if not isinstance(parameters, dict) or len(parameters) > _MAX_PARAMETERS:
        raise FrameError("start.customParameters: must be an object of at most 32 texts")
    form = start.get("mediaFormat")
    encoding = form.get("encoding") if isinstance(form, dict) else None
    if encoding not in (None, "audio/x-mulaw"):
        raise FrameError("start.mediaFormat: only audio/x-mulaw is spoken here; leave `audioFormat` out of the TwiML")
    return Start(sid, call, {name: value for name, value in parameters.items() if isinstance(value, str)})


def _media(media: dict[str, Any]) -> Media | None:
    payload, timestamp = media.get("payload"), media.get("timestamp")
    if media.get("track") not in (None, "inbound") or not isinstance(payload, str):
        return None
    try:
        sound = a2b_base64(payload)
    except (Base64Error, ValueError):
        raise FrameError("media.payload: must be base64") from None
    if len(sound) > MAX_SOUND_BYTES:
        raise FrameError(f"media.payload: at most {MAX_SOUND_BYTES} bytes of sound are taken at once")
    return Media(sound, _number(str(timestamp).encode(errors="replace"))) if sound else None


def _number(text: bytes) -> int | None:
    return int(text) if 0 < len(text) <= 15 and text.isdigit() else None

"""Cutting a byte stream into SIP messages (RFC 3261 §18.3) and keepalives (RFC 5626 §3.5.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from switchhook.telephony.wire.sip.message import (
    MAX_LINE_CHARS,
    MAX_MESSAGE_BYTES,
    MalformedMessage,
    Request,
    Response,
    parse_message,
    refuse,
)

PING = b"\r\n\r\n"
PONG = b"\r\n"
"""Answers a ping."""

_HEAD_END = re.compile(rb"\n\r?\n")
_SIP_LINE = re.compile(rb"SIP/[0-9]|[^ \t]+[ \t].*[ \t]SIP/[0-9.]+[ \t]*\r?\Z", re.IGNORECASE | re.DOTALL)
_CONTENT_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The peer sent a double line break; answer with `PONG`."""


Frame = Request | Response | MalformedMessage | Keepalive


class StreamFramer:
    """Collects what comes over one TCP or TLS connection and gives back whole messages.

    Holds at most one message and the chunk in hand. A stream whose message boundaries are lost (no Content-Length, too large, not
    SIP) ends with a `MalformedMessage` and `broken`: answer it if it has a `partial`, then close the connection.
    """

    def __init__(self) -> None:
        self.broken = False
        self._buffer = bytearray()
        self._scanned = 0
        self._body_at = 0
        self._body_bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Give what was read; returns what became complete, in order. A broken framer takes nothing more."""
        frames: list[Frame] = []
        if not self.broken:
            self._buffer += data
        while not self.broken and (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if not self._body_at:
            if self._take_ping():
                return Keepalive()
            if not self._buffer:
                return None
            refusal = self._read_head()
            if refusal is not None:
                self.broken = True
                self._buffer.clear()
                return refusal
            if not self._body_at:
                return None
        end = self._body_at + self._body_bytes
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._scanned = self._body_at = self._body_bytes = 0
        try:
            return parse_message(message)
        except MalformedMessage as error:
            return error

    def _take_ping(self) -> bool:
        # Line breaks in front of a message mean nothing (RFC 3261 §7.5), but two at a time are a ping. What may become a
        # ping waits for its next byte, so that the frames do not depend on how the stream was cut.
        buffer = self._buffer
        if self._scanned or not buffer or buffer[0] not in PING:
            return False
        at = 0
        while at < len(buffer) and buffer[at] in PING:
            rest = bytes(buffer[at : at + len(PING)])
            if rest == PING:
                del buffer[: at + len(PING)]
                return True
            if PING.startswith(rest):
                break
            at += 1
        del buffer[:at]
        return False

    def _read_head(self) -> MalformedMessage | None:
        """Find the end of the header fields and the length of the body; returns the reason why that cannot be."""
        buffer = self._buffer
        if buffer[0] in PING:
            return None
        start, self._scanned = max(0, self._scanned - 2), len(buffer)
        match = _HEAD_END.search(buffer, start)
        if (refusal := self._check_first_line(buffer)) is not None:
            return refusal
        head_bytes = match.end() if match else len(buffer)
        if head_bytes > MAX_MESSAGE_BYTES:
            return refuse(bytes(buffer[:MAX_MESSAGE_BYTES]), 513, "Message Too Large")
        if match is None:
            return None
        head = bytes(buffer[:head_bytes])
        lengths = {value.strip() for value in _CONTENT_LENGTH.findall(head)}
        if len(lengths) != 1:
            return refuse(head, 400, "Content-Length: several values" if lengths else "Content-Length: missing on a stream")
        length = lengths.pop()
        if not length.isdigit() or len(length) > 10:
            return refuse(head, 400, "Content-Length: expected a number")
        if head_bytes + int(length) > MAX_MESSAGE_BYTES:
            return refuse(head, 513, "Message Too Large")
        self._body_at, self._body_bytes = head_bytes, int(length)
        return None

    def _check_first_line(self, buffer: bytearray) -> MalformedMessage | None:
        # What does not begin like SIP is refused at its first line: it may be another protocol, and it may go on for ever.
        line_end = buffer.find(b"\n", 0, MAX_LINE_CHARS + 1)
        if line_end < 0:
            return MalformedMessage(400, "The start line is too long") if len(buffer) > MAX_LINE_CHARS else None
        if _SIP_LINE.match(bytes(buffer[:line_end])) is None:
            return MalformedMessage(400, "Not a SIP message")
        return None

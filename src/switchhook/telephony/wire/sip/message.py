"""SIP requests and responses (RFC 3261 §7): reading what is sent to us, writing what we send.

The reader is lenient, because phones and carriers are: folded lines, compact names, blanks before colons, bare line feeds and
header fields that make no sense are taken or passed over. It is bounded, because strangers write to it. What cannot be taken
raises `MalformedMessage`, which knows the response code and holds enough of the request to send it.
"""

from __future__ import annotations

import re

from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.fields import Fields
from switchhook.telephony.wire.sip.grammar import is_token
from switchhook.telephony.wire.sip.headers import HeaderItems, Headers
from switchhook.telephony.wire.sip.reasons import REASON_PHRASES
from switchhook.telephony.wire.sip.uri import OpaqueUri, SipUri, Uri, parse_uri
from switchhook.telephony.wire.sip.via import Via

MAX_MESSAGE_BYTES = 65_536
MAX_HEADER_FIELDS = 256
"""Header fields of one message, each element of a comma list counted."""
MAX_LINE_CHARS = 8_192
"""Length of the start line and of a header field with its continuation lines."""
MAX_VIAS = 70

_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(r"\n[ \t]+")
_STATUS_LINE = re.compile(r"SIP/([0-9]+\.[0-9]+)[ \t]+([1-6][0-9]{2})(?:[ \t](.*))?", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r";\s*tag\s*=", re.IGNORECASE)
_SINGLE = ("From", "To", "Call-ID", "CSeq")
_SINGLE_KEYS = {name.lower(): name for name in _SINGLE}
_ANSWERED_WITH = frozenset({"via", *_SINGLE_KEYS})
_TRIED_WITH = _ANSWERED_WITH | {"timestamp"}


class Message(Fields):
    """What requests and responses have in common: one start line, fields, a body."""

    __slots__ = ()

    @property
    def start_line(self) -> str:
        """The first line, without its line break."""
        raise NotImplementedError

    def serialize(self) -> bytes:
        """The bytes to send, with the right Content-Length."""
        lines = [self.start_line, *self.headers.lines_but("content-length"), f"Content-Length: {len(self.body)}\r\n\r\n"]
        head = "\r\n".join(lines)
        try:
            return head.encode("utf-8", "surrogateescape") + self.body
        except UnicodeEncodeError:
            # Half of a surrogate pair, from someone's JSON; nothing that came over the wire holds one.
            return head.encode("utf-8", "replace") + self.body

    def __bytes__(self) -> bytes:
        return self.serialize()


class Request(Message):
    """`INVITE sip:bob@example.com SIP/2.0` and what follows."""

    __slots__ = ("method", "uri")

    def __init__(self, method: str, uri: str, headers: Headers | HeaderItems = (), body: bytes = b"") -> None:
        super().__init__(headers, body)
        self.method = method
        self.uri = uri

    @property
    def start_line(self) -> str:
        return f"{self.method} {self.uri} SIP/2.0"

    @property
    def request_uri(self) -> Uri:
        """The request URI, read."""
        return self._cached("uri", self.uri, lambda: _parse_request_uri(self.uri))

    def mark_received(self, source: tuple[str, int]) -> None:
        """Write the source address into the topmost Via; a server transport does so on arrival (RFC 3261 §18.2.1, RFC 3581)."""
        vias = self.vias
        marked = vias[0].mark_received(source)
        if marked != vias[0]:
            self.headers.replace_first("Via", str(marked))
            self._keep_but("Via", [marked, *vias[1:]])

    def reply(self, status: int, reason: str | None = None, to_tag: str | None = None) -> Response:
        """Begin a response: Via, From, To, Call-ID and CSeq are copied (RFC 3261 §8.2.6.2).

        `to_tag` is put on a To that has no tag yet. A 100 also takes the Timestamp along (§8.2.6.1).
        """
        headers = self.headers.only(_TRIED_WITH if status == 100 else _ANSWERED_WITH)
        if to_tag is not None and (to := headers.get("To")) is not None and not self._has_to_tag(to):
            headers.replace_first("To", f"{to};tag={to_tag}")
        return Response(status, REASON_PHRASES.get(status, "") if reason is None else reason, headers)

    def _has_to_tag(self, value: str) -> bool:
        try:
            return self.to.tag is not None
        except RemoteProtocolError:
            return _TAG.search(value) is not None

    def check(self) -> None:
        """See that the fields every request must have are there, once, and can be read (RFC 3261 §8.1.1).

        Raises:
            RemoteProtocolError: with 400, or 416 for a request URI of a scheme that is not ours.
        """
        _check_fields(self)
        if self.cseq.method != self.method:
            raise RemoteProtocolError(400, "CSeq: another method than the request line's")
        if isinstance(self.request_uri, OpaqueUri):
            raise RemoteProtocolError(416, REASON_PHRASES[416])

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(Message):
    """`SIP/2.0 200 OK` and what follows."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str, headers: Headers | HeaderItems = (), body: bytes = b"") -> None:
        super().__init__(headers, body)
        self.status = status
        self.reason = reason

    @property
    def start_line(self) -> str:
        # A reason is one line, whoever wrote it.
        return f"SIP/2.0 {self.status} {' '.join(self.reason.split())}"

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class MalformedMessage(RemoteProtocolError):
    """A message that cannot be taken."""

    def __init__(self, status_hint: int, reason: str, partial: Request | None = None) -> None:
        super().__init__(status_hint, reason)
        self.partial = partial
        """What `partial.reply(status_hint, reason)` can be made from; None where no answer is possible or allowed (a response,
        an ACK, no readable topmost Via)."""


def parse_message(data: bytes) -> Request | Response:
    """Read one message: a datagram, or what a stream's framer cut out.

    Content-Length cuts the body; without it the body is all that follows.

    Raises:
        MalformedMessage: not SIP, beyond a bound, or without a field that every message needs.
    """
    head, body = split_head(data)
    lines = _unfolded(head)
    message = _start(lines[0])
    message.body = body
    try:
        _read_fields(message.headers, lines)
        if len(data) > MAX_MESSAGE_BYTES:
            raise RemoteProtocolError(513, REASON_PHRASES[513])
        _check_version(lines[0])
        if isinstance(message, Request):
            message.check()
        else:
            _check_fields(message)
        _cut_body(message)
    except RemoteProtocolError as error:
        raise MalformedMessage(error.status_hint, error.reason, _answerable(message)) from None
    return message


def refuse(data: bytes, status_hint: int, reason: str) -> MalformedMessage:
    """Make the error for a message that is refused whatever else it says (a stream that cannot be framed)."""
    try:
        partial = _answerable(parse_message(data))
    except MalformedMessage as error:
        partial = error.partial
    return MalformedMessage(status_hint, reason, partial)


def split_head(data: bytes) -> tuple[bytes, bytes]:
    """Split a message at the first empty line; empty lines in front are skipped (RFC 3261 §7.5)."""
    data = data.lstrip(b"\r\n")
    match = _HEAD_END.search(data)
    return (data, b"") if match is None else (data[: match.start()], data[match.end() :])


def _unfolded(head: bytes) -> list[str]:
    text = head[:MAX_MESSAGE_BYTES].decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", " ")
    return _FOLD.sub(" ", text).split("\n")


def _start(line: str) -> Request | Response:
    line = line.strip()
    if len(line) > MAX_LINE_CHARS:
        raise MalformedMessage(400, "The start line is too long")
    if line[:4].upper() == "SIP/":
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise MalformedMessage(400, "The status line is not SIP")
        return Response(int(match.group(2)), (match.group(3) or "").strip())
    words = line.split()
    if len(words) < 3 or not is_token(words[0]) or words[-1][:4].upper() != "SIP/":
        raise MalformedMessage(400, "Not a SIP message")
    return Request(words[0], " ".join(words[1:-1]))


def _check_version(line: str) -> None:
    # The version is compared without regard to case (RFC 3261 §7.1).
    words = line.split()
    if "SIP/2.0" not in (words[0].upper(), words[-1].upper()):
        raise RemoteProtocolError(505, REASON_PHRASES[505])


def _read_fields(headers: Headers, lines: list[str]) -> None:
    # A line that is no header field is as good as absent (RFC 3261 §8.2.2.3, §16.3); one beyond a bound refuses the message.
    complaint = ""
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.rstrip()
        if len(line) > MAX_LINE_CHARS:
            if colon and is_token(name):
                complaint = "A header field is too long"
            continue
        if not colon or not headers.add_if_named(name, value):
            continue
        if len(headers) > MAX_HEADER_FIELDS:
            complaint = "Too many header fields"
            break
    if complaint:
        raise RemoteProtocolError(400, complaint)


def _check_fields(message: Message) -> None:
    seen = set()
    for key in message.headers.lower_names():
        if key in _SINGLE_KEYS:
            if key in seen:
                raise RemoteProtocolError(400, f"{_SINGLE_KEYS[key]}: several values")
            seen.add(key)
    if len(message.vias) > MAX_VIAS:
        raise RemoteProtocolError(400, "Via: too many")
    _ = message.from_, message.to, message.call_id, message.cseq


def _cut_body(message: Message) -> None:
    length = message.content_length
    if length is None:
        return
    if length > len(message.body):
        raise RemoteProtocolError(400, "Content-Length: larger than the body")
    message.body = message.body[:length]


def _answerable(message: Request | Response) -> Request | None:
    # An ACK is never answered (RFC 3261 §8.1.1.4, §17), nor a response.
    if isinstance(message, Response) or message.method == "ACK":
        return None
    try:
        Via.parse(message.headers.get("Via") or "")
    except GrammarError:
        return None
    headers = Headers(("Via", value) for value in message.headers.get_all("Via")[:MAX_VIAS])
    for name in (*_SINGLE, "Timestamp"):
        if (value := message.headers.get(name)) is not None:
            headers.add(name, value)
    return Request(message.method, message.uri, headers)


def _parse_request_uri(text: str) -> Uri:
    try:
        uri = parse_uri(text)
    except GrammarError as error:
        raise RemoteProtocolError(400, f"Request-URI: {error}") from None
    if isinstance(uri, SipUri) and uri.headers:
        # RFC 3261 §19.1.1: the headers component is not allowed in a request URI.
        raise RemoteProtocolError(400, "Request-URI: header fields")
    return uri

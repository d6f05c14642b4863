"""Session descriptions (RFC 8866): read tolerantly, kept whole, written in the order the RFC asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

MAX_BYTES = 65_536
MAX_LINES = 1_000
MAX_MEDIA = 32

_BLANK = " \t\x00"
"""Stripped from lines; some end their bodies with a zero byte."""
_LINE = re.compile(r"([a-zA-Z])[ \t]?=(.*)", re.DOTALL)
_ADDRESS = re.compile(r"[0-9A-Za-z.:_\-%]+")
_ORIGIN_NUMBER = re.compile(r"-?[0-9]{1,64}")
"""Longer than 64 bits and negative too: nobody computes with them."""
_SESSION_ORDER = "iuepbtrzk"
_BEFORE_CONNECTION = "iuep"
_MEDIA_ORDER = "ibk"


class SdpError(ValueError):
    """A session description that cannot be used; says which line and why."""


class MediaDirection(Enum):
    """Which way media flows, as its writer sees it (RFC 8866 §6.7)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        """The writer sends."""
        return self in (MediaDirection.SENDRECV, MediaDirection.SENDONLY)

    @property
    def receives(self) -> bool:
        """The writer receives."""
        return self in (MediaDirection.SENDRECV, MediaDirection.RECVONLY)

    @classmethod
    def of(cls, sends: bool, receives: bool) -> MediaDirection:
        """The direction with these two halves."""
        if sends:
            return cls.SENDRECV if receives else cls.SENDONLY
        return cls.RECVONLY if receives else cls.INACTIVE


_DIRECTIONS = {direction.value: direction for direction in MediaDirection}


@dataclass(frozen=True, slots=True)
class Origin:
    """`o=`: who wrote the description, and its version (RFC 8866 §5.2)."""

    session_id: int
    version: int
    address: str
    username: str = "-"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read an origin.

        Raises:
            SdpError: not six words with two numbers.
        """
        # Read from the end: some write their product's name, blanks and all, as the user name.
        words = text.rsplit(None, 5)
        if len(words) < 6:
            words = ["-", *words]
        if len(words) != 6 or not _ORIGIN_NUMBER.fullmatch(words[1]) or not _ORIGIN_NUMBER.fullmatch(words[2]):
            raise SdpError("o= needs a user name, two numbers, a network type, an address type and an address")
        return cls(int(words[1]), int(words[2]), words[5], words[0])

    def __str__(self) -> str:
        return f"{self.username} {self.session_id} {self.version} IN {address_type(self.address)} {self.address}"


@dataclass(frozen=True, slots=True)
class Attribute:
    """`a=name:value`, or `a=name` with the value None."""

    name: str
    value: str | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}:{self.value}"

    def __repr__(self) -> str:
        # A key in clear must not find its way into a log with the description it stands in.
        value = "…" if self.name == "crypto" else self.value
        return f"Attribute({self.name!r}, {value!r})"


Attributes = tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class RtpMap:
    """What a payload type carries (RFC 8866 §6.6)."""

    payload_type: int
    encoding: str
    """As written; compare in upper case."""
    rate_hz: int
    channels: int = 1

    @classmethod
    def parse(cls, text: str) -> RtpMap:
        """Read `payload-type encoding/rate/channels`.

        Raises:
            SdpError: not that.
        """
        words = text.split(None, 1)
        parts = words[1].strip().split("/") if len(words) == 2 else []
        numbers = [words[0], *parts[1:]] if words else []
        if len(parts) not in (2, 3) or not all(_is_number(number) for number in numbers):
            raise SdpError("a=rtpmap needs a payload type, an encoding and a rate")
        return cls(int(words[0]), parts[0], int(parts[1]), int(parts[2]) if len(parts) == 3 else 1)

    def __str__(self) -> str:
        channels = "" if self.channels == 1 else f"/{self.channels}"
        return f"{self.payload_type} {self.encoding}/{self.rate_hz}{channels}"


STATIC_PAYLOADS = (RtpMap(0, "PCMU", 8000), RtpMap(8, "PCMA", 8000), RtpMap(9, "G722", 8000), RtpMap(18, "G729", 8000))
"""Payload types that mean something without a map (RFC 3551 §6)."""


@dataclass(frozen=True, slots=True)
class Crypto:
    """`a=crypto`: keys for SRTP (RFC 4568 §9.1)."""

    tag: int
    suite: str
    key_params: str = field(repr=False)
    """`inline:…`, with the key in clear."""
    session_params: str = ""

    @classmethod
    def parse(cls, text: str) -> Crypto:
        """Read a crypto attribute's value.

        Raises:
            SdpError: not that.
        """
        words = text.split(None, 3)
        if len(words) < 3 or not _is_number(words[0]):
            raise SdpError("a=crypto needs a tag, a suite and keys")
        return cls(int(words[0]), words[1], words[2], words[3].strip() if len(words) == 4 else "")

    def __str__(self) -> str:
        return f"{self.tag} {self.suite} {self.key_params} {self.session_params}".rstrip()


@dataclass(frozen=True, slots=True)
class MediaDescription:
    """`m=` and the lines under it."""

    kind: str
    """`audio`, `video`, `image`…"""
    port: int
    protocol: str
    """`RTP/AVP`…, as written."""
    formats: tuple[str, ...]
    """Payload types as text, preferred first."""
    connection: str | None = None
    """Address of its own `c=` line."""
    attributes: Attributes = ()
    other: tuple[tuple[str, str], ...] = ()
    """Other lines (`i=`, `b=`, `k=`), as letter and value."""

    def get(self, name: str) -> str | None:
        """Value of the first attribute of that name (`""` if it has none), or None."""
        return _get(self.attributes, name)

    def get_all(self, name: str) -> list[str]:
        """Values of every attribute of that name."""
        return _get_all(self.attributes, name)

    def rtp_maps(self) -> list[RtpMap]:
        """What the formats carry, in their order; a format that nobody explains is left out."""
        written = {rtp_map.payload_type: rtp_map for rtp_map in STATIC_PAYLOADS}
        for value in self.get_all("rtpmap"):
            try:
                rtp_map = RtpMap.parse(value)
            except SdpError:
                continue
            written[rtp_map.payload_type] = rtp_map
        # Seven bits in the RTP header (RFC 3550 §5.1).
        numbers = [int(number) for number in self.formats if _is_number(number) and int(number) < 128]
        return [written[number] for number in numbers if number in written]

    def fmtp(self, payload_type: int) -> str | None:
        """Format parameters of a payload type."""
        for value in self.get_all("fmtp"):
            number, _, rest = value.strip().partition(" ")
            if number == str(payload_type):
                return rest.strip()
        return None

    @property
    def ptime_ms(self) -> int | None:
        """Packet length that the writer wants to receive."""
        value = (self.get("ptime") or "").strip().partition(".")[0]
        return int(value) if _is_number(value) and int(value) > 0 else None

    @property
    def crypto(self) -> list[Crypto]:
        """SRTP keys; lines that cannot be read are left out."""
        found = []
        for value in self.get_all("crypto"):
            try:
                found.append(Crypto.parse(value))
            except SdpError:
                continue
        return found

    def _lines(self) -> list[str]:
        lines = [f"m={self.kind} {self.port} {self.protocol} {' '.join(self.formats)}"]
        lines += [f"i={value}" for letter, value in self.other if letter == "i"]
        lines += _connection_lines(self.connection)
        lines += [f"{letter}={value}" for letter, value in self.other if letter != "i"]
        return lines + [f"a={attribute}" for attribute in self.attributes]


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """One description: what its writer offers to receive, where."""

    origin: Origin
    media: tuple[MediaDescription, ...] = ()
    name: str = "-"
    connection: str | None = None
    """Address of the session's `c=` line, for every medium without its own."""
    attributes: Attributes = ()
    other: tuple[tuple[str, str], ...] = (("t", "0 0"),)
    """Other lines before the first medium, as letter and value, in the order of RFC 8866 §5."""

    @classmethod
    def parse(cls, data: bytes) -> SessionDescription:
        """Read a description; a missing `s=` or `t=` and unknown lines do not hinder.

        Raises:
            SdpError: not SDP, beyond a bound, or a line that cannot be read.
        """
        lines = _read_lines(data)
        starts = [at for at, (letter, _) in enumerate(lines) if letter == "m"]
        if len(starts) > MAX_MEDIA:
            raise SdpError("too many m= lines")
        sections = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=False)]
        head = lines[: starts[0]] if starts else lines
        values = dict(reversed(head))
        if values.get("v", "").strip() != "0":
            raise SdpError("v=0 is missing")
        if "o" not in values:
            raise SdpError("o= is missing")
        return cls(
            origin=Origin.parse(values["o"]),
            media=tuple(_parse_media(section) for section in sections),
            name=values.get("s", "-"),
            connection=_parse_connection(values.get("c")),
            attributes=_parse_attributes(head),
            other=tuple(sorted((line for line in head if line[0] in _SESSION_ORDER), key=_session_rank)),
        )

    def serialize(self) -> bytes:
        """The description as bytes, lines ended with CRLF."""
        lines = ["v=0", f"o={self.origin}", f"s={self.name}"]
        lines += [f"{letter}={value}" for letter, value in self.other if letter in _BEFORE_CONNECTION]
        lines += _connection_lines(self.connection)
        lines += [f"{letter}={value}" for letter, value in self.other if letter not in _BEFORE_CONNECTION]
        lines += [f"a={attribute}" for attribute in self.attributes]
        for media in self.media:
            lines += media._lines()
        return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")

    def get(self, name: str) -> str | None:
        """Value of the first session attribute of that name (`""` if it has none), or None."""
        return _get(self.attributes, name)

    def address_of(self, media: MediaDescription) -> str | None:
        """Where a medium is to be sent: its own `c=`, or the session's."""
        return media.connection or self.connection

    def direction_of(self, media: MediaDescription) -> MediaDirection:
        """Direction of a medium: its own attribute, the session's, or sendrecv (RFC 8866 §6.7)."""
        for attributes in (media.attributes, self.attributes):
            for attribute in attributes:
                if attribute.value is None and attribute.name in _DIRECTIONS:
                    return _DIRECTIONS[attribute.name]
        return MediaDirection.SENDRECV


def address_type(address: str) -> str:
    """`IP6` or `IP4`."""
    return "IP6" if ":" in address else "IP4"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _session_rank(line: tuple[str, str]) -> int:
    # `r=` and `z=` belong to the `t=` before them, so the three keep their order (RFC 8866 §5).
    return _SESSION_ORDER.index("t" if line[0] in "trz" else line[0])


def _connection_lines(address: str | None) -> list[str]:
    return [] if address is None else [f"c=IN {address_type(address)} {address}"]


def _read_lines(data: bytes) -> list[tuple[str, str]]:
    if len(data) > MAX_BYTES:
        raise SdpError("the description is too long")
    text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line.strip(_BLANK)]
    if len(lines) > MAX_LINES:
        raise SdpError("the description has too many lines")
    found = []
    for line in lines:
        match = _LINE.match(line.strip(_BLANK))
        if match is None:
            raise SdpError("a line is not letter=value")
        found.append((match.group(1).lower(), match.group(2).strip(_BLANK)))
    return found


def _parse_media(lines: list[tuple[str, str]]) -> MediaDescription:
    words = lines[0][1].split()
    if len(words) < 3:
        raise SdpError("m= needs a kind, a port, a protocol and formats")
    port = words[1].partition("/")[0]
    if not _is_number(port) or int(port) > 65535:
        raise SdpError("m= has no port")
    connection = next((value for letter, value in lines if letter == "c"), None)
    return MediaDescription(
        kind=words[0].lower(),
        port=int(port),
        protocol=words[2],
        formats=tuple(words[3:]),
        connection=_parse_connection(connection),
        attributes=_parse_attributes(lines),
        other=tuple(sorted((line for line in lines if line[0] in _MEDIA_ORDER), key=lambda line: _MEDIA_ORDER.index(line[0]))),
    )


def _parse_connection(text: str | None) -> str | None:
    if text is None:
        return None
    words = text.split()
    # A multicast address may carry a time to live and a count after slashes (RFC 8866 §5.7).
    address = words[2].partition("/")[0] if len(words) >= 3 else ""
    if not _ADDRESS.fullmatch(address):
        raise SdpError("c= needs a network type, an address type and an address")
    return address


def _parse_attributes(lines: list[tuple[str, str]]) -> Attributes:
    found = []
    for letter, text in lines:
        if letter == "a":
            name, colon, value = text.partition(":")
            found.append(Attribute(name.strip(_BLANK), value.strip(_BLANK) if colon else None))
    return tuple(found)


def _get(attributes: Attributes, name: str) -> str | None:
    return next((attribute.value or "" for attribute in attributes if attribute.name == name), None)


def _get_all(attributes: Attributes, name: str) -> list[str]:
    return [attribute.value or "" for attribute in attributes if attribute.name == name]

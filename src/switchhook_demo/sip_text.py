"""SIP as text, the little of it that a telephone needs: messages, tags, digest answers, a one-codec SDP.

It is written apart from the server on purpose: the demo, the tests and the bench check the server with it, so the two must not
share a mistake.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
    "s": "subject",
    "k": "supported",
    "e": "content-encoding",
}
LIST_HEADERS = frozenset({"via", "record-route", "route"})
PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8}
DTMF_PAYLOAD_TYPE = 101


@dataclass(slots=True)
class Message:
    """A request (`method` set) or a response (`status` set). Header names are lower case; their order is kept."""

    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def get(self, name: str) -> str:
        """The first value of a header, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    def get_all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key == name]

    def add(self, name: str, value: str) -> None:
        """Append a header."""
        self.headers.append((name.lower(), value))

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method; (0, "") when the header is unreadable."""
        number, _, method = self.get("cseq").partition(" ")
        return (int(number), method.strip()) if number.isdigit() else (0, "")

    @property
    def branch(self) -> str:
        """The branch of the topmost Via."""
        return parameter(self.get("via"), "branch")

    def __bytes__(self) -> bytes:
        """The message on the wire, Content-Length set right."""
        first = f"{self.method} {self.uri} SIP/2.0" if self.method else f"SIP/2.0 {self.status} {self.reason}"
        lines = [first, *(f"{name.title()}: {value}" for name, value in self.headers if name != "content-length")]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body

    def reply(self, status: int, reason: str, to_tag: str = "") -> Message:
        """A response to this request with the headers that RFC 3261 §8.2.6 copies."""
        response = Message(status=status, reason=reason)
        for name, value in self.headers:
            if name == "to" and to_tag and not parameter(value, "tag"):
                value = f"{value};tag={to_tag}"
            if name in ("via", "from", "to", "call-id", "cseq", "record-route"):
                response.add(name, value)
        return response


def parse(data: bytes) -> Message | None:
    """Read a datagram; None when it is no SIP message (a keepalive, garbage)."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
    first = lines[0].split(" ", 2)
    if len(first) < 3:
        return None
    if first[0] == "SIP/2.0" and first[1].isdigit():
        message = Message(status=int(first[1]), reason=first[2])
    elif first[2] == "SIP/2.0":
        message = Message(method=first[0], uri=first[1])
    else:
        return None
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            key = COMPACT.get(key, key)
            values = split_list(value) if key in LIST_HEADERS else [value.strip()]
            message.headers.extend((key, item) for item in values)
    length = message.get("content-length")
    message.body = body[: int(length)] if length.isdigit() else body
    return message


def split_list(value: str) -> list[str]:
    """Split a header of several values at the commas outside quotes and angle brackets."""
    return [item.strip() for item in re.findall(r'(?:"[^"]*"|<[^>]*>|[^,])+', value)]


def parameter(value: str, name: str) -> str:
    """A header parameter such as `tag`, or an empty string."""
    after_uri = value.rpartition(">")[2] if ">" in value else value
    match = re.search(rf';\s*{name}\s*=\s*"?([^;,"\s]+)', after_uri, re.IGNORECASE)
    return match.group(1) if match else ""


def address_uri(value: str) -> str:
    """The URI of a From, To, Contact or Record-Route value."""
    match = re.search(r"<([^>]*)>", value)
    return match.group(1) if match else value.partition(";")[0].strip()


def host_port(uri: str) -> tuple[str, int]:
    """Where a SIP URI points; 5060 when it names no port."""
    rest = uri.partition(":")[2].partition(";")[0].rpartition("@")[2]
    match = re.fullmatch(r"(\[[^\]]+\]|[^:]+)(?::(\d+))?", rest)
    if match is None:
        raise ValueError(f"not a SIP URI with a host: {uri}")
    return match.group(1).strip("[]"), int(match.group(2) or 5060)


def token() -> str:
    """A random tag, branch or Call-ID part."""
    return secrets.token_hex(8)


def digest_answer(challenge: str, method: str, uri: str, username: str, password: str) -> str:
    """The Authorization value for a Digest challenge (RFC 7616; MD5 and SHA-256, with or without qop=auth)."""
    found: list[tuple[str, str, str]] = re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', challenge)
    fields = {name.lower(): quoted or bare for name, quoted, bare in found}
    algorithm = fields.get("algorithm", "MD5")
    new = hashlib.sha256 if algorithm.upper() == "SHA-256" else hashlib.md5

    def hashed(text: str) -> str:
        return new(text.encode()).hexdigest()

    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    secret, action = hashed(f"{username}:{realm}:{password}"), hashed(f"{method}:{uri}")
    value = f'Digest username="{username}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm={algorithm}'
    if "auth" in fields.get("qop", "").split(","):
        cnonce = token()
        response = hashed(f"{secret}:{nonce}:00000001:{cnonce}:auth:{action}")
        value += f', qop=auth, nc=00000001, cnonce="{cnonce}"'
    else:
        response = hashed(f"{secret}:{nonce}:{action}")
    if "opaque" in fields:
        value += f', opaque="{fields["opaque"]}"'
    return f'{value}, response="{response}"'


@dataclass(frozen=True, slots=True)
class Media:
    """What a session description says about its audio."""

    host: str
    port: int
    encoding: str
    """`PCMU` or `PCMA`."""
    dtmf_payload_type: int | None
    direction: str
    """`sendrecv`, `sendonly`, `recvonly` or `inactive`, as the writer of the description sees it."""


def write_sdp(host: str, port: int, encodings: tuple[str, ...], direction: str, version: int) -> bytes:
    """A description with one audio stream of the encodings in order of preference, and RFC 4733 events."""
    types = [PAYLOAD_TYPES[name] for name in encodings]
    lines = [
        "v=0",
        f"o=phone 1 {version} IN IP4 {host}",
        "s=-",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {' '.join(map(str, types))} {DTMF_PAYLOAD_TYPE}",
        *(f"a=rtpmap:{PAYLOAD_TYPES[name]} {name}/8000" for name in encodings),
        f"a=rtpmap:{DTMF_PAYLOAD_TYPE} telephone-event/8000",
        f"a=fmtp:{DTMF_PAYLOAD_TYPE} 0-16",
        "a=ptime:20",
        f"a={direction}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n"


def read_sdp(body: bytes) -> Media | None:
    """Read the first audio stream; None when there is none of an encoding we speak."""
    text = body.decode("utf-8", "replace")
    audio = re.search(r"^m=audio (\d+) \S+ ([\d ]+)", text, re.MULTILINE)
    if audio is None:
        return None
    # A connection line inside the media section overrides the session's (RFC 8866 §5.7).
    hosts = re.findall(r"^c=IN IP[46] ([^\s/]+)", text[audio.start() :], re.MULTILINE)
    hosts = hosts or re.findall(r"^c=IN IP[46] ([^\s/]+)", text, re.MULTILINE)
    names = {number: name for name, number in PAYLOAD_TYPES.items()}
    encodings = [names[int(number)] for number in audio.group(2).split() if int(number) in names]
    events = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", text, re.MULTILINE | re.IGNORECASE)
    direction = re.findall(r"^a=(sendrecv|sendonly|recvonly|inactive)\b", text, re.MULTILINE)
    if not encodings or not hosts:
        return None
    dtmf = int(events.group(1)) if events else None
    return Media(hosts[0], int(audio.group(1)), encodings[0], dtmf, direction[-1] if direction else "sendrecv")

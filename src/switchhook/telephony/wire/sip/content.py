"""The bodies of messages: finding one media type, also inside multipart (RFC 3261 §7.4, RFC 5621, RFC 2046 §5.1)."""

from __future__ import annotations

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import parse_params

MAX_PARTS = 16
"""Parts of a multipart body that are looked at."""


def media_type(content_type: str) -> str:
    """`application/sdp` of `Application/SDP;charset=utf-8`."""
    return "".join(content_type.partition(";")[0].split()).lower()


def find_part(content_type: str, body: bytes, wanted: str) -> bytes | None:
    """Return the body if it is of the wanted media type, or the first such part of a multipart body (one level).

    Carriers send SDP beside ISUP or a location object; a body that is broken has no part.
    """
    kind = media_type(content_type)
    if kind == wanted:
        return body
    if not kind.startswith("multipart/"):
        return None
    try:
        boundary = parse_params("".join(content_type.partition(";")[1:])).get("boundary")
    except GrammarError:
        return None
    if not boundary:
        return None
    # The delimiter owns the line break before it (RFC 2046 §5.1.1).
    delimiter = b"\n--" + boundary.encode("utf-8", "surrogateescape")
    for part in (b"\n" + body).split(delimiter, MAX_PARTS + 1)[1 : MAX_PARTS + 1]:
        if part.startswith(b"--"):
            return None
        found = _content_of(part, wanted)
        if found is not None:
            return found
    return None


def _content_of(part: bytes, wanted: str) -> bytes | None:
    line_break = b"\r\n" if part.partition(b"\n")[0].endswith(b"\r") else b"\n"
    head, _, content = part.partition(line_break * 2)
    for line in head.decode("utf-8", "surrogateescape").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("content-type", "c") and media_type(value) == wanted:
            return content.removesuffix(b"\r") + line_break
    return None

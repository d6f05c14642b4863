"""The atoms of SIP's grammar (RFC 3261 §25.1): tokens, quoted strings, parameters, comma lists, escapes.

Every function is linear in the length of its input, whatever that holds, because it comes from strangers. Text is UTF-8 with
`surrogateescape`, so that any bytes come back as they were; what people read goes through `printable` first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote as percent_quote
from urllib.parse import unquote as percent_unquote

from switchhook.telephony.wire.sip.errors import GrammarError

TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
"""RFC 3261 §25.1 `token`."""

HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?:\s*:\s*([0-9]{1,5}))?")
"""`hostport`; underscores are taken too, many host names carry them."""

MAX_UINT = 2**32 - 1

# An opening quote or bracket always matches, to its end or to the end of the text: a failing match would be tried again at the
# next quote, which makes the scan quadratic.
_OPAQUE = r'"(?:[^"\\]|\\.?)*(?:"|\Z)|<[^<>]*(?:>|\Z)'
_COMMA = re.compile(_OPAQUE + "|(,)", re.DOTALL)
_SEMICOLON = re.compile(_OPAQUE + "|(;)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_BARE_VALUE = re.compile(r"[A-Za-z0-9\-.!%*_+`'~\[\]:]+")
_SURROGATE = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile("[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]")

Params = Mapping[str, str | None]
"""Parameters in order, names in lower case; None where there is no equals sign."""


def is_token(text: str) -> bool:
    """True for a method, a header name, an option tag…"""
    return TOKEN.fullmatch(text) is not None


def printable(text: str) -> str:
    """Text from the wire for people and databases: no control characters; bytes that were not UTF-8 are read as Latin-1."""
    if text.isascii() and text.isprintable():
        return text
    if _SURROGATE.search(text):
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _CONTROL.sub("", text)


def parse_uint(text: str, most: int = MAX_UINT) -> int:
    """Read a decimal number from 0 to `most`.

    Raises:
        GrammarError: not digits, or too large.
    """
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > most:
        raise GrammarError(f"expected a number from 0 to {most}")
    return int(text)


def split_list(text: str) -> list[str]:
    """Split at commas outside quotes and angle brackets; empty elements are dropped (RFC 3261 §7.3.1)."""
    return _split(text, ",", _COMMA)


def split_params(text: str) -> list[str]:
    """Split at semicolons outside quotes and angle brackets; empty elements are dropped."""
    return _split(text, ";", _SEMICOLON)


def _split(text: str, separator: str, pattern: re.Pattern[str]) -> list[str]:
    if separator not in text:
        parts = [text]
    elif '"' not in text and "<" not in text:
        parts = text.split(separator)
    else:
        parts, start = [], 0
        for match in pattern.finditer(text):
            if match.group(1):
                parts.append(text[start : match.start()])
                start = match.end()
        parts.append(text[start:])
    return [part for part in map(str.strip, parts) if part]


def parse_params(text: str) -> dict[str, str | None]:
    """Read `;name=value;flag`. Names in lower case, values without quotes; of two with one name the first counts.

    Raises:
        GrammarError: the text does not begin with a semicolon, or a name is no token.
    """
    text = text.strip()
    if not text:
        return {}
    if text[0] != ";":
        raise GrammarError("expected a parameter to begin with a semicolon")
    found: dict[str, str | None] = {}
    for part in split_params(text):
        name, equals, value = part.partition("=")
        name = name.rstrip().lower()
        if not is_token(name):
            raise GrammarError("a parameter's name is not a token")
        found.setdefault(name, unquote(value.strip()) if equals else None)
    return found


def format_params(params: Params) -> str:
    """Write `;name=value;flag`, quoting what needs quotes."""
    written = []
    for name, value in params.items():
        if value is None:
            written.append(f";{name}")
        elif _BARE_VALUE.fullmatch(value):
            written.append(f";{name}={value}")
        else:
            written.append(f";{name}={quote(value)}")
    return "".join(written)


def quote(text: str) -> str:
    """Make a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    """The text inside a quoted string; other text comes back as it is.

    Raises:
        GrammarError: the string does not end, or something follows its end.
    """
    if not text.startswith('"'):
        return text
    inside, rest = take_quoted(text)
    if rest.strip():
        raise GrammarError("text follows a quoted string")
    return inside


def take_quoted(text: str) -> tuple[str, str]:
    """Split a text that begins with a quoted string into what the string says and what follows it.

    Raises:
        GrammarError: the quotes are not balanced.
    """
    match = _QUOTED.match(text)
    if match is None:
        raise GrammarError("a quoted string does not end")
    inside = match.group(1)
    if "\\" in inside:
        inside = _QUOTED_PAIR.sub(r"\1", inside)
    return inside, text[match.end() :]


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Read `host`, `host:port`, `[IPv6]:port`; an IPv6 address comes back without its brackets.

    Raises:
        GrammarError: not a host, or a port beyond 65535.
    """
    match = HOST_PORT.fullmatch(text)
    if match is None:
        raise GrammarError("expected a host name or address")
    host, port = match.group(1), match.group(2)
    if host[0] == "[":
        host = host[1:-1]
    return host, None if port is None else parse_uint(port, 65535)


def format_host_port(host: str, port: int | None) -> str:
    """Write a host and port as in a URI or Via: IPv6 in brackets."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def escape_user(text: str) -> str:
    """Percent-escape what may not stand in a SIP URI's user part (RFC 3261 §25.1 `user`)."""
    return percent_quote(text, safe="-_.!~*'()&=+$,;?/", errors="surrogateescape")


def unescape(text: str) -> str:
    """Undo percent-escapes."""
    return percent_unquote(text, errors="replace") if "%" in text else text

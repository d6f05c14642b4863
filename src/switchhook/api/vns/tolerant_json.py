"""JSON as customers send it: strict first, then once more with the slips that people make mended.

Mended are trailing commas, `//` and `/* */` comments, a byte order mark and control characters inside strings (the vendor's own
CallEnd example has trailing commas). Single quotes, NaN and everything else stay errors. Members keep the text they were sent
as, so that a value can be passed on without being typed anew (`1.0` stays `1.0`, `1e400` stays `1e400`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn


class InvalidJson(ValueError):
    """The text is not JSON, or not an object where one is needed. The message tells the place, never the content."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object: its name, its value and the text that spelled the value."""

    name: str
    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class MendedObject:
    """The members in order, and what had to be mended to read them."""

    members: tuple[Member, ...]
    repairs: tuple[str, ...] = ()


def parse_value(text: str) -> Any:
    """Any JSON value, strictly (NaN and Infinity are none). Raises InvalidJson."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(_place(error)) from None


def parse_object(text: str) -> tuple[Member, ...]:
    """The members of a JSON object, strictly; of a name that comes twice both. Raises InvalidJson."""
    try:
        return tuple(_members(text))
    except (ValueError, RecursionError) as error:
        raise InvalidJson(_place(error)) from None


def parse_tolerantly(body: bytes, mend_up_to: int) -> MendedObject:
    """The members of a JSON object, mended when that is needed and `body` has at most `mend_up_to` bytes. Raises InvalidJson."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"it is not UTF-8 (byte {error.start})") from None
    try:
        return MendedObject(parse_object(text))
    except InvalidJson:
        if len(body) > mend_up_to:
            raise
    mended, repairs = _mend(text)
    return MendedObject(parse_object(mended), repairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACE = re.compile(r"[ \t\n\r]*")


def _members(text: str) -> Iterator[Member]:
    at = _skip(text, 0)
    _expect(text, at, "{")
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        _expect_end(text, at + 1)
        return
    while True:
        _expect(text, at, '"')
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        _expect(text, at, ":")
        start = _skip(text, at + 1)
        value, at = _DECODER.raw_decode(text, start)
        yield Member(name, value, text[start:at])
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            _expect_end(text, at + 1)
            return
        _expect(text, at, ",")
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, character: str) -> None:
    if text[at : at + 1] != character:
        raise json.JSONDecodeError("an object is needed" if character == "{" else f"Expecting {character!r}", text, at)


def _expect_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.split(':')[0]} (line {error.lineno}, column {error.colno})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it cannot be read"


# No alternative can end in two ways, and an open string or comment runs to the end: no text makes this slower than linear.
# Possessive quantifiers would say so, but Python 3.11.2, which Debian 12 has, matches them wrongly.
_TOKEN = re.compile(
    r"""(?P<string>"[^"\\]*(?:\\.[^"\\]*)*"?)"""
    r"""|(?P<comment>//[^\r\n]*|/\*.*?\*/)"""
    r"""|(?P<open>/\*.*)"""
    r"""|(?P<space>\s+)"""
    r"""|(?P<comma>,)"""
    r"""|(?P<other>[\[\]{}]|[^"/,\[\]{}\s]+|.)""",
    re.DOTALL,
)
_ESCAPE_OR_CONTROL = re.compile(r"\\.|[\x00-\x1f]", re.DOTALL)


def _mend(text: str) -> tuple[str, tuple[str, ...]]:
    repairs: dict[str, None] = {}
    if text.startswith("\ufeff"):
        text = text[1:]
        repairs["byte order mark"] = None
    out: list[str] = []
    last = ""
    comma_at = -1
    for token in _TOKEN.finditer(text):
        kind, piece = token.lastgroup, token.group()
        if kind == "comment":
            repairs["comment"] = None
            piece = " "
        elif kind == "comma":
            if last in ("", "[", "{", ","):
                raise InvalidJson(f"a comma stands where a value is needed (character {token.start()})")
            comma_at, last = len(out), ","
        elif kind != "space":
            if last == "," and piece in ("]", "}"):
                out[comma_at] = ""
                repairs["trailing comma"] = None
            if kind == "string" and (escaped := _ESCAPE_OR_CONTROL.sub(_escape, piece)) != piece:
                piece = escaped
                repairs["control character in a string"] = None
            last = piece
        out.append(piece)
    return "".join(out), tuple(repairs)


def _escape(found: re.Match[str]) -> str:
    piece = found.group()
    return piece if piece[0] == "\\" else f"\\u{ord(piece):04x}"

"""What a caller may say, as a script writes it: `[i want to] book [an appointment] (on | for) {day}`.

Words, `[optional]`, `(one | other)` and `{slot}`. One reading gives both the expansion for the recogniser's grammar and the match
of a recognised or typed text. Matching keeps one way to each place in the text, so it takes no more time than phrase × text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

_TOKEN = re.compile(r"\s*(?:(?P<word>[a-z']+)|\{(?P<slot>[a-z_][a-z_0-9]*)\}|(?P<mark>[\[\]()|]))")
_NOT_A_WORD = re.compile(r"[^a-z' ]+")
_CLOSING = {"[": "]", "(": ")"}
MAX_CHARACTERS = 500
_MAX_DEPTH = 10

Words: TypeAlias = Sequence[str]
SlotEnds: TypeAlias = Callable[[Words, int], Iterable[int]]
"""(words, place) → the places where a value of the slot that begins there may end."""


class PhraseInvalid(Exception):
    """The phrase cannot be read."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word."""

    text: str


@dataclass(frozen=True, slots=True)
class SlotName:
    """A value."""

    name: str


@dataclass(frozen=True, slots=True)
class Several:
    """Parts one after another."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Alternatives; with `optional`, also nothing."""

    parts: tuple[Part, ...]
    optional: bool = False


Part: TypeAlias = Word | SlotName | Several | OneOf
Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase that was read."""

    root: Part
    slots: frozenset[str]

    @property
    def expansion(self) -> str:
        """The phrase in JSGF, with `<slot>` for each slot."""
        return _expansion(self.root)

    def match(self, words: Words, slots: Mapping[str, SlotEnds]) -> dict[str, Span] | None:
        """Return where in the words each slot lies when the whole text is this phrase, else None."""
        return self.ends(words, 0, slots).get(len(words))

    def ends(self, words: Words, at: int, slots: Mapping[str, SlotEnds]) -> dict[int, dict[str, Span]]:
        """Return the places where the phrase, begun at `at`, may end, with the slots found on the way."""
        return _ends(self.root, words, at, slots)


def parse(text: str) -> Phrase:
    """Read a phrase. Raises PhraseInvalid saying what is wrong."""
    if len(text) > MAX_CHARACTERS:
        raise PhraseInvalid(f"a phrase has at most {MAX_CHARACTERS} characters")
    reader = _Reader(_tokens(text.lower()))
    root = reader.alternatives()
    if reader.rest:
        raise PhraseInvalid(f"`{reader.rest[0][1]}` has no opening bracket")
    return Phrase(root, frozenset(reader.slots))


def words_of(text: str) -> list[str]:
    """Return the words of a text as phrases have them: lower case, letters and apostrophes only."""
    return _NOT_A_WORD.sub(" ", text.lower().replace("’", "'")).split()


def _expansion(part: Part) -> str:
    match part:
        case Word(text):
            return text
        case SlotName(name):
            return f"<{name}>"
        case Several(parts):
            return " ".join(_expansion(p) for p in parts)
        case OneOf(parts, optional):
            inside = " | ".join(_expansion(p) for p in parts)
            return f"[{inside}]" if optional else f"({inside})"


def _ends(part: Part, words: Words, at: int, slots: Mapping[str, SlotEnds]) -> dict[int, dict[str, Span]]:
    match part:
        case Word(text):
            return {at + 1: {}} if at < len(words) and words[at] == text else {}
        case SlotName(name):
            return {end: {name: (at, end)} for end in slots[name](words, at)}
        case Several(parts):
            return _ends_of_several(parts, words, at, slots)
        case OneOf(parts, optional):
            found: dict[int, dict[str, Span]] = {}
            for alternative in parts:
                for end, spans in _ends(alternative, words, at, slots).items():
                    found.setdefault(end, spans)
            if optional:
                found.setdefault(at, {})
            return found


def _ends_of_several(parts: Sequence[Part], words: Words, at: int, slots: Mapping[str, SlotEnds]) -> dict[int, dict[str, Span]]:
    reached: dict[int, dict[str, Span]] = {at: {}}
    for part in parts:
        further: dict[int, dict[str, Span]] = {}
        for place, spans in reached.items():
            for end, more in _ends(part, words, place, slots).items():
                further.setdefault(end, {**spans, **more})
        reached = further
    return reached


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise PhraseInvalid(f"`{text[at:end].strip()[:20]}`: only letters, [ ], ( | ) and {{slot}} may stand here")
        kind = str(match.lastgroup)
        tokens.append((kind, match[kind]))
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.rest = tokens
        self.slots: set[str] = set()
        self._depth = 0

    def alternatives(self) -> Part:
        parts = [self._sequence()]
        while self.rest and self.rest[0] == ("mark", "|"):
            self.rest = self.rest[1:]
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else OneOf(tuple(parts))

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while self.rest and self.rest[0] not in (("mark", "|"), ("mark", "]"), ("mark", ")")):
            parts.append(self._piece())
        if not parts:
            raise PhraseInvalid("a phrase, a bracket or a side of `|` is empty")
        return parts[0] if len(parts) == 1 else Several(tuple(parts))

    def _piece(self) -> Part:
        (kind, text), self.rest = self.rest[0], self.rest[1:]
        if kind == "word":
            return Word(text)
        if kind == "slot":
            self.slots.add(text)
            return SlotName(text)
        return self._bracket(text)

    def _bracket(self, opening: str) -> Part:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PhraseInvalid(f"brackets are nested more than {_MAX_DEPTH} deep")
        inside = self.alternatives()
        if not self.rest or self.rest[0][1] != _CLOSING[opening]:
            raise PhraseInvalid(f"`{opening}` is not closed")
        self.rest = self.rest[1:]
        self._depth -= 1
        if opening == "(":
            return inside
        return OneOf(inside.parts if isinstance(inside, OneOf) else (inside,), optional=True)

"""A grammar of phrases, in the expansions of the Java Speech Grammar Format (JSGF): words, `[optional]`, `(a | b)`, `<rule>`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_SYMBOL = re.compile(r"<[^<>]*>|[\w']+")


class GrammarInvalid(Exception):
    """The grammar has no phrase that can be recognised."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What may be said."""

    phrases: tuple[str, ...]
    """Alternatives, each an expansion."""
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Named alternatives, each used as `<name>`; a rule may use those before it."""

    def jsgf(self, pronounces: Callable[[str], bool]) -> str:
        """Return the text for the recogniser, without the alternatives that use a word it cannot pronounce.

        Raises GrammarInvalid when nothing is left.
        """
        known: set[str] = set()

        def usable(expansion: str) -> bool:
            return all(symbol in known if symbol.startswith("<") else pronounces(symbol) for symbol in _SYMBOL.findall(expansion))

        lines = ["#JSGF V1.0;", "grammar g;"]
        for name, alternatives in self.rules:
            if left := [a for a in alternatives if usable(a)]:
                lines.append(f"<{name}> = {' | '.join(left)};")
                known.add(f"<{name}>")
        phrases = [phrase for phrase in self.phrases if usable(phrase)]
        if not phrases:
            raise GrammarInvalid("no phrase of the grammar can be pronounced")
        lines.append(f"public <phrase> = {' | '.join(phrases)};")
        return "\n".join(lines)

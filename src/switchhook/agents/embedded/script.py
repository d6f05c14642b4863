"""A dialogue script: what the embedded engine says and understands, read from YAML. The format is described in README.md here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchhook.agents.embedded.phrases import Phrase
from switchhook.agents.embedded.slots import Slot

_TEMPLATE = re.compile(r"\{([a-z_][a-z_0-9.]*)\}")


class ScriptInvalid(Exception):
    """The script cannot be used; the message names the place and the cure."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that a caller may say or press, and where it leads."""

    goto: str
    phrases: tuple[Phrase, ...] = ()
    keys: str | None = None
    """The keys that mean this choice."""
    keyed_slot: str | None = None
    """The slot that pressed keys fill."""
    say: str = ""
    assign: Mapping[str, str] = field(default_factory=dict)
    confirm: str = ""
    """A question to be answered with yes before anything is done."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a tool's result leads when its fields are as listed."""

    when: Mapping[str, Any]
    goto: str


@dataclass(frozen=True, slots=True)
class State:
    """A place in the dialogue: it listens, calls a tool, goes on at once, or ends."""

    name: str
    say: str = ""
    choices: tuple[Choice, ...] = ()
    listens: bool = False
    goto: str | None = None
    needs: str | None = None
    """A slot; when it is known already, the state is passed over to `goto`."""
    no_match: str = ""
    no_input: str = ""
    tries: int = 3
    give_up: str | None = None
    tool: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[Branch, ...] = ()
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """A whole dialogue."""

    start: str
    states: Mapping[str, State]
    slots: Mapping[str, Slot]
    always: tuple[Choice, ...] = ()
    """Choices of every state that listens."""


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Replace `{name}` and `{result.field}` in a text, or in the texts of a mapping or list; an unknown name becomes nothing.

    A text that is nothing but one name keeps the value's type.
    """
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, values) for value in template]
    if not isinstance(template, str):
        return template
    if whole := _TEMPLATE.fullmatch(template):
        return look_up(whole[1], values)
    return _TEMPLATE.sub(lambda match: in_words(look_up(match[1], values)), template)


def look_up(path: str, values: Mapping[str, Any]) -> Any:
    """Return what `name.field.field` leads to, or None; a number counts a list's places from 0."""
    found: Any = values
    for part in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def in_words(value: Any) -> str:
    """Return a value as it is spoken: lists with commas and `and`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        words = [in_words(part) for part in value]
        return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {in_words(part)}" for key, part in value.items())
    return str(value)

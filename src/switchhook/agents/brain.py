"""What the Realtime endpoint asks of whatever decides behind it: turns go in, things to say and tools to call come out.

A brain is a machine without clock or await. It is given what the caller said, typed or pressed and what tools returned, and is
asked for a response when the protocol's rules say that one is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from switchhook.agents.providers.grammar import Grammar


class BrainRefused(Exception):
    """The session's instructions or tools cannot be used; the message says why, for the client."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the session offers."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema."""


@dataclass(frozen=True, slots=True)
class Say:
    """Something to say."""

    text: str
    """As the transcript has it."""
    spoken: str
    """As a voice reads it: times and numbers in words."""


@dataclass(frozen=True, slots=True)
class CallTool:
    """A function call; its output comes back through `tool_returned`."""

    name: str
    arguments: str
    """A JSON object."""


Action: TypeAlias = Say | CallTool


class Brain(Protocol):
    """Decides what is said and done in one session."""

    def configure(self, instructions: str, tools: Sequence[Tool]) -> None:
        """Take the session's instructions and function tools, again after each change. Raises BrainRefused."""

    @property
    def grammar(self) -> Grammar | None:
        """What may be said now; None when nothing would be understood."""

    def heard(self, text: str) -> None:
        """The caller spoke; an empty text was not understood."""

    def typed(self, text: str) -> None:
        """A text item came in the caller's name; `DTMF: 12#` stands for keys."""

    def silent(self) -> None:
        """The caller has said nothing for the session's idle time."""

    def tool_returned(self, name: str, output: str) -> None:
        """A tool that was called gave this."""

    def respond(self, instructions: str | None, tools_allowed: bool) -> list[Action]:
        """Decide; `instructions` are those of this response alone."""

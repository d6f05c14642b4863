"""The goodbye: what is said last, and how far that has come."""

from __future__ import annotations

from dataclasses import dataclass

from switchhook.agents.realtime import dialect

DEFAULT_WORDS = "Goodbye, and thank you for calling."
MOST_CHARS = 2_000


@dataclass(slots=True)
class Farewell:
    """Asked for by the model's call of the tool that ends the conversation; its words are said verbatim (contract §1.6)."""

    words: str
    began: float
    asked: bool = False
    response_id: str | None = None
    """The response that says it, once there is one."""
    failures: int = 0
    timed: bool = False
    """Its time limit runs; asking again does not move it."""

    @classmethod
    def read(cls, arguments: str, now: float) -> Farewell:
        """Of the tool's arguments; what is missing or broken is replaced by a simple goodbye."""
        try:
            words = dialect.text_of(dialect.read_event(arguments.encode()), "farewell").strip()
        except dialect.UNREADABLE:
            words = ""
        return cls(words[:MOST_CHARS] or DEFAULT_WORDS, now)

    def response(self) -> dict[str, object]:
        """What `response.create` asks for."""
        words = self.words.replace('"', "'")
        instructions = f'Say exactly this to the caller and nothing else: "{words}"'
        return {"instructions": instructions, "tools": [], "tool_choice": "none"}

    def say_again(self, failed: bool) -> bool:
        """The response that should have said it did not begin, or ended before a sound of it came.

        False when it failed for the second time: then the call ends without it.
        """
        self.asked, self.response_id = False, None
        self.failures += failed
        return self.failures < 2

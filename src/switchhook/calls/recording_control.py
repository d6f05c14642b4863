"""When a recording is silent: while the agent asked for it, and while the party types digits.

The two reasons are independent: sound is recorded only while neither holds. A pause that nobody ends ends with the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

DIGITS_PAUSE_S = 3.0
"""How long after the last digit the silence lasts: an agent is given the digits after a pause of 1.5 s, and a key that is still
being pressed or whose tone comes late must not be heard."""


@dataclass(frozen=True, slots=True)
class PauseRecording:
    """Write silence from now on."""


@dataclass(frozen=True, slots=True)
class ResumeRecording:
    """Write what is heard again."""


RecordingEffect: TypeAlias = PauseRecording | ResumeRecording


class RecordingControl:
    """The machine of one recording's pauses. Inputs may come in any order and any number."""

    def __init__(self, pause_on_digits: bool, digits_pause_s: float = DIGITS_PAUSE_S) -> None:
        self._pause_on_digits = pause_on_digits
        self._digits_pause_s = digits_pause_s
        self._digits_until: float | None = None
        self._by_tool = False
        self._paused = False
        self._effects: list[RecordingEffect] = []

    @property
    def paused(self) -> bool:
        """Whether the recording is silent."""
        return self._paused

    @property
    def deadline(self) -> float | None:
        """When the silence around digits ends."""
        return self._digits_until

    def digit(self, now: float) -> None:
        """The party pressed a key."""
        if self._pause_on_digits:
            self._digits_until = now + self._digits_pause_s
            self._judge()

    def tool_pause(self, now: float) -> None:
        """The agent asks for silence; asking twice is asking once."""
        self._by_tool = True
        self._judge()

    def tool_resume(self, now: float) -> None:
        """The agent asks to record again."""
        self._by_tool = False
        self._judge()

    def tick(self, now: float) -> None:
        """The deadline passed."""
        if self._digits_until is not None and now >= self._digits_until:
            self._digits_until = None
            self._judge()

    def take(self) -> list[RecordingEffect]:
        """Return the effects gathered so far and forget them."""
        effects, self._effects = self._effects, []
        return effects

    def _judge(self) -> None:
        paused = self._by_tool or self._digits_until is not None
        if paused != self._paused:
            self._paused = paused
            self._effects.append(PauseRecording() if paused else ResumeRecording())

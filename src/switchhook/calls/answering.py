"""What is done about who answered an outbound call. The agent talks from the start: a person never waits for the verdict.

A machine for one call: sound and words come in, and what the number's setting wants done about a voicemail comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from switchhook.domain.model import Encoding
from switchhook.domain.plan import AnswerDetection, OnMachine
from switchhook.media import g711
from switchhook.media.answer_detection import SPEECH_LEVEL, AnswerDetector, Answerer, BeepHeard, Detected

BEEP_PATIENCE_S = 25.0
"""A greeting whose beep does not come within this gets its message all the same."""
GREETING_OVER_S = 2.5
"""So long a silence of a machine says that it listens, beep or not."""
_TOLD = {
    Answerer.VOICEMAIL: (
        "A voicemail has answered this call, not a person. Say a short message after its greeting, then end the call."
    ),
    Answerer.SCREENER: (
        "A call screener has answered and asks who is calling. Say your name and why you call, then wait for the person."
    ),
}
_PERHAPS_VOICEMAIL = (
    "Whoever answered this call has spoken for long without a pause, as a voicemail does. If it is one, say a short message "
    "after its greeting, then end the call; if it is a person, talk with that person."
)


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered, as far as is known."""

    answerer: Answerer
    evidence: str


@dataclass(frozen=True, slots=True)
class SilenceAgent:
    """A message will be left: until then nobody speaks."""


@dataclass(frozen=True, slots=True)
class LetAgentSpeak:
    """No message will be left after all: the agent goes on."""


@dataclass(frozen=True, slots=True)
class LeaveMessage:
    """Speak this and hang up."""

    text: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Hang up: there is nobody to talk with."""


@dataclass(frozen=True, slots=True)
class TellAgent:
    """Let the agent know what it talks with."""

    text: str


AnswerEffect: TypeAlias = Answered | SilenceAgent | LetAgentSpeak | LeaveMessage | GiveUp | TellAgent


class AnswerWatch:
    """Judges one answered call. `hear` and `words` take what the party says; when `done`, nothing more follows."""

    def __init__(self, wanted: AnswerDetection, encoding: Encoding, answered_at: float) -> None:
        self._wanted = wanted
        self._encoding = encoding
        self._detector = AnswerDetector(encoding, answered_at)
        self._effects: list[AnswerEffect] = []
        self._loud_at = answered_at
        self._deadline: float | None = None
        self._waits = False
        self.done = False

    @property
    def deadline(self) -> float | None:
        """When a message is left whether or not a beep came."""
        return self._deadline

    def take(self) -> list[AnswerEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    def hear(self, payload: bytes, now: float) -> None:
        """A frame of the party's sound."""
        if self.done:
            return
        if self._waits and g711.level(payload, self._encoding) >= SPEECH_LEVEL:
            self._loud_at = now
        self._detector.hear(payload, now)
        self._judge(now)
        if self._waits and now - self._loud_at >= GREETING_OVER_S:
            self._leave()
        elif not self._waits and self._detector.over(now):
            self.done = True

    def words(self, text: str, now: float) -> None:
        """What the party said."""
        if not self.done:
            self._detector.words(text, now)
            self._judge(now)

    def tick(self, now: float) -> None:
        """The beep did not come."""
        if self._deadline is not None and now >= self._deadline:
            self._leave()

    def _judge(self, now: float) -> None:
        for found in self._detector.take():
            if isinstance(found, BeepHeard):
                if self._waits:
                    self._leave()
            else:
                self._effects.append(Answered(found.answerer, found.evidence))
                self._act_on(found, now)

    def _act_on(self, found: Detected, now: float) -> None:
        if found.answerer is Answerer.HUMAN:
            return
        if found.answerer is Answerer.ANNOUNCEMENT:
            self._finish(GiveUp())
        elif found.answerer is Answerer.SCREENER:
            # First what it is: an agent that may speak again and owes a reply would give that before it knew.
            self._effects.append(TellAgent(_TOLD[Answerer.SCREENER]))
            self._stop_waiting()  # its long greeting was taken for a voicemail's before its words were known
        elif self._waits:
            return
        elif self._wanted.on_machine is OnMachine.TELL_AGENT:
            self._effects.append(TellAgent(_TOLD[Answerer.VOICEMAIL] if found.sure else _PERHAPS_VOICEMAIL))
        elif self._wanted.on_machine is OnMachine.HANG_UP or not self._wanted.message:
            if found.sure:  # nobody is hung up on for talking long
                self._finish(GiveUp())
        else:
            self._waits = True
            self._loud_at = now
            self._deadline = now + BEEP_PATIENCE_S
            self._effects.append(SilenceAgent())

    def _stop_waiting(self) -> None:
        if self._waits:
            self._waits = False
            self._deadline = None
            self._effects.append(LetAgentSpeak())

    def _leave(self) -> None:
        if self._waits and not self.done:
            self._finish(LeaveMessage(self._wanted.message or ""))

    def _finish(self, effect: LeaveMessage | GiveUp) -> None:
        self.done = True
        self._waits = False
        self._deadline = None
        self._effects.append(effect)

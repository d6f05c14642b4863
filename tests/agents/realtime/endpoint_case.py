"""A server session on a virtual clock: client events in, server events out, each checked against the openai package's types."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from switchhook.agents.brain import Action, Tool
from switchhook.agents.providers.grammar import Grammar
from switchhook.agents.realtime.endpoint.session import Close, Effect, RealtimeServerSession, Recognize, Send, Synthesize
from switchhook.domain.model import Encoding
from switchhook.media.tones import tone

Event = dict[str, Any]

_oracle: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
LOUD = tone([440], 20, Encoding.PCMU)
QUIET = b"\xff" * 160
PCMU = {"type": "audio/pcmu"}


def checked(text: bytes) -> Event:
    """Read a server event; it must be one that the openai package's types know."""
    event: Event = json.loads(text)
    assert _oracle.validate_python(event).type == event["type"]
    return event


class ScriptedBrain:
    """Answers each response with the next of `answers`, and remembers what it was told."""

    def __init__(self, *answers: Sequence[Action]) -> None:
        self.answers = list(answers)
        self.told: list[tuple[str, ...]] = []
        self.tools: list[str] = []

    def configure(self, instructions: str, tools: Sequence[Tool]) -> None:
        self.tools = [tool.name for tool in tools]

    @property
    def grammar(self) -> Grammar | None:
        return Grammar(("hello",))

    def heard(self, text: str) -> None:
        self.told.append(("heard", text))

    def typed(self, text: str) -> None:
        self.told.append(("typed", text))

    def silent(self) -> None:
        self.told.append(("silent",))

    def tool_returned(self, name: str, output: str) -> None:
        self.told.append(("tool", name, output))

    def respond(self, instructions: str | None, tools_allowed: bool) -> list[Action]:
        self.told.append(("respond", instructions or "", "tools" if tools_allowed else "no tools"))
        return list(self.answers.pop(0)) if self.answers else []


class Case:
    """A session whose jobs are done when the test says so."""

    def __init__(self, brain: ScriptedBrain, **session: Any) -> None:
        counters: dict[str, itertools.count[int]] = {}

        def ids(prefix: str) -> str:
            return f"{prefix}_{next(counters.setdefault(prefix, itertools.count(1)))}"

        self.now = 100.0
        self.brain = brain
        self.session = RealtimeServerSession(brain, "embedded", ids, self.now, is_speech=lambda linear: True)
        self.events: list[Event] = []
        self.hearings: list[Recognize] = []
        self.speeches: list[Synthesize] = []
        self.closed: Close | None = None
        self.drain()
        audio = {"input": {"format": PCMU, "transcription": {"model": "any"}}, "output": {"format": PCMU}}
        if "turn_detection" in session:
            audio["input"]["turn_detection"] = session.pop("turn_detection")
        self.send("session.update", session={"type": "realtime", "audio": audio, **session})
        assert self.types() == ["session.created", "session.updated"]
        self.events.clear()

    def drain(self) -> None:
        for effect in self.session.take():
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(text):
                self.events.append(checked(text))
            case Recognize():
                self.hearings.append(effect)
            case Synthesize():
                self.speeches.append(effect)
            case Close():
                self.closed = effect

    def does(self, change: Callable[[RealtimeServerSession], None]) -> None:
        change(self.session)
        self.drain()

    def send(self, kind: str, **fields: Any) -> None:
        self.does(lambda session: session.receive(json.dumps({"type": kind, **fields}).encode(), self.now))

    def audio(self, frames: str) -> None:
        """Append 20 ms frames in real time: `#` loud, `.` quiet."""
        for frame in frames:
            self.pass_time(0.02)
            self.send("input_audio_buffer.append", audio=base64.b64encode(LOUD if frame == "#" else QUIET).decode())

    def understood(self, text: str, place: int = -1) -> None:
        self.does(lambda session: session.recognized(self.hearings[place].job, text, self.now))

    def spoken(self, duration_ms: int, place: int = -1) -> None:
        sound = b"\x55" * (duration_ms * self.speeches[place].encoding.bytes_per_ms)
        self.does(lambda session: session.synthesized(self.speeches[place].job, sound, self.now))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.session.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            self.does(lambda session: session.tick(self.now))
            assert self.session.deadline is None or self.session.deadline > due, "the deadline does not move"
        self.now = end

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def last(self, kind: str) -> Event:
        return self.of(kind)[-1]

    def error(self) -> Event:
        """The one error since the last look."""
        (event,) = self.of("error")
        self.events.clear()
        error: Event = event["error"]
        return error

"""An agent, a leg's playout and a strict model on one virtual clock, with a caller whose every input is a call of a method."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from switchhook.agents.conversation import (
    AgentEffect,
    CloseModel,
    ConversationFailed,
    ConversationOver,
    Logged,
    ModelLoss,
    OpenModel,
    RunTool,
    SendToModel,
    Uttered,
)
from switchhook.agents.realtime.agent import RealtimeAgent
from switchhook.domain.model import Encoding, Speaker, Utterance
from switchhook.domain.plan import AgentSpec, BuiltinTool
from switchhook.media.playout import FRAME_S, Playout
from tests.peers.model import Event, ModelSession

EPOCH = datetime(2026, 3, 12, 10, tzinfo=UTC)
LINE = "The kitchen closes at ten tonight so come early"
PCMU = {"type": "audio/pcmu"}


def session_update(
    turn_detection: Event | str | None = "default", heard: Event | None = PCMU, spoken: Event | None = PCMU
) -> bytes:
    """A GA session as a customer writes it; `None` for a format leaves it out."""
    given: Event = {"transcription": {"model": "whisper-1"}} | ({"format": heard} if heard else {})
    if turn_detection != "default":
        given["turn_detection"] = turn_detection
    made: Event = {"format": spoken} if spoken else {}
    return json.dumps(
        {"type": "session.update", "session": {"type": "realtime", "audio": {"input": given, "output": made}}}
    ).encode()


class _Clock:
    """Both kinds of time, of a talk."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def now(self) -> float:
        return self._talk.now

    def utc(self) -> datetime:
        return EPOCH + timedelta(seconds=self._talk.now - 100.0)


class Talk:
    """`model` is the live session, `now` the clock; what the agent gave is in `lines`, `logs`, `tools`, `ends`."""

    def __init__(self, *, encoding: Encoding = Encoding.PCMU, connects: bool = True, beta: bool = False, **spec: Any) -> None:
        self.now = 100.0
        self.lines: list[Utterance] = []
        self.logs: list[str] = []
        self.tools: list[RunTool] = []
        self.ends: list[AgentEffect] = []
        self.opened: list[OpenModel] = []
        self.sessions: list[ModelSession] = []
        self.sound = bytearray()
        self.connects = connects
        self.beta = beta
        self.up = False
        self.waits_for_socket = False
        """The agent asked for a socket and has not closed it since."""
        self._inbox: list[tuple[ModelSession, bytes]] = []
        self._next_frame_at = self.now
        self._drained = False
        self.playout = Playout(encoding, on_drained=self._on_drained)
        spec.setdefault("session_update", session_update())
        spec.setdefault("speaks_first", False)
        spec.setdefault("builtin_tools", {"hang_up": BuiltinTool.END_CONVERSATION, "clock": BuiltinTool.UTC_DATETIME})
        ids = (f"id{number}" for number in itertools.count())
        self.agent = RealtimeAgent(
            AgentSpec("wss://model.example/v1", {"Authorization": "Bearer sk-secret-key"}, **spec),
            self.playout,
            encoding,
            _Clock(self),
            ids.__next__,
        )

    # -- the clock -------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass: frames leave the playout each 20 ms, the agent ticks when it asked to."""
        until = self.now + seconds
        while True:
            due = self.agent.deadline
            self.now = max(self.now, min(until, self._next_frame_at, until if due is None else due))
            if due is not None and due <= self.now:
                self.feed(self.agent.tick)
                after = self.agent.deadline
                assert after is None or after > due, "the deadline must move"
            elif self._next_frame_at <= self.now:
                self._play()
            elif self.now >= until:
                return

    def _play(self) -> None:
        self.sound += self.playout.next_frame(self.now) or b""
        self._next_frame_at += FRAME_S
        if self._drained:
            self._drained = False
            self.feed(self.agent.drained)

    def _on_drained(self) -> None:
        self._drained = True

    # -- inputs ----------------------------------------------------------------------------------

    def feed(self, change: Callable[[float], None]) -> None:
        """One input, then all effects, then what the model said to them."""
        change(self.now)
        self._perform()
        while self._inbox:
            session, frame = self._inbox.pop(0)
            if session is self.model and self.up:
                self.agent.model_frame(frame, self.now)
                self._perform()

    @property
    def model(self) -> ModelSession:
        return self.sessions[-1]

    def start(self) -> Talk:
        """Begin; a model that connects is ready at once."""
        self.feed(self.agent.start)
        return self

    def does(self, act: Callable[[ModelSession], Any]) -> Any:
        """The model does something; the agent gets the frames."""
        result = act(self.model)
        self.feed(lambda now: None)
        return result

    def frame(self, text: bytes) -> None:
        """A raw frame of the model."""
        self.feed(lambda now: self.agent.model_frame(text, now))

    def hear(self, payload: bytes) -> None:
        """The caller's sound."""
        frame = self.agent.hear(payload, self.now)
        if frame is not None:
            self.model.receive(frame)

    def press(self, digits: str) -> None:
        """Keys, at once."""
        for digit in digits:
            self.feed(lambda now, digit=digit: self.agent.digit(digit, now))  # type: ignore[misc]  # mypy cannot infer a lambda's default

    def returns(self, call_id: str, output: str) -> None:
        """A tool's result."""
        self.feed(lambda now: self.agent.tool_returned(call_id, output, now))

    def lose(self, retryable: bool = True) -> None:
        """The socket is gone."""
        self.up = self.waits_for_socket = False
        self.feed(lambda now: self.agent.model_lost(ModelLoss("the connection was closed", retryable), now))

    def connect(self) -> None:
        """The socket opens."""
        self.up = True
        self.sessions.append(ModelSession(self._from_model, self.beta))
        self.feed(self.agent.model_opened)

    # -- effects ---------------------------------------------------------------------------------

    def _from_model(self, event: Event) -> None:
        self._inbox.append((self.model, json.dumps(event).encode()))

    def _perform(self) -> None:
        while effects := self.agent.take():
            for effect in effects:
                self._effect(effect)

    def _effect(self, effect: AgentEffect) -> None:
        match effect:
            case OpenModel():
                assert not self.up, "OpenModel while a socket is open"
                self.opened.append(effect)
                self.waits_for_socket = True
                if self.connects:
                    self.connect()
            case SendToModel(text=text):
                assert self.up, "SendToModel without a socket"
                self.model.receive(text)
            case CloseModel():
                self.up = self.waits_for_socket = False
            case RunTool():
                self.tools.append(effect)
            case Uttered(utterance=line):
                self.lines.append(line)
            case Logged(text=text):
                self.logs.append(text)
            case ConversationOver() | ConversationFailed():
                self.ends.append(effect)

    # -- what a test asks ------------------------------------------------------------------------

    def transcript(self) -> list[tuple[str, str]]:
        """(speaker, text) in the order of the conversation."""
        lines = sorted(self.lines, key=lambda line: line.order)
        return [("agent" if line.speaker is Speaker.AGENT else "caller", line.text) for line in lines]


def well_behaved(talk: Talk) -> None:
    """The strict model found nothing wrong with what it was sent."""
    assert [str(error) for session in talk.sessions for error in session.errors] == []

"""What a call needs of any agent: its inputs, its effects, and nothing about the vendor behind it.

An agent is a machine. Packets are direct calls (`hear`, `model_frame`); everything else is an input with its time. A new model
protocol joins by implementing `Agent` in this room alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from switchhook.domain.model import ToolCall, Utterance
from switchhook.domain.ports import Playout


@dataclass(frozen=True, slots=True)
class OpenModel:
    """Open the WebSocket to the model; `model_opened` or `model_lost` must follow."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendToModel:
    """Send one text frame."""

    text: bytes


@dataclass(frozen=True, slots=True)
class CloseModel:
    """Close the socket; no `model_lost` is expected for it."""

    last: bytes | None = None
    """A text frame to send before."""


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool; `tool_returned` must follow exactly once."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Uttered:
    """A line of the transcript is final."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Logged:
    """A line for the call's log, free of secrets."""

    text: str


@dataclass(frozen=True, slots=True)
class ConversationOver:
    """The agent has said goodbye and the goodbye was heard (or its 15 s are over), or nobody spoke for too long: hang up."""

    reason: str = "agent-ended"
    """For the verdict: `agent-ended` or `silence`."""


class FailureKind(Enum):
    """When the agent failed."""

    NOT_ESTABLISHED = "not-established"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ConversationFailed:
    """The agent cannot go on; the flow takes its failure branch. Nothing follows."""

    kind: FailureKind
    detail: str


AgentEffect: TypeAlias = OpenModel | SendToModel | CloseModel | RunTool | Uttered | Logged | ConversationOver | ConversationFailed


@dataclass(frozen=True, slots=True)
class ModelLoss:
    """Why the model's socket is gone or never came up."""

    detail: str
    """For the log; no secret."""
    retryable: bool = True
    """False for a handshake answered 4xx or an address that egress refuses."""


@dataclass(frozen=True, slots=True)
class ConsultTool:
    """A tool that the model has only while it talks with the destination of a transfer."""

    name: str
    description: str
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Optional arguments and the words that each may be."""


class Agent(Protocol):
    """A conversation with one caller. Time is an argument; `take` gives effects in order."""

    def start(self, now: float, waiting: bool = False) -> None:
        """Begin: gives `OpenModel`. `waiting`: get ready, and say nothing before `party_arrived`."""

    def speak_first(self, now: float) -> None:
        """Say something as soon as possible: the greeting that was to be played could not be."""

    def party_arrived(self, now: float) -> None:
        """The party that was being called has answered."""

    def told(self, text: str, now: float) -> None:
        """Something that the model should know about the party; it reacts to it when it may speak."""

    def move(self, playout: Playout, now: float) -> None:
        """The party is heard through another line from here on, in the same encoding."""

    def pause(self, now: float) -> None:
        """Nobody listens: fall silent and answer nothing until `resume` or `consult`."""

    def consult(self, playout: Playout, briefing: str, tools: Sequence[ConsultTool], now: float) -> None:
        """Talk with another party, heard through `playout`, until `resume`.

        `briefing` tells the model who that is; `tools` are added for this time.
        """

    def resume(self, playout: Playout, now: float) -> None:
        """Talk with the first party again."""

    def hear(self, payload: bytes, now: float) -> bytes | None:
        """One frame of the caller's sound in the leg's encoding; gives the text frame to send now, or None when kept."""

    def model_opened(self, now: float) -> None:
        """The socket is open."""

    def model_frame(self, data: bytes, now: float) -> None:
        """One text frame of the model. Sound goes straight to the playout; the rest shows in `take`."""

    def model_lost(self, loss: ModelLoss, now: float) -> None:
        """The socket closed, or could not be opened."""

    def tool_returned(self, call_id: str, output: str, now: float) -> None:
        """A tool's text for the model."""

    def digit(self, digit: str, now: float) -> None:
        """The caller pressed a key."""

    def drained(self, now: float) -> None:
        """All queued sound has been heard."""

    def stop(self, now: float) -> None:
        """The call is over: say what was heard and close the model, at once or by the `deadline` that is left.

        With a deadline the agent still waits for what the model has to tell of the talk; `CloseModel` is then its last effect.
        Stopped again, it waits no longer.
        """

    @property
    def usage(self) -> Mapping[str, int]:
        """Tokens summed over the conversation."""

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""

    def tick(self, now: float) -> None:
        """The deadline passed."""

    def take(self) -> list[AgentEffect]:
        """Effects so far, in order."""

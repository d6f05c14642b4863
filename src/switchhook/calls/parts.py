"""What every call is given by the house around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from switchhook.agents.conversation import Agent, ModelLoss
from switchhook.calls.machine import CallLimits
from switchhook.calls.transfer import WaitingSound
from switchhook.domain.model import Encoding
from switchhook.domain.plan import AgentSpec
from switchhook.domain.ports import (
    CallBook,
    CallRouting,
    Clock,
    Dialer,
    DiallingGate,
    Greetings,
    Leg,
    NextFlows,
    Playout,
    Recorders,
    Voice,
)


class ModelLink(Protocol):
    """The WebSocket to a model; methods return at once and never raise."""

    def open(self, url: str, headers: Any) -> None:
        """Connect; `on_open` or `on_lost` follows."""

    def send(self, text: bytes) -> None:
        """Send one text frame."""

    def close(self) -> None:
        """Close for good; nothing follows."""


class AgentMaker(Protocol):
    """Makes the agent that a spec names, and its link to the model."""

    def agent(self, spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
        """An agent that has not started."""

    def link(
        self,
        on_open: Callable[[], None],
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[ModelLoss], None],
    ) -> ModelLink:
        """A link that is not open."""


class Joined(Protocol):
    """Two lines that hear each other."""

    def digit(self, pressed_on: Leg, digit: str) -> None:
        """A key was pressed on one of the lines: the other one hears it."""

    def answered(self) -> None:
        """The other line, joined early, has answered; idempotent."""

    def close(self) -> None:
        """Take the two apart; idempotent."""


class Joining(Protocol):
    """Sound between lines, and for a line that waits."""

    def join(self, one: Leg, other: Leg, early: bool = False) -> Joined:
        """Let two lines hear each other. `early`: the other one has not answered; until it is heard, `one` hears ringback."""

    def play(self, leg: Leg, sound: WaitingSound) -> None:
        """Play this to a waiting party until `quiet`."""

    def quiet(self, leg: Leg) -> None:
        """Stop what is played to a waiting party."""


@dataclass(frozen=True, slots=True)
class CallParts:
    """What every call is given."""

    routing: CallRouting
    book: CallBook
    agents: AgentMaker
    recorders: Recorders
    voice: Voice
    clock: Clock
    dialer: Dialer
    dialling: DiallingGate
    joining: Joining
    limits: CallLimits = field(default_factory=CallLimits)
    greetings: Greetings | None = None
    """None: sounds from the customer are passed over."""
    next_flows: NextFlows | None = None
    """None: a flow that asks how it goes on ends."""

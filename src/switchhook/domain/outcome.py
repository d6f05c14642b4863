"""How calls end: five outcomes for the operator, one ending for the contract."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The verdict on a call; every call, accepted or not, ends with exactly one."""

    SUCCESS = "success"
    """The system did its work, whoever hung up."""
    CLIENT_ERROR = "client-error"
    """The caller's side asked for something that cannot be had (unknown number, bad SDP)."""
    SERVER_ERROR = "server-error"
    """We failed."""
    UPSTREAM_ERROR = "upstream-error"
    """The customer's webhook or the AI failed."""
    INDETERMINATE = "indeterminate"
    """The process ended before the call did."""


class Ending(Enum):
    """What a call came to, in the terms that contracts translate into their status codes."""

    COMPLETED = "completed"
    CALL_START_FAILED = "call-start-failed"
    AGENT_NOT_ESTABLISHED = "agent-not-established"
    AGENT_LOST = "agent-lost"
    OUTBOUND_NOT_PLACED = "outbound-not-placed"
    INTERNAL_ERROR = "internal-error"
    REJECTED = "rejected"
    """Refused before any webhook: no such number, over capacity, not allowed."""
    ABANDONED = "abandoned"
    """The caller gave up before the answer."""

    @property
    def outcome(self) -> Outcome:
        """The operator's verdict for this ending."""
        return _OUTCOMES[self]


_OUTCOMES = {
    Ending.COMPLETED: Outcome.SUCCESS,
    Ending.ABANDONED: Outcome.SUCCESS,
    Ending.CALL_START_FAILED: Outcome.UPSTREAM_ERROR,
    Ending.AGENT_NOT_ESTABLISHED: Outcome.UPSTREAM_ERROR,
    Ending.AGENT_LOST: Outcome.UPSTREAM_ERROR,
    Ending.OUTBOUND_NOT_PLACED: Outcome.UPSTREAM_ERROR,
    Ending.INTERNAL_ERROR: Outcome.SERVER_ERROR,
    Ending.REJECTED: Outcome.CLIENT_ERROR,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """An ending with its reason."""

    ending: Ending
    reason: str
    """Short, kebab-case, stable: `caller-hung-up`, `agent-ended`, `max-duration`, `media-timeout`, `call-start-timeout`…"""
    message: str | None = None
    """A short English sentence for people."""

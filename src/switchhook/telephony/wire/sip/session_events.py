"""What the user agent tells the shell about sessions. Each names the session it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, TypeAlias

from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sip.flow import Flow, Send
from switchhook.telephony.wire.sip.message import Request

SessionId = NewType("SessionId", int)
"""Names a session of one user agent; never used again."""


@dataclass(frozen=True, slots=True)
class Invited:
    """A call came in and was admitted; 100 is sent. `ring`, `answer`, `reject` or `hang_up` decides on it."""

    session: SessionId
    request: Request
    flow: Flow
    trunk: str | None
    """What the gatekeeper said about where it came from."""
    encoding: str | None
    """`PCMU` or `PCMA`, as an answer would agree on; None when the INVITE has no offer."""


@dataclass(frozen=True, slots=True)
class Declined:
    """A call from an admitted source could not be taken as it was asked for, and was refused at once. There is no session."""

    request: Request
    flow: Flow
    trunk: str | None
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The 200 is sent."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class MediaAgreed:
    """Offer and answer are complete, for the first time or again: where sound goes and how it is coded."""

    session: SessionId
    media: Negotiated


@dataclass(frozen=True, slots=True)
class DigitReported:
    """A DTMF digit came by INFO."""

    session: SessionId
    digit: str
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: once for each, whoever ended it."""

    session: SessionId
    reason: str
    """The reasons of `domain.ports.LegEnded`."""
    detail: str = ""


SessionEvent: TypeAlias = Invited | Declined | Answered | MediaAgreed | DigitReported | Ended
UserAgentEffect: TypeAlias = Send | SessionEvent

"""What the user agent tells the shell about sessions. Each names the session it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sip.flow import Send

if TYPE_CHECKING:
    from switchhook.telephony.wire.sip.invite_session import InviteSession


@dataclass(frozen=True, slots=True)
class Invited:
    """A call came in and was admitted; 100 is sent. `ring`, `answer`, `reject` or `hang_up` decides on it."""

    session: InviteSession
    trunk: str | None
    """What the gatekeeper said about where it came from."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The 200 is sent."""

    session: InviteSession


@dataclass(frozen=True, slots=True)
class MediaAgreed:
    """Offer and answer are complete, for the first time or again: where sound goes and how it is coded."""

    session: InviteSession
    media: Negotiated


@dataclass(frozen=True, slots=True)
class DigitReported:
    """A DTMF digit came by INFO."""

    session: InviteSession
    digit: str
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: once for each, whoever ended it."""

    session: InviteSession
    reason: str
    """The reasons of `domain.ports.LegEnded`."""
    detail: str = ""


SessionEvent: TypeAlias = Invited | Answered | MediaAgreed | DigitReported | Ended
UserAgentEffect: TypeAlias = Send | SessionEvent

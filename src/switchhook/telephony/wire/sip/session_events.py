"""What the user agent tells the shell about sessions. Each names the session it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, TypeAlias

from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.flow import Flow, Send
from switchhook.telephony.wire.sip.message import Request, Response

SessionId = NewType("SessionId", int)
"""Names a session of one user agent; never used again."""
RequestId = NewType("RequestId", int)
"""Names a request outside of dialogs."""


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
    replaces: SessionId | None = None
    """The answered call is to take the place of this one (RFC 3891): answer, then hang that one up."""
    srtp: SrtpMode = SrtpMode.OFF
    """What the gatekeeper said of encryption; the offer was judged by it, and the answer must be made with it."""


@dataclass(frozen=True, slots=True)
class Declined:
    """A call from an admitted source could not be taken as it was asked for, and was refused at once. There is no session."""

    request: Request
    flow: Flow
    trunk: str | None
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """A provisional response to an INVITE of ours, but 100: it rings, or plays something."""

    session: SessionId
    status: int
    early_media: Negotiated | None
    """What its sender and we have agreed on so far; None: no sound comes yet."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The 200 is sent, or has come."""

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
class Referred:
    """How a REFER of ours stands. The last one of each REFER is `final`; the session goes on until somebody hangs up."""

    session: SessionId
    status: int
    """202: the peer takes it; after that, by NOTIFY, the status of the new call. A refusal has the peer's status, or ours: 408
    when the peer does not answer, 503 when it cannot be reached, 481 when there is no answered call. 408 also ends a REFER that
    was accepted and whose outcome was not told in time. 0: the session ended before the outcome was told; `Ended` follows."""
    final: bool
    accepted: bool
    """The peer has tried, or is trying."""


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """The peer asks by REFER that we call somebody; 202 and NOTIFY 100 are sent. `refer_result` answers it."""

    session: SessionId
    target: str
    """A sip, sips or tel URI."""
    replaces: str | None
    """The Replaces header that the new INVITE must carry."""
    referred_by: str | None
    """The Referred-By header (RFC 3892), to be carried along."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: once for each, whoever ended it."""

    session: SessionId
    reason: str
    """The reasons of `domain.ports.LegEnded`."""
    detail: str = ""
    status: int | None = None
    """The final answer to an INVITE of ours that failed; 408 also for one that nobody answered."""
    retry_after_s: int | None = None
    """What that answer says of when to ask again (RFC 3261 §20.33)."""


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """A request of ours outside every dialog has its final answer, or will have none."""

    request: RequestId
    response: Response | None
    reason: str = ""
    """Why there is no response: `timeout` or `transport`."""


SessionEvent: TypeAlias = (
    Invited | Declined | Progressed | Answered | MediaAgreed | DigitReported | Referred | TransferRequested | Ended
)
UserAgentEffect: TypeAlias = Send | SessionEvent | RequestAnswered

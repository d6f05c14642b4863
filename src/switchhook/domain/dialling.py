"""Placing calls: what is asked for, who may ask, and what came of it, with its evidence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from switchhook.domain.model import CallId, Encoding

MOST_EXTENSION_DIGITS = 6
"""An extension of digits alone has no more; what has more is a telephone number."""
RING_S = 45.0
"""How long a party that we call may ring when nobody says otherwise."""
TRANSFER_RING_S = 30.0
"""The same of a destination that a caller is handed to."""
_BLOCK = re.compile(r"([0-9]+)-([0-9]+)")


class DialResult(Enum):
    """What an attempt to reach a party came to. Contracts translate it into their own words."""

    CONNECTED = "connected"
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    DECLINED = "declined"
    UNREACHABLE = "unreachable"
    """The network says that there is no such number."""
    VOICEMAIL = "voicemail"
    """A machine answered."""
    CANCELLED = "cancelled"
    """Given up by our side before anyone answered."""
    DROPPED = "dropped"
    """The party hung up after it had answered and before it was put through."""
    TRUNK_ERROR = "trunk-error"
    """No trunk could carry the call: none is configured, all failed, or the far side answered 5xx or nothing."""
    POLICY = "policy"
    """The account's dialling policy refused it; nothing was dialled."""
    REFERRED = "referred"
    """The peer took the caller over and did not say what came of it."""
    FAILED = "failed"
    """The far side refused for another reason."""
    ERROR = "error"
    """We failed."""


_RESULTS = {
    403: DialResult.FAILED,
    404: DialResult.UNREACHABLE,
    408: DialResult.NO_ANSWER,
    410: DialResult.UNREACHABLE,
    480: DialResult.NO_ANSWER,
    484: DialResult.UNREACHABLE,
    486: DialResult.BUSY,
    487: DialResult.NO_ANSWER,
    600: DialResult.BUSY,
    603: DialResult.DECLINED,
    604: DialResult.UNREACHABLE,
    606: DialResult.FAILED,
    607: DialResult.DECLINED,
    608: DialResult.DECLINED,
}


def result_of_status(status: int) -> DialResult:
    """What a final SIP answer to an INVITE of ours means (contract `vns-veevo` §1.8)."""
    if 200 <= status < 300:
        return DialResult.CONNECTED
    if 500 <= status < 600:
        return DialResult.TRUNK_ERROR
    return _RESULTS.get(status, DialResult.FAILED)


_ENDS = {
    "no-answer": DialResult.NO_ANSWER,
    "trunk-failed": DialResult.TRUNK_ERROR,
    "hung-up": DialResult.CANCELLED,
    "callee-hung-up": DialResult.DROPPED,
    "media-timeout": DialResult.DROPPED,
    "session-expired": DialResult.DROPPED,
}


def result_of_end(reason: str, status: int | None) -> DialResult:
    """What it means that a leg which we dialled ended before it was put through: by `LegEnded.reason` and its SIP status."""
    if reason == "refused" and status is not None:
        return result_of_status(status)
    if reason.startswith("policy-"):
        return DialResult.POLICY
    return _ENDS.get(reason, DialResult.ERROR)


class DialPurpose(Enum):
    """Why a call is placed."""

    OUTBOUND = "outbound"
    TRANSFER = "transfer"
    FAILOVER = "failover"
    """The route that a number names for the case that its agent fails."""
    MESSAGE = "message"
    """A text message; the same rules say whom it may reach."""


@dataclass(frozen=True, slots=True)
class DialRequest:
    """A call to be placed; the policy has allowed it."""

    call_id: CallId
    """The call it belongs to, for logs and records."""
    account: str
    called: str
    """E.164 with its plus sign, or a SIP URI where the policy allows one."""
    caller: str
    """The number shown, E.164 or as the line gave it; empty: anonymous."""
    caller_name: str | None = None
    encoding: Encoding = Encoding.PCMU
    """What the leg speaks to the house; the wire is translated when the far side agrees on the other G.711."""
    ring_s: float = RING_S
    """Given up as `no-answer` after ringing so long."""
    referred_by: str | None = None
    replaces: str | None = None
    """The value of a Replaces header (RFC 3891): the call that this one takes the place of."""


@dataclass(frozen=True, slots=True)
class DiallingRules:
    """What an account may dial. The defaults fail closed: the account's own country, no premium numbers."""

    countries: tuple[str, ...] | None = None
    """ISO 3166 codes; None: the country of the account's own numbers alone."""
    deny_prefixes: tuple[str, ...] = ()
    """E.164 prefixes, with the plus sign."""
    allow_prefixes: tuple[str, ...] = ()
    """Set: only these prefixes within the countries."""
    allow_premium: bool = False
    """Premium, shared-cost, personal and satellite ranges, and ranges that the numbering plan does not know."""
    calls_per_second: float = 5.0
    concurrent: int = 100
    max_seconds: float = 3600.0
    """Longest outbound call or transfer leg."""
    max_spend_per_day: float | None = None
    """US dollars of carrier minutes, estimated by `price_per_minute`."""
    price_per_minute: float | None = None
    do_not_call: tuple[str, ...] = ()
    """E.164 numbers that are never dialled."""
    calling_hours: tuple[str, str] | None = None
    """Local time of the callee, `("09:00", "20:00")`; None: always."""
    default_country: str = "US"
    """Completes numbers written without a country code."""


COUNTING_RULES = ("rate", "concurrency", "spend")
"""Rules that count what the account does: they let the same call, or message, through later."""
PASSING_RULES = ("hours", *COUNTING_RULES, "unavailable")
"""All rules that let the same call through later."""


@dataclass(frozen=True, slots=True)
class DialRefused:
    """The policy does not allow the call."""

    rule: str
    """Name of the rule: `number`, `do-not-call`, `deny-prefix`, `country`, `allow-prefix`, `premium`, `hours`, `rate`,
    `concurrency`, `spend`; `unavailable` when the policy could not judge."""
    message: str
    """For people: what was refused and which key changes it."""


@dataclass(frozen=True, slots=True)
class DialPermit:
    """The policy allows the call; it counts against the account until it is released."""

    called: str
    """Normalised: E.164, or the SIP URI of an extension of one of the account's trunks."""
    max_seconds: float
    token: int = field(default=0)
    """Names the permit when it is given back."""


def allows_extension(allowed: Iterable[str], extension: str) -> bool:
    """Whether a trunk's `extensions` hold this one: `1001`, `1000-1999` (all of as many digits), or the name of a SIP user."""
    return any(_holds(entry, extension) for entry in allowed)


def _holds(entry: str, extension: str) -> bool:
    block = _BLOCK.fullmatch(entry)
    if block is None:
        return entry == extension
    first, last = block.groups()
    digits = extension.isascii() and extension.isdigit()
    return digits and len(first) == len(extension) == len(last) and first <= extension <= last

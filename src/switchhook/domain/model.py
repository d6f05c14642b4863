"""The nouns of a phone call and of what a customer owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NewType

CallId = NewType("CallId", str)
"""Lower-case UUID of one call; contracts show it under their own name (VNS: sessionGuid)."""

JsonObject = Mapping[str, Any]


class Encoding(Enum):
    """How samples are laid out in bytes; the value is the media type of the OpenAI Realtime protocol."""

    PCMU = "audio/pcmu"
    """G.711 µ-law, 8,000 Hz, one byte a sample."""
    PCMA = "audio/pcma"
    """G.711 A-law, 8,000 Hz, one byte a sample."""
    PCM24 = "audio/pcm"
    """Signed 16-bit little-endian, 24,000 Hz."""

    @property
    def rate_hz(self) -> int:
        """Samples a second."""
        return 24_000 if self is Encoding.PCM24 else 8_000

    @property
    def bytes_per_ms(self) -> int:
        """Bytes that one millisecond of mono sound takes."""
        return 48 if self is Encoding.PCM24 else 8

    @property
    def silence(self) -> bytes:
        """One sample of silence."""
        return {"PCMU": b"\xff", "PCMA": b"\xd5", "PCM24": b"\x00\x00"}[self.name]


class Direction(Enum):
    """Who placed the call."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A customer's HTTP endpoint with the headers that authenticate us there."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A telephone number of an account and the contract that runs its calls."""

    number: str
    """E.164, with the plus sign."""
    account: str
    contract: str
    """Name of the contract folder: `vns`."""
    settings: JsonObject = field(repr=False)
    """What the contract's folder validated: webhooks, fallback and the contract's own options."""


class Srtp(Enum):
    """Whether sound on a trunk is encrypted (RFC 4568)."""

    OFF = "off"
    OFFERED = "offered"
    """Encrypted when the peer can."""
    REQUIRED = "required"
    """A peer that cannot is refused with 488."""


class TransferMode(Enum):
    """How a caller is handed on over a trunk."""

    BRIDGE = "bridge"
    """We dial the destination and stay in the media path."""
    REFER = "refer"
    """The peer is asked to do it (RFC 3515); when it refuses, we bridge."""
    CARRIER = "carrier"
    """The line's carrier dials on our order and tells how the talk went (Twilio's `<Dial>`). No trunk is set to this."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """A SIP peer: a carrier or a PBX."""

    name: str
    account: str
    address: str
    """SIP URI where outbound calls go."""
    allow_from: tuple[str, ...] = ()
    """CIDR blocks that may send calls without digest."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    """With a user name: what the peer must prove by digest when its address is not in `allow_from`, and what we prove to it."""
    register: bool = False
    """Register with the peer, so that it knows where to send calls."""
    transport: str | None = None
    """`udp`, `tcp` or `tls`; None: what the address says, else udp."""
    srtp: Srtp = Srtp.OFF
    transfer: TransferMode = TransferMode.BRIDGE
    priority: int = 100
    """Outbound calls try the trunks of an account in rising order."""
    max_calls: int | None = None
    """Most outbound calls at one time; None: no limit of the trunk's own."""
    calls_per_second: float | None = None
    probe_s: float | None = None
    """Ask by OPTIONS this often whether the peer lives; a dead one is tried last. None: never."""
    number_form: str = "e164"
    """How called and calling numbers are written to the peer: `e164`, `plain` (no plus sign) or `national`."""
    caller_ids: tuple[str, ...] = ()
    """Calling numbers the peer lets us show, E.164; empty: any."""
    default_caller_id: str | None = None
    """Shown in place of a number that is not in `caller_ids`."""
    extensions: tuple[str, ...] = ()
    """Those behind the peer that the account may dial: `1001`, `1000-1999`, names of SIP users. Empty: none."""
    follow_redirects: bool = False
    """Call whom a 3xx of the peer names, at the peer's own addresses and within the dialling policy."""
    tls_ca: str | None = None
    """PEM file of the authorities that may vouch for the peer; None: the system's."""
    tls_verify: bool = True
    tls_certificate: str | None = None
    """PEM file with our client certificate and its chain."""
    tls_key: str | None = None


@dataclass(frozen=True, slots=True)
class CallAttempt:
    """A call that has arrived and wants to be routed."""

    call_id: CallId
    direction: Direction
    called: str
    """The number as the line gave it (user part of the request URI)."""
    caller: str
    caller_name: str | None
    account: str | None
    """The account of the trunk it came over; a number of another account is not found."""
    line: str
    """Kind of line: `sip`, `twilio`, `webrtc`."""
    started_at: datetime
    """UTC wall time of arrival."""
    line_call_id: str = ""
    """The line's own name for the call (SIP Call-ID)."""
    trunk: str | None = None
    customer_call_id: str | None = None


class Speaker(Enum):
    """Who spoke a line of the transcript."""

    AGENT = "agent"
    CALLER = "caller"
    """The call's party, whoever dialled."""
    DESTINATION = "destination"
    """Whom the agent consults before it puts the caller through."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A final line of the transcript: what was really heard."""

    speaker: Speaker
    text: str
    order: int
    """Position by conversation item within the call; sort by it."""
    at: datetime
    """UTC wall time at which the utterance began."""
    interrupted: bool = False
    """The caller cut the agent off; `text` ends at the word nearest the heard share of its audio."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call of the model."""

    call_id: str
    """The model's id; exactly one output is given back for it."""
    name: str
    arguments: str
    """The model's text, normally a JSON object."""


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """One attempt to hand the caller to another number."""

    called: str
    caller: str
    caller_name: str | None
    started_at: datetime
    ended_at: datetime
    result: str
    """The value of a `domain.dialling.DialResult`."""
    sip_status: int | None = None
    """The far side's final answer, the evidence for the result."""
    detail: str = ""
    """Why, for people; no secret."""
    referred: bool = False
    """The caller left us by REFER."""
    connected_at: datetime | None = None
    """When the caller was put through."""

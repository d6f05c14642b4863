"""What is to happen on a call: flow actions, the agent they name, and the plan that a contract makes of its webhook's reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

from switchhook.domain.dialling import RING_S, TRANSFER_RING_S, DialPurpose
from switchhook.domain.model import Number
from switchhook.domain.outcome import Ending


class BuiltinTool(Enum):
    """A tool that the gateway runs itself; contracts give them their own names."""

    END_CONVERSATION = "end_conversation"
    TRANSFER_CALL = "transfer_call"
    CALL_INFO = "call_info"
    UTC_DATETIME = "utc_datetime"
    RECORDING_PAUSE = "recording_pause"
    RECORDING_RESUME = "recording_resume"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A bot that speaks Twilio's Media Streams; the names are told to it."""

    account_sid: str = ""
    call_sid: str = ""
    stream_sid: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """An AI agent reached over a WebSocket that speaks a Realtime dialect."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    session_update: bytes = field(default=b"{}", repr=False)
    """The JSON text of the `session.update` event, forwarded without a change."""
    builtin_tools: Mapping[str, BuiltinTool] = field(default_factory=dict)
    """Tool name → what the gateway does itself; every other function call goes to the customer."""
    speaks_first: bool = True
    """Send one `response.create` after `session.updated`."""
    interrupt_response: bool = True
    """False: the caller's speech neither flushes the playout nor cancels the response."""
    transcribes_caller: bool = True
    """The session asks for transcription of the caller's audio."""
    roll_over_after_ms: int | None = 55 * 60_000
    """Open a new model session with the text so far after this long; None: never."""
    idle_hang_up_ms: int | None = None
    """End the conversation when neither side spoke and no tool ran for so long; None: never."""
    closing_note_after_ms: int | None = None
    """After so long the model is told `closing_note`, so that it can come to an end; None: never."""
    closing_note: str = ""
    stream: StreamSpec | None = None
    """Set: a bot that speaks Media Streams, no Realtime dialect; of the rest, `url` and `headers` count."""


@dataclass(frozen=True, slots=True)
class RecordingSpec:
    """How a call is recorded."""

    format: str = "opus"
    """`opus`, `mp3` or `wav`."""
    password: str | None = field(default=None, repr=False)
    """Set: the finished file is encrypted. Only the derived key is kept, wrapped by the server key."""
    pause_on_digits: bool = False
    """Silence while the party types digits, so that no card number is in the file."""


@dataclass(frozen=True, slots=True)
class JournalSpec:
    """What of a call is written down for its end webhook."""

    tool_requests: bool = False
    tool_replies: bool = False
    transcript: bool = False

    @property
    def logs(self) -> bool:
        """Whether log lines are kept at all."""
        return self.tool_requests or self.tool_replies or self.transcript


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the call."""


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a text with a local voice and wait until it has been heard."""

    text: str


@dataclass(frozen=True, slots=True)
class PlaySound:
    """Fetch a sound and play it; one that cannot be had is passed over."""

    url: str = field(repr=False)
    times: int = 1


@dataclass(frozen=True, slots=True)
class PressKeys:
    """Send digits to the party; `w` is a pause of half a second, `W` of a whole one."""

    keys: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait in silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AskNext:
    """Ask the customer how the flow goes on; the answer takes the place of what is left of it."""

    url: str = field(repr=False)
    method: str = "POST"
    after_dial: bool = False
    """Tell how the `RouteTo` before it went."""
    fallback: AskNext | None = None
    """Asked when this one gives nothing usable, and told why."""


@dataclass(frozen=True, slots=True)
class RouteTo:
    """Hand the caller to another number."""

    number: str
    caller: str | None = None
    """The number that the destination is shown; None: the caller's own."""
    ring_s: float = TRANSFER_RING_S
    talk_s: float | None = None
    """Longest talk; None: as long as the dialling policy allows."""
    returns: bool = False
    """The flow goes on when the talk is over and the caller is still there; else the call ends with it."""
    asks: AskNext | None = None
    """What takes the place of the rest of the flow then, and after a failure."""
    purpose: DialPurpose = DialPurpose.FAILOVER


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call."""


@dataclass(frozen=True, slots=True)
class Converse:
    """Let an agent talk with the caller; on failure run the other branch."""

    agent: AgentSpec
    on_failure: tuple[Action, ...] = ()
    greeting_url: str | None = field(default=None, repr=False)
    """Sound that is fetched and played while the model connects; when that fails, the agent is asked to speak first."""


Action: TypeAlias = Answer | Say | PlaySound | PressKeys | Pause | RouteTo | AskNext | HangUp | Converse


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """The agent's wish, or a flow's, to hand the caller to another number."""

    called: str
    """As it was written; the dialling policy reads it."""
    caller: str
    """The number that the destination is shown."""
    caller_name: str | None = None
    attended: bool = False
    """The agent speaks with the destination before the caller is put through."""
    purpose: DialPurpose = DialPurpose.TRANSFER
    ring_s: float = TRANSFER_RING_S
    consult_s: float = 60.0
    """Longest talk between agent and destination before it is put through or given up."""
    talk_s: float | None = None
    """Longest talk of caller and destination; None: as long as the dialling policy allows."""
    returns: bool = False
    """The caller is wanted back: no line's peer is asked to connect it, the two are joined here."""


class OnMachine(Enum):
    """What an outbound call does about a voicemail."""

    HANG_UP = "hang_up"
    LEAVE_MESSAGE = "leave_message"
    """A text is spoken after the beep, then the call ends."""
    TELL_AGENT = "tell_agent"


@dataclass(frozen=True, slots=True)
class AnswerDetection:
    """Whether an outbound call finds out who answered, and what it does about a machine."""

    on_machine: OnMachine
    message: str | None = None
    """For LEAVE_MESSAGE."""


@dataclass(frozen=True, slots=True)
class CarrierCredentials:
    """What a customer's start webhook gave to steer this one call at its carrier with; in memory only."""

    account_sid: str = field(repr=False)
    auth_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A routed call: the flow to run and the promises that surround it."""

    number: Number
    flow: tuple[Action, ...]
    max_seconds: float = 3600.0
    """Longest time between answer and hang-up."""
    max_seconds_cover_transfers: bool = False
    """False: the time limit is the agent's; two people who were put through may talk on."""
    record_transfers: bool = True
    """False: the recording stops when the caller is put through."""
    ring_s: float = RING_S
    """How long an outbound call rings before it is given up."""
    answer_detection: AnswerDetection | None = None
    """Of an outbound call; None: whoever answers is taken for a person."""
    customer_call_id: str | None = None
    recording: RecordingSpec | None = None
    journal: JournalSpec = field(default_factory=JournalSpec)
    ending: Ending = Ending.COMPLETED
    """What the call came to when its flow runs to the end; a fallback flow says `CALL_START_FAILED`."""
    message: str | None = None
    """Why, for people, when `ending` is not COMPLETED."""
    notes: tuple[str, ...] = ()
    """Lines for the call's log: what of the start webhook's reply was ignored, coerced or left out; no secret."""
    contract_data: object = field(default=None, repr=False)
    """What the contract's folder wants back with each tool call; lives in memory only (it may hold secrets)."""
    end_webhook_owed: bool = True
    """False: the contract tells its customer nothing of how this call ends."""
    carrier: str | None = None
    """Whose minutes the call is priced by, a name of the price table; None: those of its kind of line."""
    carrier_usd_per_minute: Decimal | None = None
    """Priced by this instead."""
    carrier_credentials: CarrierCredentials | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call is not taken."""

    status: int
    """SIP status for the line."""
    ending: Ending
    reason: str
    """Short kebab-case reason for the call record."""
    number: Number | None = None
    """Set when the number was found."""
    end_webhook_owed: bool = False
    """True when a CallStart attempt was made, so that the contract's end webhook is owed."""
    retry_after_s: int | None = None
    message: str | None = None
    """The same for people; the verdict carries it on to the end webhook."""

"""A line, a model link, a book and the rest, all in memory and strict, for sessions on virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from switchhook.agents.conversation import Agent, ModelLoss
from switchhook.calls.parts import Joined, ModelLink
from switchhook.calls.transfer import WaitingSound
from switchhook.domain.dialling import DialPermit, DialPurpose, DialRefused, DialRequest
from switchhook.domain.errors import VoiceUnavailable
from switchhook.domain.model import CallAttempt, CallId, Direction, Encoding, ToolCall, TransferMode, TransferRecord, Utterance
from switchhook.domain.plan import AgentSpec, CallPlan, RecordingSpec, Refusal, TransferOrder
from switchhook.domain.ports import (
    CallJournal,
    FrameTap,
    Heard,
    Leg,
    LegAnswered,
    LegEnded,
    LegEvent,
    OfferedLeg,
    Playout,
    PlayoutDrained,
    Recorder,
    SoundSource,
    ToolRunner,
)
from switchhook.domain.report import CallReport

EPOCH = datetime(2026, 3, 12, 10, 42, 15, tzinfo=UTC)


class LoopClock:
    """The running loop's time, and a wall clock beside it."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now())


class FakePlayout:
    """Plays at once what it is given and says drained one tick later."""

    def __init__(self, leg: FakeLeg) -> None:
        self._leg = leg
        self.played: list[tuple[str, bytes]] = []
        self._lengths: dict[str, int] = {}

    def enqueue(self, key: str, payload: bytes, now: float) -> None:
        self.played.append((key, payload))
        self._lengths[key] = self._lengths.get(key, 0) + len(payload) // 8

    def finish(self, key: str, now: float) -> None:
        asyncio.get_running_loop().call_later(0.02, self._drain)

    def _drain(self) -> None:
        self._lengths.clear()
        self._leg.emit(PlayoutDrained())

    def interrupt(self, now: float) -> Sequence[Heard]:
        heard = [Heard(key, length, length) for key, length in self._lengths.items()]
        self._lengths.clear()
        return heard

    def play_from(self, source: SoundSource | None) -> None:
        self.source = source

    def heard_ms(self, key: str, now: float) -> int:
        return self._lengths.get(key, 0)

    @property
    def idle(self) -> bool:
        return not self._lengths


class FakeLeg:
    """A line that counts what is done to it and lets the test say what happens on it."""

    def __init__(self) -> None:
        self.encoding = Encoding.PCMU
        self.playout: Playout = FakePlayout(self)
        self.encrypted = False
        self.done: list[str] = []
        self.transfer_mode = TransferMode.BRIDGE
        self.answers = True
        self.confirms = True
        self.closed = False
        self.ended = False
        self._on_event: Callable[[LegEvent], None] | None = None
        self.on_audio: Callable[[bytes, float], None] | None = None
        self.tapped: FrameTap | None = None

    def emit(self, event: LegEvent) -> None:
        if self.ended or self.closed:
            return
        if isinstance(event, LegEnded):
            self.ended = True
        if self._on_event is not None:
            self._on_event(event)

    def subscribe(self, on_event: Callable[[LegEvent], None]) -> None:
        self._on_event = on_event

    def listen(self, on_audio: Callable[[bytes, float], None] | None) -> None:
        self.on_audio = on_audio

    def tap(self, tap: FrameTap | None) -> None:
        self.tapped = tap

    def ring(self) -> None:
        self.done.append("ring")

    def answer(self) -> None:
        self.done.append("answer")
        if self.answers:
            self._soon(LegAnswered())

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        self.done.append(f"reject {status}")
        self._soon(LegEnded("rejected"))

    def hang_up(self) -> None:
        self.done.append("hang up")
        if self.confirms:
            self._soon(LegEnded("hung-up"))

    def close(self) -> None:
        self.closed = True

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        self.done.append(f"digit {digit}")

    def refer(self, target: str, replaces: Leg | None = None, caller: str = "", ring_s: float = 30.0) -> None:
        self.done.append(f"refer {target}" + (" attended" if replaces is not None else ""))

    def recall(self) -> None:
        self.done.append("recall")

    def refer_result(self, status: int) -> None:
        self.done.append(f"refer result {status}")

    @property
    def figures(self) -> Mapping[str, float]:
        return {"packets_in": 1.0}

    def _soon(self, event: LegEvent) -> None:
        asyncio.get_running_loop().call_soon(self.emit, event)


class FakeLink:
    """A model's socket; the test is the model."""

    def __init__(
        self, on_open: Callable[[], None], on_frame: Callable[[bytes], None], on_lost: Callable[[ModelLoss], None]
    ) -> None:
        self.on_open = on_open
        self.on_frame = on_frame
        self.on_lost = on_lost
        self.sent: list[bytes] = []
        self.opened = 0
        self.is_open = False

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        assert not self.is_open, "opened twice"
        self.opened += 1
        self.is_open = True

    def send(self, text: bytes) -> None:
        assert self.is_open, "sent on a closed socket"
        self.sent.append(text)

    def close(self) -> None:
        self.is_open = False


class FakeAgents:
    """Makes agents by the given function, on fake links."""

    def __init__(self, make: Callable[[AgentSpec, Playout, Encoding], Agent]) -> None:
        self._make = make
        self.links: list[FakeLink] = []

    def agent(self, spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
        return self._make(spec, playout, encoding)

    def link(
        self, on_open: Callable[[], None], on_frame: Callable[[bytes], None], on_lost: Callable[[ModelLoss], None]
    ) -> ModelLink:
        self.links.append(FakeLink(on_open, on_frame, on_lost))
        return self.links[-1]


@dataclass
class FakeJournal:
    """Keeps what it is told; tools take as long as the test says."""

    tool_s: float = 0.0
    lines: list[str] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)
    ran: list[ToolCall] = field(default_factory=list)
    tools_finished: int = 0

    def __post_init__(self) -> None:
        self.tools: ToolRunner = self

    async def run(self, call: ToolCall) -> str:
        self.ran.append(call)
        await asyncio.sleep(self.tool_s)
        self.tools_finished += 1
        return '{"status":"ok"}'

    def transfer_order(self, call: ToolCall) -> TransferOrder | str:
        asked = json.loads(call.arguments or "{}")
        return TransferOrder(asked["to"], "+13032639999", attended=bool(asked.get("attended"))) if "to" in asked else "no number"

    def transfer_output(self, call: ToolCall, transfer: TransferRecord) -> str:
        return json.dumps({"status": "failed", "result": transfer.result})

    def answered(self, at: datetime) -> None:
        self.lines.append("answered")

    def utterance(self, utterance: Utterance) -> None:
        self.utterances.append(utterance)

    def log(self, text: str, at: datetime) -> None:
        self.lines.append(text)


class FakeBook:
    """The records of finished calls."""

    def __init__(self, journal: FakeJournal) -> None:
        self.journal = journal
        self.reports: list[CallReport] = []

    def open(self, attempt: CallAttempt, plan: CallPlan) -> CallJournal:
        return self.journal

    async def finish(self, report: CallReport) -> None:
        await asyncio.sleep(0)
        self.reports.append(report)


class FakeRouting:
    """Decides what it was told to, after a while."""

    def __init__(self, decision: CallPlan | Refusal, delay_s: float = 0.1) -> None:
        self.decision = decision
        self.delay_s = delay_s

    async def route(self, attempt: CallAttempt) -> CallPlan | Refusal:
        await asyncio.sleep(self.delay_s)
        return self.decision


class FakeRecorders:
    """Counts recordings that were opened and stopped."""

    def __init__(self) -> None:
        self.open_now = 0
        self.opened = 0
        self.paused = False
        self.lines = 1
        self.on_failed: Callable[[str], None] | None = None

    def open(
        self,
        call_id: CallId,
        account: str,
        spec: RecordingSpec,
        encoding: Encoding,
        started_at: datetime,
        on_failed: Callable[[str], None] | None = None,
    ) -> Recorder:
        self.on_failed = on_failed
        self.open_now += 1
        self.opened += 1
        return self

    def received(self, payload: bytes, position: int) -> None:
        pass

    def sent(self, payload: bytes, position: int) -> None:
        pass

    def change_line(self) -> None:
        self.lines += 1

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def stop(self) -> None:
        self.open_now -= 1


class FakeVoice:
    """Speaks a second of silence, or has no voice."""

    def __init__(self, works: bool = True) -> None:
        self.works = works

    async def synthesize(self, text: str, encoding: Encoding) -> bytes:
        await asyncio.sleep(0.05)
        if not self.works:
            raise VoiceUnavailable
        return encoding.silence * 8000


def attempt(call_id: str = "9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1") -> CallAttempt:
    """An inbound call."""
    return CallAttempt(CallId(call_id), Direction.INBOUND, "7206999999", "3032639999", "John Smith", "acme", "sip", EPOCH)


class FakeDialer:
    """Dials lines that the test answers."""

    def __init__(self) -> None:
        self.requests: list[DialRequest] = []
        self.legs: list[FakeLeg] = []

    def dial(self, request: DialRequest) -> Leg:
        self.requests.append(request)
        self.legs.append(FakeLeg())
        return self.legs[-1]


class FakeGate:
    """A dialling policy that counts what it has let through."""

    def __init__(self) -> None:
        self.refusal: DialRefused | None = None
        self.delay_s = 0.01
        self.given = 0
        self.live: set[int] = set()
        self.talked_s: list[float] = []
        """Of the permits that came back."""

    async def admit(self, account: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        await asyncio.sleep(self.delay_s)
        if self.refusal is not None:
            return self.refusal
        return self.permit(number)

    def permit(self, number: str) -> DialPermit:
        self.given += 1
        self.live.add(self.given)
        return DialPermit(number, 3600, self.given)

    def release(self, permit: DialPermit, seconds: float) -> None:
        self.live.discard(permit.token)
        self.talked_s.append(seconds)


class FakeJoining:
    """Counts who is joined and who waits."""

    def __init__(self) -> None:
        self.joined: list[tuple[Leg, Leg]] = []
        self.early: list[tuple[Leg, Leg]] = []
        """Those of `joined` whose other line has not answered."""
        self.waiting: dict[int, WaitingSound] = {}
        self.digits: list[str] = []

    def join(self, one: Leg, other: Leg, early: bool = False) -> Joined:
        self.joined.append((one, other))
        if early:
            self.early.append((one, other))
        return _FakeJoined(self, (one, other))

    def play(self, leg: Leg, sound: WaitingSound) -> None:
        self.waiting[id(leg)] = sound

    def quiet(self, leg: Leg) -> None:
        self.waiting.pop(id(leg), None)


class _FakeJoined:
    def __init__(self, joining: FakeJoining, pair: tuple[Leg, Leg]) -> None:
        self._joining = joining
        self._pair = pair

    def digit(self, pressed_on: Leg, digit: str) -> None:
        assert pressed_on in self._pair
        self._joining.digits.append(digit)

    def answered(self) -> None:
        if self._pair in self._joining.early:
            self._joining.early.remove(self._pair)

    def close(self) -> None:
        self.answered()
        if self._pair in self._joining.joined:
            self._joining.joined.remove(self._pair)


def is_a_leg(leg: FakeLeg) -> OfferedLeg:
    """The type checker's proof that the fake is one."""
    return leg

"""Whole Veevo calls on virtual time, with the real agent, contract, prices and delivery: an hour at once, exact seconds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from switchhook.agents.conversation import Agent, ModelLoss
from switchhook.agents.realtime.agent import RealtimeAgent
from switchhook.calls.parts import CallParts, ModelLink
from switchhook.calls.session import CallSession
from switchhook.domain.contract import Contract, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.model import Encoding
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import AgentSpec
from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, Playout
from switchhook.domain.records import OutboxEvent
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.incoming import Incoming
from switchhook.usecases.outbox import Delivery
from switchhook.usecases.prices import load_prices
from switchhook.usecases.signing import SigningHttp, signature
from tests.api.veevo.cases import VEEVO, attempt, configuration, number, recorded
from tests.calls.fakes import FakeDialer, FakeGate, FakeJoining, FakeLeg, FakeRecorders, FakeVoice
from tests.peers.model import Event, ModelSession
from tests.peers.virtual_loop import run_virtual
from tests.server.veevo_house import USAGE
from tests.usecases.fakes import LoopClock
from tests.usecases.memory import MemoryNumbers, MemoryOutbox
from tests.usecases.test_one_end import MemoryCalls, Weather

CONTRACTS: Mapping[str, Contract] = {"veevo": VEEVO}
SECRET = "a-webhook-secret"
MINUTE_S = 60.0


class TimedLeg(FakeLeg):
    """A line that notes when it was answered."""

    answered_at = 0.0

    def emit(self, event: LegEvent) -> None:
        if isinstance(event, LegAnswered):
            self.answered_at = asyncio.get_running_loop().time()
        super().emit(event)


class StrictLink:
    """A model's socket without a socket: connected at once."""

    def __init__(self, on_open: Callable[[], None], on_frame: Callable[[bytes], None]) -> None:
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._on_frame = on_frame
        self.session = ModelSession(self._tell)
        self.url = ""
        self.is_open = False

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        self.url, self.is_open = url, True
        self._loop.call_soon(self._on_open)
        self._loop.call_soon(self.session.open)

    def send(self, text: bytes) -> None:
        assert self.is_open
        self.session.receive(text)

    def close(self) -> None:
        self.is_open = False

    def _tell(self, event: Mapping[str, Any]) -> None:
        self._loop.call_soon(self._arrive, json.dumps(event).encode())

    def _arrive(self, frame: bytes) -> None:
        if self.is_open:
            self._on_frame(frame)


class Agents:
    """Makes the real agent, on strict links."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._count = 0
        self.links: list[StrictLink] = []
        self.asked = asyncio.Event()
        """Set when a model is asked to speak."""

    def agent(self, spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
        return RealtimeAgent(spec, playout, encoding, self._clock, self._id)

    def link(
        self, on_open: Callable[[], None], on_frame: Callable[[bytes], None], on_lost: Callable[[ModelLoss], None]
    ) -> ModelLink:
        link = StrictLink(on_open, on_frame)
        link.session.on_event = self._took
        self.links.append(link)
        return link

    def _took(self, session: ModelSession, event: Event) -> None:
        if event["type"] == "response.create":
            self.asked.set()

    def _id(self) -> str:
        self._count += 1
        return f"id{self._count}"


@dataclass
class Backend:
    """The customer: takes every call with one configuration."""

    configuration: bytes
    ends: list[HttpRequest] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Of the call's end."""

    async def send(self, request: HttpRequest) -> HttpOutcome:
        await asyncio.sleep(0.05)
        if request.url.endswith("/start"):
            return HttpReply(200, self.configuration)
        self.ends.append(request)
        self.told.set()
        return HttpReply(200, b"")


class Whole:
    """A call with everything of the product that is not a socket or a database."""

    def __init__(self, reply: bytes, **settings: Any) -> None:
        ours, clock = number(**settings), LoopClock()
        self.backend = Backend(reply)
        self.leg, self.agents = TimedLeg(), Agents(clock)
        self.calls, self.outbox, numbers = MemoryCalls(Weather([]), 0.001), MemoryOutbox(), MemoryNumbers(ours)
        http = SigningHttp(self.backend, self._secret)
        self._delivery = Delivery(self.outbox, numbers, CONTRACTS, http, clock)
        routing = Incoming(numbers, self.calls, CONTRACTS, http, clock)
        book = CallBookkeeper(self.calls, CONTRACTS, http, clock, self._queued, load_prices())
        quiet = (FakeRecorders(), FakeVoice(True), clock, FakeDialer(), FakeGate(), FakeJoining())
        self._session = CallSession(attempt(), self.leg, CallParts(routing, book, self.agents, *quiet))

    @property
    def model(self) -> ModelSession:
        return self.agents.links[-1].session

    @property
    def end(self) -> HttpRequest:
        """The one onCallEnd, signed."""
        [end] = self.backend.ends
        assert end.headers["X-Veevo-Signature"] == signature(SECRET, end.body)
        return end

    @asynccontextmanager
    async def live(self) -> AsyncIterator[float]:
        """A call that is answered; gives when. After it the call is over and its end was delivered."""
        delivering = asyncio.ensure_future(self._delivery.run())
        living = asyncio.ensure_future(self._session.run())
        await self.agents.asked.wait()
        assert self.calls.row is not None
        yield self.leg.answered_at
        await living
        await self.backend.told.wait()
        self._delivery.stop()
        await delivering
        assert [str(error) for link in self.agents.links for error in link.session.errors] == []

    def _queued(self, event: OutboxEvent) -> None:
        self.outbox.events[event.event_id] = event
        self._delivery.offer(event)

    async def _secret(self, account: str) -> str | None:
        return SECRET


def say(model: ModelSession, words: str, usage: Mapping[str, Any] | None = None) -> None:
    """A whole response."""
    model.respond()
    model.say(words)
    model.finish(usage=dict(usage) if usage is not None else None)


def caller_says(model: ModelSession, words: str) -> None:
    """A whole turn of the caller."""
    item = model.speech_started()
    model.speech_stopped(item)
    model.transcribed(item, words)


def test_a_call_is_announced_to_end_at_55_minutes_and_ends_at_59() -> None:
    """With every default, in a talk that never falls silent. The caller is not cut off by the model's own end at 60."""
    call = Whole(configuration())

    async def story() -> None:
        async with call.live() as answered_at:
            noted_at = over_at = None
            while not call.leg.ended and not call.leg.closed:
                minute = (asyncio.get_running_loop().time() - answered_at) / MINUTE_S
                assert minute < 61
                caller_says(call.model, f"Still here at {minute:.1f}.")
                say(call.model, "So am I.", USAGE)
                if call.model.texts() and noted_at is None:
                    noted_at = minute
                over_at = minute
                await asyncio.sleep(30)
            assert noted_at is not None and over_at is not None
            assert 55 <= noted_at <= 55.6
            assert 58.4 <= over_at <= 59

    run_virtual(story())
    [(role, note)] = call.model.texts()
    assert (role, "four minutes" in note) == ("system", True)
    assert len(call.agents.links) == 1, "one session, from first to last"
    assert call.leg.done[-1] == "hang up"
    row = call.calls.row
    assert row is not None and row.ending is not None and row.connected_at is not None and row.ended_at is not None
    assert (row.ending, row.reason) == (Ending.COMPLETED, "max-duration")
    assert 0 <= (row.ended_at - row.connected_at).total_seconds() - 59 * MINUTE_S < 10
    told = json.loads(call.end.body, parse_float=Decimal)
    assert 3540 <= told["durationSeconds"] <= 3550
    assert {line["role"] for line in told["transcript"]} == {"assistant", "user"}
    turns = sum(line["role"] == "assistant" for line in told["transcript"])
    assert told["costBreakdown"]["inputTextTokens"] == 365 * turns
    assert told["costBreakdown"]["costInputText"] == Decimal("0.00146") * turns
    assert Decimal("0.5015") <= told["costBreakdown"]["costTwilio"] < Decimal("0.503")


def test_a_silent_call_ends_after_a_minute_by_default() -> None:
    """And with `inactivityTimeoutMs` of 0 it is the 59 minutes that end it."""
    for fields, seconds in (({}, 60), ({"inactivityTimeoutMs": 0}, 59 * 60)):
        call = Whole(configuration(**fields))

        async def story(call: Whole = call) -> None:
            async with call.live():
                say(call.model, "Hello?")

        run_virtual(story())
        assert seconds <= json.loads(call.end.body)["durationSeconds"] <= seconds + 10, fields


def test_the_documented_call_is_told_to_the_digit() -> None:
    """46.92 seconds and the documented tokens: every figure of the documented onCallEnd, and the true sum as their total."""
    call = Whole(configuration(metadata={"customerId": "cust_123"}), dialect="2026-04")

    async def story() -> None:
        async with call.live() as answered_at:
            say(call.model, "Hi, how can I help?")
            caller_says(call.model, "I need two units delivered Friday.")
            call.model.respond()
            call.model.finish("cancelled", "turn_detected", dict(USAGE))
            await asyncio.sleep(answered_at + 46.92 - asyncio.get_running_loop().time())
            call.leg.emit(LegEnded("caller-hung-up"))

    run_virtual(story())
    told, documented = (json.loads(body, parse_float=str) for body in (call.end.body, recorded("on_call_end_request.json")))
    assert told["costBreakdown"] == documented["costBreakdown"]
    assert list(told) == list(documented)
    for name in ("callSid", "durationSeconds", "metadata"):
        assert told[name] == documented[name]
    words = [[(line["role"], line["content"]) for line in body["transcript"]] for body in (told, documented)]
    assert words[0] == words[1]
    assert (told["costBreakdown"]["costTwilio"], told["costBreakdown"]["totalCost"]) == ("0.006647", "0.018683")
    row = call.calls.row
    assert row is not None
    assert (row.costs["carrier"], row.costs["total"]) == ("0.006647", "0.018683")

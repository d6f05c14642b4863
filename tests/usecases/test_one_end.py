"""One CallEnd for each call that had a CallStart attempt, whatever the database does meanwhile; none for any other call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.agents.conversation import Agent
from switchhook.calls.parts import CallParts
from switchhook.calls.session import CallSession
from switchhook.domain.contract import Contract, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId, Encoding, Number
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import AgentSpec
from switchhook.domain.ports import LegEnded, Playout
from switchhook.domain.records import CallLine, CallProgress, CallRecord, OutboxEvent
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.incoming import Incoming
from switchhook.usecases.recovery import recover
from tests.calls.fakes import (
    FakeAgents,
    FakeDialer,
    FakeGate,
    FakeJoining,
    FakeLeg,
    FakeRecorders,
    FakeVoice,
)
from tests.peers.virtual_loop import run_virtual
from tests.usecases.fakes import LoopClock, PlainContract, attempt
from tests.usecases.memory import MemoryNumbers

CALL_ID = CallId("call-1")
PLAIN: Contract = PlainContract()
CONTRACTS = {"plain": PLAIN}


@dataclass
class Weather:
    """When the database is away: (from, to) in seconds."""

    away: list[tuple[float, float]]

    def is_away(self) -> bool:
        """At this moment."""
        return self._back_at() is not None

    async def passes(self) -> None:
        """Wait until it is there."""
        back_at = self._back_at()
        if back_at is not None:
            await asyncio.sleep(back_at - asyncio.get_running_loop().time())
            await self.passes()

    def _back_at(self) -> float | None:
        now = asyncio.get_running_loop().time()
        return max((end for begin, end in self.away if begin <= now < end), default=None)


@dataclass
class MemoryCalls:
    """Reads fail while the database is away, changes wait. Who gives up waiting may find the change made all the same."""

    weather: Weather
    write_s: float
    row: CallRecord | None = None
    ends: list[OutboxEvent] = field(default_factory=list)
    one_writer: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def begin(self, record: CallRecord) -> None:
        def write() -> None:
            self.row = self.row or record

        await self._written(write)

    async def progress(self, changes: Sequence[CallProgress], lines: Sequence[CallLine], now: datetime) -> None:
        raise AssertionError("the bookkeeper does not run here")

    async def finish(self, record: CallRecord, lines: Sequence[CallLine], event: OutboxEvent | None) -> bool:
        closed: list[bool] = []

        def write() -> None:
            closed.append(self.row is not None and self.row.ended_at is not None)
            if not closed[0]:
                started = self.row.call_start_sent_at if self.row is not None else None
                self.row = replace(record, call_start_sent_at=started)
                self.ends += [event] if event is not None else []

        await self._written(write)
        return not closed[0]

    async def get(self, call_id: CallId) -> CallRecord | None:
        await asyncio.sleep(0.001)
        if self.weather.is_away():
            raise StoreUnavailable("away")
        return self.row

    async def journal(self, call_id: CallId) -> list[CallLine]:
        return []

    async def live(self) -> list[tuple[CallRecord, datetime]]:
        row = self.row
        return [(row, row.attempt.started_at)] if row is not None and row.ended_at is None else []

    async def _written(self, write: Callable[[], None]) -> None:
        async def work() -> None:
            async with self.one_writer:
                await self.weather.passes()
                await asyncio.sleep(self.write_s)
                write()

        # A transaction that is under way is not called back when its caller gives up.
        await asyncio.shield(asyncio.ensure_future(work()))


class SlowNumbers(MemoryNumbers):
    """The configuration is in the same database."""

    def __init__(self, weather: Weather, read_s: float) -> None:
        super().__init__()
        self._weather = weather
        self._read_s = read_s

    async def find_number(self, number: str) -> Number | None:
        await asyncio.sleep(self._read_s)
        if self._weather.is_away():
            raise StoreUnavailable("away")
        return await super().find_number(number)


@dataclass
class SlowCustomer:
    """Answers CallStart after so long."""

    start_s: float
    status: int
    starts: int = 0

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.starts += 1
        await asyncio.sleep(self.start_s)
        return HttpReply(self.status, b"{}")


async def _call(calls: MemoryCalls, numbers: SlowNumbers, customer: SlowCustomer, gone_s: float, why: str, fault: bool) -> None:
    """One call: the caller goes, or the call breaks, so long after it came."""

    def make(spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
        raise RuntimeError("no agent today")

    clock, leg = LoopClock(), FakeLeg()
    routing = Incoming(numbers, calls, CONTRACTS, customer, clock)
    book = CallBookkeeper(calls, CONTRACTS, customer, clock, lambda event: None)
    parts = CallParts(
        *(routing, book, FakeAgents(make), FakeRecorders(), FakeVoice(True), clock, FakeDialer(), FakeGate(), FakeJoining())
    )
    session = CallSession(attempt(), leg, parts)
    living = asyncio.ensure_future(session.run())
    await asyncio.sleep(gone_s)
    if fault:
        session.fault(RuntimeError("on purpose"))
    elif why == "drain":
        session.stop(Verdict(Ending.INTERNAL_ERROR, "server-draining"))
    else:
        leg.emit(LegEnded(why))
    await living


@settings(max_examples=300, deadline=None)
@given(
    away=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 120)), max_size=2),
    write_s=st.floats(0.001, 6),
    read_s=st.sampled_from([0.001, 1.0, 4.999]),
    start_s=st.floats(0.01, 40),
    status=st.sampled_from([200, 500]),
    gone_s=st.floats(0.01, 60),
    why=st.sampled_from(["caller-cancelled", "caller-hung-up", "media-timeout", "drain"]),
)
def test_one_end_whatever_the_database_does(
    away: list[tuple[float, float]], write_s: float, read_s: float, start_s: float, status: int, gone_s: float, why: str
) -> None:
    weather = Weather(away)
    calls, customer = MemoryCalls(weather, write_s), SlowCustomer(start_s, status)

    async def story() -> None:
        await _call(calls, SlowNumbers(weather, read_s), customer, gone_s, why, fault=False)
        assert await recover(calls, MemoryNumbers(), CONTRACTS, LoopClock()) == 0

    run_virtual(story())
    assert customer.starts <= 1
    assert len(calls.ends) == customer.starts
    assert calls.row is not None and calls.row.ended_at is not None
    assert calls.row.end_webhook_owed == bool(customer.starts)


@settings(max_examples=100, deadline=None)
@given(write_s=st.floats(0.001, 6), start_s=st.floats(0.01, 40), gone_s=st.floats(0.01, 60))
def test_a_call_that_breaks_during_call_start_owes_its_end(write_s: float, start_s: float, gone_s: float) -> None:
    weather = Weather([])
    calls, customer = MemoryCalls(weather, write_s), SlowCustomer(start_s, 200)
    run_virtual(_call(calls, SlowNumbers(weather, 0.001), customer, gone_s, "", fault=True))
    # A fault between the row's commit and the request cannot be told from one just after the request.
    assert customer.starts <= len(calls.ends) <= 1

"""A thousand calls of every kind with faults among them; afterwards the server holds what it held before.

`SOAK_CALLS` scales it (default 1,000, about two minutes).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from switchhook_demo.phone import CallOverError, CallRefusedError
from switchhook_demo.sound import tone
from tests.peers.party import PartyCall
from tests.peers.processes import PeerProcess
from tests.peers.sipp import SippRun
from tests.peers.vns_backend import start_reply
from tests.server.exchange import REFERRING, REFERRING_HOST, RINGS_SHORTLY, TRANSFER, TWO_TRUNKS, Exchange
from tests.server.held import Holdings
from tests.server.house import NUMBER, function
from tests.server.listening import AGENT_HZ
from tests.server.model import LiveSession, Model
from tests.server.soak_network import (
    ANSWERS,
    BUSY,
    BY_TCP,
    BY_TLS,
    FAILS,
    PRESSES_ONE,
    RELIABLE,
    RINGS,
    STAYS,
    TELEPHONE,
    VANISHES,
    Network,
    open_soak,
)

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("sipp"), pytest.mark.peer("baresip")]

CALLS = int(os.environ.get("SOAK_CALLS", "1000"))
RATE = 14.0
"""Calls a second, those of sipp among them."""
FORGOTTEN_S = 60.0
"""SIP over UDP remembers each request for 32 s, and repeats it to who has vanished; idle connections go sooner."""
RARE = 10
"""Share in 1,000 of what takes the server half a minute to forget."""
FOR_SIPP = RINGS_SHORTLY
"""The number that sipp calls."""


async def play(session: LiveSession) -> None:
    """The model does what the call's plan says."""
    plan, _, number = session.headers["X-Plan"].partition(":")
    await session.got("response.create")
    if plan == "die":
        session.die()
        return
    session.speaks(tone(AGENT_HZ, 100), "Hello!")
    if plan == "tool":
        session.calls_tool("call_b", "book", {})
        await session.output_of("call_b")
        await session.got("response.create", 2)
    elif plan in ("blind", "attended", "complete", "cancel"):
        await _transfers(session, plan, number)
    if plan != "greet":
        asked = len(session.sent("response.create"))
        session.calls_tool("call_g", "vns_end_conversation", {"user_input": "bye"})
        await session.got("response.create", asked + 1)
        session.speaks(tone(AGENT_HZ, 60), "Bye.")


async def _transfers(session: LiveSession, plan: str, number: str) -> None:
    """Returns when the transfer has failed; one that succeeds ends the session."""
    session.calls_tool("call_t", TRANSFER, {"transferNumber": number, "attended": plan != "blind"})
    if plan in ("complete", "cancel"):
        await session.got("response.create", 2)
        session.calls_tool("call_c", f"{plan}_transfer", {})
    await session.until(lambda: session.calls.get("call_t"), "what came of the transfer", 60)
    await session.until(lambda: session.requests > (1 if plan == "blind" else 2), "the agent's turn")


@dataclass
class Soak:
    """What was done, and what each call must have come to."""

    exchange: Exchange
    model: Model
    network: Network
    plans: dict[str, str] = field(default_factory=dict)
    """By the caller's number as the customer sees it."""
    expected: dict[str, tuple[int, str, str | None]] = field(default_factory=dict)
    """sessionGuid → (status, outboundCallResult, transferCallResult)."""

    def start(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The customer's reply to CallStart."""
        if asked["outboundTriggered"]:
            plan = asked["customerCallId"].partition("/")[2]
        else:
            plan = "greet" if asked["calledNumber"] == FOR_SIPP.removeprefix("+1") else self.plans.get(asked["callerId"], "greet")
        if plan == "bad":
            return {}
        tools = [function(name) for name in (TRANSFER, "vns_end_conversation", "book")]
        reply = start_reply(self.model.url, f"{self.exchange.backend.url}/tools", tools, customerCallId=None)
        reply["VoiceElements_Instructions"]["aiUrl"]["headers"] |= {"X-Plan": plan, "X-Caller": asked["callerId"]}
        return reply

    # -- one call each

    async def ordered(self, called: str, plan: str, result: str, number: str = NUMBER, status: int = 0) -> None:
        """makecall."""
        guid = await self.exchange.place(number, calledNumber=called, customerCallId=f"order/{plan}")
        await self._over(guid, (status, result, None))

    async def comes(self, plan: str, status: int = 0, transfer: str | None = None) -> None:
        """Somebody calls and talks as long as the plan takes."""
        async with self.exchange.party_caller() as telephone:
            self.plans[telephone.user.removeprefix("+1")] = plan
            call = await telephone.dial(self.exchange.uri())
            with contextlib.suppress(CallRefusedError):
                await call.answered()
                await self._stay(call, plan)
            guid = (await self.exchange.start_of(telephone.user))["sessionGuid"]
            await call.close()
        await self._over(guid, (status, "N/A", transfer))

    async def _stay(self, call: PartyCall, plan: str) -> None:
        """Until the far side hangs up, where it will."""
        if plan == "greet":
            await call.heard(0)
        elif plan == f"blind:{RINGS}":
            await self.network.called_by(call.phone.user)
        elif plan in (f"complete:{STAYS}", f"attended:{PRESSES_ONE}"):
            await call.heard(0)
            session = self._session(call)
            await session.until(lambda: session.closed, "the caller is put through", 60)
        else:
            assert await call.ended(60) == "them"

    async def referred(self, taken: bool) -> None:
        """Somebody calls over a line that makes transfers itself: it does so, or refuses, and the server does."""
        async with self.exchange.party_caller(REFERRING_HOST) as telephone:
            self.plans[telephone.user.removeprefix("+1")] = f"blind:{ANSWERS}"
            call = await telephone.dial(self.exchange.uri(REFERRING))
            call.refer_answer = 202 if taken else 603
            await call.answered()
            await asyncio.wait_for(call.referred.wait(), 60)
            if taken:
                await call.notify(100, over=False)
                await call.notify(200, over=True)
            assert await call.ended(60) == "them"
            guid = (await self.exchange.start_of(telephone.user))["sessionGuid"]
            await call.close()
        await self._over(guid, (0, "N/A", "Connected"))

    async def gives_up(self) -> None:
        """Somebody calls and cancels while it rings."""
        async with self.exchange.party_caller() as telephone:
            call = await telephone.dial(self.exchange.uri())
            await call.ringing()
            with contextlib.suppress(CallOverError):
                await call.cancel()
            await call.close()
            guid = (await self.exchange.start_of(telephone.user))["sessionGuid"]
        await self._over(guid, (0, "N/A", None))

    def _session(self, call: PartyCall) -> LiveSession:
        caller = call.phone.user.removeprefix("+1")
        return next(session for session in self.model.sessions if session.headers["X-Caller"] == caller)

    async def _over(self, guid: str, expected: tuple[int, str, str | None]) -> None:
        self.expected[guid] = expected
        await self.exchange.end_of(guid, 60)

    def kinds(self) -> list[tuple[int, Callable[[], Coroutine[Any, Any, None]]]]:
        """Share in 1,000 calls, and the call."""
        return [
            (40, lambda: self.ordered(ANSWERS, "greet", "Connected")),
            (40, lambda: self.ordered(STAYS, "goodbye", "Connected")),
            (30, lambda: self.ordered(BUSY, "greet", "Busy")),
            (30, lambda: self.ordered(RINGS, "greet", "NoAnswer", RINGS_SHORTLY)),
            (20, lambda: self.ordered(STAYS, "die", "Connected", status=3)),
            (20, lambda: self.ordered(STAYS, "bad", "Error", status=1)),
            (10, lambda: self.ordered(VANISHES, "greet", "Connected")),
            (80, lambda: self.ordered(FAILS, "greet", "Connected", TWO_TRUNKS)),
            (60, lambda: self.comes("greet")),
            (40, lambda: self.comes("goodbye")),
            (40, lambda: self.comes("die", 3)),
            (30, lambda: self.comes("tool")),
            (20, lambda: self.comes("bad", 1)),
            (40, self.gives_up),
            (60, lambda: self.comes(f"blind:{ANSWERS}", transfer="Connected")),
            (30, lambda: self.comes(f"blind:{BUSY}", transfer="Busy")),
            (10, lambda: self.comes(f"blind:{VANISHES}", transfer="Connected")),
            (30, lambda: self.comes(f"blind:{RINGS}", transfer="Failed")),
            (30, lambda: self.comes(f"complete:{STAYS}", transfer="Connected")),
            (20, lambda: self.comes(f"cancel:{STAYS}", transfer="Failed")),
            (20, lambda: self.comes(f"attended:{PRESSES_ONE}", transfer="Connected")),
            (20, lambda: self.referred(taken=True)),
            (12, lambda: self.referred(taken=False)),
            (16, lambda: self.ordered(ANSWERS, "greet", "Connected", BY_TCP)),
            (20, lambda: self.ordered(TELEPHONE, "goodbye", "Connected", BY_TLS)),
            (12, lambda: self.ordered(ANSWERS, "goodbye", "Connected", RELIABLE)),
        ]

    # -- all of them

    async def warm_up(self) -> None:
        """One call of each kind that leaves nothing to wait for."""
        async with asyncio.TaskGroup() as group:
            for share, call in self.kinds():
                if share > RARE:
                    group.create_task(call())

    async def run(self, folder: Path, calls: int) -> None:
        """Place so many calls, a fifth of them by sipp, and wait for the end of each."""
        shares = [(share, call) for share, call in self.kinds() for _ in range(max(1, round(share * calls / 1000)))]
        # What takes long to forget comes in the first half. The others are spread evenly: 379 is prime.
        rare = [call for share, call in shares if share <= RARE]
        others = [call for share, call in shares if share > RARE]
        order = [others[place * 379 % len(others)] for place in range(len(others))]
        for place, call in enumerate(rare):
            order.insert(place * len(others) // (2 * len(rare)), call)
        by_sipp, dropped = round(calls * 0.19), round(calls * 0.03)
        seconds = calls / RATE
        async with (
            self._sipp("uac_short", folder / "short", by_sipp, seconds) as short,
            self._sipp("uac_drops", folder / "drops", dropped, seconds / 2) as drops,
            asyncio.TaskGroup() as group,
        ):
            for call in order:
                group.create_task(call())
                await asyncio.sleep(seconds / len(order))
            for process in (short, drops):
                done = await process.finished(seconds + 60)
                assert done.returncode == 0, done.output[-3000:]

    @asynccontextmanager
    async def _sipp(self, scenario: str, folder: Path, calls: int, seconds: float) -> AsyncIterator[PeerProcess]:
        # sipp's rate is a whole number: so many calls each ten seconds.
        rate = max(1, round(10 * calls / seconds))
        run = SippRun(
            scenario,
            ("127.0.0.1", self.exchange.server.sip_port),
            folder,
            FOR_SIPP,
            calls=max(1, calls),
            rate=rate,
            at_once=40,
            extra=("-rp", "10000"),
            timeout_s=round(seconds) + 100,
        )
        async with run.process() as process:
            yield process


@pytest.mark.timeout(600)
async def test_a_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """Live calls, permits, ports, dialogs, tasks and descriptors are exactly back; every call has its one CallEnd."""
    async with open_soak(tmp_path) as (exchange, carriers), Model(play) as model, Network(exchange.port) as network:
        soak = Soak(exchange, model, network)
        exchange.backend.start_reply = soak.start
        await soak.warm_up()
        await exchange.idle()
        holdings = Holdings(exchange, carriers.names)
        before = await holdings.steady()
        exchange.backend.end_statuses = [500] * 20
        await soak.run(tmp_path / "soak", CALLS)
        await exchange.idle()
        await holdings.back_at(before, FORGOTTEN_S)
        await network.all_gone()
        _check_ends(soak)
        assert await exchange.server.stop() == 0
    log = exchange.server.log.read_bytes()
    assert b"Traceback" not in log
    assert b"was never retrieved" not in log


def _check_ends(soak: Soak) -> None:
    backend = soak.exchange.backend
    started = [got.json["sessionGuid"] for got in backend.of("/callstart")]
    ends = {got.json["sessionGuid"]: got.json for got in backend.of("/callend")}
    assert len(started) == len(set(started))
    assert set(started) == set(ends)
    wrong = Counter[tuple[Any, ...]]()
    for guid, expected in soak.expected.items():
        end = ends[guid]
        transfer = end["transfers"][0]["transferCallResult"] if end["transfers"] else None
        came_to = (end["status"], end["outboundCallResult"], transfer)
        if came_to != expected:
            wrong[expected, came_to, end["errorMessage"]] += 1
    assert not wrong

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
from switchhook_demo.sip_text import parse
from switchhook_demo.sound import tone
from tests.peers.party import Party, PartyCall
from tests.peers.processes import PeerProcess
from tests.peers.sipp import SippRun
from tests.peers.vns_backend import start_reply
from tests.server.exchange import RINGS_SHORTLY, TRANSFER, TWO_TRUNKS, Exchange, open_exchange
from tests.server.house import NUMBER, function
from tests.server.listening import AGENT_HZ
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("sipp")]

CALLS = int(os.environ.get("SOAK_CALLS", "1000"))
RATE = 13.0
"""Calls a second, those of sipp among them."""
FREE_HANDS = 8
"""Descriptors and tasks more than before that are no leak: idle connections to the customer."""
RARE = 10
"""Share in 1,000 of what takes the server half a minute to forget."""
FOR_SIPP = RINGS_SHORTLY
"""The number that sipp calls."""

ANSWERS = "+17205550110"
"""Numbers behind the trunk, each with its habit: answers and hangs up soon."""
STAYS = "+17205550112"
BUSY = "+17205550113"
RINGS = "+17205550114"
FAILS = "+17205550115"
"""503; over the second trunk sipp answers and hangs up."""
VANISHES = "+17205550116"
"""Answers, and is never heard of again."""


class Network(Party):
    """Everybody behind the trunk."""

    def __init__(self, port: int) -> None:
        super().__init__(user=ANSWERS, port=port)
        self._gone: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Whoever is gone hears nothing."""
        message = parse(data)
        if message is None or message.get("call-id") in self._gone:
            return
        before = len(self.taken)
        super().datagram_received(data, addr)
        for call in self.taken[before:]:
            task = asyncio.get_running_loop().create_task(self._live(call))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def called_by(self, number: str) -> None:
        """Wait until somebody's call rings here."""
        async with asyncio.timeout(30):
            while all(call.caller != number for call in self.taken):
                self._came.clear()
                await self._came.wait()

    async def _live(self, call: PartyCall) -> None:
        number = call.uri.removeprefix("sip:").partition("@")[0]
        if number == BUSY:
            call.refuse(486)
        elif number == FAILS:
            call.refuse(503)
        else:
            call.ring()
            if number != RINGS:
                call.answer()
        if number == VANISHES:
            self._gone.add(call.call_id)
            call.vanish()
        elif number == ANSWERS:
            call.start_saying(tone(900, 300))
            await call.line.said()
            with contextlib.suppress(TimeoutError):
                await call.hang_up()
        if number in (ANSWERS, STAYS, RINGS):
            with contextlib.suppress(TimeoutError):
                await call.ended(60)
        await call.close()


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
    elif plan in ("blind", "complete", "cancel"):
        await _transfers(session, plan, number)
    if plan != "greet":
        asked = len(session.sent("response.create"))
        session.calls_tool("call_g", "vns_end_conversation", {"user_input": "bye"})
        await session.got("response.create", asked + 1)
        session.speaks(tone(AGENT_HZ, 60), "Bye.")


async def _transfers(session: LiveSession, plan: str, number: str) -> None:
    """Returns when the transfer has failed; one that succeeds ends the session."""
    session.calls_tool("call_t", TRANSFER, {"transferNumber": number, "attended": plan != "blind"})
    if plan != "blind":
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
        elif plan == f"complete:{STAYS}":
            await call.heard(0)
            session = self._session(call)
            await session.until(lambda: session.closed, "the caller is put through", 60)
        else:
            assert await call.ended(60) == "them"

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
        ]

    # -- all of them

    async def warm_up(self) -> None:
        """One call of each kind that leaves nothing to wait for."""
        async with asyncio.TaskGroup() as group:
            for share, call in self.kinds():
                if share > RARE:
                    group.create_task(call())

    async def run(self, folder: Path, calls: int) -> None:
        """Place so many calls, a third of them by sipp, and wait for the end of each."""
        shares = [(share, call) for share, call in self.kinds() for _ in range(max(1, round(share * calls / 1000)))]
        # What takes long to forget comes in the first half. The others are spread evenly: 379 is prime.
        rare = [call for share, call in shares if share <= RARE]
        others = [call for share, call in shares if share > RARE]
        order = [others[place * 379 % len(others)] for place in range(len(others))]
        for place, call in enumerate(rare):
            order.insert(place * len(others) // (2 * len(rare)), call)
        by_sipp, dropped = round(calls * 0.29), round(calls * 0.03)
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


@dataclass(frozen=True)
class Held:
    """What a server holds."""

    figures: dict[str, float]
    descriptors: int


ZERO = ("calls_live", "rtp_ports_leased", "dialling_live", "sip_dialogs", "sip_transactions", "recordings_making")


async def held(exchange: Exchange) -> Held:
    """What the server holds now."""
    figures = await exchange.metrics()
    names = (*ZERO, "tasks")
    assert exchange.server.process is not None
    descriptors = len(os.listdir(f"/proc/{exchange.server.process.pid}/fd"))
    return Held({name: figures[f"switchhook_{name}"] for name in names}, descriptors)


@pytest.mark.timeout(600)
async def test_a_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """Live calls, permits, ports, dialogs, transactions, tasks and descriptors are back; every call has its one CallEnd."""
    settings = {"SWITCHHOOK_MEDIA_TIMEOUT_S": "5", "SWITCHHOOK_DRAIN_S": "1"}
    async with open_exchange(tmp_path, **settings) as exchange, Model(play) as model:
        network = Network(exchange.port)
        soak = Soak(exchange, model, network)
        exchange.backend.start_reply = soak.start
        hangs_up = SippRun(
            "uas_hangs_up",
            ("127.0.0.1", 9),
            tmp_path / "carrier",
            calls=1_000_000,
            extra=("-p", str(exchange.second_port)),
            timeout_s=900,
        )
        async with network, hangs_up.process():
            await soak.warm_up()
            await exchange.idle()
            before = await held(exchange)
            exchange.backend.end_statuses = [500] * 20
            await soak.run(tmp_path / "soak", CALLS)
            after = await _settled(exchange)
        _check_ends(soak)
        assert after.figures["tasks"] <= before.figures["tasks"] + FREE_HANDS
        assert after.descriptors <= before.descriptors + FREE_HANDS
        assert await exchange.server.stop() == 0
    log = exchange.server.log.read_bytes()
    assert b"Traceback" not in log
    assert b"was never retrieved" not in log


async def _settled(exchange: Exchange) -> Held:
    """Wait until nothing is under way. SIP over UDP remembers each request for 32 s, and repeats it to who has vanished."""
    await exchange.idle()

    async def find() -> Held | None:
        now = await held(exchange)
        return now if all(now.figures[name] == 0 for name in ZERO) else None

    try:
        return await eventually(find, "nothing is held", 60)
    except AssertionError:
        raise AssertionError(f"the server still holds {await held(exchange)}") from None


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

"""Session timers on a running server (RFC 4028): who refreshes, what a refresh is, and calls whose far side stops.

The shortest interval that may be agreed is 90 s: its refresh is due after 45 s, and without one the call ends after 60 s. All
calls live at the same time, and each test looks at one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from switchhook_demo.phone import CallRefusedError, Phone
from switchhook_demo.sip_text import Message
from tests.peers.party import ALLOW, Party, PartyCall
from tests.server.exchange import CALLED, Exchange, agent_is_heard, model_hears, open_exchange
from tests.server.listening import CALLER_HZ, caller_tone
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="module")

WE_REFRESH_OUT = "90;refresher=uac"
"""Of a carrier's 200: the server, whose INVITE it answers, refreshes."""
THEY_REFRESH_OUT = "90;refresher=uas"
WITHOUT_UPDATE = ALLOW.replace("UPDATE, ", "")
EXPIRY_S = 60.0
LATEST_S = 80.0
"""Well before the 90 s are over, on a busy machine too."""
REFRESH_S = 45.0
EARLY_S = 1.0
"""Our clock starts with the 200 that we see or send, the server's with the one that it sends or sees."""


@dataclass(frozen=True)
class Timed:
    """A call whose session has a timer, from the answer on."""

    call: PartyCall
    session: LiveSession
    guid: str

    @property
    def age_s(self) -> float:
        """Seconds since the answer."""
        assert self.call.answered_at is not None
        return asyncio.get_running_loop().time() - self.call.answered_at

    @property
    def lasted_s(self) -> float:
        """Seconds from the answer to the end."""
        assert self.call.answered_at is not None
        assert self.call.ended_at is not None
        return self.call.ended_at - self.call.answered_at

    def got(self, method: str) -> list[Message]:
        """Requests of the server within the call."""
        return [request for request in self.call.requests if request.method == method]

    @property
    def refresh(self) -> Message:
        """The first one of the server's, which makes one for each half of the interval and asks for nothing else."""
        assert len(self.call.requests) <= (self.age_s + EARLY_S) // REFRESH_S
        return self.call.requests[0]

    async def lives_on(self) -> None:
        """It has not ended when an interval without a refresh would have, and sound goes both ways."""
        with pytest.raises(TimeoutError):
            await self.call.ended(max(0.0, EXPIRY_S + 4 - self.age_s))
        await agent_is_heard(self.call, self.session)
        self.call.start_saying(caller_tone(800))
        await model_hears(self.session, CALLER_HZ)


@dataclass(frozen=True)
class Calls:
    """Every call of this file."""

    exchange: Exchange
    model: Model
    carrier: Party
    by_name: dict[str, Timed]

    async def outbound(self, session_expires: str, allow: str = ALLOW) -> Timed:
        """A call of ours that the carrier answers so."""
        count = len(self.carrier.taken) + 1
        guid = await self.exchange.place()
        call = await self.carrier.call(count)
        call.session_expires, call.allow = session_expires, allow
        call.answer()
        return await self._talking(call, guid)

    async def inbound(self, telephone: Party, session_expires: str) -> Timed:
        """A call of a telephone whose INVITE says so."""
        call = await telephone.dial(self.exchange.uri(), {"Supported": "timer", "Session-Expires": session_expires})
        call.session_expires = session_expires
        await call.answered()
        return await self._talking(call, (await self.exchange.start_of(telephone.user))["sessionGuid"])

    async def _talking(self, call: PartyCall, guid: str) -> Timed:
        session = await self.model.session(len(self.by_name) + 1)
        await session.got("response.create")
        await agent_is_heard(call, session)
        return Timed(call, session, guid)

    async def expired(self, timed: Timed, said: str) -> None:
        """The CallEnd and the record of a call whose session was given up."""
        end = await self.exchange.end_of(timed.guid)
        assert (end["status"], end["errorMessage"]) == (0, "No Errors")
        assert end["callConnected"] is not None
        told = await self.exchange.row("outcome || ' ' || reason || ': ' || message", "call_id = ?", timed.guid)
        assert told == f"success session-expired: {said}"

    async def hung_up_by(self, timed: Timed, reason: str) -> None:
        """The far side hangs up, and that is what ended the call."""
        await timed.call.hang_up()
        end = await self.exchange.end_of(timed.guid)
        assert (end["status"], end["errorMessage"]) == (0, "No Errors")
        assert await self.exchange.row("outcome || ' ' || reason", "call_id = ?", timed.guid) == f"success {reason}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calls(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    """All calls, answered one after another within a few seconds."""
    folder = tmp_path_factory.mktemp("timers")
    async with AsyncExitStack() as opened:
        exchange = await opened.enter_async_context(open_exchange(folder, SWITCHHOOK_DRAIN_S="1"))
        model = await opened.enter_async_context(Model())
        carrier = await opened.enter_async_context(Party(user=CALLED, port=exchange.port))
        phones = [await opened.enter_async_context(exchange.party_caller()) for _ in range(2)]
        exchange.answer_with(model)
        made = Calls(exchange, model, carrier, {})
        begin: dict[str, Callable[[], Awaitable[Timed]]] = {
            "we refresh": lambda: made.outbound(WE_REFRESH_OUT),
            "we refresh by INVITE": lambda: made.outbound(WE_REFRESH_OUT, WITHOUT_UPDATE),
            "lost": lambda: made.outbound(WE_REFRESH_OUT),
            "they refresh": lambda: made.outbound(THEY_REFRESH_OUT),
            "they stop": lambda: made.outbound(THEY_REFRESH_OUT),
            "we refresh a caller's": lambda: made.inbound(phones[0], "90;refresher=uas"),
            "a caller stops": lambda: made.inbound(phones[1], "90;refresher=uac"),
        }
        for name, place in begin.items():
            made.by_name[name] = await place()
        carrier.calls.pop(made.by_name["lost"].call.call_id)  # it answers 481 from here on
        yield made


async def test_a_too_short_interval_is_refused_at_once(calls: Calls) -> None:
    """422 names the shortest that is taken (RFC 4028 §6); no call begins."""
    starts = len(calls.exchange.backend.of("/callstart"))
    async with Phone(user=calls.exchange.new_caller()) as telephone:
        call = await telephone.dial(calls.exchange.uri(), {"Supported": "timer", "Session-Expires": "89;refresher=uac"})
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
    assert (refused.value.status, refused.value.response.get("min-se")) == (422, "90")
    assert len(calls.exchange.backend.of("/callstart")) == starts


async def test_a_carrier_that_refreshes_keeps_its_call(calls: Calls) -> None:
    """An UPDATE of the carrier's is answered with the interval, and the time begins anew."""
    timed = calls.by_name["they refresh"]
    with pytest.raises(TimeoutError):
        await timed.call.ended(max(0.0, 30 - timed.age_s))
    answer = await timed.call.update({"Supported": "timer", "Session-Expires": "90;refresher=uac"})
    assert (answer.status, answer.get("session-expires"), answer.body) == (200, "90;refresher=uac", b"")
    assert answer.get("require") == "timer"
    await timed.lives_on()
    assert not timed.call.requests
    await calls.hung_up_by(timed, "callee-hung-up")


@pytest.mark.parametrize(("name", "method"), [("we refresh", "UPDATE"), ("we refresh by INVITE", "INVITE")])
async def test_we_refresh_a_call_of_ours(calls: Calls, name: str, method: str) -> None:
    """After half the interval, by UPDATE where the carrier takes it and else by the same offer again; the call lives on."""
    timed = calls.by_name[name]
    invite = timed.call.invite_got
    assert invite is not None
    assert (invite.get("session-expires"), invite.get("min-se")) == ("1800", "90")
    assert "timer" in invite.get_all("supported")
    await timed.lives_on()
    refresh = timed.refresh
    assert (refresh.method, refresh.get("session-expires"), refresh.get("min-se")) == (method, "90;refresher=uac", "90")
    assert refresh.body.startswith(b"v=0") == (method == "INVITE")
    await calls.hung_up_by(timed, "callee-hung-up")


async def test_we_refresh_the_call_of_a_caller(calls: Calls) -> None:
    """A telephone that leaves the refreshes to us."""
    timed = calls.by_name["we refresh a caller's"]
    await timed.lives_on()
    refresh = timed.refresh
    assert (refresh.method, refresh.get("session-expires")) == ("UPDATE", "90;refresher=uac")
    await calls.hung_up_by(timed, "caller-hung-up")


async def test_a_refresh_of_a_call_that_the_carrier_has_lost_ends_it(calls: Calls) -> None:
    """481 to the refresh (RFC 4028 §10): nothing is left to wait for."""
    timed = calls.by_name["lost"]
    await calls.exchange.end_of(timed.guid, LATEST_S)
    await calls.expired(timed, "session refresh: 481")


@pytest.mark.parametrize("name", ["they stop", "a caller stops"])
async def test_a_far_side_that_stops_refreshing(calls: Calls, name: str) -> None:
    """Its session ends with our BYE before the interval is over, though its sound still comes."""
    timed = calls.by_name[name]
    assert await timed.call.ended(2 * LATEST_S) == "them"
    assert EXPIRY_S - EARLY_S <= timed.lasted_s < LATEST_S
    assert [request.method for request in timed.call.requests] == ["BYE"]
    await calls.expired(timed, "the peer stopped refreshing the session")

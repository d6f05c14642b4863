"""What a trunk can carry and whether it answers: limits, the next trunk by priority, and when the first is asked again."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from switchhook_demo import sip_text
from tests.peers.party import Party, PartyCall
from tests.server.exchange import Caller, Exchange, conversation, talking, transfer_of
from tests.server.model import LiveSession, Model
from tests.server.policies import (
    CLOSED_PORT,
    FAILING,
    FULL,
    ONE_CALL,
    OVERLOADED,
    PROBED,
    RATED_TRUNK,
    Tenant,
    agent_is_clear,
    invite_of,
    user_of,
)
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

SILENCE_S = 6
"""So long a trunk that says nothing is waited for while there is another."""


class Silent(asyncio.DatagramProtocol):
    """A peer that reads and never answers."""

    def __init__(self) -> None:
        self.invites: set[str] = set()
        """Call-IDs."""
        self.gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """The port is free again."""
        self.gone.set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Keep whose INVITE it is."""
        message = sip_text.parse(data)
        if message is not None and message.method == "INVITE":
            self.invites.add(message.get("call-id"))


@asynccontextmanager
async def silent_at(port: int) -> AsyncIterator[Silent]:
    """Nobody answers at this port, and nothing says that it is closed."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Silent, local_addr=("127.0.0.1", port))
    try:
        yield protocol
    finally:
        transport.close()
        await protocol.gone.wait()


async def begun(
    policies: Exchange, tenant: Tenant, model: Model, party: Party, count: int = 1
) -> tuple[str, PartyCall, LiveSession]:
    """A call that this party takes, as its call number `count`."""
    sessions = len(model.sessions) + 1
    guid = await policies.place(tenant.number)
    call, session = await party.call(count, 40), await model.session(sessions)
    await session.got("response.create")
    return guid, call, session


async def ended(policies: Exchange, guid: str, call: PartyCall) -> None:
    """The party hangs up; the customer is told of a call as any other."""
    await call.hang_up()
    end = await policies.end_of(guid)
    assert (end["status"], end["errorMessage"], end["outboundCallResult"]) == (0, "No Errors", "Connected")
    assert len(policies.ends_of(guid)) == 1


async def fails(policies: Exchange, tenant: Tenant, told: str) -> None:
    """A call that no trunk takes. It has a model of its own: its session may come late, and is no other call's."""
    others = policies.backend.start_reply
    async with Model() as model:
        policies.answer_with(model)
        end = await policies.end_of(await policies.place(tenant.number))
    policies.backend.start_reply = others
    assert (end["status"], end["outboundCallResult"], end["callConnected"]) == (4, "Failed", None)
    assert end["errorMessage"] == told


async def test_calls_beyond_a_trunks_number(policies: Exchange) -> None:
    """max_calls: the second call goes to the next trunk, the third nowhere; a place that is free is used again."""
    full = "trunk full-1: it carries its 1 calls (max_calls); trunk full-2: it carries its 1 calls (max_calls)"
    async with Model() as model, policies.party(answers=True) as first, policies.party(answers=True, second=True) as second:
        policies.answer_with(model)
        one, one_call, one_session = await begun(policies, FULL, model, first)
        two, two_call, two_session = await begun(policies, FULL, model, second)
        await fails(policies, FULL, full)
        await asyncio.gather(agent_is_clear(one_call, one_session), agent_is_clear(two_call, two_session))
        await ended(policies, one, one_call)
        three, three_call, _ = await begun(policies, FULL, model, first, 2)
        await ended(policies, three, three_call)
        await ended(policies, two, two_call)
        assert (len(first.taken), len(second.taken)) == (2, 1)


async def test_a_transfer_beyond_a_trunks_number(policies: Exchange) -> None:
    """max_calls counts transfers too: when no trunk has room the caller stays with the agent."""
    async with (
        conversation(policies, FULL.number, FULL.host) as (caller, model),
        policies.party(answers=True) as first,
        policies.party(answers=True, second=True) as second,
    ):
        policies.answer_with(model)
        one, one_call, _ = await begun(policies, FULL, model, first)
        two, two_call, _ = await begun(policies, FULL, model, second)
        await _finds_no_line(caller)
        await ended(policies, one, one_call)
        await _put_through(caller, first)
        await ended(policies, two, two_call)


async def _finds_no_line(caller: Caller) -> None:
    """The destination cannot be called, and the caller is back with the agent."""
    caller.transfers()
    reason = "The number could not be reached for technical reasons."
    output = json.loads(await caller.session.output_of("call_t"))
    assert output == {"status": "failed", "transferCallResult": "Failed", "reason": reason}
    await caller.session.until(lambda: caller.session.requests > 1, "the agent goes on")
    await agent_is_clear(caller.call, caller.session)


async def _put_through(caller: Caller, party: Party) -> None:
    caller.transfers(call_id="call_u")
    call = await party.call(2)
    await talking(caller.call, call)
    await call.hang_up()
    assert await caller.call.ended() == "them"
    assert [entry["transferCallResult"] for entry in (await caller.end())["transfers"]] == ["Failed", "Connected"]


async def test_calls_beyond_a_trunks_rate(policies: Exchange) -> None:
    """calls_per_second of the trunk: the second call goes to the next one, though the first is free."""
    async with Model() as model, policies.party(answers=True) as first, policies.party(answers=True, second=True) as second:
        policies.answer_with(model)
        one, call, _ = await begun(policies, RATED_TRUNK, model, first)
        await ended(policies, one, call)
        for number in (1, 2):
            guid, call, _ = await begun(policies, RATED_TRUNK, model, second, number)
            await ended(policies, guid, call)
        assert len(first.taken) == 1


async def test_a_trunk_that_says_nothing(policies: Exchange) -> None:
    """The call goes to the next trunk after a few seconds, the calls after it at once."""
    async with Model() as model, silent_at(policies.port) as dead, policies.party(answers=True, second=True) as party:
        policies.answer_with(model)
        began = time.monotonic()
        guid, call, session = await begun(policies, FAILING, model, party)
        assert SILENCE_S - 0.5 < time.monotonic() - began < 31
        await agent_is_clear(call, session)
        await ended(policies, guid, call)
        assert len(dead.invites) == 1
        for number in (2, 3):
            guid, call, _ = await begun(policies, FAILING, model, party, number)
            await ended(policies, guid, call)
        assert len(dead.invites) == 1


async def test_a_probed_trunk_comes_back(policies: Exchange) -> None:
    """A trunk that said nothing is asked first again as soon as it answers a probe (OPTIONS)."""
    async with Model() as model:
        policies.answer_with(model)
        async with silent_at(policies.port) as dead, policies.party(answers=True, second=True) as party:
            guid, call, _ = await begun(policies, PROBED, model, party)
            await ended(policies, guid, call)
            assert len(dead.invites) == 1
        async with policies.party(answers=True) as back, policies.party(answers=True, second=True) as party:
            # By number: the INVITE that nobody answered is repeated for a while, and may find the new peer.
            numbers = itertools.count(4000)

            async def preferred() -> bool:
                called = f"+1720555{next(numbers)}"
                guid = await policies.place(PROBED.number, calledNumber=called)
                call = await eventually(lambda: _call_to(called, back, party), "somebody takes the call")
                await call.hang_up()
                await policies.end_of(guid)
                return call in back.taken

            await eventually(preferred, "the first trunk is asked first", 60)


async def _call_to(called: str, *parties: Party) -> PartyCall | None:
    calls = [call for party in parties for call in party.taken]
    return next((call for call in calls if user_of(invite_of(call).uri) == called), None)


async def test_a_trunk_that_is_overloaded_is_asked_again_when_it_said(policies: Exchange) -> None:
    """503 with Retry-After: the next calls go past it, and after those seconds it has them again."""
    async with Model() as model, policies.party() as first, policies.party(answers=True, second=True) as second:
        policies.answer_with(model)
        placing = asyncio.ensure_future(begun(policies, OVERLOADED, model, second))
        (await first.call()).refuse(503, {"Retry-After": "8"})
        refused_at = time.monotonic()
        guid, call, _ = await placing
        await ended(policies, guid, call)
        assert len(second.taken) == 1

        async def asked_again() -> bool:
            taken = len(second.taken)
            placed = await policies.place(OVERLOADED.number)
            await eventually(lambda: _taken_more(first, 1, second, taken), "somebody has the call")
            again = len(first.taken) > 1
            if again:
                first.taken[1].refuse(486)
            else:
                await second.taken[-1].hang_up()
            await policies.end_of(placed)
            return again

        await eventually(asked_again, "the first trunk is asked again", 60)
        assert time.monotonic() - refused_at > 7.5
        assert len(second.taken) > 1


async def _taken_more(first: Party, first_had: int, second: Party, second_had: int) -> bool:
    return len(first.taken) > first_had or len(second.taken) > second_had


async def test_a_trunk_whose_port_is_closed(policies: Exchange) -> None:
    """The network says that nobody listens there (ICMP): the call goes to the next trunk at once, and so do those after it."""
    async with Model() as model, policies.party(answers=True, second=True) as party:
        policies.answer_with(model)
        began = time.monotonic()
        placing = asyncio.ensure_future(begun(policies, CLOSED_PORT, model, party))
        await party.call()
        assert time.monotonic() - began < SILENCE_S
        guid, call, session = await placing
        await agent_is_clear(call, session)
        await ended(policies, guid, call)
        guid, call, _ = await begun(policies, CLOSED_PORT, model, party, 2)
        await ended(policies, guid, call)
    assert len(policies.backend.of("/callstart")) == 2


async def test_the_only_trunk_has_a_closed_port(policies: Exchange) -> None:
    """The customer is told at once, not after the 32 s of timer B; and the server hears others on that socket as before."""
    async with Model() as model:
        policies.answer_with(model)
        await fails(policies, ONE_CALL, "the INVITE could not be sent")
        async with policies.party(answers=True) as party:
            guid, call, session = await begun(policies, ONE_CALL, model, party)
            await agent_is_clear(call, session)
            await ended(policies, guid, call)


async def test_a_transfer_to_a_closed_port(policies: Exchange) -> None:
    """The caller is back with the agent at once."""
    async with conversation(policies, ONE_CALL.number, ONE_CALL.host) as (caller, _):
        await _finds_no_line(caller)
        await caller.call.hang_up()
        assert transfer_of(await caller.end())["transferCallResult"] == "Failed"

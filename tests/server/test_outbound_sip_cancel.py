"""A call is given up before the carrier has said anything: CANCEL waits for its first word (RFC 3261 §9.1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from switchhook_demo.sip_text import Message
from tests.peers.party import Party, PartyCall
from tests.server.exchange import CALLED, TWO_TRUNKS, Exchange, agent_is_heard, open_exchange
from tests.server.model import Model
from tests.server.rest_house import NUMBER as REST_NUMBER
from tests.server.rest_house import RestHouse, do
from tests.server.rest_house import open_house as open_rest_house
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Silent(Party):
    """Says nothing to an INVITE by itself, not even 100."""

    def _on_invite(self, invite: Message, source: tuple[str, int]) -> None:
        if invite.get("call-id") in self.calls:
            return  # a repetition
        call = PartyCall(self, invite.uri)
        call.take(invite, source)
        self.calls[call.call_id] = call
        self.taken.append(call)
        self._came.set()


async def _given_up(exchange: Exchange, party: Party, model: Model) -> PartyCall:
    """A call whose agent dies before the carrier has said a word: CallEnd is sent, and the carrier is told nothing yet."""
    exchange.answer_with(model)
    guid = await exchange.place()
    call, session = await party.call(), await model.session()
    await session.got("session.update")
    model.refuse_with = 503
    session.die()
    end = await exchange.end_of(guid)
    assert (end["status"], end["callConnected"]) == (3, None)
    assert not call.requests
    return call


@pytest.mark.parametrize("status", [180, 183])
async def test_cancel_waits_for_a_provisional_answer(exchange: Exchange, status: int) -> None:
    """Then it is sent, and the 487 is acknowledged."""
    async with Model() as model, Silent(user=CALLED, port=exchange.port) as party:
        call = await _given_up(exchange, party, model)
        call.ring(status)
        await asyncio.wait_for(call.cancelled.wait(), 20)
        await asyncio.wait_for(call.acknowledged.wait(), 20)
        assert [request.method for request in call.requests] == ["CANCEL"]


async def test_an_answer_without_a_provisional_one_is_hung_up(exchange: Exchange) -> None:
    """A 200 is the first that the carrier says: ACK and BYE, no CANCEL."""
    async with Model() as model, Silent(user=CALLED, port=exchange.port) as party:
        call = await _given_up(exchange, party, model)
        call.answer()
        await asyncio.wait_for(call.acknowledged.wait(), 20)
        assert await call.ended() == "them"
        assert [request.method for request in call.requests] == ["BYE"]


async def test_a_refusal_is_acknowledged(exchange: Exchange) -> None:
    async with Model() as model, Silent(user=CALLED, port=exchange.port) as party:
        call = await _given_up(exchange, party, model)
        call.refuse(486)
        await asyncio.wait_for(call.acknowledged.wait(), 20)
        assert not call.requests


async def test_a_silent_trunk_is_cancelled_when_it_wakes_up(tmp_path: Path) -> None:
    """It is given up for the next one, which has the call; its 180 that comes after that gets CANCEL."""
    async with open_exchange(tmp_path, SWITCHHOOK_DRAIN_S="1") as own, Model() as model:
        async with Silent(user=CALLED, port=own.port) as silent, own.party(answers=True, second=True) as party:
            own.answer_with(model)
            guid = await own.place(TWO_TRUNKS)
            late, call, session = await silent.call(), await party.call(), await model.session()
            await session.got("response.create")
            assert not late.requests
            late.ring()
            await asyncio.wait_for(late.cancelled.wait(), 20)
            await agent_is_heard(call, session)
            await call.hang_up()
            end = await own.end_of(guid)
        assert (end["status"], end["outboundCallResult"]) == (0, "Connected")
        assert len(own.ends_of(guid)) == 1
        await own.all_given_back()


async def _ordered(house: RestHouse, party: Party) -> tuple[str, PartyCall]:
    """A call that is ordered over REST, whose INVITE the carrier has not said a word to."""
    order = {"to": CALLED, "from_": REST_NUMBER, "twiml": "<Response/>", "status_callback": f"{house.customer.url}/told"}
    made = await do(lambda: house.client().calls.create(**order))
    return str(made.sid), await party.call()


async def _hung_up(house: RestHouse, sid: str) -> None:
    """`Status=completed`; the call is over for its customer at once."""
    assert (await do(lambda: house.client().calls(sid).update(status="completed"))).status == "canceled"

    async def find() -> bool:
        return bool((await do(lambda: house.client().calls(sid).fetch())).end_time)

    await eventually(find, "the call has ended")
    [told] = await house.customer.asked("told")
    assert (told["CallSid"], told["CallStatus"], told["CallDuration"]) == (sid, "canceled", "0")


@pytest.mark.parametrize("status", [180, 200])
async def test_a_hang_up_over_rest_before_a_word_of_the_carrier(tmp_path: Path, status: int) -> None:
    """Nothing is sent until the carrier speaks: CANCEL to its 180, and to a 200 that comes as its first word ACK and BYE."""
    async with (
        open_rest_house(tmp_path, SWITCHHOOK_DRAIN_S="1") as house,
        Silent(user=CALLED, port=house.trunk_port) as party,
    ):
        sid, call = await _ordered(house, party)
        await _hung_up(house, sid)
        assert not call.requests
        if status == 180:
            call.ring()
            await asyncio.wait_for(call.cancelled.wait(), 20)
        else:
            call.answer()
            assert await call.ended() == "them"
        await asyncio.wait_for(call.acknowledged.wait(), 20)
        assert [request.method for request in call.requests] == ["CANCEL" if status == 180 else "BYE"]

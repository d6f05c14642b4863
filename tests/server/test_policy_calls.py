"""The dialling policy on calls that a customer orders: reply, record, `policy explain`, and what lets the next call through."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.peers.party import PartyCall
from tests.server.exchange import CALLED, Exchange
from tests.server.model import LiveSession, Model
from tests.server.policies import (
    LISTS,
    MORNINGS,
    ONE_CALL,
    SAVING,
    SHORT_CALLS,
    SLOW,
    Tenant,
    agent_is_clear,
    callees_by_noon,
    explained,
)
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

_orders = itertools.count(1)


async def order(exchange: Exchange, tenant: Tenant, called: str = CALLED) -> tuple[str, int, dict[str, Any], dict[str, str]]:
    """Order a call under an id of its own; gives that, status, body and headers."""
    order_id = f"policy-{next(_orders)}"
    return order_id, *await exchange.ask(tenant.number, calledNumber=called, customerCallId=order_id)


async def refused(exchange: Exchange, tenant: Tenant, rule: str, called: str = CALLED) -> str:
    """Order a call that the rule refuses: it is told, recorded and counted, and nobody hears of it; gives the explanation."""
    metric = f'switchhook_dialling_refused_total{{rule="{rule}"}}'
    before, starts = (await exchange.metrics())[metric], len(exchange.backend.of("/callstart"))
    order_id, status, body, headers = await order(exchange, tenant, called)
    assert status == (429 if rule in ("rate", "concurrency", "spend") else 400)
    assert body.keys() == {"status", "errorMessage"}
    assert body["status"] == status
    field, _, why = str(body["errorMessage"]).partition(": ")
    assert field == "calledNumber"
    assert ("Retry-After" in headers) == (status == 429)
    recorded = [await exchange.row(name, "customer_call_id = ?", order_id) for name in ("reason", "message", "called", "account")]
    assert recorded == [f"policy-{rule}", body["errorMessage"], called, tenant.name]
    assert (await exchange.metrics())[metric] == before + 1
    # A request that was refused began no call: it has no sessionGuid, and neither webhook.
    assert len(exchange.backend.of("/callstart")) == starts
    assert not [got for got in exchange.backend.of("/callend") if got.json["customerCallId"] == order_id]
    return why


async def talking(
    exchange: Exchange, tenant: Tenant, model: Model, call: asyncio.Task[PartyCall]
) -> tuple[str, PartyCall, LiveSession]:
    """An ordered call that the party has answered."""
    count = len(model.sessions) + 1
    _, status, body, _ = await order(exchange, tenant)
    assert (status, body["errorMessage"]) == (200, "Success")
    party, session = await call, await model.session(count)
    await session.got("response.create")
    return body["sessionGuid"], party, session


@pytest.mark.parametrize(
    ("called", "rule", "words"),
    [
        ("911", "number", "911 is an emergency number"),
        ("12", "number", "12 is too short or too long"),
        ("(720) 555-0666", "do-not-call", "+17205550666 is in do_not_call"),
        ("+17205557001", "deny-prefix", "+17205557001 begins with +17205557, which is in deny_prefixes"),
        ("+33142345678", "country", "the account may dial GB, US (countries): add FR to countries"),
        ("+13035551212", "allow-prefix", "+13035551212 begins with none of allow_prefixes"),
        ("+19005551234", "premium", "set allow_premium: true to dial such numbers"),
        ("+449098790123", "premium", "set allow_premium: true to dial such numbers"),
    ],
)
async def test_a_number_on_the_wrong_list(policies: Exchange, called: str, rule: str, words: str) -> None:
    """400 names what refused; the record has the same words, and `policy explain` gives the same decision."""
    async with policies.party() as party:
        why = await refused(policies, LISTS, rule, called)
        assert words in why
        assert await explained(policies, LISTS, called) == (1, f"refused by the rule {rule}: {why}")
        assert not party.taken
    assert not policies.backend.requests


async def test_hours_are_those_of_the_callee(policies: Exchange) -> None:
    """Until noon where the callee is: of people around the world some may be called and some may not, at the same moment."""
    async with Model() as model, policies.party() as party:
        policies.answer_with(model)
        morning, afternoon = callees_by_noon(datetime.now(UTC))
        called, zone = afternoon
        why = await refused(policies, MORNINGS, "hours", called)
        assert f"in {zone}; calling_hours allows 00:00 to 12:00" in why
        code, told = await explained(policies, MORNINGS, called)
        assert code == 1
        assert told.startswith("refused by the rule hours: it is ")
        assert told.endswith(f" in {zone}; calling_hours allows 00:00 to 12:00")
        assert await explained(policies, MORNINGS, morning[0]) == (0, f"allowed: {morning[0]} for 3600 seconds at most")
        guid = await policies.place(MORNINGS.number, calledNumber=morning[0])
        (await party.call()).refuse(486)
        assert (await policies.end_of(guid))["outboundCallResult"] == "Busy"
        assert len(party.taken) == 1


async def test_one_call_at_a_time(policies: Exchange) -> None:
    """A second call is told to wait while the first lives, which notices nothing; after its end the next goes through."""
    async with Model() as model, policies.party(answers=True) as party:
        policies.answer_with(model)
        guid, call, session = await talking(policies, ONE_CALL, model, asyncio.ensure_future(party.call()))
        why = await refused(policies, ONE_CALL, "concurrency")
        assert "concurrent allows 1; wait for one to end, or raise it" in why
        await agent_is_clear(call, session)
        await call.hang_up()
        assert (await policies.end_of(guid))["outboundCallResult"] == "Connected"
        guid, call, session = await talking(policies, ONE_CALL, model, asyncio.ensure_future(party.call(2)))
        await agent_is_clear(call, session)
        await call.hang_up()
        assert (await policies.end_of(guid))["outboundCallResult"] == "Connected"


async def test_calls_that_nobody_answers_give_their_place_back(policies: Exchange) -> None:
    """Busy, and a carrier's 503: each ends with a CallEnd, and the next call is not refused for it."""
    async with Model() as model, policies.party() as party:
        policies.answer_with(model)
        for number, (status, result) in enumerate(((486, "Busy"), (503, "Failed"), (486, "Busy")), 1):
            guid = await policies.place(ONE_CALL.number)
            (await party.call(number)).refuse(status)
            assert (await policies.end_of(guid))["outboundCallResult"] == result


async def test_a_call_lasts_no_longer_than_max_seconds(policies: Exchange) -> None:
    """The server hangs up on both when the time is over, though CallStart allows 120 s."""
    code, told = await explained(policies, SHORT_CALLS, CALLED)
    assert (code, told) == (0, f"allowed: {CALLED} for 6 seconds at most")
    async with Model() as model, policies.party(answers=True) as party:
        policies.answer_with(model)
        guid, call, session = await talking(policies, SHORT_CALLS, model, asyncio.ensure_future(party.call()))
        await agent_is_clear(call, session)
        assert await call.ended() == "them"
        assert call.answered_at is not None
        assert 5.9 < asyncio.get_running_loop().time() - call.answered_at < 26
        await session.until(lambda: session.closed, "the model's socket is closed")
        end = await policies.end_of(guid)
    told_end = (end["status"], end["errorMessage"], end["outboundCallResult"])
    assert told_end == (0, "Maximum call duration reached", "Connected")


async def test_a_days_money_is_spent_only_once(policies: Exchange) -> None:
    """A live call counts by its longest duration; what it did not use pays for the next one."""
    async with Model() as model, policies.party(answers=True) as party:
        policies.answer_with(model)
        guid, call, _ = await talking(policies, SAVING, model, asyncio.ensure_future(party.call()))
        why = await refused(policies, SAVING, "spend")
        assert "less than a minute is left of the day's 0.04 US dollars" in why
        assert await explained(policies, SAVING, CALLED) == (1, f"refused by the rule spend: {why}")
        await call.hang_up()
        await policies.end_of(guid)

        async def paid_back() -> bool:
            return (await explained(policies, SAVING, CALLED))[0] == 0

        await eventually(paid_back, "the rest of the money is given back")
        guid, call, _ = await talking(policies, SAVING, model, asyncio.ensure_future(party.call(2)))
        await call.hang_up()
        assert (await policies.end_of(guid))["outboundCallResult"] == "Connected"


async def test_calls_too_soon_after_another(policies: Exchange) -> None:
    """calls_per_second: the first passes, the second is told to wait, also when the first is over long since."""
    async with Model() as model, policies.party() as party:
        policies.answer_with(model)
        guid = await policies.place(SLOW.number)
        (await party.call()).refuse(486)
        assert (await policies.end_of(guid))["outboundCallResult"] == "Busy"
        began = time.monotonic()
        why = await refused(policies, SLOW, "rate")
        assert why == "calls_per_second allows 0.005; wait, or raise it"
        assert time.monotonic() - began < 100
        assert len(party.taken) == 1

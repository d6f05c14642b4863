"""The dialling policy on transfers: what it refuses is not dialled, and the caller stays with the agent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from switchhook_demo.sound import tone
from tests.server.call_end import log_texts
from tests.server.exchange import (
    CALLED,
    DESTINATION,
    TRANSFER,
    Caller,
    Exchange,
    conversation,
    model_hears,
    talking,
    transfer_of,
)
from tests.server.listening import AGENT_HZ, CALLER_HZ, caller_tone
from tests.server.model import Model
from tests.server.policies import (
    LISTS,
    MORNINGS,
    ONE_CALL,
    SAVING,
    SHORT_CALLS,
    SLOW_TRANSFERS,
    Tenant,
    agent_is_clear,
    callees_by_noon,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEVER = "Calls to this number are not allowed."
LATER = "No call to this number can be placed at this time."


async def stays(caller: Caller, reason: str, to: str = DESTINATION, call_id: str = "call_t", attended: bool = False) -> None:
    """The transfer is refused: the agent is told why, and agent and caller go on hearing each other."""
    requests = caller.session.requests
    caller.transfers(to, call_id, attended=attended)
    output = json.loads(await caller.session.output_of(call_id))
    assert output == {"status": "failed", "transferCallResult": "Failed", "reason": reason}
    await caller.session.until(lambda: caller.session.requests > requests, "the agent goes on")
    await agent_is_clear(caller.call, caller.session, "I cannot put you through.")
    caller.call.start_saying(caller_tone(600))
    await model_hears(caller.session, CALLER_HZ)


async def checked(exchange: Exchange, caller: Caller, rule: str, to: str = DESTINATION) -> None:
    """The caller hangs up; CallEnd and record have the refused transfer, and name its rule."""
    await caller.call.hang_up()
    end = await caller.end()
    told = {name: end[name] for name in ("status", "errorMessage", "callReferredOut", "outboundCallResult")}
    assert told == {"status": 0, "errorMessage": "No Errors", "callReferredOut": False, "outboundCallResult": "N/A"}
    transfer = transfer_of(end)
    assert (transfer["transferCalledNumber"], transfer["transferCallResult"]) == (to, "Failed")
    assert any(line.startswith("Transfer: ") and f"{rule}: " in line for line in log_texts(end)), end["logInformation"]
    [recorded] = await recorded_transfers(exchange, caller.guid)
    assert recorded["result"] == "policy"
    assert recorded["detail"].startswith(f"{rule}: ")


async def recorded_transfers(exchange: Exchange, guid: str) -> list[dict[str, Any]]:
    """Those of a call's record."""
    found: list[dict[str, Any]] = json.loads(await exchange.row("transfers", "call_id = ?", guid))
    return found


@pytest.mark.parametrize(
    ("called", "rule"),
    [
        ("+33142345678", "country"),
        ("+19005551234", "premium"),
        ("+17205550666", "do-not-call"),
        ("+17205557001", "deny-prefix"),
        ("+13035551212", "allow-prefix"),
        ("911", "number"),
    ],
)
async def test_a_destination_on_the_wrong_list(policies: Exchange, called: str, rule: str) -> None:
    async with conversation(policies, LISTS.number, LISTS.host) as (caller, _), policies.party() as party:
        await stays(caller, NEVER, called)
        assert not party.taken
        await checked(policies, caller, rule, called)


@pytest.mark.parametrize("attended", [False, True])
async def test_a_destination_outside_its_hours(policies: Exchange, attended: bool) -> None:
    """It is afternoon there; somewhere else it is morning, and whoever is there is dialled."""
    (morning, _), (afternoon, _) = callees_by_noon(datetime.now(UTC))
    async with conversation(policies, MORNINGS.number, MORNINGS.host) as (caller, _), policies.party() as party:
        await stays(caller, LATER, afternoon, attended=attended)
        assert not party.taken
        caller.transfers(morning, "call_m", attended=attended)
        (await party.call()).refuse(486)
        assert json.loads(await caller.session.output_of("call_m"))["transferCallResult"] == "Busy"
        await caller.call.hang_up()
        end = await caller.end()
    assert [(entry["transferCalledNumber"], entry["transferCallResult"]) for entry in end["transfers"]] == [
        (afternoon, "Failed"),
        (morning, "Busy"),
    ]
    assert any("hours: it is " in line for line in log_texts(end))


async def test_transfers_too_soon_after_another(policies: Exchange) -> None:
    """calls_per_second: the first is dialled, the second is not."""
    async with conversation(policies, SLOW_TRANSFERS.number, SLOW_TRANSFERS.host) as (caller, _), policies.party() as party:
        caller.transfers(DESTINATION, "call_1")
        (await party.call()).refuse(486)
        assert json.loads(await caller.session.output_of("call_1"))["transferCallResult"] == "Busy"
        await stays(caller, LATER, call_id="call_2")
        assert len(party.taken) == 1
        await caller.call.hang_up()
        assert [entry["transferCallResult"] for entry in (await caller.end())["transfers"]] == ["Busy", "Failed"]
        details = [entry["detail"] for entry in await recorded_transfers(policies, caller.guid)]
    assert details[1].startswith("rate: calls_per_second allows 0.005")


@pytest.mark.parametrize(("tenant", "rule"), [(ONE_CALL, "concurrency"), (SAVING, "spend")])
async def test_a_transfer_beside_a_call_that_uses_the_limit_up(policies: Exchange, tenant: Tenant, rule: str) -> None:
    """An ordered call is live: the caller of another is not put through, and neither notices."""
    async with Model() as model, policies.party(answers=True) as party:
        policies.answer_with(model, [TRANSFER])
        ordered = await policies.place(tenant.number)
        call, session = await party.call(), await model.session()
        await session.got("response.create")
        async with policies.caller(model, tenant.number, tenant.host) as caller:
            caller.session.speaks(tone(AGENT_HZ, 100), "Hello!")
            await stays(caller, LATER)
            assert len(party.taken) == 1
            await agent_is_clear(call, session)
            await checked(policies, caller, rule)
        await call.hang_up()
        assert (await policies.end_of(ordered))["outboundCallResult"] == "Connected"


async def test_a_transfer_counts_until_it_is_over(policies: Exchange) -> None:
    """`concurrent`: while two are connected no call can be ordered; when they have hung up one can."""
    async with conversation(policies, ONE_CALL.number, ONE_CALL.host) as (caller, model), policies.party(answers=True) as party:
        caller.transfers()
        call = await party.call()
        await talking(caller.call, call)
        status, body, _ = await policies.ask(ONE_CALL.number)
        assert (status, body["errorMessage"]) == (
            429,
            "calledNumber: 1 calls are out, concurrent allows 1; wait for one to end, or raise it",
        )
        await talking(caller.call, call)
        await call.hang_up()
        assert await caller.call.ended() == "them"
        assert transfer_of(await caller.end())["transferCallResult"] == "Connected"
        policies.answer_with(model)
        guid = await policies.place(ONE_CALL.number, calledNumber=CALLED)
        await (await party.call(2)).hang_up()
        assert (await policies.end_of(guid))["outboundCallResult"] == "Connected"


async def test_a_transfer_lasts_no_longer_than_max_seconds(policies: Exchange) -> None:
    """Both hang up on when the policy's time is over: the caller was put through, and nothing went wrong."""
    async with conversation(policies, SHORT_CALLS.number, SHORT_CALLS.host) as (caller, _):
        async with policies.party(answers=True) as party:
            caller.transfers()
            call = await party.call()
            assert (await call.ended(), await caller.call.ended()) == ("them", "them")
            end = await caller.end()
        transfer = transfer_of(end)
        began, over = (datetime.fromisoformat(transfer[name]) for name in ("transferCallStart", "transferCallEnd"))
        assert 5.9 < (over - began).total_seconds() < 30
        assert (transfer["transferCallResult"], end["status"]) == ("Connected", 0)

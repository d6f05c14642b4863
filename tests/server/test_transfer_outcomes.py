"""What each final SIP answer of a transfer's destination comes to: the model's output, CallEnd, its log, and the record."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack

import pytest

from switchhook_demo.sound import tone
from tests.peers.party import PartyCall
from tests.server.call_end import log_texts
from tests.server.exchange import TRANSFER, Caller, Exchange, agent_is_heard, transfer_of
from tests.server.listening import AGENT_HZ
from tests.server.model import Model
from tests.server.waiting import DEADLINE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUTCOMES: dict[int | None, tuple[str, str]] = {
    486: ("Busy", "busy"),
    600: ("Busy", "busy"),
    603: ("Failed", "declined"),
    480: ("NoAnswer", "no-answer"),
    408: ("NoAnswer", "no-answer"),
    404: ("OperatorIntercept", "unreachable"),
    None: ("NoAnswer", "no-answer"),
    503: ("Failed", "trunk-error"),
}
"""SIP status → the customer's word, and the record's. None: it rings on, and our own time is up."""


@pytest.mark.timeout(150)
async def test_the_evidence_of_a_failed_transfer(exchange: Exchange) -> None:
    """A caller for each answer, blind and attended, all at once; each returns to its agent, and its row keeps the SIP status."""
    async with Model() as model, AsyncExitStack() as stack:
        exchange.answer_with(model, [TRANSFER])
        party = await stack.enter_async_context(exchange.party())
        callers: list[tuple[Caller, PartyCall, int | None]] = []
        for place, (status, attended) in enumerate(itertools.product(OUTCOMES, (False, True))):
            caller = await stack.enter_async_context(exchange.caller(model))
            caller.session.speaks(tone(AGENT_HZ, 100), "Hello!")
            caller.transfers(f"+1720555{8000 + place}", attended=attended)
            call = await party.call(place + 1)
            callers.append((caller, call, status))
            call.ring()
            if status is not None:
                call.refuse(status)
        await asyncio.gather(*(_told(exchange, caller, status) for caller, _, status in callers))
        for _, call, status in callers:
            if status is None:
                await asyncio.wait_for(call.cancelled.wait(), DEADLINE_S)
            assert call.cancelled.is_set() is (status is None)


async def _told(exchange: Exchange, caller: Caller, status: int | None) -> None:
    word, result = OUTCOMES[status]
    output = await caller.session.until(lambda: caller.session.calls.get("call_t"), f"the output after {status}", 60)
    assert json.loads(output)["transferCallResult"] == word
    await agent_is_heard(caller.call, caller.session, "I am sorry.")
    await caller.call.hang_up()
    end = await caller.end()
    assert (transfer_of(end)["transferCallResult"], end["status"], end["callReferredOut"]) == (word, 0, False)
    [record] = json.loads(await exchange.row("transfers", "call_id = ?", caller.guid))
    assert (record["result"], record["sip_status"], record["connected_at"]) == (result, status, None)
    [line] = [line for line in log_texts(end) if line.startswith(f"Transfer: {result}")]
    assert (f"({status})" in line) is (status is not None)

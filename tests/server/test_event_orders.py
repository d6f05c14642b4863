"""The orders of contract §1.10 from E on, where no other file has them.

A: test_vns_call. B: test_outbound. C and D: test_transfers, test_transfers_refer. F: test_failures (the limit) and
test_transfers (its scope). G: test_failures (a dead line).
"""

from __future__ import annotations

import asyncio
import json

import pytest

from switchhook.calls.transfer import DropCallee, TransferMachine, TransferOver
from switchhook.domain.dialling import DialPermit, DialResult
from switchhook.domain.model import ToolCall, TransferMode
from switchhook.domain.plan import CallPlan, TransferOrder
from switchhook.domain.ports import LegAnswered
from tests.api.vns.cases import VNS, attempt, number
from tests.server.call_end import spoken_lines
from tests.server.exchange import (
    DESTINATION,
    IMPATIENT,
    TRANSFER,
    Exchange,
    agent_is_heard,
    conversation,
    talking,
    transfer_of,
)
from tests.server.listening import FRAME_MS
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")
TOOL = "book"
MESSAGE_MS = 700
"""Any local voice takes longer than this for a message of ours."""


async def test_d_a_briefing_has_sixty_seconds() -> None:
    """Neither taken nor declined: the destination is let go and the caller returns to the agent."""
    wish = json.dumps({"transferNumber": DESTINATION, "attended": True})
    order = VNS.transfer_order(CallPlan(number(), ()), attempt(), ToolCall("c", TRANSFER, wish))
    assert isinstance(order, TransferOrder)
    machine = TransferMachine(order, TransferMode.BRIDGE)
    machine.start(0)
    machine.admitted(DialPermit(DESTINATION, 3600), 0)
    machine.quiet(0)
    machine.callee(LegAnswered(), 10)
    assert machine.deadline == 70
    machine.take()
    machine.tick(70)
    over = machine.take()
    assert isinstance(over[0], DropCallee)
    assert isinstance(over[1], TransferOver)
    assert (over[1].result, over[1].put_through) == (DialResult.DECLINED, False)


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (503, 2)])
async def test_e_the_model_refuses(exchange: Exchange, status: int, tries: int) -> None:
    """One more try after 5xx, none after 4xx; then the message is heard to its end, and only then the number is dialled."""
    async with Model(refuse_with=status) as model, exchange.party(DESTINATION) as party, exchange.party_caller() as telephone:
        exchange.answer_with(model, messageToPlayOnFailure="One moment please.", routeToNumberOnFailure=DESTINATION)
        call = await telephone.dial(exchange.uri())
        await call.answered()
        other = await party.call()
        assert FRAME_MS * sum(packet.voiced for packet in call.ear.packets) > MESSAGE_MS
        other.answer()
        await talking(call, other)
        await other.hang_up()
        assert await call.ended() == "them"
        end = await exchange.end_of((await exchange.start_of(telephone.user))["sessionGuid"])
        assert model.handshakes == tries
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (2, "Connected")


async def test_e_the_model_is_never_ready(exchange: Exchange) -> None:
    """No session.updated within 5 s, twice: the caller is put through; CallEnd has status 2."""
    async with Model() as model, exchange.party(DESTINATION, answers=True) as party, exchange.party_caller() as telephone:
        model.update_gate.clear()
        exchange.answer_with(model, routeToNumberOnFailure=DESTINATION)
        call = await telephone.dial(exchange.uri())
        await call.answered()
        other = await party.call()
        await talking(call, other)
        await call.hang_up()
        end = await exchange.end_of((await exchange.start_of(telephone.user))["sessionGuid"])
        assert model.handshakes == 2
        model.update_gate.set()
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (2, "Connected")


async def test_e_the_model_is_lost_in_the_talk(exchange: Exchange) -> None:
    """The reconnection fails, too: the same path with status 3, and the talk before it stays in the transcript."""
    async with (
        conversation(exchange, routeToNumberOnFailure=DESTINATION) as (caller, model),
        exchange.party(DESTINATION) as party,
    ):
        await agent_is_heard(caller.call, caller.session, "How can I help?")
        model.refuse_with = 401
        caller.session.die()
        other = await party.call()
        other.answer()
        await talking(caller.call, other)
        await other.hang_up()
        assert await caller.call.ended() == "them"
        end = await caller.end()
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (3, "Connected")
    greeting, question = spoken_lines(end)
    assert greeting == "AI : Hello!"
    assert question.startswith("AI : How")  # as far as it was heard


async def test_g_silence_is_the_models_business(exchange: Exchange) -> None:
    """`idle_timeout_ms` makes the model speak; the gateway adds no turn and no hang-up of its own."""
    async with conversation(exchange) as (caller, _):
        await agent_is_heard(caller.call, caller.session)
        asked = caller.session.requests
        item_id = caller.session.add_item({"type": "message", "role": "user", "content": [{"type": "input_audio"}]})
        caller.session.emit("input_audio_buffer.timeout_triggered", item_id=item_id, audio_start_ms=0, audio_end_ms=5000)
        await agent_is_heard(caller.call, caller.session, "Are you still there?")
        assert caller.session.requests == asked
        await caller.call.hang_up()
        assert (await caller.end())["errorMessage"] == "No Errors"


async def test_h_the_caller_hangs_up_while_a_tool_runs(exchange: Exchange) -> None:
    """The model is closed at once; CallEnd waits for the tool, five seconds at most."""
    now = asyncio.get_running_loop().time
    async with conversation(exchange) as (caller, _):
        exchange.backend.tool_gate.clear()
        caller.session.calls_tool("call_b", TOOL, {})
        await exchange.backend.wait_for("/tools")
        gone = now()
        await caller.call.hang_up()
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        assert not exchange.ends_of(caller.guid)
        end = await caller.end()
        assert 4.9 < now() - gone < 15
        exchange.backend.tool_gate.set()
    assert end["status"] == 0


async def test_i_a_tool_that_does_not_answer_in_time(exchange: Exchange) -> None:
    """The model is told, the late reply is dropped, and the talk goes on."""
    async with conversation(exchange, IMPATIENT) as (caller, _):
        exchange.backend.tool_gate.clear()
        caller.session.calls_tool("call_b", TOOL, {})
        output = json.loads(await caller.session.output_of("call_b"))
        assert output == {"error": "The tool did not answer in time."}
        exchange.backend.tool_gate.set()
        await caller.session.got("response.create", 2)
        await agent_is_heard(caller.call, caller.session, "That did not work.")
        await caller.call.hang_up()
        end = await caller.end()
    assert any(line.endswith('{"error":"The tool did not answer in time."}') for line in end["logInformation"])
    assert end["status"] == 0

"""A Veevo backend that takes too long: whoever waits for it is told, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from switchhook_demo.phone import CallRefusedError, Phone
from tests.server.house import ear_has
from tests.server.listening import speech
from tests.server.veevo_house import VeevoHouse, greeted

pytestmark = pytest.mark.asyncio(loop_scope="session")

START_S, TOOL_S = 10, 30
SLACK_S = 20


async def test_a_backend_that_takes_too_long(veevo: VeevoHouse) -> None:
    """A tool gets 30 seconds, then the model is told and the talk goes on. A new call gets 10, then it is refused unanswered."""
    clock, late = asyncio.get_running_loop().time, veevo.new_caller()
    async with veevo.talk() as talk, Phone(user=late) as telephone:
        await greeted(talk.session, talk.call)
        veevo.backend.tool_gate.clear()
        tool_at = clock()
        talk.session.calls_tool("call_1", "check_availability", {})
        await veevo.backend.wait_for("tool")

        veevo.backend.start_gate.clear()
        start_at = clock()
        call = await veevo.dial(telephone)
        await call.ringing()
        with pytest.raises(CallRefusedError) as refused:
            await call.answered(START_S + SLACK_S)
        assert refused.value.status == 480
        assert clock() - start_at > START_S - 0.1
        assert await veevo.row("ending, reason", late) == ("call-start-failed", "call-start-timeout")
        veevo.backend.start_gate.set()  # the reply comes when nobody wants it any more

        assert talk.session.calls["call_1"] is None, "the model waits for its tool"
        output = await talk.session.until(lambda: talk.session.calls["call_1"], "the tool's output", TOOL_S + SLACK_S)
        assert output == '{"error":"The tool did not answer in time."}'
        assert TOOL_S - 0.1 < clock() - tool_at < TOOL_S + SLACK_S
        await talk.session.got("response.create", 2)
        veevo.backend.tool_gate.set()
        talk.session.speaks(speech(400, turn=1), "I am sorry, I cannot look that up.")
        await ear_has(talk.call, 20, turn=1)
        await talk.call.hang_up()
    end = (await veevo.end_of(talk.sid)).json
    assert end["durationSeconds"] >= TOOL_S
    assert [line["content"] for line in end["transcript"]][-1] == "I am sorry, I cannot look that up."
    assert await veevo.row("outcome, reason", talk.caller) == ("success", "caller-hung-up")
    await veevo.idle()
    assert len(veevo.backend.of("end")) == 1, "none of the call that was not taken"
    assert len(veevo.backend.of("tool")) == 1, "no tool is run twice"
    assert "Traceback" not in veevo.server.log.read_text()


async def test_a_caller_who_leaves_while_a_tool_runs(veevo: VeevoHouse) -> None:
    """The tool may finish, for five seconds; the end is told without it, and what the call cost ended with the line."""
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        veevo.backend.tool_gate.clear()
        talk.session.calls_tool("call_1", "check_availability", {})
        await veevo.backend.wait_for("tool")
        await talk.call.hang_up()
        await talk.session.until(lambda: talk.session.closed, "the AI is let go")
    end = (await veevo.end_of(talk.sid)).json
    assert talk.call.ended_at is not None and talk.call.answered_at is not None
    assert abs(end["durationSeconds"] - (talk.call.ended_at - talk.call.answered_at)) < 4
    assert [line["content"] for line in end["transcript"]] == ["Hi, how can I help?"]
    assert talk.session.calls["call_1"] is None

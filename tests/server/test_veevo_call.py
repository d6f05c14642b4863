"""A Veevo customer's calls over SIP on a whole server: the callbacks, the money, and no key anywhere."""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from switchhook_demo.phone import Phone
from tests.media.test_decode import sound_file
from tests.server.canaries import singing_files
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone
from tests.server.veevo_house import CANARIES, NUMBER, VeevoHouse, greeted, house
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_call_from_start_to_end(veevo: VeevoHouse) -> None:
    async with veevo.talk() as talk:
        session = talk.session
        assert session.headers["Authorization"] == f"Bearer {CANARIES['openai']}"
        await greeted(session, talk.call)
        session.caller_spoke("I need two units delivered Friday.")
        session.calls_tool("call_1", "check_availability", {"date": "April 15, 2026"})
        assert await session.output_of("call_1") == "done"
        await talk.call.hang_up()
    end = await veevo.end_of(talk.sid)
    [tool] = veevo.backend.of("tool")
    assert veevo.backend.unsigned == []
    told, start = end.json, talk.start.json
    assert re.fullmatch("CA[0-9a-f]{32}", told["callSid"])
    assert start["callSid"] == told["callSid"]
    assert (start["callerPhone"], start["callerNumber"]) == (talk.caller, talk.caller)
    assert tool.json["arguments"] == {"date": "April 15, 2026"}
    assert b'"metadata":{"customerId": "cust_123", "weight": 1.0}' in end.body
    assert [(line["role"], line["content"]) for line in told["transcript"]] == [
        ("assistant", "Hi, how can I help?"),
        ("user", "I need two units delivered Friday."),
    ]
    costs = json.loads(end.body, parse_float=Decimal)["costBreakdown"]
    figures = ("costInputText", "costInputAudio", "costOutputText", "costOutputAudio")
    assert [str(costs[name]) for name in figures] == ["0.00146", "0.00288", "0.00072", "0.006976"]
    parts = [Decimal(costs[name]) for name in (*figures, "costTwilio")]
    assert sum(parts) == costs["totalCost"]
    assert 0 < parts[-1] < Decimal("0.0085")
    (kept,) = await veevo.row("costs", talk.caller)
    assert Decimal(json.loads(kept)["total"]) == costs["totalCost"]


async def test_after_a_crash_the_customer_is_told_with_its_metadata_and_a_signature(veevo: VeevoHouse) -> None:
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)

        async def written() -> bool:
            return veevo.asked("SELECT customer_call_id FROM calls WHERE caller = ?", talk.caller) != [(None,)]

        await eventually(written, "the call's progress in the database")
        await veevo.server.kill()
        await veevo.server.start()
        end = await veevo.end_of(talk.sid)
    assert veevo.backend.unsigned == []
    assert b'"metadata":{"customerId": "cust_123", "weight": 1.0}' in end.body
    assert end.json["costBreakdown"]["totalCost"] is None


async def test_the_greeting_is_heard_while_the_ai_connects_and_then_the_caller_speaks_first(veevo: VeevoHouse) -> None:
    """An MP3 of the customer's; it is no part of the conversation, and two calls in a row fetch it once."""
    greeting_hz = 620.0
    veevo.backend.greeting = sound_file("MP3", 44_100, greeting_hz)
    veevo.backend.start_reply["greetingUrl"] = f"{veevo.backend.url}/hello?of=the-house"
    for _ in range(2):
        veevo.model.update_gate.clear()
        async with veevo.talk() as talk:
            ear, session = talk.call.ear, talk.session
            await ear.until(lambda ear=ear: heard_tone(ear.ulaw(), greeting_hz, 950), 20, "the greeting")  # type: ignore[misc]
            veevo.model.update_gate.set()
            session.caller_spoke("Hello?")
            before = len(ear.ulaw())
            session.speaks(agent_tone(400), "Good morning.")
            spoken = lambda ear=ear, at=before: heard_tone(ear.ulaw()[at:], AGENT_HZ, 360)  # noqa: E731
            await ear.until(spoken, 20, "the agent")
            assert session.sent("response.create") == [], "nobody asks the agent to speak first"
            await talk.call.hang_up()
        end = (await veevo.end_of(talk.sid)).json
        assert [(line["role"], line["content"]) for line in end["transcript"]] == [
            ("user", "Hello?"),
            ("assistant", "Good morning."),
        ]
    assert veevo.backend.greeted == 1


@pytest.mark.peer("flite")
async def test_an_ai_that_cannot_be_reached_is_apologised_for(veevo: VeevoHouse) -> None:
    """It is tried once more; the end is told with what the line cost, and nothing else."""
    veevo.model.refuse_with, before = 503, veevo.model.handshakes
    async with veevo.telephone() as telephone:
        call = await veevo.dial(telephone)
        await call.answered()
        assert await call.ended(30) == "them"
    [end] = await veevo.backend.wait_for("end")
    assert veevo.model.handshakes - before == 2
    assert 20 * sum(packet.voiced for packet in call.ear.packets) > 700, "the apology"
    costs = json.loads(end.body, parse_float=Decimal)["costBreakdown"]
    assert (end.json["transcript"], [costs[name] for name in costs if name.endswith("Tokens")]) == ([], [0] * 6)
    assert costs["totalCost"] == costs["costTwilio"] > 0


async def test_no_key_is_written_down_or_told(tmp_path: Path) -> None:
    """Through a call that works and calls on which everything fails, at debug level."""
    async with house(tmp_path, SWITCHHOOK_LOG_LEVEL="debug") as home:
        home.backend.start_reply["greetingUrl"] = f"{home.backend.url}/hello?key={CANARIES['greeting']}"
        home.backend.end_statuses = [500]
        async with Phone(user="+19805551234") as telephone:
            call = await home.dial(telephone)
            await call.answered()
            session = await home.model.session()
            await session.got("session.update")
            error = {"type": "invalid_request_error", "code": "bad_key", "message": f"Incorrect key: {CANARIES['openai']}"}
            session.emit("error", error=error)
            session.caller_spoke("hello")
            session.calls_tool("call_1", "check_availability", {})
            await session.output_of("call_1")
            sang = await asyncio.to_thread(singing_files, CANARIES, home.server.data_dir)
            session.die()
            home.model.refuse_with = 401
            await call.ended(30)
        await home.backend.wait_for("end", 2)
        assert len({end.body for end in home.backend.of("end")}) == 1
        for wrong in ("", "rtk_wrong"):
            assert (await home.register(wrong))[0] == 401
        status, told = await home.register(f"rtk_{CANARIES['management']}")
        assert status == 200, told
        assert NUMBER in told
        for command in (("check",), ("webhook", "test", NUMBER), ("webhook", "test", NUMBER, "--end"), ("webhook", "parked")):
            _, shown = await home.server.run(*command)
            assert not any(canary in shown for canary in CANARIES.values()), command
        async with aiohttp.ClientSession() as http, http.get(home.server.http_url + "/metrics") as page:
            figures = await page.text()
        assert not any(canary in figures for canary in CANARIES.values())
        assert home.backend.unsigned == []
        assert not any(canary.encode() in got.body for got in home.backend.callbacks for canary in CANARIES.values())
        assert sang | singing_files(CANARIES, home.server.data_dir) == set()
    log = home.server.log.read_text()
    assert log
    assert [name for name, canary in CANARIES.items() if canary in log] == []
    assert "Traceback" not in log

"""A Veevo customer's calls over SIP on a whole server: the callbacks, the money, and no key anywhere."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from switchhook_demo.phone import Call, CallRefusedError, Phone
from tests.media.test_decode import sound_file
from tests.peers.server import Server, config
from tests.peers.veevo_backend import VeevoBackend
from tests.server.house import ear_has, function
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone, speech
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBER = "+15551234567"
CANARIES = {
    name: f"canary-{name}-7d1e5b20" for name in ("twilio", "openai", "secret", "management", "account-twilio", "greeting")
}
USAGE = {
    "total_tokens": 609,
    "input_tokens": 455,
    "output_tokens": 154,
    "input_token_details": {"text_tokens": 365, "audio_tokens": 90, "cached_tokens": 0},
    "output_token_details": {"text_tokens": 45, "audio_tokens": 109},
}


@dataclass
class VeevoHouse:
    server: Server
    backend: VeevoBackend
    model: Model

    async def dial(self, telephone: Phone) -> Call:
        return await telephone.dial(f"sip:{NUMBER}@127.0.0.1:{self.server.sip_port}")

    async def register(self, key: str, **fields: Any) -> tuple[int, str]:
        asked = {
            "phoneNumber": NUMBER,
            "onCallStartUrl": f"{self.backend.url}/calls/start",
            "onCallEndUrl": f"{self.backend.url}/calls/end",
            **fields,
        }
        url = f"{self.server.http_url}/api/phone-numbers"
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as http, http.post(url, json=asked, headers=headers) as reply:
            return reply.status, await reply.text()


def reply(**fields: Any) -> dict[str, Any]:
    return {
        "twilioAccountSid": "AC00000000000000000000000000000000",
        "twilioAuthToken": CANARIES["twilio"],
        "openaiApiKey": CANARIES["openai"],
        "systemPrompt": "You are a helpful assistant.",
        "tools": [function("check_availability")],
        "metadata": {"customerId": "cust_123", "weight": 1.0},
        **fields,
    }


def content(backend: VeevoBackend, model: Model) -> dict[str, Any]:
    made = config(backend.url)
    made["accounts"][0]["veevo"] = {
        "webhook_secret": CANARIES["secret"],
        "management_key": f"rtk_{CANARIES['management']}",
    }
    made["accounts"][0]["twilio"] = {"account_sid": "AC" + "1" * 32, "auth_token": CANARIES["account-twilio"]}
    made["numbers"] = [
        {
            "number": NUMBER,
            "account": "acme",
            "contract": "veevo",
            "on_call_start": {"url": f"{backend.url}/calls/start"},
            "on_call_end": {"url": f"{backend.url}/calls/end"},
            "openai_url": model.url.partition("?")[0],
        }
    ]
    return made


@asynccontextmanager
async def house(folder: Path, **settings: str) -> AsyncIterator[VeevoHouse]:
    async with (
        Model() as model,
        VeevoBackend(CANARIES["secret"], reply()) as backend,
        Server(folder, content(backend, model), **settings) as server,
    ):
        yield VeevoHouse(server, backend, model)


async def greeted(session: LiveSession, call: Call) -> None:
    """The agent's first words, with the documented tokens; heard to their end."""
    await session.got("response.create")
    item = session.begins(speech(400))
    session.end_speech(item, "Hi, how can I help?")
    session.finish(usage=USAGE)
    await ear_has(call, 20)


async def test_a_call_from_start_to_end(tmp_path: Path) -> None:
    async with house(tmp_path) as home, Phone(user="+19805551234") as telephone:
        call = await home.dial(telephone)
        await call.answered()
        session = await home.model.session()
        assert session.headers["Authorization"] == f"Bearer {CANARIES['openai']}"
        await greeted(session, call)
        session.caller_spoke("I need two units delivered Friday.")
        session.calls_tool("call_1", "check_availability", {"date": "April 15, 2026"})
        assert await session.output_of("call_1") == "done"
        await call.hang_up()
        (end,) = await home.backend.wait_for("end")
        (start,), (tool,) = home.backend.of("start"), home.backend.of("tool")
    assert home.backend.unsigned == []
    told = end.json
    assert re.fullmatch("CA[0-9a-f]{32}", told["callSid"])
    assert start.json["callSid"] == told["callSid"]
    assert (start.json["callerPhone"], start.json["callerNumber"]) == ("+19805551234", "+19805551234")
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
    with closing(sqlite3.connect(home.server.data_dir / "switchhook.db")) as database:
        (kept,) = database.execute("SELECT costs FROM calls").fetchone()
    assert json.loads(kept)["total"] == str(costs["totalCost"])


async def test_a_call_that_is_not_taken_is_never_answered_nor_told_of(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        for answer, status in (({"reject": True, "reason": "busy"}, 486), ({"rejected": True}, 603), ({"model": "x"}, 480)):
            home.backend.start_reply = answer
            async with Phone(user="+19805551234") as telephone:
                call = await home.dial(telephone)
                with pytest.raises(CallRefusedError) as refused:
                    await call.answered()
                assert str(status) in str(refused.value)
        assert home.model.handshakes == 0
    with closing(sqlite3.connect(home.server.data_dir / "switchhook.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM outbox").fetchone() == (0,)
        assert database.execute("SELECT COUNT(*) FROM calls WHERE ended_at IS NOT NULL").fetchone() == (3,)
    assert home.backend.of("end") == []


async def test_after_a_crash_the_customer_is_told_with_its_metadata_and_a_signature(tmp_path: Path) -> None:
    async with house(tmp_path) as home, Phone(user="+19805551234") as telephone:
        call = await home.dial(telephone)
        await call.answered()
        await greeted(await home.model.session(), call)

        async def written() -> bool:
            with closing(sqlite3.connect(home.server.data_dir / "switchhook.db")) as database:
                return bool(database.execute("SELECT customer_call_id FROM calls").fetchone() != (None,))

        await eventually(written, "the call's progress in the database")
        await home.server.kill()
        await home.server.start()
        (end,) = await home.backend.wait_for("end")
    assert home.backend.unsigned == []
    assert b'"metadata":{"customerId": "cust_123", "weight": 1.0}' in end.body
    assert end.json["callSid"] == home.backend.of("start")[0].json["callSid"]
    assert end.json["costBreakdown"]["totalCost"] is None


async def test_silence_ends_the_call(tmp_path: Path) -> None:
    async with house(tmp_path) as home, Phone(user="+19805551234") as telephone:
        home.backend.start_reply["inactivityTimeoutMs"] = 1500
        call = await home.dial(telephone)
        await call.answered()
        await greeted(await home.model.session(), call)
        await call.ended(20)
        (end,) = await home.backend.wait_for("end")
        assert end.json["durationSeconds"] >= 1


async def test_the_greeting_is_heard_while_the_ai_connects_and_then_the_caller_speaks_first(tmp_path: Path) -> None:
    """An MP3 of the customer's; it is no part of the conversation, and two calls in a row fetch it once."""
    greeting_hz = 620.0
    async with house(tmp_path) as home:
        home.backend.greeting = sound_file("MP3", 44_100, greeting_hz)
        home.backend.start_reply["greetingUrl"] = f"{home.backend.url}/hello"
        for turn in (1, 2):
            home.model.update_gate.clear()
            async with Phone(user="+19805551234") as telephone:
                call = await home.dial(telephone)
                await call.answered()
                ear = call.ear
                await ear.until(lambda ear=ear: heard_tone(ear.ulaw(), greeting_hz, 950), 15, "the greeting")  # type: ignore[misc]
                session = await home.model.session(turn)
                home.model.update_gate.set()
                session.caller_spoke("Hello?")
                before = len(ear.ulaw())
                session.speaks(agent_tone(400), "Good morning.")
                spoken = lambda ear=ear, at=before: heard_tone(ear.ulaw()[at:], AGENT_HZ, 360)  # noqa: E731
                await ear.until(spoken, 15, "the agent")
                assert session.sent("response.create") == [], "nobody asks the agent to speak first"
                await call.hang_up()
            end = (await home.backend.wait_for("end", turn))[-1].json
            assert [(line["role"], line["content"]) for line in end["transcript"]] == [
                ("user", "Hello?"),
                ("assistant", "Good morning."),
            ]
        assert home.backend.greeted == 1


@pytest.mark.peer("flite")
async def test_an_ai_that_cannot_be_reached_is_apologised_for(tmp_path: Path) -> None:
    """It is tried once more; the end is told with what the line cost, and nothing else."""
    async with house(tmp_path) as home, Phone(user="+19805551234") as telephone:
        home.model.refuse_with = 503
        call = await home.dial(telephone)
        await call.answered()
        assert await call.ended(30) == "them"
        (end,) = await home.backend.wait_for("end")
        assert home.model.handshakes == 2
    assert 20 * sum(packet.voiced for packet in call.ear.packets) > 700, "the apology"
    costs = json.loads(end.body, parse_float=Decimal)["costBreakdown"]
    assert (end.json["transcript"], [costs[name] for name in costs if name.endswith("Tokens")]) == ([], [0] * 6)
    assert costs["totalCost"] == costs["costTwilio"] > 0


def _singing(folder: Path) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        f"{name} in {path.name}" for path in files for name, canary in CANARIES.items() if canary.encode() in path.read_bytes()
    }


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
            sang = await asyncio.to_thread(_singing, home.server.data_dir)
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
        assert sang | _singing(home.server.data_dir) == set()
    log = home.server.log.read_text()
    assert log
    assert [name for name, canary in CANARIES.items() if canary in log] == []
    assert "Traceback" not in log

"""A server for a Veevo customer: the backend and the model beside it, and the calls that tests place to it."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from switchhook_demo.phone import Call, Phone
from tests.peers.loopback import Got
from tests.peers.server import Server, config
from tests.peers.veevo_backend import VeevoBackend
from tests.server.house import ear_has, function
from tests.server.listening import speech
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

NUMBER = "+15551234567"
OLDER = "+15551234501"
"""Numbers with a setting of their own: this one's backend was written by the documents of 2026-04."""
NEWER = "+15551234502"
"""By the newer ones."""
BRIEF = "+15551234503"
"""Its calls last two seconds."""
MOVED = "+15551234504"
"""Tests register it anew."""
NUMBERS: Mapping[str, Mapping[str, Any]] = {
    NUMBER: {},
    OLDER: {"dialect": "2026-04"},
    NEWER: {"dialect": "newer"},
    BRIEF: {"max_seconds": 2},
    MOVED: {},
}
CANARIES = {
    name: f"canary-{name}-7d1e5b20" for name in ("twilio", "openai", "secret", "management", "account-twilio", "greeting")
}
MANAGEMENT_KEY = f"rtk_{CANARIES['management']}"
OTHER_KEY = "rtk_of-another-account"
USAGE = {
    "total_tokens": 609,
    "input_tokens": 455,
    "output_tokens": 154,
    "input_token_details": {"text_tokens": 365, "audio_tokens": 90, "cached_tokens": 0},
    "output_token_details": {"text_tokens": 45, "audio_tokens": 109},
}
"""Of the documented onCallEnd."""


@dataclass(frozen=True)
class VeevoTalk:
    """A call under way."""

    call: Call
    session: LiveSession
    start: Got
    caller: str

    @property
    def sid(self) -> str:
        """As the customer knows the call."""
        sid: str = self.start.json["callSid"]
        return sid


@dataclass
class VeevoHouse:
    """A running server and its customer."""

    server: Server
    backend: VeevoBackend
    model: Model
    _callers: itertools.count[int] = field(default_factory=lambda: itertools.count(100))

    def new_caller(self) -> str:
        """A caller's number that no other call has."""
        return f"+1980555{next(self._callers):04d}"

    def telephone(self, caller: str = "") -> Phone:
        """One that no other call has, not yet started."""
        return Phone(user=caller or self.new_caller())

    async def dial(self, telephone: Phone, number: str = NUMBER) -> Call:
        """Begin a call."""
        return await telephone.dial(f"sip:{number}@127.0.0.1:{self.server.sip_port}")

    @asynccontextmanager
    async def talk(self, number: str = NUMBER) -> AsyncIterator[VeevoTalk]:
        """A call that is answered and whose model session is open; whoever has not hung up at the end does."""
        caller, count = self.new_caller(), len(self.model.sessions) + 1
        async with Phone(user=caller) as telephone:
            call = await self.dial(telephone, number)
            await call.answered()
            session = await self.model.session(count)
            await session.got("session.update")
            yield VeevoTalk(call, session, await self.start_of(caller), caller)

    async def start_of(self, caller: str) -> Got:
        """Wait for the onCallStart of a caller."""
        wanted = caller.encode()
        return await self.backend.until(lambda: next((got for got in self.backend.of("start") if wanted in got.body), None))

    async def end_of(self, sid: str) -> Got:
        """Wait for the onCallEnd of a call."""
        return await self.backend.until(lambda: next(iter(self.ends_of(sid)), None))

    def ends_of(self, sid: str) -> list[Got]:
        """Every onCallEnd of a call that came."""
        return [got for got in self.backend.of("end") if got.json["callSid"] == sid]

    async def row(self, columns: str, caller: str) -> tuple[Any, ...]:
        """Wait for the end of a caller's record; gives some of its columns."""
        query = f"SELECT {columns} FROM calls WHERE caller = ? AND ended_at IS NOT NULL"

        async def find() -> tuple[Any, ...] | None:
            found = self.asked(query, caller)
            return found[0] if found else None

        return await eventually(find, f"a finished record of {caller}")

    def asked(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """What the database says at this moment."""
        with contextlib.closing(sqlite3.connect(self.server.data_dir / "switchhook.db")) as database:
            return database.execute(query, values).fetchall()

    async def idle(self) -> None:
        """Wait until every call has ended and every onCallEnd was acknowledged, as the server has written down."""
        pending = "SELECT 1 FROM calls WHERE ended_at IS NULL UNION ALL SELECT 1 FROM outbox WHERE state != 'delivered'"

        async def find() -> bool:
            return not self.asked(pending)

        await eventually(find, "no live call and no pending onCallEnd", 60)

    async def register(self, key: str, **fields: Any) -> tuple[int, str]:
        """POST /api/phone-numbers; a field of None is left out."""
        asked = {
            "phoneNumber": NUMBER,
            "onCallStartUrl": f"{self.backend.url}/calls/start",
            "onCallEndUrl": f"{self.backend.url}/calls/end",
            **fields,
        }
        url = f"{self.server.http_url}/api/phone-numbers"
        given = {name: value for name, value in asked.items() if value is not None}
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as http, http.post(url, json=given, headers=headers) as reply:
            return reply.status, await reply.text()

    def renew(self) -> None:
        """The backend and the model as new."""
        backend, self.model.refuse_with = self.backend, None
        backend.callbacks.clear()
        backend.unsigned.clear()
        backend.end_statuses.clear()
        backend.start_status, backend.tool_status, backend.greeting, backend.greeted = 200, 200, b"", 0
        backend.start_reply = {**reply(), "onToolCallUrl": f"{backend.url}/calls/tool"}
        backend.tool_reply = {"result": "done"}
        for gate in (backend.start_gate, backend.tool_gate, self.model.update_gate):
            gate.set()


def dated_prices(folder: Path) -> str:
    """A price file whose rows change: `gpt-dearer` was raised yesterday, `gpt-cheap` will be, `gpt-to-come` is not sold yet."""
    today = datetime.now(UTC).date()
    before, after = today - timedelta(days=1), today + timedelta(days=2)
    rows = (("gpt-dearer", None, 1), ("gpt-dearer", before, 3), ("gpt-cheap", None, 1), ("gpt-cheap", after, 3))
    models = []
    for name, since, dollars in (*rows, ("gpt-to-come", after, 1)):
        prices = {
            kind: f"{dollars}.00" for kind in ("text_in", "text_cached", "text_out", "audio_in", "audio_cached", "audio_out")
        }
        models.append({"names": [name], "source": "our contract", "since": since, "usd_per_million": prices})
    sip = {"names": ["sip"], "source": "our trunk", "usd_per_minute": "0.0042"}
    path = folder / "prices.yaml"
    path.write_text(yaml.safe_dump({"models": models, "carriers": [sip]}))
    return str(path)


def pricing(folder: Path) -> dict[str, str]:
    """Settings: prices that change with the day and names of models that are replaced."""
    return {"SWITCHHOOK_PRICES": dated_prices(folder), "SWITCHHOOK_MODEL_ALIASES": "retired, gpt-of-old=gpt-realtime-2.1-mini"}


def reply(**fields: Any) -> dict[str, Any]:
    """A reply to onCallStart as a Veevo customer writes it."""
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
    """One account and its numbers."""
    made = config(backend.url)
    made["accounts"][0]["veevo"] = {"webhook_secret": CANARIES["secret"], "management_key": MANAGEMENT_KEY}
    made["accounts"].append({"name": "other", "veevo": {"webhook_secret": "another-secret", "management_key": OTHER_KEY}})
    made["accounts"][0]["twilio"] = {"account_sid": "AC" + "1" * 32, "auth_token": CANARIES["account-twilio"]}
    made["numbers"] = [
        {
            "number": number,
            "account": "acme",
            "contract": "veevo",
            "on_call_start": {"url": f"{backend.url}/calls/start"},
            "on_call_end": {"url": f"{backend.url}/calls/end"},
            "openai_url": model.url.partition("?")[0],
            **settings,
        }
        for number, settings in NUMBERS.items()
    ]
    return made


@asynccontextmanager
async def house(folder: Path, **settings: str) -> AsyncIterator[VeevoHouse]:
    """A house of its own for a test."""
    async with (
        Model() as model,
        VeevoBackend(CANARIES["secret"], reply()) as backend,
        Server(folder, content(backend, model), **settings) as server,
    ):
        yield VeevoHouse(server, backend, model)


async def greeted(session: LiveSession, call: Call, usage: Mapping[str, Any] = USAGE) -> None:
    """The agent's first words, with the documented tokens; heard to their end."""
    await session.got("response.create")
    item = session.begins(speech(400))
    session.end_speech(item, "Hi, how can I help?")
    session.finish(usage=dict(usage))
    await ear_has(call, 20)

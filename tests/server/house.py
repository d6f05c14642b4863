"""A server with a customer's backend behind it, and the calls that tests place to it."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from switchhook_demo.phone import Call, Phone
from tests.peers.server import Server, config
from tests.peers.vns_backend import VnsBackend, start_reply
from tests.server.listening import of_turn, speech
from tests.server.model import LiveSession, Model
from tests.server.waiting import DEADLINE_S, eventually

NUMBER = "+17206999999"
FALLBACK_NUMBER = "+17206999998"
KEYPAD_NUMBER = "+17206999890"
"""No recording has what is said while keys are pressed."""
FALLBACK_MESSAGE = "We are sorry. Please call again later."
SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) ([-+.\deE]+)$", re.MULTILINE)


def function(name: str) -> dict[str, Any]:
    """A tool of the session."""
    return {"type": "function", "name": name, "description": name, "parameters": {"type": "object", "properties": {}}}


Opener = Callable[..., AbstractAsyncContextManager["House"]]
"""Opens a house in a folder, with settings."""


@dataclass(frozen=True)
class Talk:
    """A call under way."""

    call: Call
    session: LiveSession
    guid: str


@dataclass
class House:
    """A running server and its customer."""

    server: Server
    backend: VnsBackend
    _callers: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    cut_slack_frames: ClassVar[int] = 1
    """So many frames more than truncate says may have been heard of an interrupted reply, or fewer."""

    def phone(self, user: str, **options: Any) -> Phone:
        """A telephone of a caller's, not yet started."""
        return Phone(user=user, **options)

    def refusal(self, status: int) -> int:
        """What a caller is told when a call is refused with this SIP status."""
        return status

    def renew(self) -> None:
        """The customer's backend as new."""
        backend = self.backend
        backend.requests.clear()
        backend.end_statuses.clear()
        backend.start_status, backend.start_reply = 200, {}
        backend.tool_reply = lambda got: {"ok": True}
        backend.start_gate.set()
        backend.tool_gate.set()

    def uri(self, number: str = NUMBER) -> str:
        """Where a phone dials."""
        return f"sip:{number}@127.0.0.1:{self.server.sip_port}"

    def new_caller(self) -> str:
        """A caller's number that no other call has."""
        return f"+1720555{next(self._callers):04d}"

    def answer_with(self, model: Model, tools: Sequence[str] = (), **instructions: Any) -> dict[str, Any]:
        """Let CallStart name this model; gives the reply, which may be changed."""
        listed = [function(name) for name in tools]
        reply = start_reply(model.url, f"{self.backend.url}/tools", listed, **instructions)
        self.backend.start_status, self.backend.start_reply = 200, reply
        return reply

    async def start_of(self, caller: str) -> dict[str, Any]:
        """Wait for the CallStart of a caller."""
        shown = caller.removeprefix("+1")

        async def find() -> dict[str, Any] | None:
            return next((got.json for got in self.backend.of("/callstart") if got.json["callerId"] == shown), None)

        return await eventually(find, f"a CallStart of {caller}")

    async def end_of(self, guid: str, deadline_s: float = 20.0) -> dict[str, Any]:
        """Wait for the CallEnd of a call."""

        async def find() -> dict[str, Any] | None:
            return next(iter(self.ends_of(guid)), None)

        return await eventually(find, f"a CallEnd of {guid}", deadline_s)

    def ends_of(self, guid: str) -> list[dict[str, Any]]:
        """Every CallEnd of a call that came."""
        return [got.json for got in self.backend.of("/callend") if got.json["sessionGuid"] == guid]

    async def recording(self, guid: str, suffix: str) -> Path:
        """Wait for the finished recording of a call."""
        path = self.server.data_dir / "recordings" / f"{guid}.{suffix}"

        async def find() -> Path | None:
            return path if path.exists() else None

        return await eventually(find, f"the recording {path.name}")

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the HTTP API."""
        async with aiohttp.ClientSession() as http, http.get(self.server.http_url + path) as reply:
            return reply.status, await reply.text()

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics."""
        _, text = await self.get("/metrics")
        return {name: float(value) for name, value in SAMPLE.findall(text)}

    async def quiet(self) -> None:
        """Wait until no call is live."""
        await self.zero("calls_live")

    async def zero(self, *names: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until these figures of the server are 0."""

        async def find() -> bool:
            figures = await self.metrics()
            return all(figures[f"switchhook_{name}"] == 0 for name in names)

        await eventually(find, f"{', '.join(names)}: 0", deadline_s)

    async def idle(self) -> None:
        """Wait until no call is live and every end webhook was acknowledged, as the server has written down."""
        await self.quiet()

        async def find() -> bool:
            return not self._undelivered()

        await eventually(find, "no pending end webhook", 60)

    async def record_of(self, caller: str) -> tuple[str, str]:
        """Wait for the end of a caller's record: (outcome, reason)."""
        query = "SELECT outcome, reason FROM calls WHERE caller = ? AND ended_at IS NOT NULL"

        async def find() -> tuple[str, str] | None:
            found = self._asked(query, caller)
            assert len(found) < 2
            return (str(found[0][0]), str(found[0][1])) if found else None

        return await eventually(find, f"a finished record of {caller}")

    def _undelivered(self) -> int:
        return len(self._asked("SELECT 1 FROM outbox WHERE state != 'delivered'"))

    def _asked(self, query: str, *values: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.server.data_dir / "switchhook.db")) as database:
            return database.execute(query, values).fetchall()

    @asynccontextmanager
    async def talk(self, model: Model, caller: str = "", number: str = NUMBER, **phone: Any) -> AsyncIterator[Talk]:
        """A call that is answered and whose model session is open; whoever has not hung up at the end does."""
        caller = caller or self.new_caller()
        count = len(model.sessions) + 1
        async with self.phone(caller, **phone) as telephone:
            call = await telephone.dial(self.uri(number))
            await call.answered()
            session = await model.session(count)
            await session.got("session.update")
            yield Talk(call, session, (await self.start_of(caller))["sessionGuid"])

    async def short_call(self, model: Model) -> str:
        """A whole call; its CallEnd came. Gives its name."""
        async with self.talk(model) as talk:
            await greeted(talk.session, talk.call)
            await talk.call.hang_up()
        await self.end_of(talk.guid)
        return talk.guid

    async def dropped_call(self) -> dict[str, Any]:
        """A caller is answered and then hung up on; gives the CallEnd."""
        caller = self.new_caller()
        async with self.phone(caller) as telephone:
            call = await telephone.dial(self.uri())
            await call.answered()
            assert await call.ended(30) == "them"
        return await self.end_of((await self.start_of(caller))["sessionGuid"])


def house_config(backend: VnsBackend, allow_from: Sequence[str] = ("127.0.0.1/32",)) -> dict[str, Any]:
    """Numbers of one account: one plain, and some with a setting of their own."""
    content = config(backend.url)
    content["trunks"][0]["allow_from"] = list(allow_from)
    content["numbers"] += numbers_with_settings(content["numbers"][0])
    return content


def numbers_with_settings(plain: dict[str, Any]) -> list[dict[str, Any]]:
    """The other numbers of a house, made after the plain one."""
    fallback = {"number": None, "message": FALLBACK_MESSAGE}
    settings: dict[str, dict[str, Any]] = {
        FALLBACK_NUMBER: {"fallback": fallback},
        KEYPAD_NUMBER: {"pause_recording_on_digits": True},
    }
    return [{**deepcopy(plain), "number": number, **own} for number, own in settings.items()]


@asynccontextmanager
async def open_house(
    folder: Path, content: Callable[[VnsBackend], dict[str, Any]] = house_config, **settings: str
) -> AsyncIterator[House]:
    """A house of its own for a test."""
    async with VnsBackend({}) as backend, Server(folder, content(backend), **settings) as server:
        yield House(server, backend)


async def ear_has(call: Call, frames: int, turn: int = 0, deadline_s: float = DEADLINE_S) -> None:
    """Wait until so many numbered frames of a turn have been heard."""
    await call.ear.until(lambda: len(of_turn(call.ear.packets, turn)) >= frames, deadline_s, f"{frames} frames of turn {turn}")


async def greeted(session: LiveSession, call: Call, turn: int = 0) -> None:
    """The agent's first words are heard."""
    await session.got("response.create")
    session.speaks(speech(200, turn=turn), "Hello!")
    await ear_has(call, 10, turn=turn)

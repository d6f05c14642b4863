"""A customer's Veevo backend on loopback: replies as it is told, checks every signature and keeps every request it got."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from tests.peers.loopback import Got, serve
from tests.peers.ports import free_port

DEADLINE_S = 30.0
T = TypeVar("T")


@dataclass
class VeevoBackend:
    """`async with VeevoBackend(secret, reply) as backend`: callbacks below /calls, a greeting at /hello."""

    secret: str
    start_reply: Any
    """Sent as JSON; bytes are sent as they are."""
    tool_reply: Any = field(default_factory=lambda: {"result": "done"})
    """The same."""
    start_status: int = 200
    tool_status: int = 200
    end_statuses: list[int] = field(default_factory=list)
    """Statuses of the first onCallEnd replies; 200 afterwards."""
    greeting: bytes = b""
    greeted: int = 0
    """How often the greeting was fetched."""
    callbacks: list[Got] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    """Paths of callbacks without the right signature."""
    url: str = ""
    port: int = 0
    """Fixed while the backend lives, also while it is down: nobody else is given it then."""
    start_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """onCallStart is answered only while this is set, as it is at first."""
    tool_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """The same for onToolCall."""

    async def __aenter__(self) -> VeevoBackend:
        self._changed = asyncio.Condition()
        self.start_gate.set()
        self.tool_gate.set()
        await self.come_up()
        self.start_reply.setdefault("onToolCallUrl", f"{self.url}/calls/tool")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.go_down()

    async def come_up(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_post("/calls/{kind}", self._called)
        app.router.add_get("/hello", self._greet)
        self._runner, self.port = await serve(app, self.port or free_port())
        self.url = f"http://127.0.0.1:{self.port}"

    async def go_down(self) -> None:
        """Refuse connections."""
        await self._runner.cleanup()

    def of(self, kind: str) -> list[Got]:
        """Callbacks of a kind: `start`, `tool`, `end`."""
        return [got for got in self.callbacks if got.path == f"/calls/{kind}"]

    async def wait_for(self, kind: str, count: int = 1) -> list[Got]:
        """Wait until so many callbacks of a kind have come."""
        return await self.until(lambda: got if len(got := self.of(kind)) >= count else None)

    async def until(self, found: Callable[[], T | None], deadline_s: float = DEADLINE_S) -> T:
        """Wait until `found` gives something true; it is asked after each callback. Raises TimeoutError."""
        async with asyncio.timeout(deadline_s), self._changed:
            while not (result := found()):
                await self._changed.wait()
            return result

    async def _called(self, request: web.Request) -> web.Response:
        body = await request.read()
        expected = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        if request.headers.get("X-Veevo-Signature") != expected:
            self.unsigned.append(request.path)
        async with self._changed:
            self.callbacks.append(Got(request.path, dict(request.headers), body))
            self._changed.notify_all()
        match request.match_info["kind"]:
            case "start":
                await self.start_gate.wait()
                return _reply(self.start_reply, self.start_status)
            case "tool":
                await self.tool_gate.wait()
                return _reply(self.tool_reply, self.tool_status)
        return web.json_response({}, status=self.end_statuses.pop(0) if self.end_statuses else 200)

    async def _greet(self, request: web.Request) -> web.Response:
        self.greeted += 1
        return web.Response(body=self.greeting, content_type="audio/mpeg", status=200 if self.greeting else 404)


def _reply(content: Any, status: int) -> web.Response:
    if isinstance(content, bytes):
        return web.Response(body=content, status=status)
    return web.json_response(content, status=status)

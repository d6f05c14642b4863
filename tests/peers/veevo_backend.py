"""A customer's Veevo backend on loopback: replies as it is told, checks every signature and keeps every request it got."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Callback:
    """One callback as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class VeevoBackend:
    """`async with VeevoBackend(secret, reply) as backend`: callbacks below /calls, a greeting at /hello."""

    secret: str
    start_reply: dict[str, Any]
    tool_reply: Any = field(default_factory=lambda: {"result": "done"})
    start_status: int = 200
    end_statuses: list[int] = field(default_factory=list)
    """Statuses of the first onCallEnd replies; 200 afterwards."""
    greeting: bytes = b""
    greeted: int = 0
    """How often the greeting was fetched."""
    callbacks: list[Callback] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    """Paths of callbacks without the right signature."""
    url: str = ""

    async def __aenter__(self) -> VeevoBackend:
        self._changed = asyncio.Condition()
        app = web.Application()
        app.router.add_post("/calls/{kind}", self._called)
        app.router.add_get("/hello", self._greet)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.start_reply.setdefault("onToolCallUrl", f"{self.url}/calls/tool")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    def of(self, kind: str) -> list[Callback]:
        """Callbacks of a kind: `start`, `tool`, `end`."""
        return [got for got in self.callbacks if got.path == f"/calls/{kind}"]

    async def wait_for(self, kind: str, count: int = 1) -> list[Callback]:
        """Wait until so many callbacks of a kind have come."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.of(kind)) >= count)
        return self.of(kind)

    async def _called(self, request: web.Request) -> web.Response:
        body = await request.read()
        expected = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        if request.headers.get("X-Veevo-Signature") != expected:
            self.unsigned.append(request.path)
        async with self._changed:
            self.callbacks.append(Callback(request.path, dict(request.headers), body))
            self._changed.notify_all()
        match request.match_info["kind"]:
            case "start":
                return web.json_response(self.start_reply, status=self.start_status)
            case "tool":
                return web.json_response(self.tool_reply)
        return web.json_response({}, status=self.end_statuses.pop(0) if self.end_statuses else 200)

    async def _greet(self, request: web.Request) -> web.Response:
        self.greeted += 1
        return web.Response(body=self.greeting, content_type="audio/mpeg")

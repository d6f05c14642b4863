"""A customer's VNS backend on loopback: replies as it is told and keeps every request it got."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.peers.loopback import Got, serve
from tests.peers.ports import free_port

DEADLINE_S = 30.0


@dataclass
class VnsBackend:
    """`async with VnsBackend(reply) as backend`: CallStart at /callstart, tools below /tools, CallEnd at /callend."""

    start_reply: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]
    tool_reply: Callable[[Got], Any] = lambda got: {"ok": True}
    end_statuses: list[int] = field(default_factory=list)
    """Statuses of the first CallEnd replies; 200 afterwards."""
    requests: list[Got] = field(default_factory=list)
    url: str = ""
    port: int = 0
    """Fixed while the backend lives, also while it is down: nobody else is given it then."""
    start_status: int = 200
    start_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """CallStart is answered only while this is set, as it is at first."""
    tool_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """The same for tools."""

    async def __aenter__(self) -> VnsBackend:
        self._changed = asyncio.Condition()
        self.start_gate.set()
        self.tool_gate.set()
        await self.come_up()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.go_down()

    async def come_up(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/callstart", self._start)
        app.router.add_post("/callend", self._end)
        app.router.add_post("/tools{rest:.*}", self._tool)
        self._runner, self.port = await serve(app, self.port or free_port())
        self.url = f"http://127.0.0.1:{self.port}"

    async def go_down(self) -> None:
        """Refuse connections."""
        await self._runner.cleanup()

    def of(self, path: str) -> list[Got]:
        """Requests whose path begins so."""
        return [got for got in self.requests if got.path.startswith(path)]

    async def wait_for(self, path: str, count: int = 1, deadline_s: float = DEADLINE_S) -> list[Got]:
        """Wait until so many requests of a path have come."""
        async with asyncio.timeout(deadline_s), self._changed:
            await self._changed.wait_for(lambda: len(self.of(path)) >= count)
        return self.of(path)

    async def _keep(self, request: web.Request) -> Got:
        got = Got(request.path_qs, dict(request.headers), await request.read())
        async with self._changed:
            self.requests.append(got)
            self._changed.notify_all()
        return got

    async def _start(self, request: web.Request) -> web.Response:
        got = await self._keep(request)
        await self.start_gate.wait()
        reply = self.start_reply(got.json) if callable(self.start_reply) else self.start_reply
        return web.json_response(reply, status=self.start_status)

    async def _end(self, request: web.Request) -> web.Response:
        await self._keep(request)
        status = self.end_statuses.pop(0) if self.end_statuses else 200
        return web.json_response({"status": 0, "errorMessage": "Success"}, status=status)

    async def _tool(self, request: web.Request) -> web.Response:
        got = await self._keep(request)
        await self.tool_gate.wait()
        return web.json_response(self.tool_reply(got))


def start_reply(ai_url: str, tools_url: str, tools: list[dict[str, Any]] | None = None, **instructions: Any) -> dict[str, Any]:
    """A CallStart reply as a VNS customer writes it; `instructions` are more keys of VoiceElements_Instructions."""
    return {
        "VoiceElements_Instructions": {
            "aiUrl": {"url": ai_url, "headers": {"Authorization": "Bearer secret-token"}},
            "maxSeconds": 120,
            "customerCallId": "CallId-001",
            "defaultToolsUrlBase": {"url": tools_url, "headers": {"Token": "tool-token"}},
            "defaultToolsUrlAdapter": None,
            "routeToNumberOnFailure": None,
            "messageToPlayOnFailure": None,
            "logTranscription": True,
            "logToolCallRequests": True,
            "logToolCallReplies": True,
            **instructions,
        },
        "event_id": "start_1",
        "type": "session.update",
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "instructions": "You are a friendly agent.",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "transcription": {"model": "whisper-1"},
                    "turn_detection": {"type": "server_vad", "create_response": True, "interrupt_response": True},
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy"},
            },
            "tools": tools or [],
            "tool_choice": "auto",
        },
    }

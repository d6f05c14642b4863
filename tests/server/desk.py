"""A customer's server that answers anything with anything: other statuses, bodies that are no JSON, replies that never come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.peers.loopback import Got, serve
from tests.server.waiting import Watched

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Desk(Watched):
    """`async with Desk() as desk`: `answers[path]` replies to a POST whose path begins so; `requests` are all that came."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {}
        self.requests: list[Got] = []
        self.url = ""

    async def __aenter__(self) -> Desk:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/{rest:.*}", self._take)
        self._runner, port = await serve(app)
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    def of(self, path: str) -> list[Got]:
        """Requests whose path, as it stood in the request line, begins so."""
        return [got for got in self.requests if got.path.startswith(path)]

    async def got(self, path: str, count: int = 1) -> list[Got]:
        """Wait for so many requests of a path."""
        return await self.until(lambda: self.of(path) if len(self.of(path)) >= count else None, f"{count} × {path}")

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Got(request.raw_path, dict(request.headers), await request.read()))
        self.changed()
        answer = next((answer for path, answer in self.answers.items() if request.path.startswith(path)), None)
        return await answer(request) if answer is not None else web.json_response({"ok": True})


def replies(status: int, body: bytes | str = b"", content_type: str = "application/json") -> Answer:
    """This status with this body."""
    data = body.encode() if isinstance(body, str) else body

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=data, content_type=content_type)

    return answer


def replies_json(value: Any) -> Answer:
    """200 with a JSON value."""
    return replies(200, json.dumps(value))


def redirects(location: str) -> Answer:
    """302 to another address."""

    async def answer(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(location)

    return answer


async def breaks(request: web.Request) -> web.StreamResponse:
    """The connection is reset instead of a reply."""
    assert isinstance(request.transport, asyncio.WriteTransport)
    request.transport.abort()
    return web.Response()


async def never(request: web.Request) -> web.StreamResponse:
    """No reply at all while the other side waits."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")

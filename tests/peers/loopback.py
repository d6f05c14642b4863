"""Servers on loopback: how HTTP services beside ours are served, requests as they came, and peers that speak TCP or TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def serve(app: web.Application, port: int = 0) -> tuple[web.AppRunner, int]:
    """(what `cleanup` ends, its port); port 0 is any that is free."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, runner.addresses[0][1]


StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GONE_S = 20.0


@asynccontextmanager
async def stream_server(handle: StreamHandler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port, which it gives, that does what `handle` does with each connection.

    At its end every connection is closed, also one in the midst of its handshake: what is left open when the loop ends is
    complained of in whatever test runs then. Raises TimeoutError when `handle` does not end with its connection.
    """
    busy: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy[task] = writer
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await handle(reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            del busy[task]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        closed = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0)  # up to Python 3.11 it waits only when it is asked before `close`
        server.close()
        for writer in busy.values():
            writer.transport.abort()
        async with asyncio.timeout(GONE_S):
            await asyncio.gather(closed, *busy)

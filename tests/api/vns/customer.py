"""The customer's API on a real socket, with a token of one account."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aiohttp

from switchhook.api.app import HttpDoor, application
from switchhook.api.vns.endpoints import Endpoint
from switchhook.api.vns.routes import routes
from switchhook.domain.errors import StoreUnavailable

TOKEN = {"Token": "secret-token"}
OTHER = {"token": "other-token"}
DATABASE_AWAY = {"Token": "database-away"}


async def authenticate(token: str) -> str | None:
    if token == "database-away":
        raise StoreUnavailable
    return {"secret-token": "acme", "other-token": "other"}.get(token)


@asynccontextmanager
async def customer(endpoints: Iterable[Endpoint], max_body_bytes: int = 1 << 20) -> AsyncIterator[aiohttp.ClientSession]:
    """A client whose paths begin at the server."""
    door = HttpDoor("127.0.0.1", 0, application([routes(authenticate, endpoints)], max_body_bytes=max_body_bytes), grace_s=1)
    await door.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{door.port}") as session:
            yield session
    finally:
        await door.stop()

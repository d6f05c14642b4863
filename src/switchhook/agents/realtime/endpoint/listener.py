"""The media listener: one WebSocket server (compiled: picows) for every media socket, sorted by path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeAlias

from picows import WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

Upgrade: TypeAlias = WSListener | WSUpgradeResponseWithListener
Route: TypeAlias = Callable[[WSUpgradeRequest], Upgrade]
"""Takes a handshake; gives the listener that runs the socket, or a refusal made with `refusal`."""

MAX_FRAME_BYTES = 21 * 1024 * 1024
"""Fifteen MiB of sound in base64 is the most a Realtime client may append at once."""


class MediaListener:
    """Accepts WebSockets on one port and hands each to the route of its path."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self._host = host
        self._port = port
        self._routes = dict(routes)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. Raises OSError when the port is taken."""
        self._server = await ws_create_server(
            self._route, self._host, self._port, max_frame_size=MAX_FRAME_BYTES, enable_auto_ping=True
        )

    async def stop(self) -> None:
        """Listen no more; sockets that are open belong to their routes."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    @property
    def port(self) -> int:
        """The port that is listened on (of use with port 0)."""
        assert self._server is not None, "start first"
        return int(self._server.sockets[0].getsockname()[1])

    def _route(self, request: WSUpgradeRequest) -> Upgrade:
        path = request.path.partition(b"?")[0].decode("latin-1")
        route = self._routes.get(path)
        if route is None:
            return refusal(HTTPStatus.NOT_FOUND, "There is no such path.")
        return route(request)


def refusal(status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> WSUpgradeResponseWithListener:
    """Refuse a handshake, with the error shape of the OpenAI API."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    body = json.dumps({"error": {"type": kind, "message": message, "code": None, "param": None}}).encode()
    fields = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body, fields), None)

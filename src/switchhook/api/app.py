"""The HTTP door: one application, with each contract's and the operator's routes mounted side by side.

Errors are JSON; a contract that has its own error shape answers in it from its own routes. There is no access log: requests are
counted through `observe`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from switchhook.domain.errors import SettingError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
IDLE_CONNECTION_S = 75.0

Observe = Callable[[str, str, int, float], None]
"""(method, route template, status, seconds) of each request."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    mounts: Iterable[Iterable[web.AbstractRouteDef]], observe: Observe | None = None, max_body_bytes: int = MAX_BODY_BYTES
) -> web.Application:
    """The application that serves all `mounts`; a larger request body gets 413."""
    app = web.Application(client_max_size=max_body_bytes, middlewares=[_edge(observe)])
    for routes in mounts:
        app.router.add_routes(routes)
    app.on_response_prepare.append(_hide_software)
    return app


def problem(status: int, message: str) -> web.Response:
    """An error outside every contract: `{"error": {"status": 404, "message": "Not Found"}}`."""
    return web.json_response({"error": {"status": status, "message": message}}, status=status)


class HttpDoor:
    """A listening socket with an application behind it."""

    def __init__(self, host: str, port: int, app: web.Application, grace_s: float = 5.0) -> None:
        self.host = host
        self.port = port
        """The port asked for; after `start` the one bound (0 asks for any)."""
        self._app = app
        self._grace_s = grace_s
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises SettingError when the address cannot be bound."""
        runner = web.AppRunner(
            self._app,
            access_log=None,
            keepalive_timeout=IDLE_CONNECTION_S,
            shutdown_timeout=self._grace_s,
            handle_signals=False,
            logger=_silence(),
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            reason = error.strerror or type(error).__name__
            cure = "choose another address with SWITCHHOOK_HTTP_HOST or another port with SWITCHHOOK_HTTP_PORT"
            raise SettingError(f"the HTTP door cannot listen on {self.host}:{self.port} ({reason}); {cure}") from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Take no more connections, let running requests finish for up to `grace_s`, then close; idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


def _edge(observe: Observe | None) -> Middleware:
    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = asyncio.get_running_loop().time()
        response = await _answer(request, handler)
        if observe is not None:
            resource = request.match_info.route.resource
            template = resource.canonical if resource is not None else "unmatched"
            observe(request.method, template, response.status, asyncio.get_running_loop().time() - began)
        return response

    return edge


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = problem(error.status, error.reason)
        for name in (hdrs.ALLOW, hdrs.LOCATION):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response
    except Exception:  # the edge of the request's task; the path alone is logged, a query may hold a secret
        logger.exception("request failed: %s %s", request.method, request.path)
        return problem(500, "Internal Server Error")


def _silence() -> logging.Logger:
    """For aiohttp itself, which would log each malformed request with its text: a stranger's choice, or a secret."""
    silent = logging.Logger("switchhook.http", logging.CRITICAL + 1)
    silent.addHandler(logging.NullHandler())
    return silent


async def _hide_software(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop(hdrs.SERVER, None)

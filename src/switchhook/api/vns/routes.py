"""What a VNS customer calls: `/api/customer/…`, authenticated by the `Token` header, errors in the contract's shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

Authenticate = Callable[[str], Awaitable[str | None]]
"""API token → name of its account, or None."""

PREFIX = "/api/customer"
_KNOWN = ("makecall", "recordings", "sms")


def routes(authenticate: Authenticate) -> list[web.RouteDef]:
    """The customer's API. Its verbs answer 501 to a known token."""

    async def answer(request: web.Request) -> web.Response:
        token = request.headers.get("Token", "")
        if not token or await authenticate(token) is None:
            return failure(401, "Unauthorized")
        verb = request.match_info["rest"].partition("/")[0].lower()
        return failure(501, "Not implemented") if verb in _KNOWN else failure(404, "Not found")

    return [web.route("*", PREFIX + "/{rest:.*}", answer)]


def failure(status: int, message: str) -> web.Response:
    """`{"status": 401, "errorMessage": "Unauthorized"}`."""
    return web.json_response({"status": status, "errorMessage": message}, status=status)

"""What a VNS customer calls: `/api/customer/…`, authenticated by the `Token` header, errors in the contract's shape."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import hdrs, web

from switchhook.api.vns.endpoints import Answer, BadRequest, Endpoint, failure
from switchhook.domain.errors import StoreUnavailable

logger = logging.getLogger(__name__)

Authenticate = Callable[[str], Awaitable[str | None]]
"""API token → name of its account, or None. May raise StoreUnavailable."""

PREFIX = "/api/customer"
RETRY_AFTER_S = "5"
_KNOWN = ("makecall", "recordings", "sms")


def routes(authenticate: Authenticate, endpoints: Iterable[Endpoint] = ()) -> list[web.RouteDef]:
    """The customer's API. A verb of the contract that has no endpoint answers 501 to a known token."""
    paths: dict[str, dict[str, Answer]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint.answer
    served = [web.route("*", PREFIX + path, _guarded(authenticate, _by_method(answers))) for path, answers in paths.items()]
    return [*served, web.route("*", PREFIX + "/{rest:.*}", _guarded(authenticate, _unserved))]


def _by_method(answers: dict[str, Answer]) -> Answer:
    known = {**answers, **({hdrs.METH_HEAD: answers[hdrs.METH_GET]} if hdrs.METH_GET in answers else {})}

    async def answer(request: web.Request, account: str) -> web.StreamResponse:
        found = known.get(request.method)
        if found is None:
            return failure(405, "Method not allowed", {hdrs.ALLOW: ", ".join(sorted(known))})
        return await found(request, account)

    return answer


async def _unserved(request: web.Request, account: str) -> web.StreamResponse:
    verb = request.match_info["rest"].partition("/")[0].lower()
    return failure(501, "Not implemented") if verb in _KNOWN else failure(404, "Not found")


def _guarded(authenticate: Authenticate, answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Nothing is told to a request without a token; whatever goes wrong is told in the contract's shape."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Token", "")
        try:
            account = await authenticate(token) if token else None
            if account is None:
                return failure(401, "Unauthorized")
            return await answer(request, account)
        except BadRequest as error:
            return failure(400, str(error))
        except web.HTTPException as error:
            return failure(error.status, error.reason)
        except StoreUnavailable:
            return failure(503, "The database cannot be reached; try again", {hdrs.RETRY_AFTER: RETRY_AFTER_S})
        except Exception:  # the edge of the request's task; the path alone is logged, a query may hold a secret
            logger.exception("request failed: %s %s", request.method, request.path)
            return failure(500, "Internal error")

    return guarded

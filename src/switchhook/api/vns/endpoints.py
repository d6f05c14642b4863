"""What the modules behind `/api/customer/` have in common: an endpoint, and answers in the contract's shape."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web

Answer: TypeAlias = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
"""(request, account of its token) → response. May raise StoreUnavailable, which becomes 503."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing that a customer can ask."""

    method: str
    """`GET` serves HEAD too."""
    path: str
    """Below `/api/customer`: `/recordings/{sessionGuid}`."""
    answer: Answer


class BadRequest(ValueError):
    """What was asked cannot be read; the message names the field and the cure."""


def read_fields(body: bytes, known: str) -> Mapping[str, Any]:
    """The members of a request's JSON object by their names in lower case; `known` says which it may have. Raises BadRequest."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(f"the body is not JSON; send an object with {known}") from None
    if not isinstance(given, Mapping):
        raise BadRequest(f"the body is no object; send {known}")
    return {str(name).lower(): value for name, value in given.items()}


def success(**more: object) -> web.Response:
    """`{"status": 0, "errorMessage": "Success"}` and what else is to tell."""
    return web.json_response({"status": 0, "errorMessage": "Success", **more})


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """`{"status": 401, "errorMessage": "Unauthorized"}`."""
    return web.json_response({"status": status, "errorMessage": message}, status=status, headers=headers)

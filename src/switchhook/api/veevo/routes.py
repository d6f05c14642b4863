"""What a Veevo customer calls: `POST /api/phone-numbers`, authenticated by `Authorization: Bearer rtk_…` (contract §2.7)."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from switchhook.domain.addresses import Network, literal
from switchhook.domain.errors import DirectoryChanged, StoreUnavailable
from switchhook.domain.phone import e164
from switchhook.domain.web_address import address_fits
from switchhook.usecases.number_desk import NotRegistered, NumberDesk, Registration
from switchhook.usecases.numbering import country_of

logger = logging.getLogger(__name__)

AccountOf = Callable[[str], str | None]
"""Management key → name of its account."""

RETRY_AFTER_S = "5"
_CALLBACKS = {"on_call_start": ("onCallStartUrl", "onCallStart"), "on_call_end": ("onCallEndUrl", "onCallEnd")}


class BadRequest(ValueError):
    """What was asked cannot be read; the message names the field and the cure."""


def routes(account_of: AccountOf, desk: NumberDesk, plain_allowed: Sequence[Network] = ()) -> list[web.RouteDef]:
    """`plain_allowed`: blocks whose addresses may be called over http, the operator's egress allow-list."""

    async def register(request: web.Request) -> web.StreamResponse:
        account = account_of(_bearer(request))
        if account is None:
            return failure(401, "Unauthorized: send Authorization: Bearer with the account's management key")
        number, settings = read_registration(await request.read(), plain_allowed)
        done = await desk.register(account, number, settings)
        if isinstance(done, NotRegistered):
            return failure(409 if done.taken else 400, done.message)
        told = {"id": number, "phoneNumber": number, **{_CALLBACKS[key][0]: value["url"] for key, value in settings.items()}}
        return web.json_response(told, status=201 if done is Registration.ADDED else 200)

    return [web.post("/api/phone-numbers", _guarded(register))]


def read_registration(body: bytes, plain_allowed: Sequence[Network] = ()) -> tuple[str, Mapping[str, Any]]:
    """(number in E.164, the number's settings that the request names). Raises BadRequest."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON; send an object with phoneNumber, onCallStartUrl and onCallEndUrl") from None
    if not isinstance(given, dict):
        raise BadRequest("the body is no object; send phoneNumber, onCallStartUrl and onCallEndUrl")
    return _number(given.get("phoneNumber")), {
        key: {"url": _callback(given, names, plain_allowed)} for key, names in _CALLBACKS.items()
    }


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """`{"error": "Unauthorized"}`."""
    return web.json_response({"error": message}, status=status, headers=headers)


def _number(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise BadRequest("phoneNumber: is missing; give a US number in E.164 such as +15551234567")
    # All countries of the plan share +1; whose number an account has, that country it may dial (usecases.dialling).
    if e164(text) != text or country_of(text) != "US":
        raise BadRequest("phoneNumber: is no US number in E.164; write it as +15551234567")
    return text


def _callback(given: Mapping[str, Any], names: tuple[str, ...], plain_allowed: Sequence[Network]) -> str:
    value = next((given[name] for name in names if given.get(name)), None)
    if value is None:
        raise BadRequest(f"{names[0]}: is missing; give a public https address")
    url = value.strip() if isinstance(value, str) else ""
    if not address_fits(url, ("http", "https")):
        raise BadRequest(f"{names[0]}: is no address; give a public https address")
    if urlsplit(url).scheme == "http" and not _plain_allowed(url, plain_allowed):
        raise BadRequest(f"{names[0]}: is not encrypted; give a public https address")
    return url


def _plain_allowed(url: str, allowed: Sequence[Network]) -> bool:
    host = urlsplit(url).hostname or ""
    address = literal("127.0.0.1" if host == "localhost" else host)
    return address is not None and any(address in network for network in allowed)


def _bearer(request: web.Request) -> str:
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _guarded(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Whatever goes wrong is told in the contract's shape."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await answer(request)
        except BadRequest as error:
            return failure(400, str(error))
        except web.HTTPException as error:
            return failure(error.status, error.reason)
        except StoreUnavailable:
            return failure(503, "The database cannot be reached; try again", {hdrs.RETRY_AFTER: RETRY_AFTER_S})
        except DirectoryChanged:
            return failure(503, "Others change the configuration at this moment; try again", {hdrs.RETRY_AFTER: RETRY_AFTER_S})
        except Exception:  # the edge of the request's task; the path alone is logged, a query may hold a secret
            logger.exception("request failed: %s %s", request.method, request.path)
            return failure(500, "Internal error")

    return guarded

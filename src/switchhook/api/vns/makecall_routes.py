"""`POST /api/customer/makecall` (contract §1.9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from switchhook.api.vns.endpoints import BadRequest, Endpoint, failure, read_fields, success
from switchhook.usecases.outgoing import CallOrder, NotPlaced, Placed, Unplaced

Place = Callable[[CallOrder], Awaitable[Placed | NotPlaced]]
"""`usecases.outgoing.Outgoing.place`."""

_FIELDS = ("customerCallId", "calledNumber", "callerId", "callerIdName")
_STATUSES = {Unplaced.BAD_REQUEST: 400, Unplaced.TOO_MANY: 429, Unplaced.UNAVAILABLE: 503}
_LONGEST = 256
RETRY_AFTER_S = "5"


def endpoints(place: Place) -> list[Endpoint]:
    """`place` begins calls."""

    async def make_call(request: web.Request, account: str) -> web.Response:
        """Answered as soon as the request is judged; CallStart and CallEnd tell the rest."""
        order = read_order(await request.read(), account)
        placed = await place(order)
        if isinstance(placed, NotPlaced):
            status = _STATUSES[placed.why]
            return failure(status, placed.message, None if status == 400 else {"Retry-After": RETRY_AFTER_S})
        return success(sessionGuid=placed.call_id, customerCallId=order.customer_call_id)

    return [Endpoint("POST", "/makecall", make_call)]


def read_order(body: bytes, account: str) -> CallOrder:
    """Read the request. Names in another letter case are taken, numbers may be JSON numbers. Raises BadRequest."""
    fields = read_fields(body, "calledNumber and callerId")
    texts = {name: _text(name, fields.get(name.lower())) for name in _FIELDS}
    for name in ("calledNumber", "callerId"):
        if not texts[name]:
            raise BadRequest(f"{name}: is missing; give a telephone number")
    return CallOrder(
        account, texts["calledNumber"] or "", texts["callerId"] or "", texts["callerIdName"], texts["customerCallId"]
    )


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRequest(f"{name}: must be text")
    text = str(value)
    if len(text) > _LONGEST or not text.isprintable():
        raise BadRequest(f"{name}: must be at most {_LONGEST} printable characters")
    return text.strip() or None

"""`POST /api/customer/sms` (contract §1.9: advertised, not described).

The body is ours until a customer's capture shows the vendor's; it takes the names that such bodies usually have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from switchhook.api.vns.endpoints import BadRequest, Endpoint, failure, read_fields, success
from switchhook.domain.messaging import MessageFailed, MessageSent, Unsent
from switchhook.usecases.messaging import MessageOrder

NOT_CONFIGURED = "Not implemented: the account has nobody who sends messages; add twilio credentials to it in the apply file"
_FROM = ("from", "callerId")
_TO = ("to", "calledNumber")
_TEXT = ("message", "text", "body")
_CUSTOMER_CALL_ID = ("customerCallId",)
_LONGEST_NAME = 256
_STATUSES = {
    Unsent.NOT_CONFIGURED: 501,
    Unsent.BAD_REQUEST: 400,
    Unsent.TOO_MANY: 429,
    Unsent.UNAUTHORIZED: 502,
    Unsent.UNAVAILABLE: 503,
    Unsent.UNKNOWN: 504,
}
_LATER = (Unsent.TOO_MANY, Unsent.UNAVAILABLE)


class Texting(Protocol):
    """What is asked of the house; `usecases.messaging.Messages`."""

    def configured(self, account: str) -> Awaitable[bool]:
        """Whether the account can send messages at all."""

    def send(self, order: MessageOrder) -> Awaitable[MessageSent | MessageFailed]:
        """Send, or say why not."""


@dataclass(frozen=True, slots=True)
class SmsRequest:
    """A request that was read."""

    order: MessageOrder
    customer_call_id: str | None


def endpoints(texting: Texting) -> list[Endpoint]:
    """POST."""

    async def send(request: web.Request, account: str) -> web.StreamResponse:
        if not await texting.configured(account):
            return failure(501, NOT_CONFIGURED)
        asked = read_request(await request.read(), account)
        result = await texting.send(asked.order)
        if isinstance(result, MessageFailed):
            headers = {"Retry-After": "5"} if result.why in _LATER else {}
            return failure(_STATUSES[result.why], result.detail, headers)
        return success(messageId=result.message_id, customerCallId=asked.customer_call_id)

    return [Endpoint("POST", "/sms", send)]


def read_request(body: bytes, account: str) -> SmsRequest:
    """Read the body. Names in another letter case are taken, numbers may be JSON numbers. Raises BadRequest."""
    fields = read_fields(body, "from, to and message")
    sender, recipient, text = (_text(fields, names) for names in (_FROM, _TO, _TEXT))
    if not sender:
        raise BadRequest("from: is missing; give a number of the account")
    if not recipient:
        raise BadRequest("to: is missing; give a telephone number")
    if text is None:
        raise BadRequest("message: is missing; give the text to send")
    customer_call_id = _text(fields, _CUSTOMER_CALL_ID)
    if customer_call_id is not None and len(customer_call_id) > _LONGEST_NAME:
        raise BadRequest(f"customerCallId: is longer than {_LONGEST_NAME} characters")
    return SmsRequest(MessageOrder(account, sender, recipient, text), customer_call_id)


def _text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names that is given."""
    for name in names:
        value = fields.get(name.lower())
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadRequest(f"{name}: must be text")
        text = str(value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise BadRequest(f"{name}: holds half a character (a lone surrogate); send whole characters")
        return text
    return None

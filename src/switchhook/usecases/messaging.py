"""An account asks us to send a text message: find its number, ask the dialling policy, hand the message over."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from switchhook.domain.dialling import COUNTING_RULES, DialPermit, DialPurpose, DialRefused
from switchhook.domain.messaging import MessageFailed, MessageSent, Messaging, TextMessage, Unsent
from switchhook.domain.phone import e164
from switchhook.domain.ports import DiallingGate
from switchhook.usecases.repositories import NumberFinder

log = logging.getLogger(__name__)

MOST_CHARACTERS = 1_600
"""Ten segments; providers refuse more."""


@dataclass(frozen=True, slots=True)
class MessageOrder:
    """Numbers as the customer wrote them."""

    account: str
    sender: str
    recipient: str
    text: str = field(repr=False)


class Messages:
    """Sends messages for accounts."""

    def __init__(self, numbers: NumberFinder, dialling: DiallingGate, messaging: Messaging) -> None:
        self._numbers = numbers
        self._dialling = dialling
        self._messaging = messaging

    async def configured(self, account: str) -> bool:
        """Whether the account can send messages at all. Raises StoreUnavailable."""
        return await self._messaging.configured(account)

    async def send(self, order: MessageOrder) -> MessageSent | MessageFailed:
        """Send, or say why not; the detail names the field and the cure. Raises StoreUnavailable."""
        sender = e164(order.sender)
        number = await self._numbers.find_number(sender) if sender else None
        if number is None or number.account != order.account:
            return MessageFailed(Unsent.BAD_REQUEST, "from: is no number of this account; give one that is configured")
        if not order.text.strip():
            return MessageFailed(Unsent.BAD_REQUEST, "message: is empty; give the text to send")
        if len(order.text) > MOST_CHARACTERS:
            return MessageFailed(Unsent.BAD_REQUEST, f"message: is longer than {MOST_CHARACTERS} characters; shorten it")
        decision = await self._dialling.admit(order.account, order.recipient, DialPurpose.MESSAGE)
        if isinstance(decision, DialRefused):
            return _refused(decision)
        return await self._send(order, number.number, decision)

    async def _send(self, order: MessageOrder, sender: str, permit: DialPermit) -> MessageSent | MessageFailed:
        try:
            result = await self._messaging.send(TextMessage(order.account, sender, permit.called, order.text))
        finally:
            self._dialling.release(permit, 0)
        if isinstance(result, MessageSent):
            log.info("message sent", extra={"account": order.account, "message_id": result.message_id})
        return result


def _refused(decision: DialRefused) -> MessageFailed:
    if decision.rule == "unavailable":
        return MessageFailed(Unsent.UNAVAILABLE, decision.message)
    why = Unsent.TOO_MANY if decision.rule in COUNTING_RULES else Unsent.BAD_REQUEST
    return MessageFailed(why, f"to: {decision.message}")

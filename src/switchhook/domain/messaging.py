"""Text messages: what is sent, through which port, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A text from a number of an account to somebody's telephone."""

    account: str
    sender: str
    """E.164; a number of the account."""
    recipient: str
    """E.164."""
    text: str = field(repr=False)


class Unsent(Enum):
    """Why a message was not sent."""

    NOT_CONFIGURED = "not-configured"
    """The account has nobody who sends messages."""
    BAD_REQUEST = "bad-request"
    """Asked again it will fail again."""
    TOO_MANY = "too-many"
    UNAUTHORIZED = "unauthorized"
    """The provider does not know the account's credentials."""
    UNAVAILABLE = "unavailable"
    """Not sent; trying again later can help."""
    UNKNOWN = "unknown"
    """The provider did not answer: the message may have been sent."""


@dataclass(frozen=True, slots=True)
class MessageSent:
    """The provider took the message."""

    message_id: str
    """The provider's own name for it."""


@dataclass(frozen=True, slots=True)
class MessageFailed:
    """The message was not sent, or nobody knows."""

    why: Unsent
    detail: str
    """For people; no secret."""


class Messaging(Protocol):
    """Sends text messages."""

    async def configured(self, account: str) -> bool:
        """Whether the account has somebody who sends messages. Raises StoreUnavailable."""

    async def send(self, message: TextMessage) -> MessageSent | MessageFailed:
        """Hand the message over. Raises StoreUnavailable."""

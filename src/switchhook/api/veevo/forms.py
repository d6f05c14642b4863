"""How Veevo writes numbers, times and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from switchhook.domain import money, phone


def shown_number(text: str) -> str:
    """A number in E.164; what is no telephone number stays as the line gave it."""
    return printable(phone.e164(text.partition(";")[0]) or text)


def iso(at: datetime) -> str:
    """`2026-04-03T16:26:20.046Z`."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def amount(dollars: Decimal | None) -> msgspec.Raw | None:
    """A JSON number as the vendor writes it: `0.00146`; None becomes null."""
    return None if dollars is None else msgspec.Raw(money.plain(dollars).encode())


def printable(text: str) -> str:
    """The text without half surrogate pairs, which UTF-8 cannot say."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8, members in order; a `Raw` keeps its text."""
    return msgspec.json.encode(body)


def json_text(value: Any) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()

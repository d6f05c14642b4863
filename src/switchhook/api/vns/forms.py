"""How VNS writes numbers, times and JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from switchhook.api.vns.profile import NumberFormat
from switchhook.domain import phone


def shown_number(text: str, form: NumberFormat) -> str:
    """A number in the form that the customer's backend expects; what is no telephone number stays as the line gave it."""
    if form == "raw":
        return text
    number = phone.e164(text)
    if number is None:
        return text
    return phone.national(number) if form == "national" else number


def utc_seconds(at: datetime) -> str:
    """`2026-03-12T10:42:15Z`, as in CallStart."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_milliseconds(at: datetime) -> str:
    """`2026-04-17T16:26:20.046Z`, as in live transcription."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def utc_ticks(at: datetime) -> str:
    """`2026-03-20T02:43:39.6521580Z`, as in CallEnd: always seven digits, the tick of .NET."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def json_text(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_bytes(value: Any) -> bytes:
    """Compact JSON in UTF-8; half a surrogate pair, which UTF-8 cannot say, becomes a question mark."""
    return json_text(value).encode("utf-8", "replace")

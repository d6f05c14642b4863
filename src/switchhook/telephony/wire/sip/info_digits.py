"""DTMF in the body of INFO: `application/dtmf-relay` (Signal=5, Duration=160) and `application/dtmf` (5)."""

from __future__ import annotations

import re

_SIGNAL = re.compile(r"^\s*Signal\s*[=:]\s*(\S+)\s*$", re.IGNORECASE | re.MULTILINE)
_DURATION = re.compile(r"^\s*Duration\s*[=:]\s*([0-9]{1,5})\s*$", re.IGNORECASE | re.MULTILINE)
_DIGITS = {**{digit: digit for digit in "0123456789*#ABCD"}, "10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}

RELAY = "application/dtmf-relay"
PLAIN = "application/dtmf"


def parse_digit(content_type: str, body: bytes) -> tuple[str, int | None] | None:
    """The digit and its length in milliseconds, if it says; None when there is no digit in it."""
    text = body[:1024].decode("utf-8", "replace")
    duration = _DURATION.search(text)
    signal = _SIGNAL.search(text)
    word = signal.group(1) if signal else text.strip() if content_type == PLAIN else ""
    digit = _DIGITS.get(word.upper())
    return None if digit is None else (digit, int(duration.group(1)) if duration else None)

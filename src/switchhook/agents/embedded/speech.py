"""How a text is spoken, and which text a one-response instruction asks to be spoken word for word."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)\b")
_LONG_NUMBER = re.compile(r"(?<![\d.,])\d{4,}(?![\d.,]*\d)")
_MINUTE_WORDS = {0: "", 30: "thirty", 15: "fifteen", 45: "forty five"}
_VERBATIM = re.compile(r"\b(say|speak|tell|repeat|verbatim|exactly|greet|farewell)\b", re.IGNORECASE)
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)+)\"|“([^”]+)”|«([^»]+)»", re.DOTALL)


def spoken(text: str) -> str:
    """Return a text with times as a person says them and long numbers digit by digit."""
    return _LONG_NUMBER.sub(lambda match: " ".join(match[0]), _CLOCK.sub(lambda match: _time_in_words(match), text))


def verbatim(instructions: str | None) -> str | None:
    """Return the quoted text that instructions such as `Say exactly this to the caller: "Goodbye."` ask for, else None."""
    if not instructions:
        return None
    quoted = _QUOTED.search(instructions)
    if quoted is None or not _VERBATIM.search(instructions[: quoted.start()] + instructions[quoted.end() :]):
        return None
    text = next(group for group in quoted.groups() if group is not None)
    return re.sub(r"\\(.)", r"\1", text).strip() or None


def _time_in_words(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    if (hour, minute) == (12, 0):
        return "noon"
    if (hour, minute) == (0, 0):
        return "midnight"
    minutes = _MINUTE_WORDS.get(minute, f"oh {minute}" if minute < 10 else str(minute))
    return " ".join(filter(None, [str((hour - 1) % 12 + 1), minutes, "a m" if hour < 12 else "p m"]))

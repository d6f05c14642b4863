"""Slots: the parts of a phrase that carry a value. Built in: `day`, `time`, `digits`, `number`; a script adds its own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from switchhook.agents.embedded import phrases

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DIGITS = {
    "zero": "0",
    "oh": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
}
_NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_HOURS = _NUMBERS[:12]
_MINUTES = {"thirty": 30, "fifteen": 15, "forty five": 45, "o'clock": 0}
_HALF_DAY = {"in the morning": "am", "in the afternoon": "pm", "in the evening": "pm", "a m": "am", "p m": "pm"}
_FIRST_OFFICE_HOUR = 8
"""An hour without "in the morning" or "in the afternoon" lies between 8 in the morning and 7 in the evening."""
MAX_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """One kind of value."""

    expansions: tuple[str, ...]
    """JSGF alternatives."""
    ends: phrases.SlotEnds
    """Where in a text a value that begins at a place may end."""
    read: Callable[[phrases.Words], str]
    """The words that matched → value."""
    read_keys: Callable[[str], str | None]
    """Keys pressed → value, or None when they mean nothing here."""


def of_words(options: Mapping[str, Sequence[phrases.Phrase]], keys: Mapping[str, str] = MappingProxyType({})) -> Slot:
    """A slot of listed values, each with the phrases that mean it; `keys` maps pressed keys to values."""
    spoken = [phrase for means in options.values() for phrase in means]

    def read(words: phrases.Words) -> str:
        return next(value for value, means in options.items() if any(p.match(words, {}) is not None for p in means))

    return Slot(tuple(phrase.expansion for phrase in spoken), _ends_of(spoken), read, keys.get)


def of_digits(least: int, most: int) -> Slot:
    """A slot of `least` to `most` spoken or keyed digits; the value is the string of digits."""
    digit = "(" + " | ".join(_DIGITS) + ")"

    def ends(words: phrases.Words, at: int) -> list[int]:
        count = next((i for i, word in enumerate(words[at : at + most]) if word not in _DIGITS), min(most, len(words) - at))
        return [at + length for length in range(least, count + 1)]

    def read_keys(keys: str) -> str | None:
        return keys if keys.isdigit() and least <= len(keys) <= most else None

    expansions = tuple(" ".join([digit] * count) for count in range(least, most + 1))
    return Slot(expansions, ends, lambda words: "".join(_DIGITS[word] for word in words), read_keys)


def _ends_of(spoken: Sequence[phrases.Phrase]) -> phrases.SlotEnds:
    return lambda words, at: sorted({end for phrase in spoken for end in phrase.ends(words, at, {})})


def _weekday() -> Slot:
    keys = {str(place): day for place, day in enumerate(_DAYS, 1)}
    return of_words({day: [phrases.parse(day)] for day in _DAYS}, keys)


def _number() -> Slot:
    keys = {str(value): str(value) for value in range(1, len(_NUMBERS) + 1)}
    return of_words({str(value): [phrases.parse(word)] for value, word in enumerate(_NUMBERS, 1)}, keys)


def _clock_time() -> Slot:
    hour = "(" + " | ".join(_HOURS) + ")"
    minute = "(" + " | ".join(_MINUTES) + ")"
    half_day = "(" + " | ".join(_HALF_DAY) + ")"
    texts = [f"{hour} [{minute}] [{half_day}]", f"(half past | quarter past | quarter to) {hour} [{half_day}]", "noon"]
    spoken = [phrases.parse(text) for text in texts]
    return Slot(tuple(phrase.expansion for phrase in spoken), _ends_of(spoken), _read_time, _keyed_time)


def _read_time(words: phrases.Words) -> str:
    """`half past two` → `14:30`."""
    text = " ".join(words)
    if text == "noon":
        return "12:00"
    half_day = next((half for spoken, half in _HALF_DAY.items() if text.endswith(f" {spoken}")), "")
    offset = 30 if "half past" in text else 15 if "quarter past" in text else -15 if "quarter to" in text else 0
    offset += next((count for spoken, count in _MINUTES.items() if f" {spoken}" in f" {text}"), 0)
    hour = next((_HOURS.index(word) + 1 for word in words if word in _HOURS), 12)
    return _on_clock(_in_office(hour, half_day) * 60 + offset)


def _keyed_time(keys: str) -> str | None:
    """`3` → `15:00`, `10` → `10:00`, `230` and `1430` → `14:30`."""
    if not keys.isdigit() or len(keys) > 4:
        return None
    hour, minute = (int(keys), 0) if len(keys) <= 2 else (int(keys[:-2]), int(keys[-2:]))
    if hour > 23 or minute > 59:
        return None
    return _on_clock((_in_office(hour, "") if 1 <= hour <= 12 else hour) * 60 + minute)


def _in_office(hour: int, half_day: str) -> int:
    if half_day == "am":
        return hour % 12
    if half_day == "pm" or hour < _FIRST_OFFICE_HOUR:
        return hour % 12 + 12
    return hour


def _on_clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def built_in() -> dict[str, Slot]:
    """Return the slots every script has: `day`, `time`, `digits` (four), `number`."""
    return {"day": _weekday(), "time": _clock_time(), "digits": of_digits(4, 4), "number": _number()}

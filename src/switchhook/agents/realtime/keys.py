"""The keys that a caller presses, gathered to numbers: `#`, a pause or too many of them end one."""

from __future__ import annotations

MOST_DIGITS = 32


class Keys:
    """The number being typed."""

    def __init__(self) -> None:
        self._digits = ""

    def __bool__(self) -> bool:
        """Whether a number is being typed."""
        return bool(self._digits)

    def press(self, digit: str) -> bool:
        """Add a key; True when it ends the number. A `#` is part of a number only when it stands alone."""
        if digit != "#" or not self._digits:
            self._digits += digit
        return digit == "#" or len(self._digits) >= MOST_DIGITS

    def take(self) -> str:
        """The number so far; the next key begins another."""
        digits, self._digits = self._digits, ""
        return digits

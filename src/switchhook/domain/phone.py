"""Telephone numbers in the forms that lines and contracts write them.

E.164 inside; what comes in is taken in any common form. Only the North American plan (NANP) is known well enough to complete a
number without its country code; elsewhere a number needs `+` or `00`.
"""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[\s\u00a0.\-()/]+")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_NANP = re.compile(r"[2-9][0-9]{9}")
_NANP_COUNTRIES = frozenset({"US", "CA"})


def e164(text: str, country: str = "US") -> str | None:
    """The number in E.164 with its plus sign, or None when the text is none.

    Takes `+17206999999`, and in a NANP `country` also `17206999999`, `7206999999`, `(720) 699-9999` and `011…`; elsewhere `00…`.
    Of a NANP number the area code alone is checked, not whether it is in service.
    """
    digits = _SEPARATORS.sub("", text.strip().removeprefix("tel:"))
    if digits.startswith("+"):
        return digits if _E164.fullmatch(digits) and _plausible(digits) else None
    if not (digits.isascii() and digits.isdigit()):
        return None
    nanp = country in _NANP_COUNTRIES
    if nanp and _NANP.fullmatch(digits):
        return f"+1{digits}"
    if nanp and digits[0] == "1" and _NANP.fullmatch(digits[1:]):
        return f"+{digits}"
    prefix = "011" if nanp else "00"
    if digits.startswith(prefix):
        return e164(f"+{digits.removeprefix(prefix)}", country)
    return None


def national(number: str) -> str:
    """An E.164 number as its own country writes it: NANP without `+1`, every other number unchanged."""
    return number[2:] if number.startswith("+1") and _NANP.fullmatch(number[2:]) else number


def _plausible(number: str) -> bool:
    return not number.startswith("+1") or _NANP.fullmatch(number[2:]) is not None

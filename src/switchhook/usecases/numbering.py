"""What the numbering plans say of a number: its form in E.164, its country, its kind, its time zones.

The plans are those of `phonenumbers`. Where they are silent, the country of a North American number follows from its area code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import phonenumbers
from phonenumbers import PhoneNumberType, ValidationResult, shortnumberinfo
from phonenumbers import timezone as number_zones

COUNTRIES = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""ISO 3166 codes that have a numbering plan."""
NO_COUNTRY = "001"
"""The UN's code for the world: networks above countries (satellites, international freephone)."""

_MAX_CHARS = 64
_WRITTEN = re.compile(r"\+?[0-9 \u00a0.\-()/]+")
_NANP = 1
# An area code that no country has: numbers of labs, examples and films.
_FICTION = "555"
_PREMIUM_KINDS = frozenset(
    {PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.PERSONAL_NUMBER, PhoneNumberType.PAGER}
)
# North American pagers and personal numbers cost what other numbers cost.
_NANP_PREMIUM_KINDS = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST})
_NANP_PREMIUM = re.compile(r"900|[2-9][0-9]{2}976")


@dataclass(frozen=True, slots=True)
class NumberRefused:
    """A text that is no number to dial."""

    message: str
    """Why, and the cure."""


@dataclass(frozen=True, slots=True)
class DialledNumber:
    """A number as the numbering plans know it."""

    e164: str
    country: str | None
    """ISO 3166; `001`: of no country; None: of no country that is known."""
    kind: str
    """`fixed-line`, `mobile`, `fixed-line-or-mobile`, `toll-free`, `premium-rate`…, `unknown`."""
    premium: bool
    """Premium, shared-cost, personal or satellite, or of a range that the numbering plan does not know."""
    zones: tuple[str, ...]
    """Where the callee may be; empty: not known."""


def read_number(text: str, default_country: str) -> DialledNumber | NumberRefused:
    """Read a number as somebody wrote it; one without a country code is of `default_country`.

    Digits and the usual separators are taken; letters, `*`, `#` and extensions are not: a network may make anything of them.
    """
    written = text.strip()
    if written[:4].lower() == "tel:":
        written = written[4:]
    if not written or len(written) > _MAX_CHARS or not _WRITTEN.fullmatch(written):
        return NumberRefused(f'{_shown(text)} is no telephone number; write digits with the country code: "+17205551212"')
    try:
        number = phonenumbers.parse(written, default_country)
    except phonenumbers.NumberParseException:
        return NumberRefused(f'{_shown(text)} is no telephone number; write it with its country code: "+17205551212"')
    national = phonenumbers.national_significant_number(number)
    country_code = number.country_code or 0
    region = phonenumbers.region_code_for_country_code(country_code)
    if _emergency(re.sub(r"[^0-9]", "", written), default_country) or _emergency(national, region):
        return NumberRefused(f"{_shown(text)} is an emergency number; those are never dialled from here")
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return NumberRefused(
            f"{_shown(text)} is too short or too long for a number of {region}; write it in full, with its country code"
        )
    kind = phonenumbers.number_type(number)
    return DialledNumber(
        phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
        _country(number, national, region),
        PhoneNumberType.to_string(kind).lower().replace("_", "-"),
        _premium(country_code, national, kind),
        _zones(number),
    )


def is_emergency(text: str, country: str) -> bool:
    """Whether these digits are an emergency number of the country."""
    return _emergency(re.sub(r"[^0-9]", "", text), country)


def country_of(number: str) -> str | None:
    """The country of an E.164 number; None when it has none."""
    known = read_number(number, "US")
    return known.country if isinstance(known, DialledNumber) and known.country != NO_COUNTRY else None


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_CHARS]) or "an empty text"


def _emergency(digits: str, region: str) -> bool:
    return region in COUNTRIES and bool(shortnumberinfo.is_emergency_number(digits, region))


def _country(number: phonenumbers.PhoneNumber, national: str, region: str) -> str | None:
    found = phonenumbers.region_code_for_number(number)
    if found is not None:
        return str(found)
    if number.country_code != _NANP:
        return region
    area = national[:3]
    if area == _FICTION:
        return region
    # A new exchange is not worth a wrong answer: its area code tells the country.
    usual = phonenumbers.PhoneNumber(country_code=_NANP, national_number=int(f"{area}5550123"))
    return phonenumbers.region_code_for_number(usual)


def _premium(country_code: int, national: str, kind: int) -> bool:
    if country_code == _NANP:
        return kind in _NANP_PREMIUM_KINDS or _NANP_PREMIUM.match(national) is not None
    if phonenumbers.region_code_for_country_code(country_code) == NO_COUNTRY:
        return kind != PhoneNumberType.TOLL_FREE
    return kind in _PREMIUM_KINDS or kind == PhoneNumberType.UNKNOWN


def _zones(number: phonenumbers.PhoneNumber) -> tuple[str, ...]:
    found = number_zones.time_zones_for_number(number)
    return tuple(zone for zone in found if zone != number_zones.UNKNOWN_TIMEZONE)


def zone_of(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None when this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None

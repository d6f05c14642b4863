"""The values of an apply file: what each may be, and the cure when it is something else."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from switchhook.domain.dialling import MOST_EXTENSION_DIGITS
from switchhook.domain.phone import e164
from switchhook.domain.web_address import address_fits
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.uri import SipUri
from switchhook.usecases.numbering import COUNTRIES, DialledNumber, read_number

_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
_SHORT = rf"[0-9]{{1,{MOST_EXTENSION_DIGITS}}}"
_EXTENSION = re.compile(rf"{_SHORT}|[A-Za-z][A-Za-z0-9._-]{{0,31}}")
_EXTENSION_BLOCK = re.compile(rf"({_SHORT})-({_SHORT})")
_PLAIN_URL = re.compile(r"(?:(?![@?#])[!-~])+")
_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")


class Entry(BaseModel):
    """An object of the file: no key beside those that are known, no value taken for another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False)


def _sip_address(text: str) -> str:
    try:
        SipUri.parse(text)
    except GrammarError:
        raise ValueError('is no SIP address; write "sip:host:port"') from None
    return text


def _block(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError('is no address block; write "203.0.113.0/24" or a single address') from None


def _quoted(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError('put the number in quotes: "+17205551212" (YAML takes the plus sign of a bare number away)')
    return value


def _listed(value: object) -> object:
    return [] if value is None else value


def _number(text: str) -> str:
    number = e164(text)
    if number is None:
        raise ValueError('is no telephone number; write it with its country code: "+17205551212"')
    return number


def _as_dialled(number: str) -> str:
    """As the dialling policy writes it, which knows the numbering plans: a trunk prefix after the country code is dropped."""
    known = read_number(number, "US")
    return known.e164 if isinstance(known, DialledNumber) else number


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError('is no prefix of a number; write the plus sign and the first digits: "+1900"')
    return text


def _extension(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError('put the extension in quotes: "1001" (YAML reads a bare 0100 as another number)')
    if not isinstance(value, str):
        return value
    block = _EXTENSION_BLOCK.fullmatch(value)
    if block and len(block[1]) == len(block[2]) and block[1] <= block[2]:
        return value
    # Longer ones could be telephone numbers, which the other rules judge.
    if block or not _EXTENSION.fullmatch(value):
        raise ValueError('is no extension; write "1001", "1000-1999" (six digits at most) or the name of a SIP user')
    return value


def _sent_in_a_header(value: str) -> str:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("cannot be sent in an HTTP header; use printable ASCII without a blank at either end")
    return value


def _country(value: object) -> object:
    # The code of Norway, NO, means "false" to YAML.
    code = "NO" if value is False else value
    if not isinstance(code, str):
        return code
    if code.upper() not in COUNTRIES:
        raise ValueError("is no country; write its two letters (ISO 3166): US, CA, GB")
    return code.upper()


def _hours(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(time, str) and _TIME.fullmatch(time) for time in value):
        if value[0] < value[1]:
            return (value[0], value[1])
        raise ValueError('must begin before it ends; write two times of one day: ["09:00", "20:00"]')
    raise ValueError('must be two times of day in quotes: ["09:00", "20:00"] (YAML makes a number of a bare 20:00)')


def _switch(value: object) -> object:
    # `off` means "false" to YAML.
    return "off" if value is False else value


def _http_url(text: str) -> str:
    if not address_fits(text, ("http", "https")) or not _PLAIN_URL.fullmatch(text):
        raise ValueError('is no address of a service; write "https://host" or "http://host:port"')
    return text.rstrip("/")


Listed = BeforeValidator(_listed)
"""A key with nothing under it is an empty list."""
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
HeaderText = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_sent_in_a_header)]
SipAddress = Annotated[str, AfterValidator(_sip_address)]
Block = Annotated[str, AfterValidator(_block)]
PhoneNumber = Annotated[str, BeforeValidator(_quoted), AfterValidator(_number)]
CalleeNumber = Annotated[PhoneNumber, AfterValidator(_as_dialled)]
Prefix = Annotated[str, BeforeValidator(_quoted), AfterValidator(_prefix)]
Extension = Annotated[str, BeforeValidator(_extension)]
Country = Annotated[str, BeforeValidator(_country)]
Hours = Annotated[tuple[str, str] | None, BeforeValidator(_hours)]
SrtpWord = Annotated[Literal["off", "offered", "required"], BeforeValidator(_switch)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
FilePath = Annotated[str, Field(min_length=1)]

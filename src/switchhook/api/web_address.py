"""Web addresses as customers write them, in the settings of a number and in replies to webhooks."""

from __future__ import annotations

from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator


def address_fits(url: str, schemes: tuple[str, ...]) -> bool:
    """Whether the text is a URL of one of these schemes with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _web_address(url: str) -> str:
    url = url.strip()
    if not address_fits(url, ("http", "https")):
        raise ValueError("is no web address")
    return url


WebAddress: TypeAlias = Annotated[str, AfterValidator(_web_address)]
"""A setting that is an http or https URL."""

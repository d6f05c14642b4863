"""Web addresses as customers write them, in the settings of a number and in replies to webhooks."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from switchhook.domain.web_address import address_fits


def _web_address(url: str) -> str:
    url = url.strip()
    if not address_fits(url, ("http", "https")):
        raise ValueError("is no web address")
    return url


WebAddress: TypeAlias = Annotated[str, AfterValidator(_web_address)]
"""A setting that is an http or https URL."""

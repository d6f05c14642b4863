"""Web addresses as customers and operators write them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit


def address_fits(url: str, schemes: Sequence[str]) -> bool:
    """Whether the text is a URL of one of these schemes with a host and, if it names a port, one that can be reached."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False

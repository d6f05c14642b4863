"""Who a bearer of an API token is."""

from __future__ import annotations

import hashlib
import hmac

from switchhook.domain.ports import Clock
from switchhook.usecases.repositories import TokenFinder

CACHE_S = 10.0
"""A token that was taken away works this long at most."""
CACHE_TOKENS = 4_096


def token_digest(value: str) -> bytes:
    """SHA-256 of a token: tokens are long and random, so a slow hash would add nothing."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()


class TokenVerifier:
    """Finds the account of a token. The token itself is kept nowhere."""

    def __init__(self, tokens: TokenFinder, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        self._known: dict[bytes, tuple[str, float]] = {}

    async def verify_token(self, value: str) -> str | None:
        """The account's name, or None. Raises StoreUnavailable."""
        digest = token_digest(value)
        now = self._clock.now()
        known = self._known.get(digest)
        if known is not None and now < known[1]:
            return known[0]
        found = await self._tokens.find_token(digest)
        if found is None or not hmac.compare_digest(found[1], digest):
            self._known.pop(digest, None)
            return None
        if len(self._known) >= CACHE_TOKENS:
            self._known.clear()
        self._known[digest] = (found[0], now + CACHE_S)
        return found[0]

    def forget(self) -> None:
        """Look every token up again."""
        self._known.clear()

"""Whose number Twilio speaks of, from what is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from switchhook.api.twilio.voice_routes import Owner
from switchhook.domain.phone import e164
from switchhook.domain.records import TwilioCredentials
from switchhook.usecases.repositories import NumberFinder

Configured = Callable[[], Mapping[str, TwilioCredentials]]
"""Account → its credentials, as they are at this moment."""


class ConfiguredOwners:
    """Implements `voice_routes.Owners`. `learning` are the contracts whose start webhook brings Twilio credentials."""

    def __init__(self, numbers: NumberFinder, configured: Configured, learning: frozenset[str]) -> None:
        self._numbers = numbers
        self._configured = configured
        self._learning = learning

    async def of_number(self, number: str) -> Owner | None:
        """By telephone number. Raises StoreUnavailable."""
        wanted = e164(number)
        found = await self._numbers.find_number(wanted) if wanted is not None else None
        if found is None:
            return None
        pair = self._configured().get(found.account)
        return Owner(
            found.number,
            found.account,
            pair.auth_token if pair else None,
            found.contract in self._learning,
            pair.account_sid if pair else None,
        )

    def token_of_sid(self, account_sid: str) -> str | None:
        """The auth token of a Twilio account that is configured."""
        return next((pair.auth_token for pair in self._configured().values() if pair.account_sid == account_sid), None)

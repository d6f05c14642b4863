"""Status callbacks are tried again for a moment: a backend that restarts just then would never learn that its call is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from switchhook.domain.contract import Http, HttpFailure, HttpOutcome, HttpRequest

logger = logging.getLogger(__name__)

BACK_OFF_S = (0.5, 2.0, 6.0)
"""Short: the callbacks of a call are sent in order, so the next one waits, and a server that stops waits for all of them."""
_TOO_MANY = 429


class PersistentHttp:
    """Implements `domain.contract.Http`: what fails for the moment is sent again after each back-off, the same bytes under the
    same signature; the last outcome is given back, whatever it is."""

    def __init__(self, http: Http, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._http = http
        self._sleep = sleep

    async def send(self, request: HttpRequest) -> HttpOutcome:
        """Send until it is taken or refused for good."""
        outcome = await self._http.send(request)
        for wait_s in BACK_OFF_S:
            why = passing_trouble(outcome)
            if why is None:
                break
            logger.info("a status callback is sent again in %g s: %s", wait_s, why)
            await self._sleep(wait_s)
            outcome = await self._http.send(request)
        return outcome


def passing_trouble(outcome: HttpOutcome) -> str | None:
    """What may be better in a moment: no reply, HTTP 429 and 5xx. None for what is done, and for what stays as it is."""
    if isinstance(outcome, HttpFailure):
        return None if outcome.reason == "refused" else f"{outcome.reason}: {outcome.detail}"
    return f"HTTP {outcome.status}" if outcome.status == _TOO_MANY or outcome.status >= 500 else None

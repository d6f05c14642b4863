"""Notices that another process (`switchhook apply`) changed the configuration."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from switchhook.domain.errors import StoreUnavailable
from switchhook.usecases.repositories import DirectoryStore

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0


class DirectoryWatch:
    """Awaits `refresh` at the start and after each change; what it reads is then the newest."""

    def __init__(self, directory: DirectoryStore, refresh: Callable[[], Awaitable[None]]) -> None:
        self._directory = directory
        self._refresh = refresh
        self._seen: int | None = None

    async def look(self) -> bool:
        """Refresh if something changed since the last look; gives whether it did."""
        version = await self._directory.version()
        if version == self._seen:
            return False
        await self._refresh()
        self._seen = version
        return True

    async def run(self) -> None:
        """Look every two seconds, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable:
                logger.warning("the configuration could not be read; the one in force stays")
            except Exception:
                # The edge of the task: what cannot be taken up must not end the watching, or the calls with it.
                logger.exception("the configuration could not be taken up")
            await asyncio.sleep(LOOK_EVERY_S)

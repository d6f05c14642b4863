"""Waiting for what must happen: conditions with a deadline, and a sentence for the case that it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 20.0
LOOK_S = 0.02


class Watched:
    """Something whose changes can be waited for."""

    def __init__(self) -> None:
        self._change = asyncio.Event()

    def changed(self) -> None:
        """Let those who wait look again."""
        self._change.set()
        self._change = asyncio.Event()

    async def until(self, found: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
        """Wait until `found` gives something true; it is asked after each change. Raises AssertionError naming `what`."""
        try:
            async with asyncio.timeout(deadline_s):
                while not (result := found()):
                    await self._change.wait()
                return result
        except TimeoutError:
            raise AssertionError(f"within {deadline_s:g} s: {what}") from None


async def _moment() -> None:
    await asyncio.sleep(LOOK_S)


async def eventually(found: Callable[[], Awaitable[T | None]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Ask again and again what cannot tell of its changes (a file, another process) until it gives something true."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (result := await found()):
                await _moment()
            return result
    except TimeoutError:
        raise AssertionError(f"within {deadline_s:g} s: {what}") from None

"""Tasks in the background of a test, and waiting for what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them until the block ends."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one) for one in work]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    """Wait for a condition that other tasks bring about."""
    async with asyncio.timeout(patience_s):
        while not condition():
            await _moment()


async def _moment() -> None:
    await asyncio.sleep(0.002)

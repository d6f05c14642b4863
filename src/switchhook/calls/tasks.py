"""The tasks of one call: what its end cuts short, and the customer's tools, which may finish."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

TOOL_GRACE_S = 5.0
"""A tool that runs when the call ends may finish this long, because its side effects matter (contract §1.4)."""


class CallTasks:
    """Tasks in the call's group; `end` ends them all."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._work: set[asyncio.Task[None]] = set()
        self._tools: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Cancelled when the call ends."""
        return self._kept(work, self._work)

    def spawn_tool(self, tool: Coroutine[Any, Any, None]) -> None:
        """Cancelled when it is not done `TOOL_GRACE_S` after the call's end."""
        self._kept(tool, self._tools)

    async def end(self) -> None:
        """The call is over."""
        for task in set(self._work):
            task.cancel()
        if self._tools:
            await asyncio.wait(set(self._tools), timeout=TOOL_GRACE_S)
        for task in set(self._tools):
            task.cancel()

    def _kept(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

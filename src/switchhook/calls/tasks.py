"""The tasks of one call: what its end cuts short, and what may finish: the customer's tools, and the last words' text."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

GRACE_S = 5.0
"""A tool that runs when the call ends may finish this long, because its side effects matter (contract §1.4). An agent waits less
long for the caller's last words."""


class CallTasks:
    """Tasks in the call's group; `end` ends them all."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._work: set[asyncio.Task[None]] = set()
        self._lasting: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Cancelled when the call ends."""
        return self._kept(work, self._work)

    def spawn_lasting(self, work: Coroutine[Any, Any, None]) -> None:
        """Cancelled when it is not done `GRACE_S` after the call's end."""
        self._kept(work, self._lasting)

    async def end(self) -> None:
        """The call is over."""
        for task in set(self._work):
            task.cancel()
        if self._lasting:
            await asyncio.wait(set(self._lasting), timeout=GRACE_S)
        for task in set(self._lasting):
            task.cancel()

    def _kept(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

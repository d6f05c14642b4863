"""What a flow lets the party hear by itself: spoken texts, sounds from the customer, keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from switchhook.calls.parts import CallParts
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.plan import PlaySound, PressKeys, Say
from switchhook.domain.ports import Leg

log = logging.getLogger(__name__)

KEY_S = 0.26
"""A digit of 160 ms and the gap behind it."""
_WAITS_S = {"w": 0.5, "W": 1.0}


class AnnouncingHost(Protocol):
    """What an announcement asks of the call."""

    @property
    def leg(self) -> Leg:
        """The party's line."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the call's task group."""


class Announcer:
    """Plays one thing at a time; `on_done` is told when it was heard, or cannot be played."""

    def __init__(self, host: AnnouncingHost, parts: CallParts, on_done: Callable[[], None]) -> None:
        self._host = host
        self._parts = parts
        self._on_done = on_done
        self._task: asyncio.Task[None] | None = None
        self._sound = b""
        self._queued = ("", b"")
        """What the line plays of it, and under which key."""
        self._times_left = 0
        self._playing = False
        self._count = 0

    def play(self, action: Say | PlaySound | PressKeys) -> None:
        """Begin; what was still being made is dropped."""
        self._drop()
        self._task = self._host.spawn(self._play(action))

    def drained(self) -> bool:
        """The line has nothing left to play; gives whether that was ours."""
        # An interrupted agent's last sound may be told only now.
        if not self._playing or not self._host.leg.playout.idle:
            return False
        if self._times_left > 0:
            self._enqueue()
        else:
            self._done()
        return True

    def stop(self) -> None:
        """The party hears no more of it, and `on_done` is not told."""
        self._drop()
        if self._playing:
            self._playing = False
            self._host.leg.playout.interrupt(self._parts.clock.now())

    def moved(self, old: Leg) -> None:
        """The party has gone from the line `old` to the host's: what it has not heard yet follows it there."""
        if not self._playing:
            return
        key, sound = self._queued
        heard_ms = old.playout.heard_ms(key, self._parts.clock.now())
        rest = sound[heard_ms * old.encoding.bytes_per_ms :]
        if rest:
            self._queue(rest)
        else:
            self.drained()

    def _drop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _done(self) -> None:
        self._playing = False
        self._task = None
        self._on_done()

    async def _play(self, action: Say | PlaySound | PressKeys) -> None:
        if isinstance(action, PressKeys):
            await self._press(action.keys)
            self._done()
            return
        self._sound = await self._sound_of(action)
        self._times_left = action.times if isinstance(action, PlaySound) else 1
        if not self._sound:
            self._done()
            return
        self._playing = True
        self._enqueue()

    async def _sound_of(self, action: Say | PlaySound) -> bytes:
        parts, encoding = self._parts, self._host.leg.encoding
        try:
            if isinstance(action, Say):
                return await parts.voice.synthesize(action.text, encoding)
            return b"" if parts.greetings is None else await parts.greetings.fetch(action.url, encoding)
        except SwitchhookError as error:
            log.warning("message not spoken: %s", error)
        except Exception:  # whatever it died of, the call goes on without the message
            log.exception("message not spoken")
        return b""

    def _enqueue(self) -> None:
        self._times_left -= 1
        self._queue(self._sound)

    def _queue(self, sound: bytes) -> None:
        playout, now = self._host.leg.playout, self._parts.clock.now()
        self._count += 1
        # A key that was interrupted would stay silent.
        key = "message" if self._count == 1 else f"message {self._count}"
        self._queued = (key, sound)
        playout.enqueue(key, sound, now)
        playout.finish(key, now)

    async def _press(self, keys: str) -> None:
        for key in keys:
            pause_s = _WAITS_S.get(key)
            if pause_s is None:
                try:
                    self._host.leg.send_digit(key)
                except ValueError as refused:
                    log.warning("a digit is not sent: %s", refused)
            await asyncio.sleep(KEY_S if pause_s is None else pause_s)

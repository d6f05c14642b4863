"""The greeting played while the model connects: fetched from the customer, decoded in a worker, kept for the next call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from switchhook.domain.contract import Http, HttpReply, HttpRequest
from switchhook.domain.errors import GreetingUnavailable
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Clock
from switchhook.media.decode import UnreadableSound, decode

FETCH_S = 5.0
"""The caller waits; then the agent speaks first."""
MOST_BYTES = 8 << 20
MOST_S = 120.0
FRESH_S = 60.0
"""A greeting is not fetched again for so long."""
CACHED_BYTES = 16 << 20
"""Of decoded sound: half an hour of it. The one that was longest unused goes first."""

Decode = Callable[[Callable[[bytes, Encoding, float], bytes], bytes, Encoding, float], Awaitable[bytes]]
"""`media.workers.Workers.run`."""
_Key: TypeAlias = tuple[str, Encoding]


class Greetings:
    """Implements `domain.ports.Greetings`."""

    def __init__(self, http: Http, run: Decode, clock: Clock) -> None:
        self._http = http
        self._run = run
        self._clock = clock
        self._kept: OrderedDict[_Key, tuple[bytes, float]] = OrderedDict()
        self._kept_bytes = 0
        self._under_way: dict[_Key, asyncio.Future[bytes | GreetingUnavailable | None]] = {}

    async def fetch(self, url: str, encoding: Encoding) -> bytes:
        """The sound at `url` in the line's encoding, at most two minutes of it. Raises GreetingUnavailable.

        Calls that want the same sound at one time share one fetch.
        """
        key = (url, encoding)
        while True:
            kept = self._kept.get(key)
            if kept is not None and self._clock.now() < kept[1]:
                self._kept.move_to_end(key)
                return kept[0]
            under_way = self._under_way.get(key)
            if under_way is None:
                return await self._lead(key)
            shared = await asyncio.shield(under_way)
            if isinstance(shared, GreetingUnavailable):
                raise GreetingUnavailable(str(shared))
            if shared is not None:
                return shared
            # The call that fetched has ended meanwhile: this one does it.

    async def _lead(self, key: _Key) -> bytes:
        """Fetch, and let those share it who ask meanwhile."""
        under_way = self._under_way[key] = asyncio.get_running_loop().create_future()
        outcome: bytes | GreetingUnavailable | None = None
        try:
            outcome = await self._sound(*key)
            self._keep(key, outcome)
            return outcome
        except GreetingUnavailable as error:
            outcome = error
            raise
        finally:
            del self._under_way[key]
            under_way.set_result(outcome)

    async def _sound(self, url: str, encoding: Encoding) -> bytes:
        content = await self._content(url)
        try:
            return await self._run(decode, content, encoding, MOST_S)
        except UnreadableSound:
            raise GreetingUnavailable("the greeting is no sound file that can be read; give an MP3 or WAV file") from None
        except Exception as error:
            # Whatever the worker died of, the call goes on without its greeting.
            raise GreetingUnavailable(f"the greeting could not be decoded ({type(error).__name__})") from error

    async def _content(self, url: str) -> bytes:
        request = HttpRequest(url, b"", method="GET", timeout_s=FETCH_S, max_reply_bytes=MOST_BYTES, retry_unsent=True)
        reply = await self._http.send(request)
        if not isinstance(reply, HttpReply):
            raise GreetingUnavailable(f"the greeting could not be fetched: {reply.reason}: {reply.detail}")
        if not 200 <= reply.status < 300:
            raise GreetingUnavailable(f"the greeting could not be fetched: HTTP {reply.status}")
        if reply.truncated:
            raise GreetingUnavailable(f"the greeting is larger than {MOST_BYTES >> 20} MiB")
        return reply.body

    def _keep(self, key: _Key, sound: bytes) -> None:
        old = self._kept.pop(key, None)
        self._kept_bytes += len(sound) - (len(old[0]) if old is not None else 0)
        self._kept[key] = (sound, self._clock.now() + FRESH_S)
        while self._kept_bytes > CACHED_BYTES:
            _, (dropped, _) = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped)

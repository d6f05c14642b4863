"""Our Realtime endpoint on a real port with the embedded engine, and a caller that speaks to it in real time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import picows

from switchhook.agents.embedded.dialogue import Dialogue
from switchhook.agents.providers.grammar_stt import GrammarRecognizer
from switchhook.agents.providers.local_voice import LocalVoice
from switchhook.agents.realtime.endpoint.door import Engine, RealtimeDoor
from switchhook.agents.realtime.endpoint.listener import MediaListener
from switchhook.media.workers import Workers
from tests.agents.realtime.endpoint_case import checked

TOKEN = "secret-token"
WAIT_S = 20.0
Event = dict[str, Any]


@dataclass(slots=True)
class Endpoint:
    """A server that listens."""

    door: RealtimeDoor
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime?model=embedded"


@contextlib.asynccontextmanager
async def endpoint(max_sessions: int = 4) -> AsyncIterator[Endpoint]:
    """Serve until the block ends."""
    workers = Workers(1)
    engine = Engine(Dialogue, GrammarRecognizer(workers), LocalVoice(workers))
    try:
        async with RealtimeDoor(engine, lambda token: "acme" if token == TOKEN else None, max_sessions) as door:
            listener = MediaListener("127.0.0.1", 0, {"/v1/realtime": door.accept})
            await listener.start()
            yield Endpoint(door, listener.port)
            await listener.stop()
    finally:
        await workers.close()
        while _CLIENTS:  # what is left open when the loop ends is complained of in whatever test runs then
            client = _CLIENTS.pop()
            client.close()
            async with asyncio.timeout(WAIT_S):
                await client.over.wait()


_CLIENTS: list[Client] = []
"""Those that have got in."""


class Client(picows.WSListener):
    """A client of the protocol; every event it gets is checked against the openai package's types."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.over = asyncio.Event()
        self.transport: picows.WSTransport | None = None

    @classmethod
    async def connect(cls, url: str, token: str = TOKEN) -> Client:
        made = cls()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        await picows.ws_connect(lambda: made, url, extra_headers=headers)
        return made

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        _CLIENTS.append(self)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.TEXT:
            self.events.put_nowait(checked(frame.get_payload_as_bytes()))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.events.put_nowait(None)
        self.over.set()

    def send(self, kind: str, **fields: Any) -> None:
        self.send_raw(picows.WSMsgType.TEXT, json.dumps({"type": kind, **fields}).encode())

    def send_raw(self, kind: picows.WSMsgType, data: bytes, fin: bool = True) -> None:
        assert self.transport is not None
        self.transport.send(kind, data, fin)

    async def until(self, kind: str, matches: Callable[[Event], bool] = lambda event: True) -> Event:
        """The next event of a kind; what comes before is passed over."""
        async with asyncio.timeout(WAIT_S):
            while (event := await self.events.get()) is not None:
                if event["type"] == kind and matches(event):
                    return event
        raise AssertionError(f"closed before {kind}")

    async def until_each(self, *kinds: str) -> dict[str, Event]:
        """The next event of each of these kinds, whichever of them comes first."""
        found: dict[str, Event] = {}
        while len(found) < len(kinds):
            async with asyncio.timeout(WAIT_S):
                event = await self.events.get()
            assert event is not None, f"closed before {set(kinds) - found.keys()}"
            if event["type"] in kinds:
                found.setdefault(event["type"], event)
        return found

    async def closed(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while await self.events.get() is not None:
                pass

    def close(self) -> None:
        if self.transport is not None:
            self.transport.disconnect()

    def speak(self, sound: bytes) -> None:
        """A line and the silence behind it, as fast as the socket takes it: the server's clock is the sound's."""
        for at in range(0, len(sound) + 8000, 800):
            chunk = sound[at : at + 800].ljust(800, b"\xff")
            self.send("input_audio_buffer.append", audio=base64.b64encode(chunk).decode())

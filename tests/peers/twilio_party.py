"""The telephone at the far end of a Twilio call, and the media stream that carries its sound, as strict as Twilio's."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.server.waiting import Watched

FRAME = 160
FRAME_S = 0.02
SILENCE = b"\xff" * FRAME


class Party(Watched):
    """Somebody with a telephone. `heard` is all that was played to it, µ-law."""

    def __init__(self, number: str) -> None:
        super().__init__()
        self.number = number
        self.heard = bytearray()
        self.heard_at: list[float] = []
        """When each frame of it was played, monotonic seconds."""
        self.over = False
        """Its call is over."""
        self.hung_up = asyncio.Event()
        """It has put the receiver down, or its call was ended for it."""
        self.let_go = False
        """Its call was ended by an order over REST."""
        self.picked_up = asyncio.Event()
        """It has lifted the receiver, where somebody waits for that."""
        self.reachable = True
        """False: its line is dead, and Twilio gets no sound from it any more."""
        self.keys: deque[str] = deque()
        self._speech = bytearray()

    def say(self, sound: bytes) -> None:
        """Speak; it goes out in real time."""
        self._speech += sound

    def hush(self) -> None:
        """Forget what was still to be said."""
        self._speech.clear()
        self.changed()

    async def said(self, deadline_s: float = 60.0) -> None:
        """Wait until all was said and pressed, or the line is dead."""
        await self.until(lambda: self.over or not (self._speech or self.keys), f"{self.number} has spoken", deadline_s)

    def press(self, digit: str) -> None:
        """Press a key."""
        self.keys.append(digit)

    def answer(self) -> None:
        """Lift the receiver."""
        self.picked_up.set()

    def hang_up(self) -> None:
        """Put the receiver down."""
        self.hung_up.set()

    def is_let_go(self) -> None:
        """An order over REST ends its call."""
        self.let_go = True
        self.hung_up.set()

    def next_frame(self) -> bytes:
        """20 ms of what it says."""
        frame = bytes(self._speech[:FRAME])
        del self._speech[:FRAME]
        return frame.ljust(FRAME, b"\xff")

    def hear(self, sound: bytes) -> None:
        """20 ms of sound come out of its receiver."""
        self.heard += sound
        self.heard_at.append(asyncio.get_running_loop().time())
        self.changed()

    async def talks_with(self, other: Party) -> None:
        """Each hears the other, until the other hangs up."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not other.hung_up.is_set():
            self.hear(other.next_frame())
            other.hear(self.next_frame())
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - loop.time()))

    def end(self) -> None:
        """The line is dead."""
        self.over = True
        self.changed()

    async def ended(self, deadline_s: float = 20.0) -> None:
        """Wait until the line is dead."""
        await self.until(lambda: self.over, f"the end of the call of {self.number}", deadline_s)


@dataclass
class Stream:
    """One media stream of a call: real time both ways, marks that come back when what was before them is played, `clear`."""

    party: Party
    sid: str
    account_sid: str
    call_sid: str
    parameters: dict[str, str]
    complaints: list[str]
    cleared: int = 0
    _playing: deque[bytes | str] = field(default_factory=deque)
    _sequence: int = 0
    _socket: aiohttp.ClientWebSocketResponse | None = None

    async def run(self, session: aiohttp.ClientSession, url: str, signature: str) -> None:
        """Until the other side closes it. Cancelled: `stop` is sent and the socket closed."""
        socket = await session.ws_connect(url, headers={"X-Twilio-Signature": signature}, autoping=True)
        self._socket = socket
        self.party.changed()
        try:
            await socket.send_str(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
            await self._send("start", self._start())
            pumping = asyncio.create_task(self._pump())
            try:
                async for message in socket:
                    await self._take(message)
            finally:
                pumping.cancel()
        except asyncio.CancelledError:
            if not socket.closed:
                await self._send("stop", {"stop": {"accountSid": self.account_sid, "callSid": self.call_sid}})
                await socket.close()
            raise

    async def tear(self) -> None:
        """The connection breaks without a word, as soon as there is one: the server may know of it before this end does."""
        socket = await self.party.until(lambda: self._socket, f"a media connection for the call of {self.party.number}")
        connection = socket._response.connection
        assert connection is not None and isinstance(connection.transport, asyncio.WriteTransport)
        connection.transport.abort()

    def _start(self) -> dict[str, Any]:
        form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start = {"accountSid": self.account_sid, "callSid": self.call_sid, "streamSid": self.sid, "tracks": ["inbound"]}
        return {"start": {**start, "mediaFormat": form, "customParameters": self.parameters}}

    async def _send(self, event: str, body: dict[str, Any]) -> None:
        self._sequence += 1
        assert self._socket is not None
        if not self._socket.closed:
            message = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.sid, **body}
            with contextlib.suppress(ConnectionError):  # it closes at this moment; whoever reads it sees the end
                await self._socket.send_str(json.dumps(message, separators=(",", ":")))

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        due, count = loop.time(), 0
        while self._socket is not None and not self._socket.closed:
            media = {"track": "inbound", "chunk": str(count + 1), "timestamp": str(count * 20)}
            if self.party.reachable:
                payload = base64.b64encode(self.party.next_frame()).decode()
                await self._send("media", {"media": {**media, "payload": payload}})
            while self.party.keys:
                await self._send("dtmf", {"dtmf": {"track": "inbound_track", "digit": self.party.keys.popleft()}})
            await self._play()
            count += 1
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _play(self) -> None:
        """20 ms of what was queued, silence behind it, and the marks that are reached."""
        frame = b""
        while self._playing and (isinstance(self._playing[0], str) or len(frame) < FRAME):
            item = self._playing.popleft()
            if isinstance(item, str):
                await self._send("mark", {"mark": {"name": item}})
                continue
            wanted = FRAME - len(frame)
            frame += item[:wanted]
            if item[wanted:]:
                self._playing.appendleft(item[wanted:])
        self.party.hear(frame.ljust(FRAME, b"\xff"))

    async def _take(self, message: aiohttp.WSMessage) -> None:
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.complaints.append(f"a frame of type {message.type} on the media stream")
            return
        said = json.loads(message.data)
        if said.get("streamSid") != self.sid:
            self.complaints.append(f"streamSid is wrong: {message.data[:80]}")
        match said.get("event"):
            case "media":
                try:
                    self._playing.append(base64.b64decode(said["media"]["payload"], validate=True))
                except binascii.Error:
                    self.complaints.append("a payload is no base64")
            case "mark":
                self._playing.append(str(said["mark"]["name"]))
            case "clear":
                self.cleared += 1
                names = [item for item in self._playing if isinstance(item, str)]
                self._playing.clear()
                for name in names:
                    await self._send("mark", {"mark": {"name": name}})
            case _:
                self.complaints.append(f"an unknown event: {message.data[:80]}")

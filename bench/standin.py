"""A stand-in for the server: the barest bridge that passes a call from SIP to a Realtime model and back.

It proves the bench on its own and gives the floor: what the same calls cost without a product around them (`python -m bench
--server standin`). It refuses over capacity, paces replies, flushes and truncates at barge-in, and does nothing else.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import heapq
import json
import os
import socket
import struct
import sys
from collections import deque
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import uvloop
import yaml
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from switchhook_demo import sip_text
from switchhook_demo.sip_text import Message

FRAME_BYTES, FRAME_S = 160, 0.020
RTP = struct.Struct("!BBHII")
SILENCE = b"\xff" * FRAME_BYTES


class ServerEvent(msgspec.Struct):
    """What the bridge reads of a model's event."""

    type: str = ""
    item_id: str = ""
    delta: str = ""


READ = msgspec.json.Decoder(ServerEvent).decode


class Bridge(WSListener):
    """One call: an RTP socket and a model's connection."""

    def __init__(self, house: House, invite: Message, remote: tuple[str, int]) -> None:
        self.house = house
        self.invite = invite
        self.remote = remote
        self.tag = sip_text.token()
        self.answer: Message | None = None
        self.acknowledged = False
        self.over = False
        self._update: bytes = b""
        self._model: WSTransport | None = None
        self._ready = False
        self._backlog: deque[bytes] = deque(maxlen=50)
        self._frames: deque[bytes] = deque()
        self._item = ""
        self._heard = 0
        self._sequence = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((house.host, 0))

    async def start(self) -> None:
        """CallStart, 200, model."""
        caller = sip_text.address_uri(self.invite.get("from")).partition(":")[2].partition("@")[0]
        reply = await self.house.post("call_start", {"sessionGuid": sip_text.token(), "callerId": caller})
        instructions = reply.pop("VoiceElements_Instructions")
        self._update = json.dumps(reply).encode()
        self._accept()
        url = instructions["aiUrl"]
        await ws_connect(lambda: self, url["url"], extra_headers=url["headers"])

    def _accept(self) -> None:
        media = sip_text.read_sdp(self.invite.body)
        if media is None:
            self.house.reply(self.invite.reply(488, "Not Acceptable Here", self.tag), self.remote)
            return
        self._socket.connect((media.host, media.port))
        self.house.loop.add_reader(self._socket.fileno(), self._from_phone)
        self.answer = self.invite.reply(200, "OK", self.tag)
        self.answer.add("contact", f"<sip:standin@{self.house.host}:{self.house.port}>")
        self.answer.add("content-type", "application/sdp")
        self.answer.body = sip_text.write_sdp(self.house.host, self._socket.getsockname()[1], ("PCMU",), "sendrecv", 1)
        self.house.reply(self.answer, self.remote)

    def close(self) -> None:
        """The call ended."""
        if self.over:
            return
        self.over = True
        self.house.loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._model is not None:
            self._model.disconnect(graceful=False)

    def _from_phone(self) -> None:
        while True:
            try:
                data = self._socket.recv(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if data[1] & 0x7F:
                continue
            if self._ready:
                self._append(data)
            else:
                self._backlog.append(data)

    def _append(self, packet: bytes) -> None:
        if self._model is not None:
            audio = binascii.b2a_base64(packet[12:], newline=False)
            self._model.send(WSMsgType.TEXT, b'{"type":"input_audio_buffer.append","audio":"%s"}' % audio)

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The model's socket is open."""
        self._model = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One event of the model."""
        if frame.msg_type is not WSMsgType.TEXT:
            return
        event = READ(frame.get_payload_as_bytes())
        if event.type == "response.output_audio.delta":
            self._play(event.item_id, binascii.a2b_base64(event.delta))
        elif event.type == "session.created":
            transport.send(WSMsgType.TEXT, self._update)
        elif event.type == "session.updated":
            self._ready = True
            for data in self._backlog:
                self._append(data)
            transport.send(WSMsgType.TEXT, b'{"type":"response.create"}')
        elif event.type == "input_audio_buffer.speech_started" and self._frames:
            self._frames.clear()
            truncate = {"type": "conversation.item.truncate", "item_id": self._item, "content_index": 0}
            transport.send(WSMsgType.TEXT, json.dumps(truncate | {"audio_end_ms": self._heard * 20}).encode())

    def _play(self, item: str, audio: bytes) -> None:
        if item != self._item:
            self._item, self._heard = item, 0
        idle = not self._frames
        self._frames.extend(audio[start : start + FRAME_BYTES] for start in range(0, len(audio), FRAME_BYTES))
        if idle:
            self.house.pace(self)

    def send_frame(self) -> bool:
        """One packet towards the phone; False when there is nothing left to say."""
        if self.over or not self._frames:
            return False
        self._sequence += 1
        self._heard += 1
        header = RTP.pack(0x80, 0, self._sequence & 0xFFFF, self._sequence * FRAME_BYTES & 0xFFFFFFFF, id(self) & 0xFFFFFFFF)
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self._socket.send(header + self._frames.popleft())
        return bool(self._frames)


class House(asyncio.DatagramProtocol):
    """SIP signalling, the pacer and the backend's address for every call."""

    def __init__(self, host: str, port: int, capacity: int, number: dict[str, Any]) -> None:
        self.host, self.port, self._capacity, self._number = host, port, capacity, number
        self.loop = asyncio.get_running_loop()
        self._calls: dict[str, Bridge] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._due: list[tuple[float, int, Bridge]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The SIP port is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def reply(self, message: Message, remote: tuple[str, int]) -> None:
        """Put a response on the wire."""
        if self._transport is not None:
            self._transport.sendto(bytes(message), remote)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """One SIP datagram."""
        message = sip_text.parse(data)
        if message is None or message.status:
            return
        call = self._calls.get(message.get("call-id"))
        if message.method == "INVITE":
            self._invited(message, addr, call)
        elif message.method == "ACK":
            if call is not None:
                call.acknowledged = True
        else:
            self.reply(message.reply(200, "OK", "standin"), addr)
            if message.method in ("BYE", "CANCEL") and call is not None:
                call.close()
                self._calls.pop(message.get("call-id"))

    def _invited(self, message: Message, addr: tuple[str, int], call: Bridge | None) -> None:
        if call is not None:
            if call.answer is not None:
                again = message.reply(200, "OK", call.tag)
                again.headers += [item for item in call.answer.headers if item[0] in ("contact", "content-type")]
                again.body = call.answer.body
                self.reply(again, addr)
            return
        if len(self._calls) >= self._capacity:
            refusal = message.reply(503, "Service Unavailable", "standin")
            refusal.add("retry-after", "5")
            self.reply(refusal, addr)
            return
        self.reply(message.reply(100, "Trying"), addr)
        self.reply(message.reply(180, "Ringing", "standin"), addr)
        call = self._calls[message.get("call-id")] = Bridge(self, message, addr)
        task = self.loop.create_task(call.start())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pace(self, bridge: Bridge) -> None:
        """Send a bridge's first frame and go on each 20 ms: one timer over a heap serves all."""
        if bridge.send_frame():
            heapq.heappush(self._due, (self.loop.time() + FRAME_S, id(bridge), bridge))
            self._arm()

    def _arm(self) -> None:
        # uvloop gives a plain handle without a time for what is due at once, so the time is kept here.
        if self._due and (self._timer is None or self._armed_for > self._due[0][0]):
            if self._timer is not None:
                self._timer.cancel()
            self._armed_for = self._due[0][0]
            self._timer = self.loop.call_at(self._armed_for, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.loop.time() + 0.0005
        while self._due and self._due[0][0] <= now:
            at, key, bridge = self._due[0]
            if bridge.send_frame():
                heapq.heapreplace(self._due, (at + FRAME_S, key, bridge))
            else:
                heapq.heappop(self._due)
        self._arm()

    async def post(self, hook: str, body: dict[str, str]) -> dict[str, Any]:
        """One webhook over a kept-alive connection."""
        url = urlsplit(self._number[hook]["url"])
        if self._connections:
            reader, writer = self._connections.pop()
        else:
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
        data = json.dumps(body).encode()
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (url.path.encode(), len(data)) + data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        reply = json.loads(await reader.readexactly(length))
        self._connections.append((reader, writer))
        return dict(reply)


async def main() -> None:
    """Read the same environment and apply file as the server, print the ready line, serve until stopped."""
    applied = yaml.safe_load(Path(sys.argv[sys.argv.index("--apply") + 1]).read_text())
    host, port = os.environ["SWITCHHOOK_SIP_HOST"], int(os.environ["SWITCHHOOK_SIP_PORT"])
    house = House(host, port, int(os.environ.get("SWITCHHOOK_MAX_CALLS", "1000")), applied["numbers"][0])
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: house, local_addr=(host, port))
    print("stand-in ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())

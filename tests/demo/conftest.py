"""A far side to talk to: sipp as answerer, and a scripted UDP peer for what sipp cannot show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from switchhook_demo import sip_text
from switchhook_demo.rtp_line import RtpLine
from switchhook_demo.sip_text import Message

Handler = Callable[["Peer", Message], None]


class Peer(asyncio.DatagramProtocol):
    """A SIP endpoint whose answer to each method is a function; it notes every request and can speak on an RTP line."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.handlers: dict[str, Handler] = {}
        self.line = RtpLine("127.0.0.1")
        self.port = 0
        self.remote: tuple[str, int] = ("127.0.0.1", 0)
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]

    async def close(self) -> None:
        await self.line.close()
        if self._transport is not None:
            self._transport.close()

    @property
    def uri(self) -> str:
        return f"sip:desk@127.0.0.1:{self.port}"

    def send(self, message: Message) -> None:
        assert self._transport is not None
        self._transport.sendto(bytes(message), self.remote)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = sip_text.parse(data)
        self.remote = addr
        if message is not None and message.method:
            self.requests.append(message)
            handler = self.handlers.get(message.method)
            if handler is not None:
                handler(self, message)
            elif message.method != "ACK":
                self.send(message.reply(200, "OK"))

    def accept(self, request: Message, encodings: tuple[str, ...] = ("PCMU",)) -> Message:
        """The 200 with this peer's line; the line starts."""
        offered = sip_text.read_sdp(request.body)
        assert offered is not None
        self.line.connect((offered.host, offered.port), encodings[0], 101)
        answer = request.reply(200, "OK", "peer")
        answer.add("contact", f"<{self.uri}>")
        answer.add("content-type", "application/sdp")
        answer.body = sip_text.write_sdp("127.0.0.1", self.line.port, encodings, "sendrecv", 1)
        return answer

    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait for a condition with a deadline."""
        await self.line.ear.until(condition, timeout_s, "what the test waits for did not come")


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A peer that rings and answers."""
    made = Peer()
    await made.open()

    def invited(peer: Peer, request: Message) -> None:
        peer.send(request.reply(180, "Ringing", "peer"))
        peer.send(peer.accept(request))

    made.handlers["INVITE"] = invited
    yield made
    await made.close()

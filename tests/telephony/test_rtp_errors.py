"""ICMP errors on the socket of a leg's sound, on both event loops: whoever meets one, the party is heard on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from switchhook.domain.model import Encoding
from switchhook.telephony.rtp_media import RtpMedia
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpStream
from tests.peers.ports import passing_row
from tests.telephony.rtp_peer import RtpPeer, SteppedPacer, Talker, settle

BEAT_S = 0.02
WORD = b"\x01" * 160


class Line:
    """A stream whose peer it has found."""

    def __init__(self) -> None:
        self.pacer = SteppedPacer()
        self.stream = RtpStream(RtpPorts("127.0.0.1", *passing_row(8)), self.pacer)
        self.peer = RtpPeer()
        self.heard: list[bytes] = []
        self.stream.listen(lambda payload, now: self.heard.append(payload))
        self.stream.configure(RtpMedia(self.peer.address, Encoding.PCMU, 0, 101))

    async def begin(self) -> None:
        await self.pacer.run(0.1, Talker(self.peer, self.stream.local_port, self.pacer, 440, 20, Encoding.PCMU))

    def beat(self) -> None:
        """A packet of ours leaves, before the loop has looked at any socket."""
        self.pacer.now += BEAT_S
        self.pacer._wake()

    def reopen(self) -> None:
        self.peer.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.socket.bind(self.peer.address)
        self.peer.socket.setblocking(False)

    def close(self) -> None:
        self.stream.close()
        self.pacer.close()
        self.peer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("taken_by_a_send", [False, True])
def test_a_party_whose_port_was_closed_is_heard_again(
    run: Callable[[Coroutine[Any, Any, None]], None], taken_by_a_send: bool
) -> None:
    """Also when a packet of ours takes the error between the loop's being told of it and its looking there."""

    async def work() -> None:
        line = Line()
        await line.begin()
        loop = asyncio.get_running_loop()
        trigger, other_end = socket.socketpair()

        def send_first() -> None:
            trigger.recv(1)
            line.beat()

        loop.add_reader(trigger.fileno(), send_first)
        await settle()
        if taken_by_a_send:
            other_end.send(b"x")
        line.peer.socket.close()
        line.beat()
        line.reopen()
        line.peer.send(line.stream.local_port, WORD)
        await settle()
        line.heard.clear()
        for _ in range(3):
            line.peer.send(line.stream.local_port, WORD)
        await settle()
        assert b"".join(line.heard) == 3 * WORD
        loop.remove_reader(trigger.fileno())
        trigger.close()
        other_end.close()
        line.close()

    run(work())

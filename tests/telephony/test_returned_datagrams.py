"""Datagrams that the network gives back, on both event loops: what was sent is known, and the socket goes on reading."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from switchhook.telephony.returned_datagrams import returned
from switchhook.telephony.sip_transport import Listener, SipTransport
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.framing import Frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
INVITE = b"INVITE sip:you SIP/2.0\r\n" + b"x" * 1200


class Notes:
    """Keeps what the transport calls back."""

    answers_strangers = True

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.back: list[bytes] = []
        self.failed: list[Flow] = []
        self.changed = asyncio.Event()

    def reads(self, host: str) -> bool:
        return True

    def knows(self, host: str) -> bool:
        return True

    def datagram(self, data: bytes, flow: Flow) -> None:
        self.came.append(data)
        self.changed.set()

    def frame(self, frame: Frame, flow: Flow) -> None:
        """None comes."""

    def flow_failed(self, flow: Flow) -> None:
        self.failed.append(flow)

    def datagram_returned(self, data: bytes) -> None:
        self.back.append(data)
        self.changed.set()

    def end_of_batch(self) -> None:
        """Nothing to do."""

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not met():
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_closed_port(run: Callable[[Coroutine[Any, Any, None]], None], host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    async def work() -> None:
        notes = Notes()
        transport = SipTransport(notes)
        bound = await transport.open(Listener("udp", host, 0))
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            port = peer.getsockname()[1]
        for count in (1, 2):
            transport.send(INVITE, Flow("udp", host, port))
            await notes.until(lambda count=count: len(notes.back) == count)  # type: ignore[misc]
        assert all(INVITE.startswith(data) and len(data) > 100 for data in notes.back)
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            # The first of these sends meets the error of the one before.
            transport.send(INVITE, Flow("udp", host, port))
            transport.send(b"to you", Flow("udp", host, peer.getsockname()[1]))
            peer.settimeout(10)
            assert peer.recv(100) == b"to you"
            peer.sendto(b"to us", (host, bound[1]))
            await notes.until(lambda: b"to us" in notes.came)
        assert not notes.failed
        await transport.close()

    run(work())


def test_a_socket_without_errors_has_none_to_tell() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as quiet:
        quiet.setblocking(False)
        assert returned(quiet) is None

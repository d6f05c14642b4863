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
from switchhook.telephony.rtp_ports import disconnect
from switchhook.telephony.sip_transport import Listener, SipTransport
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.framing import Frame
from tests.peers.ports import free_port

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
        async with asyncio.timeout(20):
            while not met():
                self.changed.clear()
                await self.changed.wait()

    async def until_returned(self, count: int) -> None:
        await self.until(lambda: len(self.back) == count)

    async def until_came(self, *datagrams: bytes) -> None:
        await self.until(lambda: self.came == [*datagrams])


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
            await notes.until_returned(count)
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


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_came_back_is_told_though_a_send_took_the_error(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Reading fails of nothing then: what came back waits apart from what was received, and keeps the socket in error."""

    async def work() -> None:
        notes = Notes()
        transport = SipTransport(notes)
        host, port = await transport.open(Listener("udp", "127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            closed = peer.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            for count in (1, 2):
                transport.send(INVITE, Flow("udp", host, closed))
                transport.send(b"to you", Flow("udp", host, peer.getsockname()[1]))
                await notes.until_returned(count)
                assert INVITE.startswith(notes.back[-1])
                peer.sendto(b"to us", (host, port))
                await notes.until_came(*[b"to us"] * count)
        assert not notes.failed
        await transport.close()

    run(work())


def test_a_socket_without_errors_has_none_to_tell() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as quiet:
        quiet.setblocking(False)
        assert returned(quiet) is None


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_error_that_a_send_takes_leaves_the_server_no_deafer(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """The loop is told of an error, and before it looks there a send takes it: what waits to be read is read, and what follows.

    Without room for what came back (`SO_RCVBUF` is full) the socket has the error alone; so it is here, without IP_RECVERR.
    """

    async def work() -> None:
        notes = Notes()
        transport = SipTransport(notes)
        host, port = await transport.open(Listener("udp", "127.0.0.1", free_port()))
        bound = transport._udp
        assert bound is not None
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            closed = peer.getsockname()
        trigger, other_end = socket.socketpair()
        with trigger, other_end, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            to_peer = Flow("udp", host, peer.getsockname()[1])

            def take() -> None:
                trigger.recv(1)
                transport.send(b"to you", to_peer)

            loop.add_reader(trigger.fileno(), take)
            await asyncio.sleep(0.01)
            bound.setsockopt(socket.IPPROTO_IP, 11, 0)
            bound.connect(closed)  # so that the kernel tells of errors
            other_end.send(b"x")
            bound.send(INVITE)
            disconnect(bound)
            peer.sendto(b"to us", (host, port))
            await notes.until(lambda: b"to us" in notes.came)
            notes.changed.clear()
            peer.sendto(b"to us again", (host, port))
            await notes.until(lambda: b"to us again" in notes.came)
            loop.remove_reader(trigger.fileno())
        assert not notes.failed
        await transport.close()

    run(work())


class Bombarded(socket.socket):
    """A socket that errors of other datagrams come to between one send and the next."""

    waiting = 0

    def sendto(self, *arguments: Any) -> int:
        if self.waiting:
            self.waiting -= 1
            raise ConnectionRefusedError
        return super().sendto(*arguments)


@pytest.mark.parametrize(("errors", "arrives"), [(3, True), (4, False)])
async def test_errors_of_other_datagrams_are_not_this_ones(errors: int, arrives: bool) -> None:
    notes = Notes()
    transport = SipTransport(notes)
    bound = await transport.open(Listener("udp", "127.0.0.1", 0))
    with Bombarded(socket.AF_INET, socket.SOCK_DGRAM) as ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((bound[0], 0))
        peer.settimeout(10)
        ours.waiting = errors
        flow = Flow("udp", bound[0], peer.getsockname()[1])
        kept, transport._udp = transport._udp, ours
        transport.send(b"to you", flow)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert notes.failed == ([] if arrives else [flow])
        if arrives:
            assert peer.recv(100) == b"to you"
        asyncio.get_running_loop().remove_reader(ours.fileno())
        transport._udp = kept
    await transport.close()

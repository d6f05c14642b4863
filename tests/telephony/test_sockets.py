"""No socket is closed while the loop still watches it: libuv ends the whole process for that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.telephony.rtp_media import RtpMedia
from switchhook.telephony.rtp_path import RtpPath
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import MediaTimeout, RtpEvent, RtpStream
from switchhook.telephony.sip_transport import Listener, SipTransport
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.framing import Frame
from tests.peers.ports import passing_row
from tests.telephony.rtp_peer import RtpPeer, SteppedPacer, Talker, settle


class WatchingLoop(asyncio.SelectorEventLoop):
    """Knows which descriptors our code has given to it."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: set[int] = set()

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        super().add_reader(fd, callback, *args)
        self.watched.add(fd)

    def remove_reader(self, fd: Any) -> bool:
        self.watched.discard(fd)
        return super().remove_reader(fd)

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        super().add_writer(fd, callback, *args)
        self.watched.add(fd)

    def remove_writer(self, fd: Any) -> bool:
        self.watched.discard(fd)
        return super().remove_writer(fd)


def run_watched(work: Callable[[], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on a loop that must not see a watched socket closed, nor be left with one."""
    loop = WatchingLoop()
    close = socket.socket.close
    faults: list[str] = []

    def checked(closing: socket.socket) -> None:
        if closing.fileno() in loop.watched:
            faults.append(f"{closing!r} was closed while the loop watched it")
        close(closing)

    monkeypatch.setattr(socket.socket, "close", checked)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())
        assert faults == []
        assert loop.watched == set()


@contextlib.contextmanager
def streaming() -> Iterator[tuple[RtpStream, SteppedPacer, RtpPeer, RtpPorts]]:
    pacer, ports, peer = SteppedPacer(), RtpPorts("127.0.0.1", *passing_row(2)), RtpPeer()
    stream = RtpStream(ports, pacer)
    try:
        yield stream, pacer, peer, ports
    finally:
        peer.close()
        assert ports.leased == 0


def agreed(peer: RtpPeer) -> RtpMedia:
    return RtpMedia(peer.address, Encoding.PCMU, 0, 101)


def test_the_watch_sees_a_socket_that_is_closed_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    async def careless() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as early:
            asyncio.get_running_loop().add_reader(early.fileno(), print)

    with pytest.raises(AssertionError, match="while the loop watched it"):
        run_watched(careless, monkeypatch)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("configured", [True, False])
def test_a_stream_that_is_closed(monkeypatch: pytest.MonkeyPatch, seconds: float, configured: bool) -> None:
    async def work() -> None:
        with streaming() as (stream, pacer, peer, _):
            if configured:
                stream.configure(agreed(peer))
            talker = Talker(peer, stream.local_port, pacer)
            await pacer.run(seconds, lambda: talker() if pacer.now < 1000.5 else None)  # after 3 s it is sought
            stream.close()

    run_watched(work, monkeypatch)


@pytest.mark.parametrize("broken", ["send_report", "open", "point"])
def test_a_stream_that_breaks(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fails(*_: object) -> None:
        raise ValueError("broken")

    async def work() -> None:
        with streaming() as (stream, pacer, peer, _):
            monkeypatch.setattr(RtpPath, broken, fails)
            with contextlib.suppress(ValueError):
                stream.configure(agreed(peer))
                await pacer.run(0.1)
            with contextlib.suppress(ValueError):
                stream.close()

    run_watched(work, monkeypatch)


def test_a_stream_that_is_closed_by_who_hears_drained_a_digit_sound_or_its_death(monkeypatch: pytest.MonkeyPatch) -> None:
    async def on_event(act: Callable[[RtpStream, SteppedPacer, RtpPeer], Coroutine[Any, Any, None]]) -> None:
        with streaming() as (stream, pacer, peer, ports):
            stream.subscribe(lambda event: stream.close())
            stream.configure(agreed(peer))
            await act(stream, pacer, peer)
            await pacer.run(0.1)
            assert ports.leased == 0

    async def drained(stream: RtpStream, pacer: SteppedPacer, peer: RtpPeer) -> None:
        stream.playout.enqueue("hi", tones.tone((440,), 20, Encoding.PCMU), pacer.now)

    async def digit(stream: RtpStream, pacer: SteppedPacer, peer: RtpPeer) -> None:
        peer.send(stream.local_port, bytes([5, 0x8A, 0, 160]), 101)

    async def dead(stream: RtpStream, pacer: SteppedPacer, peer: RtpPeer) -> None:
        events: list[RtpEvent] = []

        def hang_up(event: RtpEvent) -> None:
            events.append(event)
            stream.close()

        stream.subscribe(hang_up)
        await pacer.run(31)
        assert events == [MediaTimeout()]

    async def sound(stream: RtpStream, pacer: SteppedPacer, peer: RtpPeer) -> None:
        stream.listen(lambda payload, now: stream.close())
        for _ in range(5):
            peer.send(stream.local_port, b"\x01" * 160)

    async def work() -> None:
        for act in (drained, digit, dead, sound):
            await on_event(act)

    run_watched(work, monkeypatch)


def test_a_stream_closed_when_the_loop_is_closed_already() -> None:
    loop = WatchingLoop()
    made: list[tuple[RtpStream, RtpPorts]] = []

    async def work() -> None:
        ports = RtpPorts("127.0.0.1", *passing_row(2))
        stream = RtpStream(ports, SteppedPacer())
        stream.configure(RtpMedia(("127.0.0.1", 9), Encoding.PCMU, 0))
        made.append((stream, ports))

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())
    stream, ports = made[0]
    stream.close()
    assert ports.leased == 0


class Deaf:
    """A SIP server that looks at nothing."""

    answers_strangers = True

    def reads(self, host: str) -> bool:
        return True

    def knows(self, host: str) -> bool:
        return True

    def datagram(self, data: bytes, flow: Flow) -> None:
        raise OSError("broken")

    def frame(self, frame: Frame, flow: Flow) -> None:
        raise OSError("broken")

    def flow_failed(self, flow: Flow) -> None:
        return

    def datagram_returned(self, data: bytes) -> None:
        return

    def end_of_batch(self) -> None:
        return


def test_sip_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        transport = SipTransport(Deaf())
        bound = await transport.open(Listener("udp", "127.0.0.1", 0))
        await transport.open(Listener("tcp", "127.0.0.1", bound[1]))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"OPTIONS sip:you SIP/2.0\r\n\r\n", bound)
            await settle()
        with pytest.raises(OSError, match="in use"):
            other = SipTransport(Deaf())
            try:
                await other.open(Listener("udp", "127.0.0.1", bound[1]))
            finally:
                await other.close()
        closing = asyncio.ensure_future(transport.close())
        await asyncio.sleep(0)
        closing.cancel()  # whoever waits for it may be gone
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        await transport.close()

    run_watched(work, monkeypatch)

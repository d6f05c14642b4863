"""A phone's RTP for the tests, and a stepped clock: real sockets, but time passes only when a test says so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.telephony.pacer import TICKS_PER_S, Pacer
from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.rtp import RtpPacket


class SteppedPacer(Pacer):
    """A pacer whose clock a test moves; the loop's timer is not used."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(lambda: self.now)

    def _arm(self) -> None:
        """Beats come from `run` alone."""

    async def run(self, seconds: float, each_tick: Callable[[], None] | None = None) -> None:
        """Let time pass in steps of one tick; in each the loop delivers the packets that wait."""
        for _ in range(round(seconds * TICKS_PER_S)):
            self.now = round(self.now * TICKS_PER_S + 1) / TICKS_PER_S
            if each_tick is not None:
                each_tick()
            await settle()
            self._wake()

    async def stall(self, seconds: float) -> None:
        """The loop does nothing for so long, and then wakes up."""
        self.now += seconds
        self._wake()
        for _ in range(10):
            await settle()


async def settle() -> None:
    """Let the loop look at its sockets until nothing waits there."""
    for _ in range(4):
        await asyncio.sleep(0)


class RtpPeer:
    """One RTP socket (and the RTCP socket after it) that sends what a test wants and keeps what comes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        while True:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((host, 0))
            self.address = (host, int(self.socket.getsockname()[1]))
            self.rtcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.rtcp.bind((host, self.address[1] + 1))
                break
            except (OSError, OverflowError):
                self.close()
        self.socket.setblocking(False)
        self.rtcp.setblocking(False)
        self.packets: list[RtpPacket] = []
        self._sequence = 100
        self.timestamp = 5000

    def close(self) -> None:
        self.socket.close()
        self.rtcp.close()

    def send(self, port: int, payload: bytes, payload_type: int = 0, ssrc: int = 77, skip: bool = False) -> None:
        """Send the next packet, or lose it."""
        if not skip:
            packet = rtp.pack(payload_type, self._sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, ssrc, payload)
            self.socket.sendto(packet, ("127.0.0.1", port))
        self._sequence += 1
        self.timestamp += len(payload) if payload_type in (0, 8) else 0

    def take(self) -> list[RtpPacket]:
        """Return what came since the last call."""
        fresh = []
        while True:
            try:
                data = self.socket.recv(2048)
            except OSError:
                break
            packet = rtp.parse(data)
            assert packet is not None
            fresh.append(packet)
        self.packets += fresh
        return fresh

    def reports(self) -> list[bytes]:
        """Return the RTCP that came."""
        fresh = []
        while True:
            try:
                fresh.append(self.rtcp.recv(2048))
            except OSError:
                return fresh


class Talker:
    """Sends a tone in frames as time passes, through `SteppedPacer.run`."""

    def __init__(
        self,
        peer: RtpPeer,
        port: int,
        pacer: SteppedPacer,
        hz: float = 440,
        frame_ms: int = 20,
        encoding: Encoding = Encoding.PCMU,
    ) -> None:
        self._peer, self._port, self._pacer = peer, port, pacer
        self._type = 0 if encoding is Encoding.PCMU else 8
        sound = tones.tone((hz,), 10_000, encoding)
        self._length = len(sound)
        self._bytes = frame_ms * 8
        self._sound = sound + sound[: self._bytes]
        self._at = 0
        self._next = pacer.now
        self.loses: Callable[[], bool] = lambda: False

    def __call__(self) -> None:
        while self._next <= self._pacer.now:
            at = self._at % self._length
            payload = self._sound[at : at + self._bytes]
            self._peer.send(self._port, payload, self._type, skip=self.loses())
            self._at += self._bytes
            self._next += self._bytes / 8000

    def skip(self) -> None:
        """Say nothing in this step; the phone's clock goes on."""
        while self._next <= self._pacer.now:
            self._peer.timestamp += self._bytes
            self._at += self._bytes
            self._next += self._bytes / 8000

"""What a bridge costs and adds: pairs of lines joined in one process, and phones that talk to each other through them.

Without signalling, so that the figure is that of sound alone: receive, buffer, play and send, both ways.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import cast

from bench import numbered
from bench.callers import RTP

FRAME_S = 0.020
SETTLE_S = 12.0
"""So long the buffers take to find out that the network is steady."""
WINDOW_S = 8.0
_LAST_S = 0.3
"""What was said last is still on its way when the window ends."""
_READY_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Bridged:
    """The figures of a run."""

    cpu_ms: float = 0.0
    """Of the process with the bridges, for each second of a call (two lines)."""
    delays_ms: list[float] = field(default_factory=list)
    """From phone to phone, over this machine's loopback."""
    sent: int = 0
    """Frames with sound."""
    heard: int = 0
    late_ms: float = 0.0
    """The worst lateness of a phone's own packet: the load's fault."""


class _Phones:
    """2 N phones in one selector loop; each says numbered frames and times those of its partner."""

    def __init__(self, count: int) -> None:
        self.sockets = [_bound() for _ in range(count)]
        self.selector = selectors.DefaultSelector()
        self.found = Bridged()
        self._said: dict[tuple[int, int], float] = {}
        for at, phone in enumerate(self.sockets):
            self.selector.register(phone, selectors.EVENT_READ, at)

    def talk(self, ports: list[int], until: float, measured_from: float) -> None:
        count = len(ports)
        start = time.monotonic()
        frames = 0
        while (due := start + frames * FRAME_S / count) < until:
            while (left := due - time.monotonic()) > 0:
                for key, _ in self.selector.select(left):
                    self._hear(cast(socket.socket, key.fileobj), int(key.data), measured_from)
            at, number = frames % count, frames // count
            now = time.monotonic()
            speaks = (number // 50 + at) % 4 != 0  # a second of silence in four: buffers shrink in pauses
            sound = numbered.encode(numbered.UP, at, number) if speaks else numbered.SILENCE
            packet = RTP.pack(0x80, 0, number & 0xFFFF, number * 160, at + 1) + sound
            self.sockets[at].sendto(packet, ("127.0.0.1", ports[at]))
            if speaks and measured_from <= now < measured_from + WINDOW_S:
                self._said[at, number] = now
                self.found.sent += 1
                self.found.late_ms = max(self.found.late_ms, 1000 * (now - due))
            frames += 1

    def close(self) -> None:
        self.selector.close()
        for phone in self.sockets:
            phone.close()

    def _hear(self, phone: socket.socket, at: int, measured_from: float) -> None:
        packet = phone.recv(2048)
        now = time.monotonic()
        if now < measured_from or numbered.is_silence(packet[12:]):
            return
        told = numbered.decode(packet[12:])
        said = self._said.pop((told[1], told[2]), None) if told is not None and told[1] == at ^ 1 else None
        if said is not None:
            self.found.heard += 1
            self.found.delays_ms.append(1000 * (now - said))


def measure(calls: int, core: int, load_cores: list[int]) -> Bridged:
    """Run for `SETTLE_S` and then measure for `WINDOW_S`. Raises TimeoutError when the process does not start."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    phones = _Phones(2 * calls)
    remotes = [int(phone.getsockname()[1]) for phone in phones.sockets]
    house = multiprocessing.get_context("spawn").Process(target=_house, args=(theirs, remotes, core), daemon=True)
    house.start()
    affinity = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, load_cores)
        if not ours.poll(_READY_TIMEOUT_S):
            raise TimeoutError("the process with the bridges did not start")
        ports = ours.recv()
        now = time.monotonic()
        ours.send((now + SETTLE_S, now + SETTLE_S + WINDOW_S))
        phones.talk(ports, now + SETTLE_S + WINDOW_S + _LAST_S, now + SETTLE_S)
        cpu_s = ours.recv()
    finally:
        os.sched_setaffinity(0, affinity)
        phones.close()
        house.join(5)
        house.kill()
    phones.found.cpu_ms = 1000 * cpu_s / (WINDOW_S * calls)
    return phones.found


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def _house(pipe: Connection, remotes: list[int], core: int) -> None:
    import uvloop

    os.sched_setaffinity(0, {core})
    uvloop.run(_bridges(pipe, remotes))


async def _bridges(pipe: Connection, remotes: list[int]) -> None:
    import asyncio

    from switchhook.calls.bridge import Bridge
    from switchhook.domain.model import Encoding
    from switchhook.domain.ports import Clock, Leg
    from switchhook.telephony.pacer import Pacer
    from switchhook.telephony.rtp_media import RtpMedia
    from switchhook.telephony.rtp_ports import RtpPorts
    from switchhook.telephony.rtp_stream import RtpStream

    pacer, ports = Pacer(), RtpPorts("127.0.0.1", 20_000, 29_999)
    streams = [RtpStream(ports, pacer) for _ in remotes]
    for stream, remote in zip(streams, remotes, strict=True):
        stream.configure(RtpMedia(("127.0.0.1", remote), Encoding.PCMU, 0, 101))
    clock = cast(Clock, SimpleNamespace(now=pacer.clock))
    joined = [Bridge(cast(Leg, one), cast(Leg, other), clock) for one, other in zip(streams[::2], streams[1::2], strict=True)]
    pipe.send([stream.local_port for stream in streams])
    starts, ends = pipe.recv()
    await asyncio.sleep(starts - time.monotonic())
    before = time.process_time()
    await asyncio.sleep(ends - time.monotonic())
    pipe.send(time.process_time() - before)
    await asyncio.sleep(_LAST_S)
    for bridge in joined:
        bridge.close()
    for stream in streams:
        stream.close()
    pacer.close()

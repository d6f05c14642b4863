"""The RTP of a leg over SRTP: both ways, reports, changed keys, and what does not open."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.telephony.rtp_media import RtpMedia
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.srtp import SrtpReceiver, SrtpSender
from switchhook.telephony.wire import rtcp, rtp
from switchhook.telephony.wire.dtmf import DtmfReceiver
from switchhook.telephony.wire.sdes import SUITES, SrtpKeys, fresh_keys
from tests.peers.ports import passing_row
from tests.telephony.rtp_peer import RtpPeer, SteppedPacer, Talker, settle


def keys(suite: str = SUITES[0]) -> SrtpKeys:
    at = SUITES.index(suite)
    return SrtpKeys(fresh_keys(os.urandom)[at], fresh_keys(os.urandom)[at])


class SecurePeer(RtpPeer):
    """A phone that speaks SRTP: its sender is what it says, its receiver what it hears."""

    def __init__(self, agreed: SrtpKeys) -> None:
        super().__init__()
        self.sender, self.receiver = SrtpSender(agreed.theirs), SrtpReceiver(agreed.ours)
        self.unheard = 0

    def send(self, port: int, payload: bytes, payload_type: int = 0, ssrc: int = 77, skip: bool = False) -> None:
        packet = rtp.pack(payload_type, self._sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, ssrc, payload)
        self.socket.sendto(self.sender.protect(packet), ("127.0.0.1", port))
        self._sequence += 1
        self.timestamp += len(payload)

    def take(self) -> list[rtp.RtpPacket]:
        fresh: list[rtp.RtpPacket] = []
        while True:
            try:
                data = self.socket.recv(2048)
            except OSError:
                return fresh
            packet = rtp.parse(self.receiver.unprotect(data))
            if packet is None:
                self.unheard += 1
            else:
                fresh.append(packet)


class Bench:
    """A stream and its phone."""

    def __init__(self) -> None:
        self.pacer = SteppedPacer()
        self.ports = RtpPorts("127.0.0.1", *passing_row(8))
        self.stream = RtpStream(self.ports, self.pacer, entropy=random.Random(1).randbytes)
        self.keys = keys()
        self.peer = SecurePeer(self.keys)
        self.heard = b""
        self.stream.listen(self._hear)

    def _hear(self, payload: bytes, now: float) -> None:
        self.heard += payload

    def configure(self, agreed: SrtpKeys | None, **changes: object) -> None:
        values: dict[str, object] = {"remote": self.peer.address, "encoding": Encoding.PCMU, "payload_type": 0}
        values |= {"dtmf_payload_type": 101, "srtp": agreed} | changes
        self.stream.configure(RtpMedia(**values))  # type: ignore[arg-type]  # names of fields are checked when the test runs

    def talker(self) -> Talker:
        return Talker(self.peer, self.stream.local_port, self.pacer)

    def say(self, ms: int) -> None:
        self.stream.playout.enqueue("x", tones.tone((1000,), ms, Encoding.PCMU), self.pacer.now)
        self.stream.playout.finish("x", self.pacer.now)

    def close(self) -> None:
        self.stream.close()
        self.pacer.close()
        self.peer.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.close()
    assert made.ports.leased == 0


def hz(sound: bytes) -> float:
    return tones.frequency_hz(sound, Encoding.PCMU)


@pytest.mark.parametrize("suite", SUITES)
async def test_both_parties_hear_each_other(bench: Bench, suite: str) -> None:
    agreed = keys(suite)
    bench.peer.sender, bench.peer.receiver = SrtpSender(agreed.theirs), SrtpReceiver(agreed.ours)
    bench.configure(agreed)
    bench.say(1000)
    await bench.pacer.run(1.1, bench.talker())
    spoken = b"".join(packet.payload for packet in bench.peer.take()[1:])
    assert hz(spoken[1600:4000]) == pytest.approx(1000, abs=3)
    assert bench.heard == tones.tone((440,), 10_000, Encoding.PCMU)[: len(bench.heard)]
    assert len(bench.heard) >= 54 * 160
    assert bench.peer.unheard == bench.stream.stats.rejected == bench.stream.stats.ignored == 0


async def test_digits_are_encrypted_too(bench: Bench) -> None:
    bench.configure(bench.keys)
    await bench.pacer.run(0.1)
    bench.stream.send_digit("7")
    await bench.pacer.run(0.4)
    reader = DtmfReceiver()
    events = [packet for packet in bench.peer.take() if packet.payload_type == 101]
    assert "7" in [reader.push(packet.payload, packet.timestamp, 0.0) for packet in events]


async def test_reports_go_both_ways_and_the_goodbye_is_readable(bench: Bench) -> None:
    bench.configure(bench.keys)
    talker = bench.talker()
    await bench.pacer.run(8, talker)
    reports = [rtcp.parse(bench.peer.receiver.unprotect_rtcp(packet)) for packet in bench.peer.reports()]
    assert reports
    assert all(report is not None for report in reports)
    told = reports[-1]
    assert told is not None
    block = rtcp.ReceptionBlock(told.ssrc, 0, 3, 0, 0, 0, 0)
    packet = rtcp.build(77, "phone", rtcp.SenderInfo(0, 0, 1, 160), block)
    bench.peer.rtcp.sendto(packet, ("127.0.0.1", bench.stream.local_port + 1))
    await settle()
    before = bench.stream.stats
    assert before.peer_lost is None, "a plain report proves nothing"
    bench.peer.rtcp.sendto(bench.peer.sender.protect_rtcp(packet), ("127.0.0.1", bench.stream.local_port + 1))
    await settle()
    assert bench.stream.stats.peer_lost == 3
    bench.stream.close()
    goodbye = rtcp.parse(bench.peer.receiver.unprotect_rtcp(bench.peer.reports()[-1]))
    assert goodbye is not None
    assert goodbye.goodbye


async def test_what_does_not_open_is_counted_and_not_heard(bench: Bench) -> None:
    bench.configure(bench.keys)
    talker = bench.talker()
    await bench.pacer.run(0.2, talker)
    heard = len(bench.heard)
    port = bench.stream.local_port
    sealed = bench.peer.sender.protect(rtp.pack(0, 5, 5, 77, b"\x11" * 160))
    for packet in (rtp.pack(0, 6, 6, 77, b"\x11" * 160), sealed[:-1], b"\x80", os.urandom(180), b"\x80" + bytes(2000)):
        bench.peer.socket.sendto(packet, ("127.0.0.1", port))
    await bench.pacer.run(0.04)
    assert bench.stream.stats.rejected == 5
    assert b"\x11" not in bench.heard[heard:]
    await bench.pacer.run(0.2, talker)
    assert hz(bench.heard[-1600:]) == pytest.approx(440, abs=12)


async def test_the_path_follows_nobody_whose_packets_do_not_open(bench: Bench) -> None:
    bench.configure(bench.keys)
    thief = SecurePeer(keys())
    plain = RtpPeer()
    try:
        for _ in range(8):
            thief.send(bench.stream.local_port, b"\x11" * 160)
            plain.send(bench.stream.local_port, b"\x11" * 160)
            await bench.pacer.run(0.02)
        assert bench.stream.remote == bench.peer.address
        assert bench.stream.stats.rejected == 16
        await bench.pacer.run(0.2, bench.talker())
        assert b"\x11" not in bench.heard
        assert len(bench.heard) >= 1280
    finally:
        thief.close()
        plain.close()


async def test_a_peer_that_changes_its_key_is_heard_and_ours_goes_on(bench: Bench) -> None:
    """A re-INVITE with a new key of the peer: its context begins anew, ours keeps its counter over a rollover."""
    bench.configure(bench.keys)
    talker = bench.talker()
    await bench.pacer.run(0.2, talker)
    renewed = SrtpKeys(bench.keys.ours, keys().theirs)
    bench.configure(renewed)
    bench.peer.sender = SrtpSender(renewed.theirs)
    await bench.pacer.run(0.2, talker)
    assert len(bench.heard) >= 18 * 160
    assert len(bench.peer.take()) >= 18
    assert bench.peer.unheard == 0
    bench.configure(renewed, send=False)
    bench.configure(renewed)
    await bench.pacer.run(0.2, talker)
    assert len(bench.heard) >= 27 * 160, "hold and resume under the same keys"
    assert bench.stream.stats.rejected == 0
    bench.configure(None)
    bench.peer.socket.sendto(rtp.pack(0, 9, 9, 78, b"\x22" * 160), ("127.0.0.1", bench.stream.local_port))
    bench.peer.socket.sendto(rtp.pack(0, 10, 169, 78, b"\x22" * 160), ("127.0.0.1", bench.stream.local_port))
    await bench.pacer.run(0.1)
    assert b"\x22" * 160 in bench.heard, "and back to plain RTP"


async def test_a_peer_behind_an_address_translator_is_found(bench: Bench) -> None:
    bench.configure(bench.keys, remote=("192.0.2.9", 4000))
    talker = bench.talker()
    await bench.pacer.run(0.3, talker)
    assert bench.stream.remote == bench.peer.address
    bench.say(200)
    await bench.pacer.run(0.3, talker)
    assert len(bench.peer.take()) >= 10
    assert hz(bench.heard[-1600:]) == pytest.approx(440, abs=12)

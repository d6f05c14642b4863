"""A peer whose address translator moves it in the middle of a call is followed; a hijacker is not."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.telephony.rtp_media import RtpMedia
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpEvent, RtpStream
from tests.peers.ports import passing_row
from tests.telephony.rtp_peer import RtpPeer, SteppedPacer, Talker

SSRC = 77
OTHER_SSRC = 78


class Line:
    """A stream whose peer was signalled at a private address and latched at another."""

    def __init__(self) -> None:
        self.pacer = SteppedPacer()
        self.ports = RtpPorts("127.0.0.1", *passing_row(4))
        self.stream = RtpStream(self.ports, self.pacer, entropy=random.Random(1).randbytes)
        self.heard = bytearray()
        self.events: list[RtpEvent] = []
        self.stream.listen(lambda payload, now: self.heard.extend(payload))
        self.stream.subscribe(self.events.append)
        self.peers: list[RtpPeer] = []
        self.media = RtpMedia(("192.0.2.1", 4000), Encoding.PCMU, 0, 101)

    def peer(self, like: RtpPeer | None = None) -> RtpPeer:
        """A phone at a port of its own; `like`: it goes on with the stream of that one."""
        made = RtpPeer()
        if like is not None:
            made.timestamp, made._sequence = like.timestamp, like._sequence
        self.peers.append(made)
        return made

    async def latched(self) -> RtpPeer:
        peer = self.peer()
        self.stream.configure(self.media)
        await self.talk(peer, 1.0)
        assert self.stream.remote == peer.address
        return peer

    async def talk(self, peer: RtpPeer, seconds: float, hz: float = 440, ssrc: int = SSRC) -> None:
        port, talker = self.stream.local_port, Talker(peer, self.stream.local_port, self.pacer, hz)
        send = peer.send
        peer.send = lambda *args, **named: send(port, args[1], args[2], ssrc)  # type: ignore[method-assign]
        await self.pacer.run(seconds, talker)
        peer.send = send  # type: ignore[method-assign]

    def close(self) -> None:
        self.stream.close()
        self.pacer.close()
        for peer in self.peers:
            peer.close()
        assert self.ports.leased == 0


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    made = Line()
    yield made
    made.close()


async def test_a_peer_that_comes_back_from_another_port_is_followed_and_nothing_it_says_then_is_lost(line: Line) -> None:
    before = await line.latched()
    await line.pacer.run(5.0)
    line.heard.clear()
    moved = line.peer(like=before)
    await line.talk(moved, 1.0, 1000)
    assert line.stream.remote == moved.address
    moved.take()
    await line.pacer.run(0.2)
    assert len(moved.take()) == 10
    assert bytes(line.heard).count(tones.tone((1000,), 10_000, Encoding.PCMU)[:800]) == 1


async def test_while_it_is_sought_sound_still_goes_where_it_was_and_its_return_is_heard_at_once(line: Line) -> None:
    peer = await line.latched()
    await line.pacer.run(8.0)
    peer.take()
    await line.pacer.run(2.0)
    assert len(peer.take()) == 100
    line.heard.clear()
    await line.talk(peer, 0.1, 1000)
    assert tones.tone((1000,), 10_000, Encoding.PCMU)[:640] in bytes(line.heard)
    assert line.stream.remote == peer.address


async def test_a_pause_is_no_chance_for_a_hijacker(line: Line) -> None:
    peer = await line.latched()
    await line.pacer.run(5.0)
    line.heard.clear()
    hijacker = line.peer()
    await line.talk(hijacker, 5.0, 1000, OTHER_SSRC)
    assert line.stream.remote == peer.address
    assert bytes(line.heard).strip(b"\xff") == b""
    assert hijacker.take() == []
    await line.talk(peer, 0.5)
    assert tones.frequency_hz(bytes(line.heard[-1600:]), Encoding.PCMU) == pytest.approx(440, abs=3)


async def test_while_the_peer_talks_another_address_is_not_even_read(line: Line) -> None:
    peer = await line.latched()
    copy = line.peer(like=peer)
    talker, other = Talker(peer, line.stream.local_port, line.pacer), Talker(copy, line.stream.local_port, line.pacer, 1000)

    def both() -> None:
        talker()
        other()

    await line.pacer.run(5.0, both)
    assert line.stream.remote == peer.address


async def test_the_signalled_host_may_begin_a_new_stream_from_another_port(line: Line) -> None:
    signalled = line.peer()
    line.media = replace(line.media, remote=signalled.address)
    line.stream.configure(line.media)
    await line.talk(signalled, 1.0)
    await line.pacer.run(5.0)
    line.heard.clear()
    moved = line.peer()
    await line.talk(moved, 1.0, 1000, OTHER_SSRC)
    assert line.stream.remote == moved.address
    assert tones.frequency_hz(bytes(line.heard[-1600:]), Encoding.PCMU) == pytest.approx(1000, abs=3)


async def test_a_single_packet_from_elsewhere_moves_nothing(line: Line) -> None:
    peer = await line.latched()
    await line.pacer.run(5.0)
    moved = line.peer(like=peer)
    moved.send(line.stream.local_port, b"\x01" * 160, ssrc=SSRC)
    await line.pacer.run(1.0)
    assert line.stream.remote == peer.address


async def test_a_peer_on_hold_is_not_sought(line: Line) -> None:
    peer = await line.latched()
    line.stream.configure(replace(line.media, send=False))
    await line.pacer.run(10.0)
    moved = line.peer(like=peer)
    await line.talk(moved, 1.0)
    assert line.stream.remote == peer.address


async def test_a_stream_closed_while_its_peer_is_sought_leaves_nothing_behind(line: Line) -> None:
    peer = await line.latched()
    await line.pacer.run(5.0)
    line.stream.close()
    peer.take()
    await line.talk(peer, 0.5)
    assert peer.take() == []
    assert line.ports.leased == 0

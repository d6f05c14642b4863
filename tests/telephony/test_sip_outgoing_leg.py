"""The leg that we dial: routes tried in order, ports, encodings, the recorder's time line, and one end whatever happens."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from switchhook.domain.dialling import DialRefused, DialRequest
from switchhook.domain.errors import PortsExhausted
from switchhook.domain.model import CallId, Encoding, Srtp, Trunk
from switchhook.domain.ports import LegAnswered, LegEnded, LegProgress
from switchhook.media import tones
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_line import SipLine
from switchhook.telephony.sip_outgoing_leg import SILENCE_S, OutgoingSipLeg
from switchhook.telephony.trunk_redirects import TrunkRedirects
from switchhook.telephony.wire.offer_answer import LocalMedia, Negotiated
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_events import SessionId
from switchhook.telephony.wire.sip.uri import SipUri
from switchhook.telephony.wire.sip.user_agent import UserAgent
from tests.peers.answering_machine import LOCAL_TRUNK, LOOPBACK, TONE_HZ, answering_machine
from tests.peers.certificates import Authority
from tests.peers.outgoing_call import CALLED, OutgoingCall, dial, route, waiting_call
from tests.peers.ports import free_port, passing_row
from tests.telephony.rtp_peer import SteppedPacer

MEDIA = Negotiated("127.0.0.1", 9, 10, "PCMU", 0, 101, 20, True, True)


@dataclass
class Placer:
    """A SIP server that sends nothing; `fail` ends the session at once, as the user agent's does."""

    asked: list[OutgoingInvite] = field(default_factory=list)
    legs: dict[SessionId, SipLine] = field(default_factory=dict)
    refuses: bool = False

    def place(self, asked: OutgoingInvite, leg: SipLine) -> SessionId:
        if self.refuses:
            raise ValueError("the server is stopping")
        self.asked.append(asked)
        session = SessionId(len(self.asked))
        self.legs[session] = leg
        return session

    def local_media(self, flow: Flow, rtp_port: int, srtp: SrtpMode) -> LocalMedia:
        return LocalMedia("127.0.0.1", rtp_port, srtp=srtp)

    def feed(self, change: Callable[[UserAgent, float], None]) -> None:
        change(cast(UserAgent, self), 0.0)

    def fail(self, session: SessionId, reason: str, detail: str, now: float) -> None:
        leg = self.legs.pop(session, None)
        if leg is not None:
            leg.on_ended(reason, detail, None)


@dataclass
class Bench:
    """A placer, ports and a call over them."""

    ports: RtpPorts
    pacer: SteppedPacer
    streams: Callable[[], RtpStream]
    placer: Placer = field(default_factory=Placer)
    made: weakref.WeakSet[OutgoingSipLeg] = field(default_factory=weakref.WeakSet)

    def call(self, routes: int | None = 2, encoding: Encoding = Encoding.PCMU) -> OutgoingCall:
        """A call; with None, it has no routes yet."""
        call = OutgoingCall()
        request = DialRequest(CallId("call"), "acme", CALLED, "+17205550100", "Acme", encoding)
        call.leg = OutgoingSipLeg(self.placer, self.streams, request, call, (("Replaces", "a;to-tag=b;from-tag=c"),))
        self.made.add(call.leg)
        call.leg.subscribe(call.events.append)
        if routes is not None:
            call.leg.begin([route(call.leg, 5070 + number, f"carrier-{number}") for number in range(1, routes + 1)])
        return call


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    pacer = SteppedPacer()
    ports = RtpPorts("127.0.0.1", *passing_row(8))
    bench = Bench(ports, pacer, lambda: RtpStream(ports, pacer))
    try:
        yield bench
        assert ports.leased == 0
    finally:
        for leg in bench.made:
            leg.close()
        pacer.close()


async def told() -> None:
    """What was told comes after the method that caused it."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


# -- routes


@pytest.mark.parametrize(
    ("reason", "status", "again"),
    [
        ("trunk-failed", 408, True),
        ("trunk-failed", None, True),
        ("refused", 500, True),
        ("refused", 503, True),
        ("refused", 599, True),
        ("refused", 408, False),
        ("refused", 404, False),
        ("refused", 486, False),
        ("refused", 603, False),
        ("no-answer", None, False),
        ("callee-hung-up", None, False),
    ],
)
async def test_when_the_next_route_is_tried(bench: Bench, reason: str, status: int | None, again: bool) -> None:
    call = bench.call()
    call.leg.on_ended(reason, "why", status)
    await told()
    assert call.begun == ["carrier-1", "carrier-2"][: 1 + again]
    assert call.over == [("carrier-1", reason, status)]
    assert bench.ports.leased == again
    if again:
        call.leg.on_ended("refused", "busy", 486)
        await told()
    assert call.endings == [LegEnded("refused", "busy", 486) if again else LegEnded(reason, "why", status)]
    assert len(call.over) == len(call.begun)


async def test_a_party_that_rings_is_not_rung_again_elsewhere(bench: Bench) -> None:
    call = bench.call()
    call.leg.on_progress(180, None)
    call.leg.on_ended("refused", "gone", 503)
    await told()
    assert call.events == [LegProgress(180, False), LegEnded("refused", "gone", 503)]
    assert call.begun == ["carrier-1"]


async def test_after_181_the_next_route_may_be_tried(bench: Bench) -> None:
    call = bench.call()
    call.leg.on_progress(199, None)
    call.leg.on_ended("refused", "gone", 503)
    assert call.begun == ["carrier-1", "carrier-2"]
    call.leg.close()
    await told()


async def test_all_routes_fail(bench: Bench) -> None:
    call = bench.call()
    call.leg.on_ended("refused", "Service Unavailable", 503)
    call.leg.on_ended("trunk-failed", "nothing came", 408)
    await told()
    assert call.events == [LegEnded("trunk-failed", "nothing came", 408)]
    assert call.over == [("carrier-1", "refused", 503), ("carrier-2", "trunk-failed", 408)]


async def test_no_route_at_all(bench: Bench) -> None:
    call = bench.call(None)
    call.leg.begin([], "every trunk is at its limit")
    await told()
    assert call.events == [LegEnded("trunk-failed", "every trunk is at its limit")]


async def test_a_server_that_is_stopping_places_nothing(bench: Bench) -> None:
    bench.placer.refuses = True
    call = bench.call()
    await told()
    assert call.events == [LegEnded("trunk-failed", "the call cannot be placed: the server is stopping")]
    assert call.over == []


async def test_no_rtp_port_is_free(bench: Bench) -> None:
    def none_free() -> RtpStream:
        raise PortsExhausted

    bench.streams = none_free
    call = bench.call()
    await told()
    assert call.endings == [LegEnded("line-failed", "rtp-ports-exhausted")]
    assert bench.placer.asked == []


# -- giving up


async def test_hang_up_before_there_are_routes(bench: Bench) -> None:
    call = bench.call(None)
    call.leg.hang_up()
    call.leg.begin([route(call.leg, 5070)])
    await told()
    assert call.events == [LegEnded("hung-up")]
    assert bench.placer.asked == []


async def test_hang_up_tries_no_other_route(bench: Bench) -> None:
    call = bench.call()
    call.leg.hang_up()
    call.leg.hang_up()
    call.leg.close()
    await told()
    assert call.events == [LegEnded("hung-up")]
    assert call.over == [("carrier-1", "hung-up", None)]


@pytest.mark.parametrize("answered", [False, True])
async def test_close_gives_back_the_ports_at_once(bench: Bench, answered: bool) -> None:
    call = bench.call()
    if answered:
        call.leg.on_answered()
        call.leg.on_media(MEDIA)
    assert bench.ports.leased == 1
    call.leg.close()
    assert bench.ports.leased == 0
    await told()
    assert call.endings == [LegEnded("hung-up")]
    assert call.over == [("carrier-1", "hung-up", 200 if answered else None)]


async def test_a_leg_that_is_over_leaves_no_cycle(bench: Bench) -> None:
    call = bench.call()
    call.leg.close()
    await told()
    gone = weakref.ref(call.leg)
    bench.placer.legs.clear()
    gc.disable()
    try:
        del call.leg
        assert gone() is None
    finally:
        gc.enable()


# -- what the INVITE says


@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA])
async def test_the_house_encoding_is_offered_first_and_stays(bench: Bench, encoding: Encoding) -> None:
    call = bench.call(1, encoding)
    [asked] = bench.placer.asked
    assert asked.media.encodings[0] == encoding.name
    assert set(asked.media.encodings) == {"PCMU", "PCMA"}
    call.leg.on_answered()
    for agreed in ("PCMA", "PCMU"):
        call.leg.on_media(Negotiated("127.0.0.1", 9, 10, agreed, 8 if agreed == "PCMA" else 0, None, 20, True, True))
        assert call.leg.encoding is encoding
    call.leg.close()
    await told()


async def test_the_invite_names_both_parties(bench: Bench) -> None:
    call = bench.call(1)
    [asked] = bench.placer.asked
    assert asked.request_uri == "sip:+17205550199@127.0.0.1:5071"
    assert str(asked.from_) == '"Acme" <sip:+17205550100@127.0.0.1>'
    assert ("Replaces", "a;to-tag=b;from-tag=c") in asked.headers
    assert asked.ring_s == 45.0
    call.leg.close()
    await told()


async def test_only_a_last_route_is_waited_for_to_the_end(bench: Bench) -> None:
    call = bench.call(2)
    call.leg.on_ended("trunk-failed", "silent", 408)
    assert [asked.silence_s for asked in bench.placer.asked] == [SILENCE_S, None]
    call.leg.close()
    await told()


async def test_a_route_says_which_redirections_may_be_followed(bench: Bench) -> None:
    call = bench.call(None)
    plain = route(call.leg, 5070)
    first = SipUri("127.0.0.1", CALLED)
    redirects = TrunkRedirects(call.leg.request, plain.trunk, first, "udp", lambda host: host == "127.0.0.2", nobody)
    call.leg.begin([plain, replace(plain, redirects=redirects)])
    call.leg.on_ended("refused", "Moved", 500)
    refused, followed = bench.placer.asked
    assert (refused.redirects, followed.redirects) == (0, 3)
    party = SipUri("127.0.0.2", CALLED)
    assert not refused.may_follow(party)
    assert followed.may_follow(party)
    call.leg.close()
    await told()


@pytest.mark.parametrize(("status", "reason"), [(302, "policy-country"), (486, "refused")])
async def test_a_redirection_that_the_policy_refuses_names_its_rule(bench: Bench, status: int, reason: str) -> None:
    """Unless somebody else who was named was called, and refused."""
    call = bench.call(None)
    plain = route(call.leg, 5070)
    redirects = TrunkRedirects(call.leg.request, plain.trunk, SipUri("127.0.0.1"), "udp", lambda host: True, nobody)
    call.leg.begin([replace(plain, redirects=redirects)])
    assert not bench.placer.asked[0].may_follow(SipUri("127.0.0.1", "+442079460000"))
    call.leg.on_ended("refused", "Reason", status)
    await told()
    [end] = call.endings
    assert (end.reason, end.status) == (reason, status)
    assert end.detail == ("Reason; redirected to +442079460000: not there" if status == 302 else "Reason")
    assert call.over == [("carrier", "refused", status)]


def nobody(account: str, number: str) -> DialRefused:
    """A policy."""
    return DialRefused("country", "not there")


# -- sound


class Tap:
    """A recorder."""

    def __init__(self) -> None:
        self.received_at: list[int] = []
        self.sent_at: list[int] = []

    def received(self, payload: bytes, position: int) -> None:
        self.received_at.append(position)

    def sent(self, payload: bytes, position: int) -> None:
        self.sent_at.append(position)


async def test_the_recorder_counts_from_the_answer(bench: Bench) -> None:
    call, tap = bench.call(1), Tap()
    call.leg.tap(tap)
    call.leg.on_progress(183, MEDIA)
    await bench.pacer.run(5.0)
    call.leg.on_answered()
    call.leg.on_media(MEDIA)
    call.leg.playout.enqueue("late", b"\x10" * 800, bench.pacer.now)
    await bench.pacer.run(1.0)
    start = tap.sent_at[0]
    assert 0 <= start < 160
    assert tap.sent_at == [start + 160 * frame for frame in range(5)]
    call.leg.close()
    await told()


async def test_a_party_may_be_silent_until_it_answers(bench: Bench) -> None:
    call = bench.call(1)
    call.leg.on_progress(183, MEDIA)
    await bench.pacer.run(40.0)
    assert call.endings == []
    call.leg.on_answered()
    call.leg.on_media(MEDIA)
    await bench.pacer.run(25.0)
    assert call.endings == []
    await bench.pacer.run(10.0)
    assert call.endings == [LegEnded("media-timeout", "no sound came from the party")]


@pytest.mark.parametrize("early", [MEDIA, None])
async def test_early_media_is_told_with_every_later_response(bench: Bench, early: Negotiated | None) -> None:
    call = bench.call(1)
    call.leg.on_progress(183, early)
    call.leg.on_progress(180, None)
    call.leg.on_answered()
    call.leg.close()
    await told()
    sound = early is not None
    assert call.events == [LegProgress(183, sound), LegProgress(180, sound), LegAnswered(), LegEnded("hung-up")]


# -- with the server


async def test_a_carrier_that_does_not_answer_is_given_up_for_the_next() -> None:
    """Nobody listens on the first: over TCP that is known at once."""
    async with answering_machine() as machine:
        address = machine.server.address("tcp")
        assert address is not None
        call = waiting_call(machine)
        closed = free_port()
        call.leg.begin([route(call.leg, closed, "closed", "tcp"), route(call.leg, address[1], "ourselves", "tcp")])
        await machine.until(lambda: call.answered)
        assert call.over == [("closed", "trunk-failed", None)]
        call.leg.hang_up()
        await machine.until(lambda: bool(call.endings) and bool(machine.calls[0].endings))
        assert machine.calls[0].endings == [LegEnded("caller-hung-up")]
        await machine.until(lambda: machine.ports.leased == 0 and machine.server.figures["dialogs"] == 0)


async def test_a_stopping_server_ends_what_it_dials() -> None:
    async with answering_machine(treat=lambda taken: taken.leg.ring()) as machine:
        address = machine.server.address()
        assert address is not None
        call = dial(machine, address[1])
        await machine.until(lambda: bool(call.progress))
        await machine.server.stop()
        await machine.until(lambda: bool(call.endings))
        assert call.endings == [LegEnded("hung-up")]
        assert machine.ports.leased == 0


@pytest.mark.parametrize(("srtp", "encrypted"), [(Srtp.REQUIRED, True), (Srtp.OFFERED, True), (Srtp.OFF, False)])
async def test_a_call_over_tls(srtp: Srtp, encrypted: bool, tmp_path: Path) -> None:
    """From one server of ours to another: what one plays, the other hears."""
    authority = Authority(tmp_path)
    mine = authority.vouch_for("127.0.0.1")
    config = replace(LOOPBACK, transports=("udp", "tls"), tls_port=0, tls_certificate=mine.certificate, tls_key=mine.key)
    taking = replace(LOCAL_TRUNK, srtp=Srtp.OFF if srtp is Srtp.OFF else Srtp.OFFERED)
    async with answering_machine(config, [taking]) as callee:
        address = callee.server.address("tls")
        assert address is not None
        trunk = Trunk("carrier", "acme", f"sips:127.0.0.1:{address[1]}", srtp=srtp, tls_ca=authority.file)
        async with answering_machine(trunks=[trunk]) as machine:
            call = waiting_call(machine)
            way = route(call.leg, address[1])
            call.leg.begin([replace(way, trunk=trunk, flow=Flow("tls", "127.0.0.1", address[1], trunk=trunk.name))])
            await machine.until(lambda: len(call.heard) >= 8000)
            assert call.leg.encrypted is encrypted
            assert tones.frequency_hz(bytes(call.heard[-4000:]), Encoding.PCMU) == pytest.approx(TONE_HZ, abs=5)
            call.leg.hang_up()
            await callee.until(lambda: bool(callee.calls[0].endings))
            assert callee.calls[0].endings == [LegEnded("caller-hung-up")]
            await machine.until(lambda: machine.ports.leased == 0 and machine.server.figures["dialogs"] == 0)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_request_outside_of_calls(transport: str) -> None:
    async with answering_machine() as machine:
        address = machine.server.address(transport)
        assert address is not None
        response = await machine.server.request(options(), Flow(transport, *address))
        assert response.status == 200
        with pytest.raises(OSError, match="reached"):
            await machine.server.request(options(), Flow("tcp", "127.0.0.1", free_port()))
        await machine.until(lambda: machine.server.figures["dialogs"] == 0)


async def test_a_request_that_is_still_waiting_is_given_up_when_the_server_stops() -> None:
    async with answering_machine(LOOPBACK) as machine:
        waiting = machine.server.request(options(), Flow("udp", "127.0.0.1", free_port()))
        await machine.server.stop()
        with pytest.raises(OSError, match="stopped"):
            await waiting


def options() -> Request:
    """An OPTIONS without Via."""
    headers = [
        ("Max-Forwards", "70"),
        ("From", "<sip:us@127.0.0.1>;tag=1"),
        ("To", "<sip:127.0.0.1>"),
        ("Call-ID", "options"),
        ("CSeq", "1 OPTIONS"),
    ]
    return Request("OPTIONS", "sip:127.0.0.1", headers)

"""sipp as registrar and as carriers: digest and refresh, failover, limits; and peers that say nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from switchhook.domain.dialling import DialRefused, DialRequest
from switchhook.domain.model import CallId, Trunk
from switchhook.domain.ports import Leg, LegAnswered, LegEnded, LegEvent
from switchhook.telephony import trunk_watch
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_dialer import SipDialer
from switchhook.telephony.sip_outgoing_leg import OutgoingSipLeg
from switchhook.telephony.sip_targets import DnsLookup, SipTargets
from switchhook.telephony.trunk_watch import TrunkWatch
from switchhook.telephony.trunks import Origin
from tests.peers.answering_machine import AnsweringMachine, answering_machine
from tests.peers.outgoing_call import WAIT_S, carrier, content
from tests.peers.sipp import messages


@dataclass
class DialledCall:
    """One call of ours and what it told."""

    leg: Leg
    events: list[LegEvent] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        return LegAnswered() in self.events

    @property
    def endings(self) -> list[LegEnded]:
        return [event for event in self.events if isinstance(event, LegEnded)]


@dataclass
class Exchange:
    """A SIP server that dials and registers."""

    machine: AnsweringMachine
    watch: TrunkWatch
    dialer: SipDialer

    def dial(self, called: str = "+17205550100") -> DialledCall:
        call = DialledCall(self.dialer.dial(DialRequest(CallId("c"), "acme", called, "+17205550111", "Ann")))
        call.leg.subscribe(call.events.append)
        return call

    def figures(self) -> dict[tuple[str, str], bool]:
        return {(kind, name): holds for kind, name, holds in self.watch.figures()}


@asynccontextmanager
async def exchange(trunks: Sequence[Trunk]) -> AsyncIterator[Exchange]:
    """On 127.0.0.1; everything it began is over at the end."""
    loop, pacer = asyncio.get_running_loop(), Pacer()
    async with answering_machine(trunks=trunks) as machine:
        targets = SipTargets(DnsLookup(), random.random, loop.time)
        watch = TrunkWatch(machine.directory, targets, machine.server, os.urandom, random.random, "node")
        dialer = SipDialer(
            machine.directory,
            watch,
            machine.server,
            lambda server, request, watcher: OutgoingSipLeg(
                server, lambda: RtpStream(machine.ports, pacer, 30.0), request, watcher
            ),
            lambda account, number: DialRefused("number", "nobody is redirected"),
        )
        watch.start()
        try:
            yield Exchange(machine, watch, dialer)
        finally:
            await dialer.close()
            await watch.close()
            pacer.close()
        assert machine.ports.leased == 0


@pytest.mark.peer("sipp")
async def test_a_registrar_that_asks_for_a_proof_is_kept_informed(tmp_path: Path) -> None:
    async with carrier("uas_registrar", tmp_path, expires="2") as (port, process):
        line = Trunk("line", "acme", f"sip:127.0.0.1:{port}", username="acme-1", password="open sesame", register=True)
        async with exchange([line]) as ours:
            await ours.machine.until(lambda: ours.figures()["registered", "line"], WAIT_S)
            assert ours.machine.directory.by_address("127.0.0.1") == Origin("line", "acme")
            await ours.machine.until(lambda: messages(tmp_path).count("REGISTER sip:") >= 3, WAIT_S)
            await ours.machine.until(lambda: messages(tmp_path).count("expires=3600") >= 1, WAIT_S)
            await ours.watch.stop()
            await content(process, tmp_path)


@pytest.mark.peer("sipp")
async def test_a_carrier_that_is_unavailable_is_followed_by_the_next_and_then_avoided(tmp_path: Path) -> None:
    async with (
        carrier("uas_unavailable", tmp_path / "first") as (first, refusing),
        carrier("uas_answers", tmp_path / "second", calls=2) as (second, answering),
    ):
        trunks = [
            Trunk("first", "acme", f"sip:127.0.0.1:{first}", priority=1),
            Trunk("second", "acme", f"sip:127.0.0.1:{second}", priority=2, max_calls=1),
        ]
        async with exchange(trunks) as ours:
            for _ in range(2):
                call = ours.dial()
                await ours.machine.until(lambda call=call: call.answered, WAIT_S)  # type: ignore[misc]  # bound at once
                assert ours.dialer.load.live("second") == 1
                # The second call does not ask the first carrier, which is gone.
                await content(refusing, tmp_path / "first")
                call.leg.hang_up()
                await ours.machine.until(lambda call=call: bool(call.endings), WAIT_S)  # type: ignore[misc]  # bound at once
                assert call.endings == [LegEnded("hung-up")]
                assert ours.dialer.load.live("second") == 0
            await content(answering, tmp_path / "second")


async def test_a_peer_that_answers_no_probe_is_down_and_its_calls_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_watch, "PROBE_PATIENCE_S", 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        silent = Trunk("silent", "acme", f"sip:127.0.0.1:{deaf.getsockname()[1]}", probe_s=0.2, priority=1)
        async with answering_machine() as other:
            address = other.server.address("udp")
            assert address is not None
            good = Trunk("good", "acme", f"sip:127.0.0.1:{address[1]}", probe_s=0.2, priority=2)
            async with exchange([silent, good]) as ours:
                await ours.machine.until(lambda: not ours.figures()["healthy", "silent"], WAIT_S)
                assert ours.figures()["healthy", "good"]
                call = ours.dial()
                await ours.machine.until(lambda: call.answered, WAIT_S)
                call.leg.hang_up()
                await ours.machine.until(lambda: bool(call.endings and other.calls[0].endings), WAIT_S)


async def test_a_call_that_is_given_up_while_dns_is_asked_ends_once() -> None:
    trunk = Trunk("named", "acme", "sip:localhost:5060")
    async with exchange([trunk]) as ours:
        call = ours.dial()
        call.leg.hang_up()
        await ours.machine.until(lambda: bool(call.endings))
        call.leg.close()
        await asyncio.sleep(0)
    assert call.endings == [LegEnded("hung-up")]

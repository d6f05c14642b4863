"""Registrations and probes of the trunks in force, on virtual time against a made-up network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from switchhook.domain.model import Trunk
from switchhook.telephony.sip_targets import Pointer, Service, SipTargets
from switchhook.telephony.trunk_watch import TrunkWatch
from switchhook.telephony.trunks import Origin, TrunkDirectory
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from tests.peers.sip_caller import counting_entropy
from tests.peers.virtual_loop import run_virtual

LINE = Trunk("line", "acme", "sip:carrier.test:5060", username="acme-1", password="p", register=True)
PROBED = Trunk("probed", "acme", "sip:192.0.2.9", probe_s=30.0)
Answer = Callable[[Request, Flow], int | None]


@dataclass
class Network:
    """DNS and peers; `answer` gives the status of each request, None for silence."""

    answer: Answer = lambda request, flow: 200
    hosts: dict[str, list[str]] = field(default_factory=lambda: {"carrier.test": ["192.0.2.1", "192.0.2.2"]})
    seen: list[tuple[float, Request, Flow]] = field(default_factory=list)

    async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
        return [], 0.0

    async def services(self, name: str) -> tuple[Sequence[Service], float]:
        return [], 0.0

    async def addresses(self, host: str) -> tuple[Sequence[str], float]:
        return self.hosts.get(host, []), 60.0

    async def request(self, request: Request, flow: Flow) -> Response:
        request.headers.insert("Via", "SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK1")
        self.seen.append((asyncio.get_running_loop().time(), request, flow))
        status = self.answer(request, flow)
        if status is None:
            await asyncio.sleep(32)
            raise TimeoutError
        response = request.reply(status, None, "t")
        if status == 200 and request.method == "REGISTER":
            response.headers.add("Expires", "100")
        return response

    def contact(self, flow: Flow) -> tuple[str, int]:
        return "198.51.100.1", 5060

    def asked(self, method: str) -> list[tuple[str, int | None]]:
        """Addresses and Expires of what was asked so far."""
        return [(flow.host, request.expires) for _, request, flow in self.seen if request.method == method]


@dataclass
class Watching:
    trunks: Sequence[Trunk]
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.directory = TrunkDirectory(self.trunks)
        targets = SipTargets(self.network, lambda: 0.0, loop.time)
        self.watch = TrunkWatch(self.directory, targets, self.network, counting_entropy(), lambda: 0.5, "node")
        self.watch.start()

    def figures(self) -> dict[tuple[str, str], bool]:
        return {(kind, name): value for kind, name, value in self.watch.figures()}


def test_a_trunk_is_registered_refreshed_and_taken_back_at_the_end() -> None:
    async def program() -> None:
        watching = Watching([LINE])
        assert watching.figures() == {("registered", "line"): False, ("healthy", "line"): True}
        await asyncio.sleep(1)
        assert watching.figures()["registered", "line"]
        [(_, request, flow)] = watching.network.seen
        assert flow == Flow("udp", "192.0.2.1", 5060, trunk="line")
        assert request.contact is not None
        assert str(request.contact.uri) == "sip:acme-1@198.51.100.1:5060"
        await asyncio.sleep(85)
        assert watching.network.asked("REGISTER") == [("192.0.2.1", 3600)] * 2
        await watching.watch.stop()
        assert watching.network.asked("REGISTER")[-1] == ("192.0.2.1", 0)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(program())


def test_a_registrars_silent_address_is_followed_by_the_next_and_calls_from_both_are_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def program() -> None:
        watching = Watching([LINE], Network(lambda request, flow: None if flow.host == "192.0.2.1" else 200))
        assert watching.directory.by_address("192.0.2.2") is None
        await asyncio.sleep(11)
        assert [host for host, _ in watching.network.asked("REGISTER")] == ["192.0.2.1", "192.0.2.2"]
        assert watching.figures()["registered", "line"]
        assert watching.directory.by_address("192.0.2.2") == Origin("line", "acme")
        await watching.watch.stop()

    with caplog.at_level(logging.INFO):
        run_virtual(program())
    assert "sip.trunk: line is registered" in caplog.messages


def test_a_refused_registration_is_logged_once_and_tried_again_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        watching = Watching([LINE], Network(lambda request, flow: 403))
        await asyncio.sleep(3600)
        assert not watching.figures()["registered", "line"]
        assert 5 <= len(watching.network.seen) <= 9
        await watching.watch.stop()
        assert len(asyncio.all_tasks()) == 1

    run_virtual(program())
    assert [message for message in caplog.messages if "not registered" in message] == [
        "sip.trunk: line is not registered: 403 Forbidden; it is tried again"
    ]


def test_a_name_that_is_not_in_dns_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        watching = Watching([LINE], Network(hosts={}))
        await asyncio.sleep(1)
        await watching.watch.stop()

    run_virtual(program())
    assert "line is not registered: carrier.test: there is no such name in DNS" in caplog.text


def test_a_registrar_that_does_not_answer_the_end_is_not_waited_for_long() -> None:
    async def program() -> None:
        network = Network()
        watching = Watching([LINE], network)
        await asyncio.sleep(1)
        network.answer = lambda request, flow: None
        before = asyncio.get_running_loop().time()
        await watching.watch.stop()
        assert asyncio.get_running_loop().time() - before == pytest.approx(3.0, abs=0.1)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(program())


def test_trunks_that_come_change_and_go_are_followed() -> None:
    async def program() -> None:
        watching = Watching([])
        watching.directory.replace([LINE])
        await asyncio.sleep(1)
        assert watching.figures()["registered", "line"]
        watching.directory.replace([replace(LINE, priority=7, caller_ids=("+17205550100",))])
        await asyncio.sleep(1)
        assert len(watching.network.seen) == 1, "what the registrar need not know does not disturb it"
        watching.directory.replace([replace(LINE, password="q")])
        await asyncio.sleep(1)
        assert [expires for _, expires in watching.network.asked("REGISTER")] == [3600, 0, 3600]
        watching.directory.replace([])
        await asyncio.sleep(1)
        assert [expires for _, expires in watching.network.asked("REGISTER")] == [3600, 0, 3600, 0]
        assert watching.figures() == {}
        await watching.watch.stop()
        watching.directory.replace([LINE])
        await asyncio.sleep(1)
        assert len(watching.network.seen) == 4

    run_virtual(program())


def options_of(network: Network) -> list[tuple[float, str]]:
    return [(round(at, 1), flow.host) for at, request, flow in network.seen if request.method == "OPTIONS"]


def test_the_flow_of_a_registration_over_udp_is_kept_open_where_the_registrar_answered() -> None:
    async def program() -> None:
        network = Network(lambda request, flow: None if flow.host == "192.0.2.1" else 200)
        watching = Watching([LINE], network)
        await asyncio.sleep(80)
        assert options_of(network) == [(36.1, "192.0.2.2"), (62.2, "192.0.2.2")]
        await watching.watch.stop()
        await asyncio.sleep(60)
        assert len(options_of(network)) == 2
        assert len(asyncio.all_tasks()) == 1

    run_virtual(program())


def test_a_registrar_that_ignores_options_is_asked_by_one_request_at_a_time_and_stays_healthy() -> None:
    async def program() -> None:
        network = Network(lambda request, flow: None if request.method == "OPTIONS" else 200)
        watching = Watching([LINE], network)
        await asyncio.sleep(85)
        asked = [at for at, _ in options_of(network)]
        assert len(asked) == 2
        assert asked[1] - asked[0] > 32
        assert watching.figures() == {("registered", "line"): True, ("healthy", "line"): True}
        await watching.watch.stop()

    run_virtual(program())


@pytest.mark.parametrize(
    ("trunk", "asked"),
    [
        (replace(LINE, transport="tcp"), 0),
        (replace(LINE, register=False), 0),
        (replace(LINE, probe_s=20.0), 4),
        (replace(LINE, probe_s=300.0), 4),
    ],
)
def test_the_flow_is_kept_open_only_where_nothing_else_does(trunk: Trunk, asked: int) -> None:
    """A stream is pinged by the transport; probes that are frequent enough do as well."""

    async def program() -> None:
        watching = Watching([trunk])
        await asyncio.sleep(79)
        assert len(options_of(watching.network)) == asked
        await watching.watch.stop()

    run_virtual(program())


def test_probes_find_a_trunk_dead_and_alive_again(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        network = Network(lambda request, flow: None)
        watching = Watching([PROBED], network)
        await asyncio.sleep(60)
        assert watching.figures()["healthy", "probed"]
        await asyncio.sleep(60)
        assert not watching.figures()["healthy", "probed"]
        network.answer = lambda request, flow: 404
        await asyncio.sleep(40)
        assert watching.figures()["healthy", "probed"]
        assert {method for _, request, _ in network.seen for method in [request.method]} == {"OPTIONS"}
        assert network.seen[0][1].uri == "sip:192.0.2.9"
        await watching.watch.stop()
        assert len(asyncio.all_tasks()) == 1

    with caplog.at_level(logging.INFO):
        run_virtual(program())
    assert "probed is down: 3 probes in a row: the peer did not answer" in caplog.text
    assert "probed is up: the peer answers again" in caplog.text


def test_a_request_that_breaks_is_a_failure_and_no_end(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Request, flow: Flow) -> int:
        raise ValueError("a fault of ours")

    async def program() -> None:
        network = Network(broken)
        watching = Watching([LINE, PROBED], network)
        await asyncio.sleep(5)
        network.answer = lambda request, flow: 200
        await asyncio.sleep(60)
        assert watching.figures()["registered", "line"]
        await watching.watch.stop()

    run_virtual(program())
    assert "sip.trunk: registering line went wrong" in caplog.text
    assert "sip.trunk: probing probed went wrong" in caplog.text

"""Finding SIP peers by RFC 3263, from a DNS server on loopback and from one that a test makes up."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony import sip_targets
from switchhook.telephony.sip_targets import DnsLookup, Pointer, Service, SipTargets, Target, TargetNotFound, in_order
from switchhook.telephony.wire.sip.uri import SipUri
from tests.peers.dns_server import dns_server

ZONE = {
    ("_sip._udp.carrier.test.", "SRV"): [
        "20 0 5062 backup.carrier.test.",
        "10 60 5070 a.carrier.test.",
        "10 40 5071 b.carrier.test.",
    ],
    ("_sips._tcp.carrier.test.", "SRV"): ["1 1 5443 a.carrier.test."],
    ("_sip._tcp.stream.test.", "SRV"): ["1 1 5090 a.carrier.test."],
    ("_sip._udp.refusing.test.", "SRV"): ["0 0 0 ."],
    ("_sip._udp.broken.test.", "SRV"): ["1 1 5060 nowhere.carrier.test."],
    ("pointed.test.", "NAPTR"): [
        '20 10 "s" "SIP+D2U" "" _sip._udp.carrier.test.',
        '10 20 "S" "SIPS+D2T" "" _sips._tcp.carrier.test.',
        '10 10 "s" "SIP+D2S" "" _sip._sctp.carrier.test.',
        '10 15 "u" "E2U+sip" "!^.*$!sip:x@y!" .',
    ],
    ("pointed.test.", "A"): ["127.0.0.5"],
    ("astray.test.", "NAPTR"): [
        '1 1 "s" "SIP+D2T" "" _sip._tcp.nowhere.test.',
        '2 1 "s" "SIP+D2T" "" .',
        r'3 1 "\255" "\200" "" x.',
    ],
    ("_sip._udp.astray.test.", "SRV"): ["1 1 5066 a.carrier.test."],
    ("carrier.test.", "A"): ["127.0.0.9"],
    ("refusing.test.", "A"): ["127.0.0.6"],
    ("plain.test.", "A"): ["127.0.0.7"],
    ("twin.test.", "A"): ["127.0.0.7", "127.0.0.8"],
    ("a.carrier.test.", "A"): ["127.0.0.1"],
    ("b.carrier.test.", "A"): ["127.0.0.2"],
    ("backup.carrier.test.", "A"): ["127.0.0.3"],
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def targets(address: tuple[str, int], clock: Clock | None = None) -> SipTargets:
    return SipTargets(DnsLookup(nameserver=address), lambda: 0.0, clock or Clock())


@pytest.mark.parametrize(
    ("uri", "transport", "expected"),
    [
        ("sip:192.0.2.1", None, [("udp", "192.0.2.1", 5060)]),
        ("sip:192.0.2.1:5090;transport=tcp", None, [("tcp", "192.0.2.1", 5090)]),
        ("sips:[2001:db8::1]", None, [("tls", "2001:db8::1", 5061)]),
        ("sip:plain.test", None, [("udp", "127.0.0.7", 5060)]),
        ("sip:plain.test", "tls", [("tls", "127.0.0.7", 5061)]),
        ("sip:carrier.test:5099", None, [("udp", "127.0.0.9", 5099)]),
        (
            "sip:carrier.test",
            None,
            [("udp", "127.0.0.2", 5071), ("udp", "127.0.0.1", 5070), ("udp", "127.0.0.3", 5062)],
        ),
        ("sip:Carrier.TEST.", "tls", [("tls", "127.0.0.1", 5443)]),
        ("sip:carrier.test", "tcp", [("tcp", "127.0.0.9", 5060)]),
        ("sip:stream.test", None, [("tcp", "127.0.0.1", 5090)]),
        ("sip:refusing.test", None, [("udp", "127.0.0.6", 5060)]),
        ("sip:pointed.test", None, [("tls", "127.0.0.1", 5443)]),
        ("sip:pointed.test", "udp", [("udp", "127.0.0.5", 5060)]),
        ("sip:pointed.test;transport=tcp", None, [("tcp", "127.0.0.5", 5060)]),
        ("sip:pointed.test:5077", None, [("udp", "127.0.0.5", 5077)]),
        ("sip:astray.test", None, [("udp", "127.0.0.1", 5066)]),
        ("sip:x.test;maddr=192.0.2.9", None, [("udp", "192.0.2.9", 5060)]),
    ],
)
async def test_where_a_uri_leads(uri: str, transport: str | None, expected: list[tuple[str, str, int]]) -> None:
    async with dns_server(ZONE) as server:
        found = await targets(server.address).locate(SipUri.parse(uri), transport)
    assert [(target.transport, target.host, target.port) for target in found] == expected


async def test_every_address_of_a_name_is_a_target() -> None:
    async with dns_server(ZONE) as server:
        found = await targets(server.address).locate(SipUri.parse("sip:twin.test"))
    assert {target.host for target in found} == {"127.0.0.7", "127.0.0.8"}


async def test_what_a_certificate_must_say_is_the_domain_of_the_uri_and_not_the_host_of_the_record() -> None:
    async with dns_server(ZONE) as server:
        [found] = await targets(server.address).locate(SipUri.parse("sips:carrier.test"))
    assert (found, found.domain) == (Target("tls", "127.0.0.1", 5443), "carrier.test")


async def test_naptr_records_that_cannot_be_had_are_done_without() -> None:
    class Lame(DnsLookup):
        async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
            raise OSError("timed out")

    async with dns_server(ZONE) as server:
        places = SipTargets(Lame(nameserver=server.address), lambda: 0.0, Clock())
        found = await places.locate(SipUri.parse("sip:stream.test"))
    assert found == [Target("tcp", "127.0.0.1", 5090)]


async def test_of_what_naptr_records_offer_only_our_own_transports_are_taken() -> None:
    async with dns_server(ZONE) as server:
        lookup = DnsLookup(nameserver=server.address)
        found = await SipTargets(lookup, lambda: 0.0, Clock(), ("udp", "tcp")).locate(SipUri.parse("sip:pointed.test"))
    assert {target.transport for target in found} == {"udp"}


async def test_a_dns_server_that_never_answers_for_naptr_records_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_targets, "POINTERS_S", 0.02)

    class Mute(Scripted):
        async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
            await asyncio.Event().wait()
            return [], 0.0

    lookup = Mute()
    lookup.go.set()
    places = SipTargets(lookup, lambda: 0.0, Clock())
    async with asyncio.timeout(sip_targets.LOOKUP_S / 2):
        found = await places.locate(SipUri.parse("sip:x.test"))
    assert found == [Target("udp", "192.0.2.1", 5060)]
    await places.close()


async def test_a_call_does_not_wait_long_for_news_of_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_targets, "REFRESH_S", 0.02)
    lookup, clock = Scripted(), Clock()
    lookup.go.set()
    places = SipTargets(lookup, lambda: 0.0, clock)
    uri = SipUri.parse("sip:x.test:5060")
    first = await places.locate(uri)
    clock.now += 100
    lookup.go.clear()
    async with asyncio.timeout(sip_targets.LOOKUP_S / 2):
        assert await places.locate(uri) == first
    lookup.go.set()
    lookup.found = ["192.0.2.2"]
    async with asyncio.timeout(20):
        while (await places.locate(uri))[0].host != "192.0.2.2":  # noqa: ASYNC110 - news come with a later call
            await asyncio.sleep(0.01)
    assert lookup.asked == 2, "the lookup under way was not given up"


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("sip:nowhere.test", "nowhere.test: there is no such name in DNS"),
        ("sip:broken.test", "broken.test: none of the hosts in its SRV records has an address"),
        ("sip:plain.test;transport=sctp", "transport sctp is not spoken"),
    ],
)
async def test_a_peer_that_cannot_be_found_is_named(uri: str, complaint: str) -> None:
    async with dns_server(ZONE) as server:
        with pytest.raises(TargetNotFound, match=complaint):
            await targets(server.address).locate(SipUri.parse(uri))


async def test_answers_hold_as_long_as_they_say_and_longer_when_dns_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with dns_server(ZONE, ttl_s=60) as server:
        places = targets(server.address, clock)
        first = await places.locate(SipUri.parse("sip:a.carrier.test:5060"))
        clock.now += 59
        await places.locate(SipUri.parse("sip:a.carrier.test:5060"))
        assert len(server.asked) == 1
        clock.now += 2
        server.zone["a.carrier.test.", "A"] = ["127.0.0.44"]
        [moved] = await places.locate(SipUri.parse("sip:a.carrier.test:5060"))
        assert (first[0].host, moved.host) == ("127.0.0.1", "127.0.0.44")
        clock.now += 100
        server.silent = True
        monkeypatch.setattr(sip_targets, "LOOKUP_S", 0.3)
        assert await places.locate(SipUri.parse("sip:a.carrier.test:5060")) == [moved]
        asked = len(server.asked)
        assert await places.locate(SipUri.parse("sip:a.carrier.test:5060")) == [moved]
        assert len(server.asked) == asked, "a server that is down is not asked for each call"
        with pytest.raises(TargetNotFound, match=r"b\.carrier\.test: DNS does not answer"):
            await places.locate(SipUri.parse("sip:b.carrier.test:5060"))


class Scripted:
    """Answers when let."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.found = ["192.0.2.1"]

    async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
        return [], 0.0

    async def services(self, name: str) -> tuple[Sequence[Service], float]:
        return [], 0.0

    async def addresses(self, host: str) -> tuple[Sequence[str], float]:
        self.asked += 1
        await self.go.wait()
        return self.found, 60.0


async def test_many_calls_share_one_lookup_and_one_that_is_given_up_does_not_take_it_from_the_others() -> None:
    lookup = Scripted()
    places = SipTargets(lookup, lambda: 0.0, Clock())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(places.locate(SipUri.parse("sip:x.test:5060"))) for _ in range(10)]
        while not lookup.asked:  # noqa: ASYNC110 - the lookup begins in a task of its own
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        lookup.go.set()
    assert lookup.asked == 1
    assert {task.result()[0].host for task in tasks[1:]} == {"192.0.2.1"}


async def test_a_bounded_number_of_names_is_remembered() -> None:
    lookup = Scripted()
    lookup.go.set()
    places = SipTargets(lookup, lambda: 0.0, Clock())
    for number in range(sip_targets.MAX_NAMES + 1):
        await places.locate(SipUri.parse(f"sip:h{number}.test:5060"))
    asked = lookup.asked
    await places.locate(SipUri.parse(f"sip:h{sip_targets.MAX_NAMES}.test:5060"))
    assert lookup.asked == asked
    await places.locate(SipUri.parse("sip:h0.test:5060"))
    assert lookup.asked == asked + 1


async def test_lookups_under_way_end_with_the_server() -> None:
    lookup = Scripted()
    places = SipTargets(lookup, lambda: 0.0, Clock())
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(places.locate(SipUri.parse("sip:x.test:5060")))
        while not lookup.asked:  # noqa: ASYNC110 - the lookup begins in a task of its own
            await asyncio.sleep(0)
        await places.close()
        await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_the_systems_own_resolver_reads_the_hosts_file() -> None:
    addresses, ttl_s = await DnsLookup(socket.AF_INET).addresses("localhost")
    assert list(addresses) == ["127.0.0.1"]
    assert ttl_s > 0
    assert await DnsLookup().addresses("a" * 70 + ".test") == ([], 0.0)


def test_the_weights_share_the_load() -> None:
    heavy, light, never = Service(1, 90, 5060, "heavy"), Service(1, 10, 5060, "light"), Service(2, 100, 5060, "later")
    random = Random(7)
    firsts = Counter(in_order([never, light, heavy], random.random)[0].host for _ in range(2000))
    assert firsts["later"] == 0
    assert 0.86 <= firsts["heavy"] / 2000 <= 0.94


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 65535)), max_size=12),
    st.floats(0, 1, exclude_max=True),
)
def test_every_record_is_tried_once_by_rising_priority(records: list[tuple[int, int]], draw: float) -> None:
    names = itertools.count()
    services = [Service(priority, weight, 5060, f"h{next(names)}") for priority, weight in records]
    ordered = in_order(services, lambda: draw)
    assert sorted(ordered, key=lambda service: service.host) == sorted(services, key=lambda service: service.host)
    assert [service.priority for service in ordered] == sorted(service.priority for service in services)


def test_the_dns_library_is_not_loaded_before_it_is_needed() -> None:
    code = "import switchhook.bootstrap, sys; print('dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"

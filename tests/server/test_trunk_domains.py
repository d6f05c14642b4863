"""A trunk given as a domain: DNS tells where its peers are (RFC 3263)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.dns_server import DnsServer, Zone, dns_server
from tests.peers.party import Party
from tests.peers.ports import free_port
from tests.peers.stream_party import StreamParty
from tests.server.trunk_house import call_reaches, open_trunks, trunk, trunk_fails

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOMAIN = "sip.carrier.test"


def nameserver(server: DnsServer) -> dict[str, str]:
    """The setting that makes a server ask it."""
    host, port = server.address
    return {"SWITCHHOOK_SIP_DNS_SERVER": f"{host}:{port}"}


def services(kind: str, *ports: int) -> dict[tuple[str, str], list[str]]:
    """SRV records of the domain in rising priority, and the addresses of their hosts."""
    hosts = [f"{kind}{number}.carrier.test." for number, _ in enumerate(ports, 1)]
    records = [f"{number}0 0 {port} {host}" for number, (port, host) in enumerate(zip(ports, hosts, strict=True), 1)]
    return {(f"_sip._{kind}.{DOMAIN}.", "SRV"): records} | {(host, "A"): ["127.0.0.1"] for host in hosts}


async def test_the_second_target_of_a_domain_is_called_when_the_first_is_dead(tmp_path: Path) -> None:
    """The dead one is asked once: the next call goes to the living one at once."""
    dead, living = free_port(), free_port()
    async with (
        dns_server(services("udp", dead, living)) as names,
        open_trunks(tmp_path, [trunk("carrier", f"sip:{DOMAIN}")], settings=nameserver(names), settles=False) as exchange,
        Party(port=living) as party,
    ):
        await call_reaches(exchange, party)
        await call_reaches(exchange, party)
        invites = [call.invite_got for call in party.taken]
        assert all(invite is not None and invite.uri.endswith(f"@{DOMAIN}") for invite in invites)
        assert (f"_sip._udp.{DOMAIN}.", "SRV") in names.asked


async def test_a_domain_says_by_naptr_that_it_wants_tcp(tmp_path: Path) -> None:
    """What it lists first and we do not speak (TLS, by our settings) is passed over; UDP, though there is one, is not asked."""
    tcp, udp = free_port(), free_port()
    zone: Zone = services("tcp", tcp) | services("udp", udp)
    pointers = [
        f'10 10 "s" "SIPS+D2T" "" _sips._tcp.{DOMAIN}.',
        f'20 10 "s" "SIP+D2T" "" _sip._tcp.{DOMAIN}.',
        f'30 10 "s" "SIP+D2U" "" _sip._udp.{DOMAIN}.',
    ]
    async with (
        dns_server({**zone, (f"{DOMAIN}.", "NAPTR"): pointers}) as names,
        open_trunks(tmp_path, [trunk("carrier", f"sip:{DOMAIN}")], settings=nameserver(names)) as exchange,
        StreamParty(port=tcp) as party,
        Party(port=udp) as other,
    ):
        await call_reaches(exchange, party)
        assert not other.taken
        _, told = await exchange.server.run("check")
        assert f"tcp 127.0.0.1:{tcp} answers (200)" in told


async def test_a_domain_that_dns_does_not_know(tmp_path: Path) -> None:
    """CallEnd says that the call could not be placed and why; the record, that it was the trunk."""
    async with (
        dns_server({}) as names,
        open_trunks(tmp_path, [trunk("carrier", f"sip:{DOMAIN}")], settings=nameserver(names)) as exchange,
    ):
        end = await trunk_fails(exchange)
    assert end["errorMessage"] == f"trunk carrier: {DOMAIN}: there is no such name in DNS"

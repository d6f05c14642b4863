"""A DNS server on loopback that knows what the test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = Mapping[tuple[str, str], Sequence[str]]
"""(name with its last dot, kind) → records as in a zone file."""


@dataclass
class DnsServer:
    """Answers from `zone`; `silent` makes it say nothing."""

    zone: dict[tuple[str, str], Sequence[str]]
    ttl_s: int = 60
    silent: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: tuple[str, int] = ("127.0.0.1", 0)

    def answer(self, data: bytes) -> bytes | None:
        """The reply to one datagram."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.silent:
            return None
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        records = self.zone.get((name, kind))
        if records:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *records))
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()


class _Port(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.answer(data)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


@asynccontextmanager
async def dns_server(zone: Zone, ttl_s: int = 60) -> AsyncIterator[DnsServer]:
    """Serve on a free port of 127.0.0.1."""
    server = DnsServer(dict(zone), ttl_s)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Port(server), local_addr=("127.0.0.1", 0))
    server.address = transport.get_extra_info("sockname")
    try:
        yield server
    finally:
        transport.close()

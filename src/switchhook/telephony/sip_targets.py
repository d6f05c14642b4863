"""Where a SIP peer is: from its URI to addresses in the order to try them (RFC 3263 §4, RFC 2782, RFC 3403).

A numeric host is itself. A name with a port has A and AAAA records; a name without one is asked for SRV records first. Where
neither the trunk nor the URI names a transport, NAPTR records do (§4.1), or else the SRV records that are there.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from switchhook.domain.addresses import literal
from switchhook.domain.errors import SwitchhookError
from switchhook.telephony.wire.sip.uri import SipUri

logger = logging.getLogger(__name__)

ADDRESS_TTL_S = 60.0
"""How long an address holds that came from the system's resolver, which does not tell."""
MIN_TTL_S, MAX_TTL_S = 5.0, 3600.0
"""A record that says less or more is believed this far."""
RETRY_S = 15.0
"""How long a failed lookup is not repeated; the answer of before is used meanwhile, however old."""
LOOKUP_S = 4.0
"""Patience with DNS."""
POINTERS_S = 1.0
"""Patience with DNS about NAPTR records: some servers never answer for those, and they can be done without."""
REFRESH_S = 0.5
"""How long a call waits for news of an answer that it has, before it takes that (RFC 8767 §5); the lookup goes on."""
MAX_NAMES = 256
MAX_TARGETS = 8

_SERVICES = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
_POINTED = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
_DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a peer."""

    transport: str
    """`udp`, `tcp` or `tls`."""
    host: str
    """Numeric; IPv6 without brackets."""
    port: int
    domain: str = field(default="", compare=False)
    """The host of the URI: what a certificate must vouch for (RFC 5922 §7.1)."""


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record."""

    priority: int
    weight: int
    port: int
    host: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """A NAPTR record."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


class TargetNotFound(SwitchhookError):
    """A SIP peer's name could not be turned into an address."""

    code = "sip-target-not-found"
    retryable = True


class Lookup(Protocol):
    """Asks DNS. An empty answer means that there is no such record; OSError, that nobody answered."""

    async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
        """NAPTR records and for how many seconds they hold."""

    async def services(self, name: str) -> tuple[Sequence[Service], float]:
        """SRV records and for how many seconds they hold."""

    async def addresses(self, host: str) -> tuple[Sequence[str], float]:
        """Addresses in order of preference and for how many seconds they hold."""


@dataclass(slots=True)
class _Known:
    answer: Sequence[Any]
    until: float
    """Until when it is not asked for again."""
    failure: str = ""
    """Why there is no answer at all."""


_Key: TypeAlias = tuple[str, str]
"""Name and kind of record."""
_Ask: TypeAlias = Callable[[str], Awaitable[tuple[Sequence[Any], float]]]


class SipTargets:
    """Finds peers, and remembers a bounded number of answers.

    `uniform` gives numbers in [0, 1) that spread the load over SRV records by their weights. Who asks for the same at one time
    waits for one lookup. Of what NAPTR records offer, only `transports` are taken.
    """

    def __init__(
        self,
        lookup: Lookup,
        uniform: Callable[[], float],
        now: Callable[[], float],
        transports: Collection[str] = ("udp", "tcp", "tls"),
    ) -> None:
        self._transports = transports
        self._lookup = lookup
        self._uniform = uniform
        self._now = now
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Task[Sequence[Any]]] = {}

    async def locate(self, uri: SipUri, transport: str | None = None) -> list[Target]:
        """The targets of a URI in the order to try them; at least one. `transport` overrules what the URI says.

        Raises:
            TargetNotFound: the name is unknown, or DNS does not answer and never has.
        """
        domain = (uri.params.get("maddr") or uri.host).strip("[]").rstrip(".").lower()
        chosen = transport or ("tls" if uri.scheme == "sips" else uri.transport)
        if chosen is not None and chosen not in _DEFAULT_PORTS:
            raise TargetNotFound(f"{domain}: the transport {chosen} is not spoken; use udp, tcp or tls")
        port = uri.port or _DEFAULT_PORTS[chosen or "udp"]
        if literal(domain) is not None:
            return [Target(chosen or "udp", domain, port, uri.host)]
        if uri.port is None:
            names = await self._pointed(domain) if chosen is None else []
            names += [(f"{_SERVICES[which]}.{domain}", which) for which in ((chosen,) if chosen else ("udp", "tcp"))]
            found = await self._by_services(domain, names)
            if found:
                return found
        # RFC 3263 §4.2: no SRV record, or a port is given.
        return [Target(chosen or "udp", host, port, uri.host) for host in (await self._addresses(domain))[:MAX_TARGETS]]

    async def close(self) -> None:
        """Give up the lookups under way."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _pointed(self, domain: str) -> list[tuple[str, str]]:
        """Names of SRV records and their transports, as the domain wants them tried; none where it does not say."""
        try:
            async with asyncio.timeout(POINTERS_S):
                pointers: Sequence[Pointer] = await self._remembered((domain, "NAPTR"), self._lookup.pointers)
        except (TargetNotFound, TimeoutError) as error:
            logger.info("sip.target: NAPTR records of %s are left out: %s", domain, str(error) or "no answer in time")
            return []
        wanted = sorted(pointers, key=lambda pointer: (pointer.order, pointer.preference))
        found = [
            (pointer.replacement.rstrip("."), _POINTED.get(pointer.service.upper(), ""))
            for pointer in wanted
            if pointer.flags.lower() == "s"
        ]
        # RFC 3263 §4.1: what we do not speak is passed over.
        return [(name, transport) for name, transport in found if name and transport in self._transports]

    async def _by_services(self, domain: str, names: Iterable[tuple[str, str]]) -> list[Target]:
        for name, transport in names:
            services: Sequence[Service] = await self._remembered((name, "SRV"), self._lookup.services)
            if not services:
                continue
            if [service.host for service in services] == ["."]:
                continue  # RFC 2782: the service is decidedly not available
            found = await self._addresses_of(in_order(services, self._uniform), transport, domain)
            if found:
                return found
            raise TargetNotFound(f"{domain}: none of the hosts in its SRV records has an address")
        return []

    async def _addresses_of(self, services: Sequence[Service], transport: str, domain: str) -> list[Target]:
        found: list[Target] = []
        for service in services[:MAX_TARGETS]:
            try:
                addresses = await self._addresses(service.host.rstrip("."))
            except TargetNotFound as error:
                logger.info("sip.target: a host of an SRV record is left out: %s", error)
                continue
            found += [Target(transport, address, service.port, domain) for address in addresses]
        return found[:MAX_TARGETS]

    async def _addresses(self, host: str) -> Sequence[str]:
        if literal(host) is not None:
            return [host]
        found = await self._remembered((host, "A"), self._lookup.addresses)
        if not found:
            raise TargetNotFound(f"{host}: there is no such name in DNS")
        return found

    async def _remembered(self, key: _Key, ask: _Ask) -> Sequence[Any]:
        known = self._known.get(key)
        if known is not None and self._now() < known.until:
            self._known.move_to_end(key)
            if known.failure:
                raise TargetNotFound(known.failure)
            return known.answer
        task = self._under_way.get(key)
        if task is None:
            # Owned here until `close`: whoever asks may be cancelled while others wait for the same answer.
            task = asyncio.get_running_loop().create_task(self._ask(key, ask))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        if known is not None and not known.failure:
            await asyncio.wait([task], timeout=REFRESH_S)
            return task.result() if task.done() else known.answer
        return await asyncio.shield(task)

    def _asked(self, key: _Key, task: asyncio.Task[Sequence[Any]]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has been told; nobody may have

    async def _ask(self, key: _Key, ask: _Ask) -> Sequence[Any]:
        known = self._known.get(key)
        try:
            async with asyncio.timeout(LOOKUP_S):
                answer, ttl_s = await ask(key[0])
        except (OSError, TimeoutError) as error:
            if known is None:
                said = f"{key[0]}: DNS does not answer ({str(error) or 'timeout'})"
                self._keep(key, _Known((), self._now() + RETRY_S, said))
                raise TargetNotFound(said) from None
            if known.failure:
                known.until = self._now() + RETRY_S
                raise TargetNotFound(known.failure) from None
            logger.warning("sip.target: DNS does not answer for %s; its last addresses are used", key[0])
            known.until = self._now() + RETRY_S
            return known.answer
        if not answer and known is not None and known.answer:
            logger.warning("sip.target: %s has lost its %s records", *key)
        self._keep(key, _Known(answer, self._now() + (min(max(ttl_s, MIN_TTL_S), MAX_TTL_S) if answer else RETRY_S)))
        return answer

    def _keep(self, key: _Key, known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)


def in_order(services: Sequence[Service], uniform: Callable[[], float]) -> list[Service]:
    """SRV records by rising priority, those of one priority drawn by their weights (RFC 2782, "Weight")."""
    ordered: list[Service] = []
    for priority in sorted({service.priority for service in services}):
        # Weight 0 first: it is drawn seldom, but is.
        left = sorted((service for service in services if service.priority == priority), key=lambda service: service.weight)
        while left:
            threshold = uniform() * sum(service.weight for service in left)
            running = 0
            for service in left:
                running += service.weight
                if running >= threshold:
                    break
            left.remove(service)
            ordered.append(service)
    return ordered


class DnsLookup:
    """Asks the system: addresses through its resolver, hosts file included, and NAPTR and SRV records through dnspython.

    dnspython takes 3 MiB and is loaded when a name without a port is first looked up. `nameserver` asks that server (address,
    port) instead, for everything. `family` is that of the sockets that will be used.
    """

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, nameserver: tuple[str, int] | None = None) -> None:
        self._family = family
        self._nameserver = nameserver
        self._resolver: Any = None

    async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
        """NAPTR records."""
        records, ttl_s = await self._query(domain, "NAPTR")
        return [
            Pointer(
                record.order,
                record.preference,
                record.flags.decode("latin-1"),
                record.service.decode("latin-1"),
                str(record.replacement),
            )
            for record in records
        ], ttl_s

    async def services(self, name: str) -> tuple[Sequence[Service], float]:
        """SRV records."""
        records, ttl_s = await self._query(name, "SRV")
        return [Service(record.priority, record.weight, record.port, str(record.target)) for record in records], ttl_s

    async def addresses(self, host: str) -> tuple[Sequence[str], float]:
        """A or AAAA records, by the family."""
        if self._nameserver is not None:
            records, ttl_s = await self._query(host, "AAAA" if self._family == socket.AF_INET6 else "A")
            return [str(record.address) for record in records], ttl_s
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, None, family=self._family, type=socket.SOCK_DGRAM)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                return [], 0.0
            raise
        except UnicodeError:
            return [], 0.0  # no DNS name: a label is empty or too long
        return list(dict.fromkeys(str(entry[4][0]) for entry in found)), ADDRESS_TTL_S

    async def _query(self, name: str, kind: str) -> tuple[Sequence[Any], float]:
        resolver = await self._opened()
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN, NoAnswer

        try:
            answer = await resolver.resolve(name, kind, lifetime=LOOKUP_S, search=False)
        except (NXDOMAIN, NoAnswer):
            return [], 0.0
        except DNSException as error:
            raise OSError(str(error)) from None
        return list(answer), float(answer.rrset.ttl)

    async def _opened(self) -> Any:
        if self._resolver is None:
            # In a thread: calls are under way, and reading the modules takes tens of milliseconds.
            module = await asyncio.to_thread(importlib.import_module, "dns.asyncresolver")
            try:
                self._resolver = module.Resolver(configure=self._nameserver is None)
            except module.NoResolverConfiguration as error:
                raise OSError(str(error)) from None
            self._resolver.cache = None
            if self._nameserver is not None:
                self._resolver.nameservers, self._resolver.port = [self._nameserver[0]], self._nameserver[1]
        return self._resolver

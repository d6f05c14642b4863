"""Which network addresses a customer may make us connect to.

Webhook, tool and AI addresses come from customers, so that anything but the public Internet is refused unless the operator has
allowed it: otherwise a customer could reach the operator's own network through us.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from switchhook.domain.errors import SettingError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_REFUSED_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this host (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "168.63.129.16/32",  # a cloud platform's own services, on a public address (Azure)
        "169.254.0.0/16",  # link-local and cloud metadata (RFC 3927)
        "172.16.0.0/12",  # private (RFC 1918)
        "192.0.0.0/24",  # protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.168.0.0/16",  # private (RFC 1918)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and limited broadcast (RFC 1112, 919)
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, among them Teredo (RFC 2928, 4380)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4: wraps any IPv4 address (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def permitted(address: Address, allow: Iterable[Network] = ()) -> bool:
    """Whether we may connect there: a public address, or one in a block of `allow`."""
    carried = _carried_v4(address)
    for network in allow:
        if address in network or (carried is not None and carried in network):
            return True
    return _is_public(carried or address)


def literal(host: str) -> Address | None:
    """The address that a URL's host part spells out, or None for a name. Brackets and a zone are accepted."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def networks(blocks: Iterable[str]) -> Sequence[Network]:
    """Parse CIDR blocks (`10.0.0.0/8`, `fd00::/8`, a bare address). Raises SettingError naming the block and the cure."""
    found: list[Network] = []
    for block in blocks:
        try:
            found.append(ip_network(block.strip()))
        except ValueError as error:
            cure = "write a CIDR block such as 10.0.0.0/8 or fd00::/8, with no bit set behind the prefix"
            raise SettingError(f"egress allow-list: {block!r} is no network ({error}); {cure}") from None
    return tuple(found)


def _carried_v4(address: Address) -> IPv4Address | None:
    """The IPv4 address that a packet to this IPv6 address would reach: mapped (RFC 4291) or through NAT64 (RFC 6052)."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in block for block in _REFUSED_V6)

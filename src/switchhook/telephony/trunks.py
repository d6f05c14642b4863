"""Trunks as the SIP side looks them up: by the address a request comes from, and by the user name of its digest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Trunk

_REMEMBERED_ADDRESSES = 4096


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose call it is."""

    trunk: str | None
    """None when trunks of several accounts allow the address: then the called number alone decides."""
    account: str | None


class TrunkDirectory:
    """The trunks in force; `replace` swaps them all."""

    def __init__(self, trunks: Iterable[Trunk] = ()) -> None:
        self._networks: list[tuple[IPv4Network | IPv6Network, Trunk]] = []
        self._by_username: dict[str, list[Trunk]] = {}
        self._by_name: dict[str, Trunk] = {}
        self._remembered: OrderedDict[str, Origin | None] = OrderedDict()
        self.replace(trunks)

    def replace(self, trunks: Iterable[Trunk]) -> None:
        """Put these trunks in force.

        Raises:
            SettingError: a block of `allow_from` is no address or CIDR.
        """
        networks: list[tuple[IPv4Network | IPv6Network, Trunk]] = []
        by_username: dict[str, list[Trunk]] = {}
        by_name: dict[str, Trunk] = {}
        for trunk in trunks:
            by_name[trunk.name] = trunk
            networks += [(_network(trunk, block), trunk) for block in trunk.allow_from]
            if trunk.username and trunk.password:
                by_username.setdefault(trunk.username, []).append(trunk)
        self._networks, self._by_username, self._by_name = networks, by_username, by_name
        self._remembered.clear()

    @property
    def has_credentials(self) -> bool:
        """Whether any trunk can be reached by digest."""
        return bool(self._by_username)

    def by_name(self, name: str) -> Trunk | None:
        """The trunk of this name."""
        return self._by_name.get(name)

    def by_username(self, username: str) -> list[Trunk]:
        """The trunks whose peer proves itself under this user name."""
        return self._by_username.get(username, [])

    def by_address(self, host: str) -> Origin | None:
        """Who may call from this address without digest; the narrowest block wins. None: nobody."""
        if host in self._remembered:
            self._remembered.move_to_end(host)
            return self._remembered[host]
        origin = self._find(host)
        self._remembered[host] = origin
        if len(self._remembered) > _REMEMBERED_ADDRESSES:
            self._remembered.popitem(last=False)
        return origin

    def _find(self, host: str) -> Origin | None:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        found = [(network, trunk) for network, trunk in self._networks if address in network]
        if not found:
            return None
        narrowest = max(network.prefixlen for network, _ in found)
        trunks = [trunk for network, trunk in found if network.prefixlen == narrowest]
        if len({trunk.account for trunk in trunks}) > 1:
            return Origin(None, None)
        return Origin(trunks[0].name, trunks[0].account)


def _network(trunk: Trunk, block: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(block, strict=False)
    except ValueError as error:
        raise SettingError(
            f"trunk {trunk.name}: allow_from: {block!r} is no address and no CIDR block like 192.0.2.0/24"
        ) from error

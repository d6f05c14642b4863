"""Trunks as the SIP side looks them up: by the address a request comes from, by the user name of its digest, by account."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Srtp, Trunk

_REMEMBERED_ADDRESSES = 4096
_STRICTNESS = (Srtp.OFF, Srtp.OFFERED, Srtp.REQUIRED)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose call it is."""

    trunk: str | None
    """None when trunks of several accounts allow the address: then the called number alone decides."""
    account: str | None
    srtp: Srtp = Srtp.OFF
    """By the trunk; the strictest of them where several accounts' trunks allow the address."""


class TrunkDirectory:
    """The trunks in force; `replace` swaps them all."""

    def __init__(self, trunks: Iterable[Trunk] = ()) -> None:
        self._networks: list[tuple[IPv4Network | IPv6Network, Trunk]] = []
        self._by_username: dict[str, list[Trunk]] = {}
        self._by_name: dict[str, Trunk] = {}
        self._remembered: OrderedDict[str, Origin | None] = OrderedDict()
        self._located: dict[str, frozenset[IPv4Address | IPv6Address]] = {}
        self._dialled: frozenset[IPv4Address | IPv6Address] = frozenset()
        self.on_replaced: Callable[[], None] = _nobody
        """Told after each `replace`."""
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
        kept = {name for name, trunk in by_name.items() if (old := self._by_name.get(name)) and old.address == trunk.address}
        self._networks, self._by_username, self._by_name = networks, by_username, by_name
        self._located = {name: found for name, found in self._located.items() if name in kept}
        self._forget_answers()
        self.on_replaced()

    def locate(self, name: str, hosts: Iterable[str]) -> None:
        """Where a trunk's peer was found: numeric addresses, in place of those found before.

        What these addresses send is read. A trunk that registers also gets its calls from there, without digest: a registrar
        sends calls from the address it was registered at and proves nothing. The risk: whoever can forge that source address, or
        what DNS says of the peer's name, can place a call; the first is true of every `allow_from` over UDP too.
        """
        addresses = frozenset(_plain(ip_address(host.partition("%")[0])) for host in hosts)
        if name in self._by_name and self._located.get(name) != addresses:
            self._located[name] = addresses
            self._forget_answers()

    def _forget_answers(self) -> None:
        self._dialled = frozenset(address for found in self._located.values() for address in found)
        self._remembered.clear()

    @property
    def all(self) -> list[Trunk]:
        """Every trunk."""
        return list(self._by_name.values())

    def of_account(self, account: str) -> list[Trunk]:
        """An account's trunks in rising priority."""
        return sorted((trunk for trunk in self._by_name.values() if trunk.account == account), key=lambda trunk: trunk.priority)

    def is_peer(self, host: str) -> bool:
        """Whether we place calls or register there: the address may answer as often as it likes."""
        if not self._dialled:
            return False
        try:
            return _plain(ip_address(host.partition("%")[0])) in self._dialled
        except ValueError:
            return False

    def is_at(self, name: str, host: str) -> bool:
        """Whether an address is one of a trunk's: where it was found, or in its `allow_from`. A name is none."""
        try:
            address = _plain(ip_address(host.partition("%")[0]))
        except ValueError:
            return False
        allowed = any(address in network for network, trunk in self._networks if trunk.name == name)
        return allowed or address in self._located.get(name, ())

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

    def registrant(self, user: str, account: str | None) -> str | None:
        """The account that has registered us under this user, so that calls for it may be calls for any of its numbers; of
        `account` alone when that is known. None: nobody, or several accounts."""
        trunks = [trunk for trunk in self.by_username(user) if trunk.register and account in (None, trunk.account)]
        accounts = {trunk.account for trunk in trunks}
        return accounts.pop() if len(accounts) == 1 else None

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
            address = _plain(ip_address(host.partition("%")[0]))
        except ValueError:
            return None
        found = [(network, trunk) for network, trunk in self._networks if address in network]
        registered = [self._by_name[name] for name, located in self._located.items() if address in located]
        found += [(ip_network(address), trunk) for trunk in registered if trunk.register]
        if not found:
            return None
        narrowest = max(network.prefixlen for network, _ in found)
        trunks = [trunk for network, trunk in found if network.prefixlen == narrowest]
        if len({trunk.account for trunk in trunks}) > 1:
            return Origin(None, None, max((trunk.srtp for trunk in trunks), key=_STRICTNESS.index))
        return Origin(trunks[0].name, trunks[0].account, trunks[0].srtp)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that came in an IPv6 one is itself (RFC 4291 §2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address


def _nobody() -> None:
    """Nobody wants to know."""


def _network(trunk: Trunk, block: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(block, strict=False)
    except ValueError as error:
        raise SettingError(
            f"trunk {trunk.name}: allow_from: {block!r} is no address and no CIDR block like 192.0.2.0/24"
        ) from error

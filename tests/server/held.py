"""What a running server holds: its own figures, and every descriptor of its process by what it is for (Linux's /proc)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.server.house import House
from tests.server.waiting import eventually

ZERO = ("calls_live", "rtp_ports_leased", "dialling_live", "sip_dialogs", "sip_transactions", "recordings_making")
"""Figures that are nothing when no call is left."""
SAME = ("tasks", "sip_connections")
"""Figures that are what they were."""
CUSTOMER, API = "connection to the customer", "connection of an API client"
PASSING = (CUSTOMER, API)
"""Kinds of descriptors that go by themselves: pooled for some seconds, or the look's own."""
STEADY_LOOKS = 5
"""So many equal looks in a row say that nothing is under way."""
_LISTENING = "0A"


@dataclass(frozen=True)
class Held:
    """What a server holds; two are equal whatever is under way."""

    under_way: Mapping[str, float] = field(compare=False)
    """The figures of `ZERO`."""
    figures: Mapping[str, float]
    descriptors: Counter[str]

    def beyond(self, other: Held) -> str:
        """How this differs, for a failed assertion."""
        left = {name: value for name, value in self.under_way.items() if value}
        figures = {name: (other.figures[name], now) for name, now in self.figures.items() if now != other.figures[name]}
        more, fewer = self.descriptors - other.descriptors, other.descriptors - self.descriptors
        return f"under way: {left}; figures (before, now): {figures}; descriptors more: {dict(more)}, fewer: {dict(fewer)}"


class Holdings:
    """Looks at what a server holds; `peers` names the far ends of its connections by their ports."""

    def __init__(self, house: House, peers: Mapping[int, str]) -> None:
        self._house = house
        self._peers = {house.backend.port: CUSTOMER, **peers}
        server = house.server
        self._doors = {server.http_port: API, server.media_port: "media WebSocket", server.sip_port: "SIP connection to us"}

    async def steady(self) -> Held:
        """Wait until nothing changes and nothing is there that goes by itself; gives what is held then."""
        looks: list[Held] = []

        async def find() -> Held | None:
            looks.append(await self._look())
            now = looks[-1]
            still = looks[-STEADY_LOOKS:] == [now] * STEADY_LOOKS
            return now if still and not any(now.descriptors[kind] for kind in PASSING) else None

        try:
            return await eventually(find, "what is held no longer changes", 60)
        except AssertionError:
            raise AssertionError(f"it changes: {looks[-1].beyond(looks[0])}") from None

    async def back_at(self, before: Held, deadline_s: float) -> None:
        """Wait until nothing is under way and exactly this is held again. Raises AssertionError with the difference."""
        now = before

        async def find() -> bool:
            nonlocal now
            now = await self._look()
            return now == before and not any(now.under_way.values())

        try:
            await eventually(find, "everything is given back", deadline_s)
        except AssertionError:
            raise AssertionError(f"after {deadline_s:g} s: {now.beyond(before)}") from None

    async def _look(self) -> Held:
        figures = await self._house.metrics()
        under_way, same = ({name: figures[f"switchhook_{name}"] for name in names} for names in (ZERO, SAME))
        return Held(under_way, same, self._descriptors())

    def _descriptors(self) -> Counter[str]:
        assert self._house.server.process is not None
        process = Path("/proc", str(self._house.server.process.pid))
        sockets = self._sockets(process)
        found = Counter[str]()
        for descriptor in (process / "fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue  # closed while we look
            kind, _, rest = target.partition(":")
            found[sockets.get(rest.strip("[]"), kind) if kind == "socket" else kind if rest else target] += 1
        return found

    def _sockets(self, process: Path) -> dict[str, str]:
        """Inode → what the socket is for."""
        names = {line.split()[6]: "unix socket" for line in _lines(process / "net/unix")}
        for line in _lines(process / "net/udp"):
            names[line.split()[9]] = "UDP socket"
        for line in _lines(process / "net/tcp"):
            _, local, remote, state, *_, inode = line.split()[:10]
            names[inode] = "listening socket" if state == _LISTENING else self._connection(_port(local), _port(remote))
        return names

    def _connection(self, local: int, remote: int) -> str:
        return self._doors.get(local) or self._peers.get(remote) or f"connection {local} to {remote}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)

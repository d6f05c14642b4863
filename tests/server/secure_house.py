"""A server whose accounts differ in what they encrypt, and the telephones that call it and that it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.certificates import Authority
from tests.peers.ports import free_port, free_row
from tests.server.exchange import Exchange
from tests.server.house import NUMBER
from tests.server.trunk_house import Keys, at, open_trunks, trunk

SECURE_HOST = "127.0.0.4"
"""Callers from here must encrypt."""
OFFERING = "+17206999920"
"""Its trunk offers SRTP and takes a call without."""
PLAIN = "+17206999921"
"""Its trunk for calls out knows no SRTP; its callers at `PLAIN_SECURE_HOST` must encrypt."""
PLAIN_SECURE_HOST = "127.0.0.5"
BY_TLS = "+17206999922"
"""Its trunk is over TLS, with SRTP."""
KEEPS_QUIET = "+17206999923"
"""As `NUMBER`, but recording stops when the caller is put through."""
MUST, CAN = ";mediaenc=srtp-mand", ";mediaenc=srtp"
"""What a telephone does by itself, in baresip's words."""


@dataclass(frozen=True)
class SecureHouse:
    """The server and whom it trusts."""

    exchange: Exchange
    authority: Authority
    port: int
    tls_port: int
    """Its own, for SIP over TLS."""

    def uri_by_tls(self, number: str = NUMBER) -> str:
        """Where a telephone dials."""
        return f"sip:{number}@127.0.0.1:{self.tls_port};transport=tls"


def secure_trunks(port: int, ca: str) -> list[Keys]:
    """A telephone waits at `port`, for TLS at the next one."""
    secure = {"srtp": "required", "priority": 1}
    return [
        trunk("secure", at(port), allow_from=[f"{SECURE_HOST}/32"], **secure),
        trunk("plain-in", at(9), allow_from=["127.0.0.1/32"], priority=2),
        trunk("offering", at(port), account="offering", srtp="offered"),
        trunk("plain", at(port), account="plain", priority=1),
        trunk("secure-in", at(9), account="plain", allow_from=[f"{PLAIN_SECURE_HOST}/32"], srtp="required", priority=2),
        trunk("by-tls", at(port + 1), account="by-tls", transport="tls", tls_ca=ca, srtp="required"),
    ]


def secure_numbers() -> dict[str, Keys]:
    """One for each account, and one that records less."""
    return {
        NUMBER: {"account": "acme"},
        OFFERING: {"account": "offering"},
        PLAIN: {"account": "plain"},
        BY_TLS: {"account": "by-tls"},
        KEEPS_QUIET: {"account": "acme", "record_transfers": False},
    }


@asynccontextmanager
async def open_secure(
    folder: Path,
    trunks: Callable[[int, str], list[Keys]] = secure_trunks,
    numbers: Callable[[], dict[str, Keys]] = secure_numbers,
) -> AsyncIterator[SecureHouse]:
    """A server that also listens for SIP over TLS. `trunks` are made of a port and the PEM file of an authority."""
    folder.mkdir(exist_ok=True)
    authority = Authority(folder)
    identity = authority.vouch_for("127.0.0.1")
    port, tls_port = free_row(2), free_port()
    settings = {
        "SWITCHHOOK_SIP_TRANSPORTS": "udp,tcp,tls",
        "SWITCHHOOK_SIP_TLS_PORT": str(tls_port),
        "SWITCHHOOK_TLS_CERTIFICATE": identity.certificate,
        "SWITCHHOOK_TLS_KEY": identity.key,
    }
    async with open_trunks(folder, trunks(port, authority.file), numbers(), settings) as exchange:
        exchange.port = port
        yield SecureHouse(exchange, authority, port, tls_port)

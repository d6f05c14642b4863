"""`Via`: the way a response goes back (RFC 3261 §18.2, §20.42; RFC 3581)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import (
    HOST_PORT,
    TOKEN,
    Params,
    format_host_port,
    format_params,
    parse_host_port,
    parse_params,
)

MAGIC_COOKIE = "z9hG4bK"
"""Begins the branch of every RFC 3261 transaction (§8.1.1.7)."""

# Blanks may stand around each slash and colon (RFC 3261 §25.1 `sent-protocol`, `sent-by`). Another version is read too: its
# request is refused with 505, and the refusal needs a way back.
_VIA = re.compile(
    rf"SIP\s*/\s*[0-9]\.[0-9]\s*/\s*({TOKEN.pattern})\s+(\S[^;]*?)\s*(;.*)?",
    re.IGNORECASE | re.DOTALL,
)
_DEFAULT_PORT = {"TLS": 5061, "WSS": 443, "WS": 80}


@dataclass(frozen=True, slots=True)
class Via:
    """One hop: the transport, the address its sender wrote, and parameters."""

    transport: str
    """Upper case: UDP, TCP, TLS…"""
    host: str
    """Name or address; IPv6 without brackets."""
    port: int | None = None
    params: Params = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Via:
        """Read one Via value.

        Raises:
            GrammarError: not `SIP/2.0/transport host:port;params`.
        """
        match = _VIA.fullmatch(text.strip())
        if match is None or not HOST_PORT.match(match.group(2)):
            raise GrammarError("expected SIP/2.0/transport and a host")
        transport, host_port, params = match.groups()
        host, port = parse_host_port(host_port)
        return cls(transport.upper(), host, port, parse_params(params or ""))

    @property
    def branch(self) -> str | None:
        """The transaction's name; without the magic cookie the sender speaks RFC 2543."""
        return self.params.get("branch")

    @property
    def wants_rport(self) -> bool:
        """The sender asks for answers at the port it sent from (RFC 3581 §4)."""
        return "rport" in self.params

    @property
    def rport(self) -> int | None:
        """The port the request came from, once it was filled in."""
        value = self.params.get("rport")
        return int(value) if value and value.isascii() and value.isdigit() and len(value) <= 5 else None

    @property
    def received(self) -> str | None:
        """The address the request came from, if it was filled in; IPv6 without brackets."""
        value = self.params.get("received")
        return value.strip("[]") if value else None

    def mark_received(self, source: tuple[str, int]) -> Via:
        """Note where the request really came from (RFC 3261 §18.2.1, RFC 3581 §4)."""
        address, port = source
        # What the sender itself wrote there would send the response elsewhere.
        params = {name: value for name, value in self.params.items() if name != "received"}
        if "rport" in params:
            params["rport"] = str(port)
        if "rport" in params or address != self.host:
            params["received"] = address
        return replace(self, params=params)

    @property
    def reply_address(self) -> tuple[str, int]:
        """Where a response goes over an unreliable transport (RFC 3261 §18.2.2, RFC 3581 §4)."""
        default = _DEFAULT_PORT.get(self.transport, 5060)
        if maddr := self.params.get("maddr"):
            return maddr.strip("[]"), self.port or default
        return self.received or self.host, self.rport or self.port or default

    def __str__(self) -> str:
        return f"SIP/2.0/{self.transport} {format_host_port(self.host, self.port)}{format_params(self.params)}"

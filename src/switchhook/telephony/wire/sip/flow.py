"""Where messages come from and go to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Flow:
    """A way to a peer: a transport and the far address, and for streams the connection if there is one."""

    transport: str
    """`udp`, `tcp` or `tls`."""
    host: str
    """Address (IPv6 without brackets), or a name when it comes from a peer's Contact or Route."""
    port: int
    connection: int = 0
    """The shell's number of the stream connection; 0 when there is none yet."""
    alternative: tuple[str, int] | None = field(default=None, compare=False)
    """Where the peer listens, by the same transport: connect there once the stream connection is gone (RFC 5923 §5)."""
    trunk: str = ""
    """By whose rules a TLS connection is made, if one must be: which certificate is shown and which is believed."""

    @property
    def reliable(self) -> bool:
        """Whether the transport itself repeats what is lost."""
        return self.transport != "udp"

    def to(self, host: str, port: int) -> Flow:
        """The same transport to another address, without a connection."""
        return Flow(self.transport, host, port, trunk=self.trunk)


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: put one whole message on the wire."""

    data: bytes
    flow: Flow

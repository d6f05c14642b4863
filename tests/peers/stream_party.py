"""A telephone that takes calls over TCP or TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Self

from switchhook_demo.sip_text import Message
from tests.peers.certificates import Identity
from tests.peers.party import Party


def server_tls(identity: Identity, client_ca: str | None = None) -> ssl.SSLContext:
    """Shows a certificate; with `client_ca`, wants one of that authority from whoever connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


class _Connections(asyncio.DatagramTransport):
    """What a telephone sends by, where each far end is a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: dict[tuple[str, int], asyncio.StreamWriter] = {}
        self._closing = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        """To an address without a connection of its own by the newest: it is the far side's too (RFC 5923). Else, nothing."""
        writer = self.writers.get(addr) or next(reversed(self.writers.values()), None)
        if writer is not None and not writer.is_closing():
            writer.write(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        for writer in self.writers.values():
            writer.close()


class StreamParty(Party):
    """`async with StreamParty(port=5071, tls=server_tls(identity)) as party`; without `tls`, over TCP."""

    def __init__(
        self, user: str = "+17205550100", port: int = 0, answers: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(user=user, port=port, answers=answers)
        self.clients: list[Any] = []
        """The certificate that each connection showed, None for none."""
        self._tls = tls
        self._connections = _Connections()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self._port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self._transport = self._connections
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await super().__aexit__(*exc)
        if self._server is not None:
            self._server.close()

    @property
    def transport(self) -> str:
        """`tcp` or `tls`."""
        return "tls" if self._tls is not None else "tcp"

    @property
    def contact(self) -> str:
        """With the transport that it is reached by."""
        return f"<sip:{self.user}@{self.host}:{self.port};transport={self.transport}>"

    def send(self, message: Message, remote: tuple[str, int]) -> None:
        """A telephone writes UDP into the Via of its requests; here it is what the connection is."""
        if message.method:
            via = f"SIP/2.0/{self.transport.upper()}"
            message.headers = [(name, value.replace("SIP/2.0/UDP", via, 1)) for name, value in message.headers]
        super().send(message, remote)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remote = writer.get_extra_info("peername")[:2]
        self.clients.append(writer.get_extra_info("peercert") or None)
        self._connections.writers[remote] = writer
        try:
            while True:
                self.datagram_received(await _message(reader), remote)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The next message (RFC 3261 §18.3); keepalives before it are passed over."""
    head = (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")
    while not head:
        head = (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.lower().splitlines() if line.startswith((b"content-length:", b"l:"))), 0
    )
    return head + await reader.readexactly(length)

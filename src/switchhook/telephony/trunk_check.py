"""Whether a trunk can be reached, for `switchhook check`: its name resolves, its port speaks, OPTIONS gets an answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from switchhook.domain.model import Srtp, Trunk
from switchhook.telephony.sip_targets import SipTargets, Target, TargetNotFound
from switchhook.telephony.sip_tls import TlsFault, TlsPeer, client_context, cure, server_context, wrong_name
from switchhook.telephony.wire.sip.framing import StreamFramer
from switchhook.telephony.wire.sip.grammar import format_host_port
from switchhook.telephony.wire.sip.message import MalformedMessage, Request, Response, parse_message
from switchhook.telephony.wire.sip.options_request import options_request
from switchhook.telephony.wire.sip.uri import SipUri
from switchhook.telephony.wire.sip.via import MAGIC_COOKIE

PATIENCE_S = 3.0
"""For one address."""
_REPEAT_S = 0.5
_MAX_ADDRESSES = 3
_READ_BYTES = 65_536


async def trunk_state(trunk: Trunk, targets: SipTargets, entropy: Callable[[int], bytes]) -> tuple[str, bool]:
    """One sentence on a trunk, and False when it is certain that calls to it fail. Silence is not: some carriers ignore OPTIONS.

    Asks from a port of its own, so that a server may be running.
    """
    try:
        found = await targets.locate(SipUri.parse(trunk.address), trunk.transport)
    except TargetNotFound as error:
        return f"cannot be found: {error}", False
    said, holds = "", False
    for target in found[:_MAX_ADDRESSES]:
        where = f"{target.transport} {format_host_port(target.host, target.port)}"
        peer = TlsPeer(trunk.name, target.domain, trunk.tls_ca, trunk.tls_verify, trunk.tls_certificate, trunk.tls_key)
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = await (_by_udp(target, entropy) if target.transport == "udp" else _by_stream(target, peer, entropy))
            return f"{where} answers ({status})", True
        except TimeoutError:
            said = f"{where} does not answer OPTIONS: it may not know this machine's address, or a firewall is in the way"
            holds = True
        except (OSError, TlsFault) as error:
            said = f"{where}: {cure(error, peer)}"
    return said, holds


def exposed_keys(trunk: Trunk) -> str | None:
    """That a trunk encrypts sound with keys that travel in the clear (RFC 4568 §8.3); None: it does not."""
    uri = SipUri.parse(trunk.address)
    over_tls = (trunk.transport or ("tls" if uri.scheme == "sips" else uri.transport)) == "tls"
    if trunk.srtp is Srtp.OFF or over_tls:
        return None
    return (
        f"srtp: {trunk.srtp.value} protects nothing here: its keys travel in the SIP messages, in the clear; set transport: tls"
    )


def certificate_problem(certificate: str | None, key: str | None) -> str | None:
    """What is wrong with the PEM files of our own TLS listener; None: nothing."""
    try:
        server_context(certificate or "", key or "")
    except (OSError, ssl.SSLError) as error:
        return f"the certificate or its key cannot be used: {error}"
    return None


class _Answer(asyncio.DatagramProtocol):
    """Waits for a final response."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        try:
            self.take(parse_message(data))
        except MalformedMessage:
            return

    def error_received(self, exc: Exception) -> None:
        if not self.status.done():
            self.status.set_exception(exc)

    def take(self, message: object) -> None:
        """A message came; requests and provisional responses are passed over."""
        if isinstance(message, Response) and message.status >= 200 and not self.status.done():
            self.status.set_result(message.status)


async def _by_udp(target: Target, entropy: Callable[[int], bytes]) -> int:
    loop = asyncio.get_running_loop()
    transport, answer = await loop.create_datagram_endpoint(_Answer, remote_addr=(target.host, target.port))
    try:
        request = bytes(_options(target, transport.get_extra_info("sockname"), entropy))
        while not answer.status.done():
            transport.sendto(request)
            await asyncio.wait([answer.status], timeout=_REPEAT_S)
        return answer.status.result()
    finally:
        transport.close()


async def _by_stream(target: Target, peer: TlsPeer, entropy: Callable[[int], bytes]) -> int:
    tls = target.transport == "tls"
    context = client_context(peer) if tls else None
    name = peer.domain if tls else None
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, server_hostname=name)
    try:
        certificate = writer.get_extra_info("peercert")
        if tls and not peer.accepts(certificate):
            raise wrong_name(certificate, peer)
        writer.write(bytes(_options(target, writer.get_extra_info("sockname"), entropy)))
        framer, answer = StreamFramer(), _Answer()
        while not answer.status.done():
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            for frame in framer.feed(data):
                answer.take(frame)
        return answer.status.result()
    finally:
        writer.close()


def _options(target: Target, here: tuple[Any, ...], entropy: Callable[[int], bytes]) -> Request:
    ours = SipUri(str(here[0]), "switchhook", int(here[1]))
    request = options_request(SipUri(target.domain, port=target.port), ours, entropy)
    sent_by, branch = format_host_port(ours.host, ours.port), MAGIC_COOKIE + entropy(12).hex()
    request.headers.insert("Via", f"SIP/2.0/{target.transport.upper()} {sent_by};branch={branch};rport")
    return request

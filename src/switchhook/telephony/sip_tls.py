"""TLS of SIP connections: our certificate towards peers, and whether theirs vouches for whom we meant (RFC 5922)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.uri import SipUri

logger = logging.getLogger(__name__)

PeerCertificate: TypeAlias = Mapping[str, Any]
"""As `SSLSocket.getpeercert` gives it; empty when the certificate was not checked."""
_MAX_CONTEXTS = 256


@dataclass(frozen=True, slots=True)
class TlsPeer:
    """Whom to connect to over TLS, and how."""

    name: str
    """The trunk's, for people."""
    domain: str
    """Host of the trunk's address: what the certificate must be for, wherever DNS led (RFC 5922 §7.1)."""
    ca: str | None = None
    """PEM file of the authorities; None: the system's."""
    verify: bool = True
    certificate: str | None = None
    """PEM file with our chain, and its key if `key` is None."""
    key: str | None = None

    def accepts(self, certificate: PeerCertificate | None) -> bool:
        """Whether the peer's certificate is for this domain; its chain was checked in the handshake."""
        return not self.verify or vouches_for(certificate or {}, self.domain)


class TlsFault(Exception):
    """A TLS connection that cannot be had; says why, and the cure."""


class TlsContexts:
    """The settings of outgoing TLS connections, made once for each peer and again when one of its files has changed."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[tuple[TlsPeer, tuple[float, ...]], ssl.SSLContext] = OrderedDict()
        self._warned: set[str] = set()

    async def of(self, peer: TlsPeer) -> ssl.SSLContext:
        """The context for a peer. Raises TlsFault when a file of the trunk cannot be used."""
        if not peer.verify and peer.name not in self._warned:
            self._warned.add(peer.name)
            logger.warning(
                "sip.tls: the certificate of trunk %s is not checked, anyone on the way can be the peer: "
                "set tls_ca to its authority and tls_verify: true",
                peer.name,
            )
        try:
            key = (peer, tuple(Path(file).stat().st_mtime for file in (peer.ca, peer.certificate, peer.key) if file))
        except OSError as error:
            raise TlsFault(f"{error.filename} cannot be read ({error.strerror}): correct the trunk's tls_… paths") from None
        if key not in self._contexts:
            # In a thread: reading the system's authorities takes 20 ms.
            self._contexts[key] = await asyncio.to_thread(client_context, peer)
            if len(self._contexts) > _MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        return self._contexts[key]


def client_context(peer: TlsPeer) -> ssl.SSLContext:
    """TLS 1.2 and later towards a peer. Raises TlsFault for a file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whom the certificate is for is our own check: the library knows nothing of SIP URIs in it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if peer.verify else ssl.CERT_NONE
    try:
        if peer.ca:
            context.load_verify_locations(peer.ca)
        elif peer.verify:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise TlsFault(f"tls_ca {peer.ca} cannot be used ({_reason(error)}): name a PEM file of authorities") from None
    if peer.certificate:
        try:
            # A passphrase would be asked for at the terminal.
            context.load_cert_chain(peer.certificate, peer.key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            raise TlsFault(
                f"tls_certificate {peer.certificate} cannot be used ({_reason(error)}): "
                "name PEM files of a certificate and of its key, which must have no passphrase"
            ) from None
    return context


def server_context(certificate: str, key: str, client_ca: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 and later with this certificate chain and key (PEM files). Raises OSError or ssl.SSLError.

    With `client_ca` (a PEM file of authorities) whoever connects must show a certificate of one of them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def vouches_for(certificate: PeerCertificate, domain: str) -> bool:
    """Whether a certificate is for a SIP domain: by a SIP URI without user part, a DNS name or an address (RFC 5922 §7.1).

    RFC 5922 §7.2 wants no wildcards; carriers use them all the same, so that one stands for one label, as on the web.
    """
    wanted = domain.strip("[]").rstrip(".").lower()
    return any(_names(kind, value, wanted) for kind, value in certificate.get("subjectAltName", ()))


def cure(error: BaseException, peer: TlsPeer) -> str:
    """What went wrong with a connection to a trunk, and what to do about it, in one sentence for the operator."""
    if isinstance(error, TlsFault):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}): "
            "set tls_ca to a PEM file of its authority, or tls_verify: false to connect unchecked"
        )
    closed = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    if closed or (isinstance(error, ssl.SSLError) and "ALERT" in _reason(error)):
        shown = "the one it was shown may not be good enough" if peer.certificate else "set tls_certificate and tls_key"
        return f"it ended the connection ({_reason(error) or 'without a word'}); it may want a certificate of ours: {shown}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({_reason(error)}): does the peer speak TLS on this port?"
    if isinstance(error, TimeoutError):
        return "it did not answer in time: check address, port and firewall"
    return f"it cannot be reached ({getattr(error, 'strerror', None) or error}): check address, port and firewall"


def wrong_name(certificate: PeerCertificate | None, peer: TlsPeer) -> TlsFault:
    """The fault of a peer whose certificate is for somebody else."""
    names = ", ".join(str(value) for _, value in (certificate or {}).get("subjectAltName", ())) or "nobody"
    return TlsFault(f"its certificate is not for {peer.domain} but for {names}: name one of these in the trunk's address")


def _names(kind: str, value: str, wanted: str) -> bool:
    if kind == "DNS":
        name = value.rstrip(".").lower()
        return name == wanted or (name.startswith("*.") and wanted.partition(".")[2] == name[2:])
    if kind == "IP Address":
        try:
            return ip_address(value) == ip_address(wanted)
        except ValueError:
            return False
    if kind == "URI":
        try:
            uri = SipUri.parse(value)
        except GrammarError:
            return False
        return uri.user is None and uri.host.strip("[]").lower() == wanted
    return False


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)

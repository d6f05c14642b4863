"""Dialogs (RFC 3261 §12): who talks with whom, in what order, and by which way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TypeAlias

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.headers import Headers
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.uri import SipUri

DialogKey: TypeAlias = tuple[str, str, str]
"""Call-ID, our tag, the peer's tag."""


@dataclass(slots=True)
class Dialog:
    """One dialog, whichever side began it."""

    call_id: str
    local: NameAddr
    """We, with our tag."""
    remote: NameAddr
    """The peer, with its tag if it gave one (RFC 2543 peers may not)."""
    route_set: list[NameAddr]
    """Proxies in the order our requests pass them; fixed once the dialog stands."""
    remote_target: SipUri
    """The peer's Contact; refreshed by INVITE and UPDATE."""
    flow: Flow
    """The way the peer's first message came."""
    local_seq: int = 0
    remote_seq: int | None = None
    behind_nat: bool = False
    """The peer's own address is not the one we see, and no proxy stands between: answer where it came from."""

    @classmethod
    def as_uas(cls, request: Request, local_tag: str, flow: Flow) -> Dialog:
        """The dialog of an INVITE that we answer (RFC 3261 §12.1.1).

        Raises:
            RemoteProtocolError: 400, no usable Contact.
        """
        vias = request.vias
        received = vias[0].received
        return cls(
            call_id=request.call_id,
            local=request.to.with_tag(local_tag),
            remote=request.from_,
            route_set=request.record_route,
            remote_target=target_of(request),
            flow=flow,
            remote_seq=request.cseq.number,
            behind_nat=len(vias) == 1 and received is not None and received != vias[0].host,
        )

    @classmethod
    def as_uac(cls, request: Request, response: Response, flow: Flow) -> Dialog:
        """The dialog that a response to our INVITE makes (RFC 3261 §12.1.2); `flow` is the way the INVITE went.

        A response without usable Contact, which there should not be, is taken to come from where the INVITE was sent.
        """
        dialog = cls(
            call_id=request.call_id,
            local=request.from_,
            remote=response.to,
            route_set=[],
            remote_target=SipUri.parse(request.uri),
            flow=flow,
            local_seq=request.cseq.number,
        )
        dialog.take_way(response)
        return dialog

    def take_way(self, response: Response) -> None:
        """Take target and route set from a response to our INVITE; its 2xx settles both (RFC 3261 §13.2.2.4).

        What cannot be read changes nothing.
        """
        try:
            self.remote_target = self.target_after(response)
            self.route_set = response.record_route[::-1]
        except RemoteProtocolError:
            return
        # RFC 3261 knows no NAT: a private address that a public one answers with is not where it can be reached.
        self.behind_nat = _is_private(self.remote_target.host) and not _is_private(self.flow.host)

    @property
    def key(self) -> DialogKey:
        """What finds the dialog."""
        return (self.call_id, self.local.tag or "", self.remote.tag or "")

    def in_order(self, request: Request) -> bool:
        """Whether the request is newer than the last (RFC 3261 §12.2.2); remembers its number."""
        number = request.cseq.number
        if self.remote_seq is not None and number <= self.remote_seq:
            return False
        self.remote_seq = number
        return True

    def target_after(self, message: Request | Response) -> SipUri:
        """The remote target once a target refresh request or its 2xx is taken (RFC 3261 §12.2.2); no Contact changes nothing.

        Raises:
            RemoteProtocolError: 400, a Contact that cannot be called.
        """
        return self.remote_target if message.contact is None else target_of(message)

    def request(self, method: str, number: int | None = None) -> Request:
        """A request of ours without Via (RFC 3261 §12.2.1.1); `number` is given for an ACK, else the next is taken."""
        if number is None:
            self.local_seq += 1
            number = self.local_seq
        uri, routes = self._way()
        headers = Headers()
        for route in routes:
            headers.add("Route", str(route))
        headers.add("Max-Forwards", "70")
        headers.add("From", str(self.local))
        headers.add("To", str(self.remote))
        headers.add("Call-ID", self.call_id)
        headers.add("CSeq", f"{number} {method}")
        return Request(method, str(uri), headers)

    def next_hop(self) -> Flow:
        """Where a request of ours goes first."""
        hop = self.route_set[0].uri if self.route_set else self.remote_target
        if not isinstance(hop, SipUri):
            return self.flow
        transport = "tls" if hop.scheme == "sips" else hop.transport or self.flow.transport
        if transport not in ("udp", "tcp", "tls"):
            return self.flow
        if not self.route_set and (self.behind_nat or hop.host.endswith(".invalid")):
            return self.flow
        host = (hop.params.get("maddr") or hop.host).strip("[]")
        port = hop.port or (5061 if transport == "tls" else 5060)
        if transport == self.flow.transport and self.flow.reliable:
            # The connection that the dialog came over is the way back (RFC 5923); its far end is a port nobody listens on.
            return replace(self.flow, alternative=(host, port))
        return Flow(transport, host, port, trunk=self.flow.trunk)

    def _way(self) -> tuple[SipUri, list[NameAddr]]:
        """Request-URI and Route headers: a first proxy without `lr` routes strictly (RFC 3261 §12.2.1.1)."""
        if not self.route_set:
            return self.remote_target, []
        first = self.route_set[0].uri
        if not isinstance(first, SipUri) or "lr" in first.params:
            return self.remote_target, self.route_set
        return first, [*self.route_set[1:], NameAddr(self.remote_target)]


def target_of(message: Request | Response) -> SipUri:
    """The peer's Contact.

    Raises:
        RemoteProtocolError: 400, missing or no SIP URI.
    """
    contact = message.contact
    if contact is None:
        raise RemoteProtocolError(400, "Contact: missing")
    if not isinstance(contact.uri, SipUri):
        raise RemoteProtocolError(400, "Contact: not a SIP URI")
    return contact.uri


def _is_private(host: str) -> bool:
    try:
        return ip_address(host.strip("[]").partition("%")[0]).is_private
    except ValueError:
        return False


def dialog_key(request: Request) -> DialogKey | None:
    """The dialog a request of the peer belongs to; None without a To tag."""
    tag = request.to.tag
    return None if tag is None else (request.call_id, tag, request.from_.tag or "")

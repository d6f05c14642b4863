"""OPTIONS outside a dialog: are you there (RFC 3261 §11.1)?"""

from __future__ import annotations

from collections.abc import Callable

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.headers import Headers
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.uri import SipUri


def options_request(peer: SipUri, contact: SipUri, entropy: Callable[[int], bytes]) -> Request:
    """An OPTIONS to a peer's domain, without Via; `contact` is where we are reached."""
    domain = SipUri(peer.host, port=peer.port, scheme=peer.scheme)
    headers = Headers()
    headers.add("Max-Forwards", "70")
    headers.add("From", str(NameAddr(SipUri(contact.host, contact.user)).with_tag(entropy(8).hex())))
    headers.add("To", str(NameAddr(domain)))
    headers.add("Call-ID", entropy(12).hex())
    headers.add("CSeq", "1 OPTIONS")
    headers.add("Contact", str(NameAddr(contact)))
    headers.add("Accept", "application/sdp")
    return Request("OPTIONS", str(domain), headers)

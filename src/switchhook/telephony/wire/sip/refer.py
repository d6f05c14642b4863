"""REFER and its NOTIFYs as values (RFC 3515, RFC 3420, RFC 4488, RFC 6665): whom to call, and what came of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote as percent_quote

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.grammar import parse_params, parse_uint, unescape
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.reasons import REASON_PHRASES
from switchhook.telephony.wire.sip.replaces import Replaces
from switchhook.telephony.wire.sip.uri import OpaqueUri, SipUri, TelUri, parse_uri

EVENT = "refer"
SIPFRAG = "message/sipfrag"
_MAX_STATUS_LINE = 512
_STATUS_LINE = re.compile(rb"\s*SIP\s*/\s*[0-9.]+[ \t]+([1-6][0-9]{2})(?![0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReferTarget:
    """Whom a peer asks us to call."""

    uri: str
    """SIP, SIPS or tel, without header fields."""
    replaces: str | None
    """The value of the Replaces header that the new INVITE must carry."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What a NOTIFY says of a REFER."""

    cseq: int | None
    """The REFER's number; None: the peer does not tell which one it means."""
    status: int | None
    """How the new call stands; None where the body does not tell."""
    terminated: bool
    """No further NOTIFY comes."""


def refer_to(uri: str, replaces: str | None) -> str:
    """The Refer-To header: where the peer shall call, and which call it shall replace there (RFC 3515 §2.1, RFC 3891 §6.2).

    Raises:
        GrammarError: no SIP, SIPS or tel URI, or a tel URI with `replaces`: only a SIP URI can carry header fields.
    """
    target = parse_uri(uri)
    if isinstance(target, OpaqueUri):
        raise GrammarError("expected a sip, sips or tel URI")
    if replaces is None:
        return str(NameAddr(target))
    if not isinstance(target, SipUri):
        raise GrammarError("only a SIP URI can say which call to replace")
    header = "Replaces=" + percent_quote(replaces, safe="-_.!~*'()", errors="surrogateescape")
    return str(NameAddr(replace(target, headers=f"{target.headers}&{header}" if target.headers else header)))


def read_refer_to(request: Request) -> ReferTarget:
    """Whom a REFER names.

    Raises:
        RemoteProtocolError: 400, not exactly one Refer-To (RFC 3515 §2.4.2) or one that cannot be called; 603, it asks for
            another method than INVITE.
    """
    address = request.refer_to
    if address is None or len(request.headers.get_all("Refer-To")) > 1:
        raise RemoteProtocolError(400, "Refer-To: expected one value")
    uri = address.uri
    if isinstance(uri, OpaqueUri) or (isinstance(uri, TelUri) and not uri.user):
        raise RemoteProtocolError(400, "Refer-To: expected a sip, sips or tel URI")
    if not isinstance(uri, SipUri):
        return ReferTarget(str(uri), None)
    if (uri.params.get("method") or "INVITE").upper() != "INVITE":
        raise RemoteProtocolError(603, "Only Calls Are Made on Request")
    return ReferTarget(str(replace(uri, headers="")), _embedded_replaces(uri.headers))


def _embedded_replaces(headers: str) -> str | None:
    for header in headers.split("&"):
        name, _, value = header.partition("=")
        if unescape(name).strip().lower() == "replaces":
            try:
                return str(Replaces.parse(unescape(value)))
            except GrammarError as error:
                raise RemoteProtocolError(400, f"Refer-To: Replaces: {error}") from None
    return None


def wants_no_subscription(request: Request) -> bool:
    """`Refer-Sub: false`: the sender does not want to hear what came of it (RFC 4488 §4)."""
    return (request.headers.get("Refer-Sub") or "").partition(";")[0].strip().lower() == "false"


def read_notification(request: Request) -> Notification | None:
    """What a NOTIFY says; None when it is about something else than a REFER. What cannot be read counts as not told."""
    package, semicolon, rest = (request.headers.get("Event") or "").partition(";")
    if package.strip().lower() != EVENT:
        return None
    try:
        named = parse_params(semicolon + rest).get("id")
        cseq = parse_uint(named) if named else None
    except GrammarError:
        cseq = None
    state = (request.headers.get("Subscription-State") or "").partition(";")[0]
    # Some peers forget the Content-Type.
    body = request.body_of(SIPFRAG) or request.body
    return Notification(cseq, parse_sipfrag(body), state.strip().lower() == "terminated")


def parse_sipfrag(body: bytes) -> int | None:
    """The status of the response whose beginning this is (RFC 3420); None when it does not begin with a status line."""
    match = _STATUS_LINE.match(body[:_MAX_STATUS_LINE])
    return int(match.group(1)) if match else None


def write_sipfrag(status: int) -> bytes:
    """The least that tells a status: its line (RFC 3515 §2.4.5)."""
    return f"SIP/2.0 {status} {REASON_PHRASES.get(status, '')}\r\n".encode()

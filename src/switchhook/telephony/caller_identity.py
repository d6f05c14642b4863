"""Whom a call of ours shows, and how a trunk wants numbers written (RFC 3261 §8.1.1.3, RFC 3323, RFC 3325)."""

from __future__ import annotations

from dataclasses import dataclass

from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import Trunk
from switchhook.domain.phone import national
from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import printable
from switchhook.telephony.wire.sip.uri import SipUri, is_sip_uri

MAX_NAME_CHARS = 80
_MAX_USER_CHARS = 128
_NAMELESS = frozenset({"", "anonymous", "private", "restricted", "unavailable", "unknown"})
ANONYMOUS = NameAddr(SipUri("anonymous.invalid", "anonymous"), "Anonymous")
"""RFC 3323 §4.1.1.3."""


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """What an INVITE says of both parties."""

    target: SipUri
    """The request URI."""
    to: NameAddr
    from_: NameAddr
    """Without a tag."""
    asserted: NameAddr | None
    """P-Asserted-Identity: who really calls, for the carrier (RFC 3325 §9.1)."""
    privacy: str | None
    """The Privacy header: `id` keeps the asserted identity from the called party (RFC 3325 §9.3)."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The header fields beside From and To."""
        found = [("P-Asserted-Identity", str(self.asserted))] if self.asserted else []
        return (*found, *([("Privacy", self.privacy)] if self.privacy else []))


def identify_call(request: DialRequest, trunk: Trunk, our_host: str) -> CallerIdentity:
    """Write a call the way the trunk wants it.

    A caller that the trunk does not let us show is replaced by its `default_caller_id`, or by the first of its `caller_ids`.
    `called` as a SIP URI is dialled as it stands. Raises GrammarError for a `called` that can be neither.
    """
    peer = SipUri.parse(trunk.address)
    target = _target(request.called, peer, trunk)
    # A registrar knows its users under its own domain; to any other peer we speak for ourselves (RFC 3261 §8.1.1.3).
    host = peer.host if trunk.register else our_host
    name = clean_name(request.caller_name)
    to = NameAddr(SipUri(target.host, target.user, target.port))
    shown = shown_number(request.caller, trunk)
    if shown is None:
        known = trunk.default_caller_id or next(iter(trunk.caller_ids), None) or trunk.username
        asserted = NameAddr(SipUri(host, write_number(known, trunk.number_form))) if known else None
        return CallerIdentity(target, to, ANONYMOUS, asserted, "id")
    uri = SipUri(host, write_number(shown, trunk.number_form))
    return CallerIdentity(target, to, NameAddr(uri, name), NameAddr(uri, name), None)


def request_uri(called: str, trunk: Trunk) -> SipUri:
    """Where a number is to be found behind a trunk. A SIP URI stays as it is. Raises GrammarError for what can be neither."""
    return _target(called, SipUri.parse(trunk.address), trunk)


def shown_number(caller: str, trunk: Trunk) -> str | None:
    """The number that the called party may see; None: none, the call is anonymous."""
    user = _user_of(caller)
    if user.lower() in _NAMELESS:
        return None
    if not trunk.caller_ids or user in trunk.caller_ids:
        return user
    return trunk.default_caller_id or trunk.caller_ids[0]


def write_number(number: str, form: str) -> str:
    """A number in a trunk's `number_form`; what is no E.164 number (an extension, a name) stays as it is."""
    if not number.startswith("+"):
        return number
    if form == "national":
        return national(number)
    return number[1:] if form == "plain" else number


def clean_name(name: str | None) -> str:
    """A display name for one line: no control characters, no more than 80 characters."""
    return " ".join(printable((name or "").replace("\r", " ").replace("\n", " ")).split())[:MAX_NAME_CHARS]


def _target(called: str, peer: SipUri, trunk: Trunk) -> SipUri:
    if is_sip_uri(called):
        return SipUri.parse(called)
    if not called or len(called) > _MAX_USER_CHARS or not called.isascii() or not called.isprintable():
        raise GrammarError("the called number is empty or holds what no number holds")
    params = {name: value for name, value in peer.params.items() if name not in ("lr", "maddr", "transport")}
    if trunk.transport in ("tcp", "tls") or peer.transport:
        params["transport"] = trunk.transport or peer.transport
    return SipUri(peer.host, write_number(called, trunk.number_form), peer.port, params, scheme=peer.scheme)


def _user_of(caller: str) -> str:
    if is_sip_uri(caller):
        try:
            caller = SipUri.parse(caller).user or ""
        except GrammarError:
            return ""
    return printable(caller.replace("\r", " ").replace("\n", " ")).strip()[:_MAX_USER_CHARS]

"""Who calls whom, read from an INVITE (RFC 3261 §8.1.1, RFC 3325, RFC 3323, RFC 7315)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.uri import OpaqueUri, Uri

ANONYMOUS = "anonymous"
"""The caller's number when it is withheld or unknown."""
_HIDING = frozenset({"id", "user", "header", "full"})
_MAX_CHARS = 128


@dataclass(frozen=True, slots=True)
class Identity:
    """The parties of a call as the line gave them."""

    called: str
    caller: str
    caller_name: str | None


def identify(request: Request, at_contact: bool = False, is_number: Callable[[str], bool] = lambda number: False) -> Identity:
    """Read both parties. Every INVITE that reaches this came over a trunk, so that its asserted identity counts before its From.

    A caller that asks for privacy, or has no number, is `anonymous` and has no name. `at_contact`: the request URI is a Contact
    that we have registered, and `is_number` tells which of those it names is a number of that account.
    """
    called = user_of(request.request_uri)
    if not called or at_contact:
        # A proxy has put our Contact in the place of the number (RFC 3261 §16.5). To is the caller's to write, and after a
        # diversion another's number: then the Contact's user may be our own one.
        named = [party for party in (_called_party(request), user_of(request.to.uri), called) if party]
        called = next(filter(is_number, named), named[0] if named else "")
    if _HIDING.intersection(request.privacy):
        return Identity(called, ANONYMOUS, None)
    asserted = [*request.p_asserted_identity, *([request.remote_party_id] if request.remote_party_id else [])]
    chosen = next((address for address in asserted if user_of(address.uri)), request.from_)
    caller = user_of(chosen.uri)
    if not caller or caller.lower() in (ANONYMOUS, "restricted", "unavailable", "unknown"):
        return Identity(called, ANONYMOUS, None)
    return Identity(called, caller, _name(chosen) or _name(request.from_))


def _called_party(request: Request) -> str:
    """Whom the proxy was asked for (P-Called-Party-ID, RFC 7315 §4.2); empty when it does not say."""
    try:
        return user_of(NameAddr.parse(request.headers.get("P-Called-Party-ID") or "").uri)
    except GrammarError:
        return ""


def user_of(uri: Uri) -> str:
    """The user part of an address, or the number of a `tel:` one; empty when it has neither."""
    if isinstance(uri, OpaqueUri):
        return ""
    # Parameters of a telephone subscriber may stand in the user part: +17205550100;phone-context=…
    return (uri.user or "").partition(";")[0][:_MAX_CHARS]


def _name(address: NameAddr) -> str | None:
    name = address.display_name.strip()[:_MAX_CHARS]
    return None if not name or name.lower() == ANONYMOUS else name

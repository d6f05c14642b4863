"""Where an INVITE goes next when it is answered with 3xx (RFC 3261 §8.1.3.4)."""

from __future__ import annotations

from collections.abc import Callable

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Response
from switchhook.telephony.wire.sip.uri import SipUri

MAX_CONTACTS = 16
"""Of one answer, preferred ones first; what it names beyond them is not looked at."""


class Redirection:
    """The targets of one call: each is called once, preferred ones first, `limit` of them beside the first.

    Raises GrammarError for a first target that is no SIP URI.
    """

    def __init__(self, first: str, limit: int, may_follow: Callable[[SipUri], bool]) -> None:
        self.first = SipUri.parse(first)
        self.target = self.first
        """The one being called."""
        self._left = limit
        self._may_follow = may_follow
        self._known = {str(self.target)}
        self._waiting: list[SipUri] = []

    def next(self, response: Response) -> SipUri | None:
        """The target to call after this failure; None when there is none. A 6xx speaks for all targets (§21.6)."""
        if 300 <= response.status < 400:
            self._learn(response)
        return self.another() if response.status < 600 else None

    def another(self) -> SipUri | None:
        """The target to call when the one being called cannot be reached; None when there is none."""
        if not self._waiting or self._left <= 0:
            return None
        self._left -= 1
        self.target = self._waiting.pop(0)
        return self.target

    def _learn(self, response: Response) -> None:
        try:
            contacts = sorted(response.contacts, key=_preference, reverse=True)
        except RemoteProtocolError:
            return
        fresh = []
        for contact in contacts[:MAX_CONTACTS]:
            uri = contact.uri
            if isinstance(uri, SipUri) and not uri.headers and str(uri) not in self._known and self._may_follow(uri):
                self._known.add(str(uri))
                fresh.append(uri)
        # What this answer names goes before what is left of an earlier one: it is nearer to the party (RFC 3261 §16.5).
        self._waiting = fresh + self._waiting


def flow_to(target: SipUri, before: Flow, first: SipUri, found: Flow) -> Flow:
    """The way to a target; transport and port that it does not name are those of its scheme, or as before.

    `first` was found at `found`: its host is at that address, and at that port when the target names the port of `first`.
    """
    transport = "tls" if target.scheme == "sips" else target.transport or before.transport
    if transport not in ("udp", "tcp", "tls"):
        transport = before.transport
    host = (target.params.get("maddr") or target.host).strip("[]")
    port = target.port or (5061 if transport == "tls" else 5060)
    if host.lower() == (first.params.get("maddr") or first.host).strip("[]").lower():
        host = found.host
        port = found.port if (target.port, transport) == (first.port, found.transport) else port
    return Flow(transport, host, port, trunk=before.trunk)


def _preference(contact: NameAddr) -> float:
    try:
        return float(contact.params.get("q") or 1.0)
    except ValueError:
        return 0.0

"""Transfers on a SIP leg: what inbound and outgoing legs share of REFER, in both directions (RFC 3515, RFC 3891)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

from switchhook.domain.dialling import MOST_EXTENSION_DIGITS
from switchhook.domain.model import TransferMode, Trunk
from switchhook.domain.ports import Leg, ReferProgress, TransferAsked
from switchhook.telephony.caller_identity import request_uri
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.session_events import Referred, SessionId, TransferRequested
from switchhook.telephony.wire.sip.uri import SipUri, TelUri, parse_uri
from switchhook.telephony.wire.sip.user_agent import UserAgent

logger = logging.getLogger(__name__)

TransferEvent: TypeAlias = Referred | TransferRequested
_NUMBER = re.compile(r"\+?[0-9]{7,15}")
"""What names a telephone rather than an extension of the peer's own."""
_UNREADABLE = 400
_NOT_OURS = 481


class AgentDoor(Protocol):
    """The way to the user agent."""

    def feed(self, change: Callable[[UserAgent, float], None]) -> None:
        """Give the user agent one input, and perform what follows."""


class LegTransfer:
    """The transfers of one leg."""

    def __init__(self, door: AgentDoor, session: SessionId, trunk: Trunk | None, peer: Flow) -> None:
        self._door = door
        self._session = session
        self._trunk = trunk
        self._peer = peer
        self.pending = False
        """Whether a REFER of ours is under way. Its peer may be silent meanwhile, while it calls the other party."""

    @property
    def account(self) -> str | None:
        """Whose line it is; None when the trunk is not known for sure."""
        return self._trunk.account if self._trunk else None

    @property
    def mode(self) -> TransferMode:
        """How the peer wants a caller handed on."""
        return self._trunk.transfer if self._trunk else TransferMode.BRIDGE

    def refer(self, target: str, replaces: Leg | None) -> ReferProgress | None:
        """Ask the peer. What is to be told at once when that is not possible; else `Referred` events follow."""
        other = None
        if replaces is not None:
            other = getattr(replaces, "transfer", None)
            if not isinstance(other, LegTransfer) or other._door.feed != self._door.feed:
                # The line is no SIP line of this server: its peer could not find the call.
                return ReferProgress(_NOT_OURS, final=True, accepted=False)
        session = other._session if other else None
        try:
            uri = refer_uri(target, self._trunk, self._peer)
            self.pending = True
            self._door.feed(lambda agent, now: agent.refer(self._session, uri, session, now))
        except GrammarError as error:
            self.pending = False
            logger.warning("sip.refer: the target cannot be written as a SIP URI: %s", error)
            return ReferProgress(_UNREADABLE, final=True, accepted=False)
        return None

    def told(self, event: TransferEvent) -> ReferProgress | TransferAsked | None:
        """What the call is told of an event of the session."""
        if isinstance(event, Referred) and event.final:
            self.pending = False
        return leg_event(event)

    def result(self, status: int) -> None:
        """Answer the peer's REFER. Raises ValueError for no SIP status."""
        self._door.feed(lambda agent, now: agent.refer_result(self._session, status, now))


def leg_event(event: TransferEvent) -> ReferProgress | TransferAsked | None:
    """What the call is told. Of a REFER that the end of its session cut short nothing: `LegEnded` says it, as `referred` if the
    peer had taken it."""
    if isinstance(event, TransferRequested):
        return TransferAsked(asked_target(event.target), event.replaces)
    return ReferProgress(event.status, event.final, event.accepted) if event.status else None


def refer_uri(target: str, trunk: Trunk | None, peer: Flow) -> str:
    """The URI of a Refer-To: a number is looked for behind the trunk, or where the call came from; a SIP URI stays as it is.

    Raises:
        GrammarError: `target` can be neither, or is an address at another trunk, which this one's peer must not be asked for.
    """
    target = target.strip()
    if target.lower().startswith("tel:"):
        target = TelUri.parse(target).user
    if trunk is not None:
        uri = request_uri(target, trunk)
        if uri.host.lower() != SipUri.parse(trunk.address).host.lower():
            raise GrammarError("the address belongs to another peer")
        return str(uri)
    # Behind the port of a connection nobody listens.
    udp = peer.transport == "udp"
    here = SipUri(peer.host, port=peer.port if udp else None, params={} if udp else {"transport": peer.transport})
    return str(request_uri(target, Trunk("", "", str(here))))


def asked_target(uri: str) -> str:
    """Whom the peer wants called: a number where the URI has one, so that the dialling policy can judge it; else the URI.

    Raises:
        GrammarError: no URI.
    """
    parsed = parse_uri(uri)
    user = parsed.user or ""
    if isinstance(parsed, TelUri):
        return user
    number = user.partition(";")[0]
    # Of an extension the host counts, whatever the URI says of it.
    phone = isinstance(parsed, SipUri) and parsed.params.get("user") == "phone" and len(number) > MOST_EXTENSION_DIGITS
    if phone or _NUMBER.fullmatch(number):
        return number
    return str(replace(parsed, headers="")) if isinstance(parsed, SipUri) else uri

"""What a trunk's 3xx answers may do to one call of ours: whom they may send it to, and why not (RFC 3261 §8.1.3.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from switchhook.domain.dialling import DialPermit, DialRefused, DialRequest, allows_extension
from switchhook.domain.model import Trunk
from switchhook.domain.phone import e164
from switchhook.telephony.wire.sip.uri import SipUri

logger = logging.getLogger(__name__)

Review = Callable[[str, str], DialPermit | DialRefused]
"""(account, number as the peer wrote it) → what the dialling policy says of it; nothing is counted."""


@dataclass(frozen=True, slots=True)
class RedirectRefused:
    """A contact that is not called."""

    reason: str
    """That of `domain.ports.LegEnded` when nobody else could be called: `refused`, or `policy-` and the rule."""
    detail: str


class TrunkRedirects:
    """Judges the contacts of one call over a trunk with `follow_redirects`.

    A contact must be at an address of the trunk (`is_trunks`, asked with the host) or at the name in the trunk's own address,
    must not leave TLS, and a number other than the one dialled must be allowed by the dialling policy. `transport` is what DNS
    chose where neither the trunk nor its address names one.
    """

    def __init__(
        self,
        request: DialRequest,
        trunk: Trunk,
        first: SipUri,
        transport: str,
        is_trunks: Callable[[str], bool],
        review: Review,
    ) -> None:
        self.refused: RedirectRefused | None = None
        """Why the last contact that was refused is not called."""
        self.followed = False
        """Whether a contact may be called: what the call comes to is then no word of the address that was asked first."""
        self._request = request
        self._trunk = trunk
        self._first = first
        self._over_tls = transport == "tls" or first.scheme == "sips"
        self._is_trunks = is_trunks
        self._review = review

    def may_follow(self, contact: SipUri) -> bool:
        """Whether the call may go on there."""
        refused = self._of_place(contact) or self._of_party(contact)
        if refused is not None:
            self.refused = refused
        self.followed = self.followed or refused is None
        logger.info(
            "sip.dial: trunk %s redirects the call to %s: %s",
            self._trunk.name,
            contact,
            refused.detail if refused else "it may be followed",
            extra={"call_id": self._request.call_id},
        )
        return refused is None

    def _of_place(self, contact: SipUri) -> RedirectRefused | None:
        host = (contact.params.get("maddr") or contact.host).strip("[]")
        if host.lower() != self._first.host.lower() and not self._is_trunks(host):
            return RedirectRefused("refused", f"redirected to {host}, which is no address of trunk {self._trunk.name}")
        if self._over_tls and contact.scheme != "sips" and contact.transport not in (None, "tls"):
            return RedirectRefused("refused", f"redirected to {contact.transport}, but trunk {self._trunk.name} uses TLS")
        return None

    def _of_party(self, contact: SipUri) -> RedirectRefused | None:
        user = contact.user or ""
        if user == self._first.user:
            return None
        is_extension = allows_extension(self._trunk.extensions, user)
        decision = self._review(self._request.account, user if is_extension else self._meant(user))
        if isinstance(decision, DialRefused):
            return RedirectRefused(f"policy-{decision.rule}", f"redirected to {user or 'nobody'}: {decision.message}")
        if not decision.called.startswith("+") and not is_extension:
            return RedirectRefused("policy-number", f"redirected to {user}, which is no extension of trunk {self._trunk.name}")
        return None

    def _meant(self, user: str) -> str:
        """A number as the trunk writes it, in E.164: the policy would complete it to one of the account's own country."""
        if self._trunk.number_form == "plain" and user.isascii() and user.isdigit():
            return f"+{user}"
        return e164(user) or user if self._trunk.number_form == "national" else user

"""What Twilio calls: `/twilio/voice` (also `/voice`), `/twilio/status` and `/twilio/dial`. Nothing unsigned gets in.

A number whose account has no Twilio credentials may learn them from its start webhook's reply (Veevo): such a call is begun
unproven, at a bounded rate, and proven with that reply before anything else is done for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import hdrs, web

from switchhook.api.app import Handler
from switchhook.api.twilio.received import PublicPlace, Received, receive
from switchhook.api.twilio.signature import is_signed_by
from switchhook.domain.errors import StoreUnavailable

log = logging.getLogger(__name__)

MAX_SID_CHARS = 64
"""Twilio's have 34."""
UNPROVEN_PER_S = 2.0
UNPROVEN_BURST = 10.0

Prove = Callable[[str], bool]
"""Whether the request was signed with this auth token."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose number is called, and what proves a request for it."""

    number: str
    account: str
    auth_token: str | None = field(repr=False)
    learns_token: bool = False
    """Its contract's start webhook brings the token."""
    account_sid: str | None = None


class TwilioCalls(Protocol):
    """The line behind the doors. Texts that are given back are TwiML."""

    async def voice(self, form: Mapping[str, str], number: str, account: str | None, prove: Prove | None) -> str | None:
        """A call rings at our `number`, the `account`'s; `prove` is there when it is unproven. None: it was forged."""

    def status(self, form: Mapping[str, str]) -> None:
        """CallStatus of a call has changed."""

    def dial_answered(self, form: Mapping[str, str]) -> None:
        """Whom a `<Dial>` of ours called has answered."""

    def dial_over(self, form: Mapping[str, str]) -> str:
        """A `<Dial>` of ours is over: what follows."""

    def auth_token_of(self, leg: str, call_sid: str) -> str | None:
        """What a call's requests are signed with, by our id of its leg or by Twilio's name of it; empty when nothing can prove
        them yet. None: there is no such call, or it is no account's."""


class Owners(Protocol):
    """Who is configured."""

    async def of_number(self, number: str) -> Owner | None:
        """By telephone number, as Twilio writes it. Raises StoreUnavailable."""

    def token_of_sid(self, account_sid: str) -> str | None:
        """The auth token of a Twilio account that is configured."""


class VoiceDoors:
    """The routes. `now` gives monotonic seconds."""

    def __init__(self, calls: TwilioCalls, owners: Owners, place: PublicPlace, now: Callable[[], float]) -> None:
        self._calls = calls
        self._owners = owners
        self._place = place
        self._now = now
        self._unproven: dict[str, _Bucket] = {}

    def routes(self) -> list[web.RouteDef]:
        """To be mounted."""
        paths: dict[str, Callable[[Received], Awaitable[web.Response]]] = {
            "/twilio/voice": self._voice,
            "/voice": self._voice,
            "/twilio/status": self._status,
            "/twilio/dial": self._dial,
            "/twilio/dial/answered": self._dial_answered,
        }
        return [
            web.route(method, path, self._door(answer))
            for path, answer in paths.items()
            for method in (hdrs.METH_POST, hdrs.METH_GET)
        ]

    def _door(self, answer: Callable[[Received], Awaitable[web.Response]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            received = await receive(request, self._place)
            try:
                return await answer(received)
            except StoreUnavailable:
                raise web.HTTPServiceUnavailable(reason="The database cannot be reached; try again") from None

        return handle

    async def _voice(self, received: Received) -> web.Response:
        ours = "From" if received.get("Direction").startswith("outbound") else "To"
        owner = await self._owners.of_number(received.get(ours))
        prove = self._late_proof(received, owner)
        if prove is None and not self._signed(received, (owner.auth_token or "") if owner else None):
            raise _forbidden(received)
        if not 0 < len(received.get("CallSid")) <= MAX_SID_CHARS:
            raise web.HTTPBadRequest(reason="CallSid: is missing or too long")
        number, account = (owner.number, owner.account) if owner else (received.get(ours), None)
        twiml = await self._calls.voice(received.form, number, account, prove)
        if twiml is None:
            raise _forbidden(received)
        return _xml(twiml)

    def _late_proof(self, received: Received, owner: Owner | None) -> Prove | None:
        if owner is None or not owner.learns_token:
            return None
        if owner.auth_token is not None and owner.account_sid == received.get("AccountSid"):
            return None
        if not received.signed.signature:
            raise _forbidden(received)
        if not self._unproven.setdefault(owner.number, _Bucket()).take(self._now()):
            raise web.HTTPTooManyRequests(reason="Too many calls that nothing proves yet")
        return lambda auth_token: is_signed_by(received.signed, auth_token)

    async def _status(self, received: Received) -> web.Response:
        self._check(received)
        self._calls.status(received.form)
        return web.Response(status=204)

    async def _dial(self, received: Received) -> web.Response:
        self._check(received)
        return _xml(self._calls.dial_over(received.form))

    async def _dial_answered(self, received: Received) -> web.Response:
        self._check(received)
        self._calls.dial_answered(received.form)
        return web.Response(status=204)

    def _check(self, received: Received) -> None:
        token = self._calls.auth_token_of(received.get("leg"), received.get("CallSid"))
        if not self._signed(received, token):
            raise _forbidden(received)

    def _signed(self, received: Received, token: str | None) -> bool:
        """By the token of whom it is about and nobody else's; only what we do not know (None) by that of the account which it
        names."""
        if token is None:
            token = self._owners.token_of_sid(received.get("AccountSid"))
        return token is not None and is_signed_by(received.signed, token)


@dataclass(slots=True)
class _Bucket:
    """How often a number may be called by who has not proven anything yet."""

    left: float = UNPROVEN_BURST
    at: float | None = None

    def take(self, now: float) -> bool:
        passed_s = now - self.at if self.at is not None else 0.0
        self.left, self.at = min(UNPROVEN_BURST, self.left + passed_s * UNPROVEN_PER_S), now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def _forbidden(received: Received) -> web.HTTPForbidden:
    why = "is missing" if not received.signed.signature else "does not fit"
    cure = "SWITCHHOOK_PUBLIC_URL and the account's twilio credentials must be those that Twilio has"
    log.warning("a request that should be Twilio's is refused: its signature %s; %s", why, cure)
    return web.HTTPForbidden(reason=f"X-Twilio-Signature {why}")


def _xml(twiml: str) -> web.Response:
    return web.Response(text=twiml, content_type="text/xml")

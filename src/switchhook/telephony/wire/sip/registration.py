"""Our registration with a peer, kept alive (RFC 3261 §10.2, RFC 5626 §4, digest by RFC 7616).

A machine: `start`, `tick` and `take`; `stop` takes the binding back. When a `Register` comes, send what `request` gives and tell
the machine that it was `answered` or `unanswered`; one is under way at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.digest import Account, Challenge, choose, respond
from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.grammar import parse_uint
from switchhook.telephony.wire.sip.headers import Headers
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.uri import SipUri

EXPIRES_S = 3600
MAX_EXPIRES_S = 86_400
FIRST_RETRY_S = 30.0
MAX_RETRY_S = 1800.0
"""RFC 5626 §4.5."""
KEEPALIVE_S = 29.0
"""A flow over UDP is used at least this often, unless the registrar's Flow-Timer says otherwise (RFC 5626 §4.4.1)."""
_LEAST_KEEPALIVE_S, _MOST_KEEPALIVE_S = 10.0, 3600.0
_SHORTEST_WAIT_S = 1.0
_MAX_CHALLENGES = 3


@dataclass(frozen=True, slots=True)
class Binding:
    """What is to be registered where."""

    registrar: SipUri
    """The domain: a URI without user."""
    username: str
    password: str = field(repr=False)
    instance: str
    """Names this server, however often it starts: `urn:uuid:…` (RFC 5626 §4.1)."""

    @property
    def address_of_record(self) -> SipUri:
        """Whom we register."""
        return SipUri(self.registrar.host, self.username, self.registrar.port, scheme=self.registrar.scheme)


@dataclass(frozen=True, slots=True)
class Register:
    """Effect: send a REGISTER."""


@dataclass(frozen=True, slots=True)
class RegistrationChanged:
    """Effect: we are reachable through the registrar, or not, or not for another reason than before."""

    registered: bool
    detail: str
    """For people: for how long, or what the registrar said."""


@dataclass(frozen=True, slots=True)
class Unregistered:
    """Effect: after `stop`, nothing more follows."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Effect: send something on the flow of the registration, for the address translators on its way."""


RegistrationEffect: TypeAlias = Register | RegistrationChanged | Unregistered | KeepAlive


class Registration:
    """Keeps one binding. `entropy` gives random bytes, `uniform` numbers in [0, 1) that keep many clients from acting at once.

    `keepalive`: ask for the flow to be kept open while the binding stands.
    """

    def __init__(
        self, binding: Binding, entropy: Callable[[int], bytes], uniform: Callable[[], float], keepalive: bool = False
    ) -> None:
        self.binding = binding
        self.service_route: tuple[str, ...] = ()
        """Route values that the registrar wants in our requests (RFC 3608)."""
        self._entropy = entropy
        self._uniform = uniform
        # RFC 3261 §10.2: all registrations of a client should use the same Call-ID, with rising CSeq.
        self._call_id = entropy(12).hex()
        self._tag = entropy(8).hex()
        self._contact: SipUri | None = None
        self._cseq = 0
        self._expires_s = EXPIRES_S
        self._challenge: Challenge | None = None
        self._by_proxy = False
        self._nonce_count = 0
        self._challenges = 0
        self._failures = 0
        self._waiting = False
        self._taking_back = False
        """Whether the REGISTER under way asks for zero seconds."""
        self._raised_expires = False
        self._keepalive = keepalive
        self._keepalive_s = KEEPALIVE_S
        self._alive_at: float | None = None
        self._next_at: float | None = None
        self._valid_until: float | None = None
        self._stopping = False
        self._over = False
        self._told = (False, "")
        self._effects: list[RegistrationEffect] = []

    # -- machine

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        return min((at for at in (self._next_at, self._valid_until, self._alive_at) if at is not None), default=None)

    def take(self) -> list[RegistrationEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    def tick(self, now: float) -> None:
        """Refresh or try again; note that the binding has lapsed."""
        if self._valid_until is not None and now >= self._valid_until:
            self._valid_until = self._alive_at = None
            self._tell(False, "the registration has expired")
        if self._alive_at is not None and now >= self._alive_at:
            self._keep_alive(now)
            self._effects.append(KeepAlive())
        if self._next_at is not None and now >= self._next_at:
            self._begin(now)

    @property
    def registered(self) -> bool:
        """Whether the registrar holds our binding."""
        return self._valid_until is not None

    @property
    def over(self) -> bool:
        """Whether it was stopped and nothing is under way."""
        return self._over

    # -- inputs

    def start(self, now: float) -> None:
        """Register."""
        if not self._waiting and not self._stopping:
            self._begin(now)

    def stop(self, now: float) -> None:
        """Take the binding back; `Unregistered` follows once the registrar has answered, or cannot be asked."""
        if self._stopping:
            return
        self._stopping = True
        self._next_at = self._alive_at = None
        if self._waiting:
            return
        if self.registered:
            self._begin(now)
        else:
            self._end()

    def answered(self, response: Response, now: float) -> None:
        """A response to the REGISTER under way."""
        if not self._waiting or response.status < 200:
            return
        self._waiting = False
        try:
            self._judge(response, now)
        except RemoteProtocolError as error:
            self._failed(f"an answer that cannot be read ({error.reason})", None, now)

    def unanswered(self, reason: str, now: float) -> None:
        """No final response will come for the REGISTER under way: `timeout`, `transport`, or why it could not be sent."""
        if self._waiting:
            self._waiting = False
            self._failed(reason, None, now)

    # -- inside

    def _judge(self, response: Response, now: float) -> None:
        status = response.status
        if status < 300:
            self._succeeded(response, now)
        elif (status in (401, 407) and self._prove(response)) or (status == 423 and self._raise_expires(response)):
            self._send()
        else:
            retry_s = response.retry_after if status >= 500 else None
            self._failed(f"{status} {' '.join(response.reason.split())}".strip(), retry_s, now)

    def _begin(self, now: float) -> None:
        """A new round: challenges are counted from here."""
        self._next_at = None
        self._challenges = 0
        self._raised_expires = False
        self._send()

    def _send(self) -> None:
        self._waiting = True
        self._taking_back = self._stopping
        self._effects.append(Register())

    def request(self, contact: SipUri) -> Request:
        """The REGISTER that is due, without Via; ask again for each further address of the registrar that is tried.

        `contact` is where we are reached, as the registrar's address sees us.
        """
        if not self._taking_back or self._contact is None:
            self._contact = contact
        self._cseq += 1
        binding = self.binding
        aor = NameAddr(binding.address_of_record)
        instance = {"reg-id": "1", "+sip.instance": f"<{binding.instance}>"}
        headers = Headers()
        headers.add("Max-Forwards", "70")
        headers.add("From", str(aor.with_tag(self._tag)))
        headers.add("To", str(aor))
        headers.add("Call-ID", self._call_id)
        headers.add("CSeq", f"{self._cseq} REGISTER")
        headers.add("Contact", str(NameAddr(self._contact, "", instance)))
        # The binding is taken back with zero seconds (RFC 3261 §10.2.2); other bindings of the address stay.
        headers.add("Expires", "0" if self._taking_back else str(self._expires_s))
        headers.add("Supported", "path")
        headers.add("Supported", "outbound")
        self._add_proof(headers, str(binding.registrar))
        return Request("REGISTER", str(binding.registrar), headers)

    def _add_proof(self, headers: Headers, uri: str) -> None:
        if self._challenge is None:
            return
        self._nonce_count += 1
        account = Account(self.binding.username, self.binding.password, self._challenge.realm)
        proof = respond(self._challenge, account, "REGISTER", uri, self._entropy(8).hex(), self._nonce_count)
        headers.add("Proxy-Authorization" if self._by_proxy else "Authorization", str(proof))

    def _prove(self, response: Response) -> bool:
        """Take up a challenge; False when our proof was refused."""
        self._by_proxy = response.status == 407
        challenge = choose(_challenges(response, "Proxy-Authenticate" if self._by_proxy else "WWW-Authenticate"))
        self._challenges += 1
        # A second challenge in one round means a wrong password, unless it says that only the nonce was too old (RFC 7616 §3.3).
        if challenge is None or self._challenges > (_MAX_CHALLENGES if challenge.stale else 1):
            self._challenge = None
            return False
        self._challenge, self._nonce_count = challenge, 0
        return True

    def _raise_expires(self, response: Response) -> bool:
        """RFC 3261 §10.2.8: the registrar wants a longer time."""
        if self._stopping or self._raised_expires:
            return False
        try:
            least = parse_uint(response.headers.get("Min-Expires") or "", MAX_EXPIRES_S)
        except GrammarError:
            return False
        self._raised_expires = True
        self._expires_s = max(self._expires_s, least)
        return True

    def _succeeded(self, response: Response, now: float) -> None:
        if self._taking_back:
            self._end()
            return
        if self._stopping:
            self._begin(now)  # stopped while this one was under way: now it is taken back
            return
        granted_s = self._granted(response)
        if granted_s < 1:
            self._valid_until = self._alive_at = None
            self._failed("the registrar took the binding back at once", None, now)
            return
        self._failures = 0
        self.service_route = tuple(response.headers.get_all("Service-Route"))
        self._valid_until = now + granted_s
        self._next_at = now + max(_SHORTEST_WAIT_S, granted_s * (0.8 + 0.1 * self._uniform()))
        self._keepalive_s = _flow_timer(response)
        if self._keepalive:
            self._keep_alive(now)
        self._tell(True, "")

    def _keep_alive(self, now: float) -> None:
        """RFC 5626 §4.4.1: at a random time within the last fifth."""
        self._alive_at = now + self._keepalive_s * (0.8 + 0.2 * self._uniform())

    def _granted(self, response: Response) -> float:
        """Seconds: our Contact's `expires`, else the Expires field, else what was asked for (RFC 3261 §10.2.4)."""
        listed = [(contact, _expires_of(contact)) for contact in response.contacts]
        ours = [s for contact, s in listed if _same_place(contact, self._contact) and s is not None]
        # A registrar that sees us behind NAT may list another address in the place of ours.
        found = ours or [s for _, s in listed if s is not None]
        if found:
            return min(min(found), MAX_EXPIRES_S)
        expires = response.expires
        return min(self._expires_s if expires is None else expires, MAX_EXPIRES_S)

    def _failed(self, detail: str, retry_after_s: int | None, now: float) -> None:
        if self._stopping:
            self._end()
            return
        self._failures += 1
        wait_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failures - 1, 10)) * (0.5 + 0.5 * self._uniform())
        if retry_after_s is not None:
            wait_s = max(wait_s, min(retry_after_s, MAX_RETRY_S))
        elif self._valid_until is not None:
            # The binding still stands: try while it does.
            wait_s = min(wait_s, (self._valid_until - now) / 2)
        self._next_at = now + max(_SHORTEST_WAIT_S, wait_s)
        if not self.registered:
            self._tell(False, detail)

    def _tell(self, registered: bool, detail: str) -> None:
        if self._told != (registered, detail):
            self._told = (registered, detail)
            self._effects.append(RegistrationChanged(registered, detail))

    def _end(self) -> None:
        self._next_at = self._valid_until = self._alive_at = None
        self._over = True
        self._effects.append(Unregistered())


def _challenges(response: Response, name: str) -> list[Challenge]:
    found = []
    for value in response.headers.get_all(name):
        try:
            found.append(Challenge.parse(value))
        except GrammarError:
            continue  # of a scheme that is not ours
    return found


def _flow_timer(response: Response) -> float:
    """Seconds: what the registrar wants (RFC 5626 §10.3), else our own; within bounds."""
    try:
        wanted_s = float(parse_uint(response.headers.get("Flow-Timer") or ""))
    except GrammarError:
        return KEEPALIVE_S
    return min(_MOST_KEEPALIVE_S, max(_LEAST_KEEPALIVE_S, wanted_s))


def _expires_of(contact: NameAddr) -> int | None:
    try:
        return parse_uint(contact.params.get("expires") or "")
    except GrammarError:
        return None


def _same_place(contact: NameAddr, mine: SipUri | None) -> bool:
    uri = contact.uri
    return (
        mine is not None
        and isinstance(uri, SipUri)
        and (uri.user, uri.host.lower(), uri.port) == (mine.user, mine.host.lower(), mine.port)
    )

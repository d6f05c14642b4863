"""The SIP server: sockets, the user agent and the legs, joined. `on_call` gets each call that a trunk may place."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from switchhook.domain.addresses import literal
from switchhook.domain.errors import SettingError
from switchhook.domain.model import CallAttempt, CallId, Direction
from switchhook.domain.phone import e164
from switchhook.domain.ports import Clock, Leg, OfferedLeg
from switchhook.driver import Driver
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_gate import SipGate
from switchhook.telephony.sip_identity import identify, user_of
from switchhook.telephony.sip_leg import SipLeg
from switchhook.telephony.sip_line import SipLine
from switchhook.telephony.sip_link import SessionLink
from switchhook.telephony.sip_tls import TlsPeer, server_context
from switchhook.telephony.sip_transfer import LegTransfer
from switchhook.telephony.sip_transport import Address, Listener, SipTransport
from switchhook.telephony.trunks import Origin, TrunkDirectory
from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sdes import SrtpMode, fresh_keys
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.flow import Flow, Send
from switchhook.telephony.wire.sip.framing import Frame, Keepalive
from switchhook.telephony.wire.sip.message import MalformedMessage, Request, Response
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_events import (
    Answered,
    Declined,
    DigitReported,
    Ended,
    Invited,
    MediaAgreed,
    Progressed,
    Referred,
    RequestAnswered,
    RequestId,
    SessionId,
    TransferRequested,
    UserAgentEffect,
)
from switchhook.telephony.wire.sip.session_timer import SessionTimerPolicy
from switchhook.telephony.wire.sip.timers import TimerValues
from switchhook.telephony.wire.sip.transaction_layer import Limits
from switchhook.telephony.wire.sip.uri import SipUri
from switchhook.telephony.wire.sip.user_agent import UserAgent, UserAgentOptions

logger = logging.getLogger(__name__)

LegEffect: TypeAlias = Progressed | Answered | MediaAgreed | DigitReported | Referred | TransferRequested | Ended

TRANSPORTS = ("udp", "tcp", "tls")
_WILDCARDS = ("", "0.0.0.0", "::")
_ANYWHERE = "192.0.2.1"
"""Behind the default route (RFC 5737); nothing is sent there."""
_REPORT_EVERY_S = 60.0
_FULL_RETRY_S = 5
_FREE_PORT_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class SipConfig:
    """How the server listens and what it says of itself. Raises SettingError for values that cannot be used."""

    host: str = "0.0.0.0"
    port: int = 5060
    """For UDP and TCP; 0 takes a free one."""
    transports: Sequence[str] = ("udp", "tcp")
    tls_port: int = 5061
    tls_certificate: str | None = None
    """PEM file with the certificate chain."""
    tls_key: str | None = None
    tls_client_ca: str | None = None
    """PEM file of authorities: whoever connects over TLS must show a certificate of one of them. None: none is asked for."""
    advertised_host: str | None = None
    """Our address in Contact and SDP; without it `host`, or what the routing table says towards the peer."""
    advertised_port: int | None = None
    """Our UDP and TCP port as peers see it."""
    unknown_sources: str = "silent"
    """What an address that no trunk allows gets: `silent` or `403`. Where a trunk has a password, its INVITE gets 401."""
    realm: str = "switchhook"
    digest_algorithms: tuple[str, ...] = ("MD5",)
    """`MD5`, `SHA-256` or both, offered in this order. libre 1.1 gives up on a 401 that names SHA-256 at all; sipp reads only the
    first challenge. Where every digest peer knows RFC 8760, use SHA-256."""
    product: str = "Switchhook"
    encodings: tuple[str, ...] = ("PCMU", "PCMA")
    timers: TimerValues = field(default_factory=TimerValues)
    limits: Limits = field(default_factory=Limits)
    session_timer: SessionTimerPolicy = field(default_factory=SessionTimerPolicy)
    stop_grace_s: float = 2.0
    """How long `stop` waits for the peers to answer its BYEs."""

    def __post_init__(self) -> None:
        unknown = [transport for transport in self.transports if transport not in TRANSPORTS]
        if unknown or not self.transports:
            raise SettingError(f"SIP transports: {', '.join(unknown) or 'none'}: name one or more of udp, tcp, tls")
        if self.unknown_sources not in ("silent", "403"):
            raise SettingError(f"SIP unknown sources: {self.unknown_sources!r}: use silent or 403")
        if not self.digest_algorithms or not set(self.digest_algorithms) <= {"MD5", "SHA-256"}:
            raise SettingError("SIP digest algorithms: name MD5, SHA-256 or both")
        if "tls" in self.transports and not (self.tls_certificate and self.tls_key):
            raise SettingError("SIP over TLS needs a certificate and a key (PEM files)")


class SipServer:
    """Takes calls. Make it on the loop; `start` binds, `stop` ends every call and closes.

    `on_call` is called at once for each call that was admitted, after its 100; the switchboard then rings, answers or rejects.
    """

    def __init__(
        self,
        config: SipConfig,
        trunks: TrunkDirectory,
        streams: Callable[[], RtpStream],
        on_call: Callable[[CallAttempt, OfferedLeg], None],
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.config = config
        self._trunks = trunks
        self._streams = streams
        self._on_call = on_call
        self.on_declined: Callable[[CallAttempt, int, str], None] = _unrecorded
        """Told of each call from an admitted source that was refused before it could be offered: status and reason."""
        self.on_replacing: Callable[[CallAttempt, OfferedLeg, Leg], None] = _not_replaced
        """Called instead of `on_call` for a call that is to take the place of a leg of the same account (RFC 3891): to do so,
        answer it, then hang the old one up. Unless set, such calls get 603."""
        self.number_owner: Callable[[str], str | None] = _nobodys
        """The account of an E.164 number; tells which of those that a call to a registered Contact names is called."""
        self._clock = clock
        self._entropy = entropy
        self._loop = asyncio.get_running_loop()
        self._gate = SipGate(trunks, config.realm, config.unknown_sources == "403", entropy, config.digest_algorithms)
        options = UserAgentOptions(config.timers, config.limits, config.session_timer, config.product)
        self._agent = UserAgent(self._gate, self._advertise, entropy, options)
        self._agent.may_replace = self._may_replace
        self._driver = Driver(self._agent, self._perform)
        self._transport: SipTransport | None = None
        self._legs: dict[SessionId, SipLine] = {}
        self._asked: dict[RequestId, asyncio.Future[Response]] = {}
        self._stopping = False
        self._quiet = asyncio.Event()
        self._reporter: asyncio.TimerHandle | None = None
        self._reported = (0, 0, 0, 0)

    async def start(self) -> None:
        """Listen. Raises OSError naming the address, or SettingError for a certificate that cannot be used."""
        # With port 0, UDP takes a free port that another program may hold for TCP: then the next is as good.
        attempts = 1 if self.config.port else _FREE_PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            self._transport = SipTransport(self, self._tls_context(), self._tls_peer)
            try:
                await self._listen(self._transport)
                break
            except OSError:
                await self._transport.close()
                if attempt == attempts:
                    raise
        self._reporter = self._loop.call_later(_REPORT_EVERY_S, self._report)

    async def _listen(self, transport: SipTransport) -> None:
        config, port = self.config, self.config.port
        for name in (name for name in TRANSPORTS if name in config.transports):
            listener = Listener(name, config.host, config.tls_port if name == "tls" else port)
            try:
                bound = await transport.open(listener)
            except OSError as error:
                where = f"{name} {config.host}:{listener.port}"
                raise OSError(error.errno, f"cannot listen for SIP on {where}: {error.strerror}") from error
            if name == "udp" and not port:
                port = bound[1]

    async def stop(self) -> None:
        """Refuse new calls, end the live ones, and close once the peers know or `stop_grace_s` is over; idempotent."""
        self._stopping = True
        if self._reporter is not None:
            self._reporter.cancel()
        for leg in list(self._legs.values()):
            leg.hang_up()
        if self._agent.sessions:
            self._quiet.clear()
            try:
                async with asyncio.timeout(self.config.stop_grace_s):
                    await self._quiet.wait()
            except TimeoutError:
                logger.info("sip.stop: %d peers have not answered BYE", self._agent.sessions)
        self._driver.close()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(OSError("the SIP server has stopped"))
        if self._transport is not None:
            await self._transport.close()

    def address(self, transport: str = "udp") -> Address | None:
        """Where it listens."""
        return self._transport.bound(transport) if self._transport else None

    @property
    def figures(self) -> dict[str, int]:
        """Counts and table sizes, for metrics."""
        figures = self._agent.figures
        return {
            "requests": figures.requests,
            "responses": figures.responses,
            "malformed": figures.malformed,
            "silenced": figures.silenced + self._gate.dropped,
            "refused": figures.refused,
            "overloaded": figures.overloaded,
            "transactions": len(self._agent.layer),
            "dialogs": self._agent.sessions,
            "connections": self._transport.connections if self._transport else 0,
            "unsent": self._transport.unsent if self._transport else 0,
        }

    # -- the transport's callbacks

    def reads(self, host: str) -> bool:
        """Whether a message from this address is looked at."""
        return self._gate.reads(host, self._loop.time())

    def knows(self, host: str) -> bool:
        """Whether a trunk allows this address."""
        return self._gate.knows(host)

    @property
    def answers_strangers(self) -> bool:
        """Whether other addresses can get anywhere."""
        return self._gate.answers_strangers

    def datagram(self, data: bytes, flow: Flow) -> None:
        """A datagram came."""
        self._agent.receive_bytes(data, flow, self._loop.time())

    def frame(self, frame: Frame, flow: Flow) -> None:
        """Something came over a stream."""
        if isinstance(frame, MalformedMessage):
            self._agent.receive_malformed(frame, flow, self._loop.time())
        elif not isinstance(frame, Keepalive):
            self._agent.receive(frame, flow, self._loop.time())

    def flow_failed(self, flow: Flow) -> None:
        """Nothing more can be sent there."""
        self._driver.feed(lambda now: self._agent.flow_failed(flow, now))
        self._note_quiet()

    def datagram_returned(self, data: bytes) -> None:
        """A datagram that begins so reached nobody."""
        self._driver.feed(lambda now: self._agent.datagram_returned(data, now))

    def end_of_batch(self) -> None:
        """Perform what the messages led to."""
        self._driver.drain()
        self._note_quiet()

    # -- effects

    def _perform(self, effect: UserAgentEffect) -> None:
        if isinstance(effect, Send):
            if self._transport is not None:
                self._transport.send(effect.data, effect.flow)
        elif isinstance(effect, Invited):
            self._invited(effect)
        elif isinstance(effect, RequestAnswered):
            self._request_answered(effect)
        else:
            self._guarded(effect)

    def _guarded(self, effect: Declined | LegEffect) -> None:
        """Effects come in batches of many calls: what breaks in one must not cost the others theirs."""
        try:
            if isinstance(effect, Declined):
                self.on_declined(self._attempt(effect), effect.status, effect.reason)
            else:
                self._told(effect)
        except Exception:
            of = effect.request.call_id if isinstance(effect, Declined) else effect.session
            logger.exception("sip.effect failed: %s of %s", type(effect).__name__, of)

    def _told(self, effect: LegEffect) -> None:
        leg = self._legs.get(effect.session)
        if leg is None:
            return
        if isinstance(effect, Progressed):
            leg.on_progress(effect.status, effect.early_media)
        elif isinstance(effect, Answered):
            leg.on_answered()
        elif isinstance(effect, MediaAgreed):
            leg.on_media(effect.media)
        elif isinstance(effect, DigitReported):
            leg.on_digit(effect.digit, self._clock.now())
        elif isinstance(effect, Referred | TransferRequested):
            leg.on_transfer(effect)
        else:
            del self._legs[effect.session]
            leg.on_ended(effect.reason, effect.detail, effect.status, effect.retry_after_s)

    def _invited(self, invited: Invited) -> None:
        request = invited.request
        trunk = self._trunks.by_name(invited.trunk) if invited.trunk else None
        transfer = LegTransfer(self, invited.session, trunk, invited.flow)
        link = SessionLink(self, invited.session, invited.flow, invited.srtp, transfer)
        if self._stopping:
            link.reject(503, _FULL_RETRY_S)
            return
        flow = invited.flow
        source = (flow.transport, flow.host, flow.port)
        leg = SipLeg(link, self._streams, invited.encoding, request.call_id, source, invited.srtp)
        self._legs[invited.session] = leg
        if self._transport is not None:
            self._transport.keep(flow)
        attempt = self._attempt(invited)
        try:
            self._offer(attempt, leg, invited.replaces)
        except Exception:
            logger.exception("sip.on_call failed", extra={"call_id": attempt.call_id})
            leg.reject(500)
            leg.hang_up()

    def _offer(self, attempt: CallAttempt, leg: SipLeg, replaces: SessionId | None) -> None:
        if replaces is None:
            self._on_call(attempt, leg)
        elif (replaced := self._legs.get(replaces)) is not None:
            self.on_replacing(attempt, leg, replaced)
        else:
            leg.reject(481)

    def _may_replace(self, trunk: str | None, session: SessionId) -> bool:
        """Whether a call over this trunk may take a leg's place: both must be known to be one account's."""
        leg, account = self._legs.get(session), self._origin(trunk).account
        transfer = leg.transfer if leg is not None else None
        return transfer is not None and account is not None and transfer.account == account

    def _attempt(self, call: Invited | Declined) -> CallAttempt:
        origin = self._origin(call.trunk)
        holder = self._trunks.registrant(user_of(call.request.request_uri), origin.account)
        account = holder or origin.account
        parties = identify(call.request, holder is not None, lambda user: self._is_number(user, account))
        return CallAttempt(
            call_id=CallId(str(UUID(bytes=self._entropy(16), version=4))),
            direction=Direction.INBOUND,
            called=parties.called,
            caller=parties.caller,
            caller_name=parties.caller_name,
            account=account,
            line="sip",
            started_at=self._clock.utc(),
            line_call_id=call.request.call_id,
            trunk=origin.trunk,
        )

    def _is_number(self, user: str, account: str | None) -> bool:
        number = e164(user)
        owner = self.number_owner(number) if number is not None else None
        return owner is not None and account in (None, owner)

    def _origin(self, name: str | None) -> Origin:
        trunk = self._trunks.by_name(name) if name else None
        return Origin(trunk.name, trunk.account) if trunk else Origin(None, None)

    # -- for legs

    def feed(self, change: Callable[[UserAgent, float], None]) -> None:
        """Give the user agent one input, and perform what follows."""
        self._driver.feed(lambda now: change(self._agent, now))

    def local_media(self, flow: Flow, rtp_port: int, srtp: SrtpMode) -> LocalMedia:
        """Our side of a new session's media, with fresh keys."""
        session_id = int.from_bytes(self._entropy(4), "big")
        keys = () if srtp is SrtpMode.OFF else fresh_keys(self._entropy)
        return LocalMedia(self._host(flow), rtp_port, self.config.encodings, session_id=session_id, srtp=srtp, srtp_keys=keys)

    # -- what we begin

    def place(self, asked: OutgoingInvite, leg: SipLine) -> SessionId:
        """Send an INVITE; what follows is told to the leg. Raises ValueError, or GrammarError, for what cannot be sent."""
        if self._stopping:
            raise ValueError("the server is stopping")
        session = self._agent.invite(asked, self._loop.time())
        self._legs[session] = leg
        self._driver.drain()
        return session

    def request(self, request: Request, flow: Flow, credentials: Account | None = None) -> asyncio.Future[Response]:
        """Send a request outside of calls (REGISTER, OPTIONS), written whole but for its Via, and await its final response.

        A challenge is answered with `credentials`. Awaiting raises TimeoutError when nobody answers, and OSError when it could
        not be sent; giving up waiting is allowed.
        """
        number = self._agent.request(request, flow, credentials, self._loop.time())
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._asked[number] = answer
        self._driver.drain()
        return answer

    def contact(self, flow: Flow) -> Address:
        """Our address and port as the far end of this flow sees us."""
        return self._advertise(flow)

    def _request_answered(self, effect: RequestAnswered) -> None:
        answer = self._asked.pop(effect.request, None)
        if answer is None or answer.done():
            return
        if effect.response is not None:
            answer.set_result(effect.response)
        else:
            timeout = effect.reason == "timeout"
            answer.set_exception(TimeoutError("no answer") if timeout else OSError("the peer cannot be reached"))

    # -- small things

    def _note_quiet(self) -> None:
        if self._stopping and not self._agent.sessions:
            self._quiet.set()

    def _host(self, flow: Flow) -> str:
        config = self.config
        if config.advertised_host:
            return config.advertised_host
        if config.host not in _WILDCARDS:
            return config.host
        # A name, from a peer's Contact, would be looked up here with every call waiting.
        return self._transport.local_host(flow.host if literal(flow.host) else _ANYWHERE) if self._transport else "127.0.0.1"

    def _advertise(self, flow: Flow) -> Address:
        bound = self.address(flow.transport) or self.address("udp") or self.address("tcp") or ("", self.config.port)
        port = self.config.advertised_port if flow.transport != "tls" else None
        return self._host(flow), port or bound[1]

    def _tls_context(self) -> ssl.SSLContext | None:
        config = self.config
        if "tls" not in config.transports:
            return None
        try:
            return server_context(config.tls_certificate or "", config.tls_key or "", config.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"SIP over TLS: the certificate, its key or the client CA cannot be read: {error}") from error

    def _tls_peer(self, flow: Flow) -> TlsPeer:
        """Whom we expect at the end of a new TLS connection: the trunk that the flow names, or that allows its address."""
        origin = None if flow.trunk else self._trunks.by_address(flow.host)
        trunk = self._trunks.by_name(flow.trunk or (origin.trunk if origin else None) or "")
        if trunk is None:
            return TlsPeer(flow.host, flow.host)
        domain = SipUri.parse(trunk.address).host
        return TlsPeer(trunk.name, domain, trunk.tls_ca, trunk.tls_verify, trunk.tls_certificate, trunk.tls_key)

    def _report(self) -> None:
        """One line a minute for what strangers and broken peers sent, instead of one for each packet."""
        figures = self.figures
        counts = (figures["malformed"], figures["silenced"], figures["refused"], figures["overloaded"])
        if counts != self._reported:
            fresh = [count - before for count, before in zip(counts, self._reported, strict=True)]
            logger.info("sip.noise: %d malformed, %d silenced, %d refused, %d overloaded in the last minute", *fresh)
            self._reported = counts
        self._reporter = self._loop.call_later(_REPORT_EVERY_S, self._report)


def _nobodys(number: str) -> str | None:
    """No number is known."""
    return None


def _unrecorded(attempt: CallAttempt, status: int, reason: str) -> None:
    """Nobody keeps records of refused calls."""


def _not_replaced(attempt: CallAttempt, leg: OfferedLeg, replaced: Leg) -> None:
    """Nobody puts one call in the place of another."""
    leg.reject(603)

"""The SIP user agent: messages in, messages and session events out (RFC 3261 §8.2, §9.2, §12.2.2).

Before a request costs memory it is judged by the gatekeeper, and refusals, challenges included, are stateless (§8.2.7): only
what was admitted makes a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Protocol, TypeAlias

from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip import session_requests
from switchhook.telephony.wire.sip.dialog import Dialog, DialogKey, dialog_key
from switchhook.telephony.wire.sip.dialog_session import DialogSession, Phase
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.invite_session import InviteSession
from switchhook.telephony.wire.sip.message import MalformedMessage, Request, Response, parse_message
from switchhook.telephony.wire.sip.outgoing_request import OutgoingRequest
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite, OutgoingSession
from switchhook.telephony.wire.sip.replaces import Replaces, replaces_of, replaces_value
from switchhook.telephony.wire.sip.session_core import ALLOW, SDP, SessionCore, describe, refusal, unknown_extensions
from switchhook.telephony.wire.sip.session_events import (
    Declined,
    Invited,
    Referred,
    RequestAnswered,
    RequestId,
    SessionEvent,
    SessionId,
    UserAgentEffect,
)
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.session_timer import IntervalTooSmall, SessionTimer, SessionTimerPolicy
from switchhook.telephony.wire.sip.timers import TimerValues, Timetable
from switchhook.telephony.wire.sip.transaction_layer import Limits, ServerExchange, TransactionLayer, reply_flow

_KNOWN_METHODS = frozenset({"MESSAGE", "SUBSCRIBE", "PUBLISH", "REGISTER"})
_IN_DIALOG_ONLY = frozenset({"BYE", "INFO", "UPDATE", "PRACK", "NOTIFY"})


@dataclass(frozen=True, slots=True)
class Admitted:
    """The source may call; `trunk` names what it came over."""

    trunk: str | None
    srtp: SrtpMode = SrtpMode.OFF


@dataclass(frozen=True, slots=True)
class Refused:
    """The source is told so."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Silenced:
    """The source hears nothing."""


Admission: TypeAlias = Admitted | Refused | Silenced


class Gatekeeper(Protocol):
    """Decides who may send us requests outside a dialog."""

    def admit(self, request: Request, flow: Flow, now: float) -> Admission:
        """Judge a request by its source and its credentials."""


@dataclass(frozen=True, slots=True)
class UserAgentOptions:
    """What can be set."""

    timers: TimerValues = field(default_factory=TimerValues)
    limits: Limits = field(default_factory=Limits)
    session_timer: SessionTimerPolicy = field(default_factory=SessionTimerPolicy)
    product: str = "Switchhook"
    busy_retry_s: int = 5
    """Retry-After of the 503 that a full transaction table gives."""
    refer_s: float = 60.0
    """How long a peer may take to tell what came of a REFER of ours."""


@dataclass(slots=True)
class Figures:
    """Counts since the start."""

    requests: int = 0
    responses: int = 0
    malformed: int = 0
    silenced: int = 0
    refused: int = 0
    overloaded: int = 0


class UserAgent:
    """A machine: `receive` messages, call the session methods, `take` the effects."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        advertise: Callable[[Flow], tuple[str, int]],
        entropy: Callable[[int], bytes],
        options: UserAgentOptions = UserAgentOptions(),
    ) -> None:
        self.options = options
        self.figures = Figures()
        self._gatekeeper = gatekeeper
        self._entropy = entropy
        self._tag_key = entropy(16)
        self.layer = TransactionLayer(options.timers, entropy, advertise, options.limits)
        self._sessions: dict[SessionId, InviteSession | OutgoingSession] = {}
        self._dialogs: dict[DialogKey, InviteSession] = {}
        self._invites: dict[ServerExchange, InviteSession] = {}
        self._outgoing: dict[tuple[str, str], OutgoingSession] = {}
        self._timetable: Timetable[SessionId] = Timetable()
        self._last_id = 0
        self.may_replace: Callable[[str | None, SessionId], bool] = _nobody
        """Whether a call over this trunk (None: unknown) may take the place of a session (RFC 3891 §4); unless set, none may."""
        self._core = SessionCore(
            layer=self.layer,
            entropy=entropy,
            emit=self._emit,
            advertise=advertise,
            forget=self._forget,
            reschedule=self._reschedule,
            timer_policy=options.session_timer,
            product=options.product,
            refer_s=options.refer_s,
        )
        self._effects: list[UserAgentEffect] = []

    # -- machine

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        due = [at for at in (self.layer.deadline, self._timetable.deadline) if at is not None]
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        self.layer.tick(now)
        for session_id in self._timetable.pop_due(now):
            self._with(session_id, lambda session: session.tick(now))

    def take(self) -> list[UserAgentEffect]:
        """Effects so far, in order: what was sent, then what it meant."""
        self._gather()
        effects, self._effects = self._effects, []
        return effects

    @property
    def sessions(self) -> int:
        """How many dialogs are kept."""
        return len(self._sessions)

    # -- what comes in

    def receive_bytes(self, data: bytes, flow: Flow, now: float) -> None:
        """One datagram."""
        try:
            message = parse_message(data)
        except MalformedMessage as error:
            self.receive_malformed(error, flow, now)
            return
        self.receive(message, flow, now)

    def receive(self, message: Request | Response, flow: Flow, now: float) -> None:
        """One message."""
        if isinstance(message, Response):
            self.figures.responses += 1
            try:
                self.layer.receive(message, now)
            except RemoteProtocolError:
                # A field that only this response's reader needs; the timers go on as if it had not come.
                self.figures.malformed += 1
            return
        self.figures.requests += 1
        message.mark_received((flow.host, flow.port))
        try:
            self._request(message, flow, now)
        except RemoteProtocolError as error:
            # An optional field that a decision needed cannot be read.
            self._answer_statelessly(message, flow, refusal(message, error.status_hint, error.reason))

    def receive_malformed(self, error: MalformedMessage, flow: Flow, now: float) -> None:
        """A message that cannot be taken; an admitted source is told why."""
        self.figures.malformed += 1
        partial = error.partial
        if partial is None or not isinstance(self._admission(partial, flow, now), Admitted):
            return
        try:
            partial.mark_received((flow.host, flow.port))
            self._answer_statelessly(partial, flow, partial.reply(error.status_hint, error.reason))
        except RemoteProtocolError:
            return

    def flow_failed(self, flow: Flow, now: float) -> None:
        """A connection is gone, or an address could not be reached."""
        self.layer.flow_failed(flow, now)

    def datagram_returned(self, data: bytes, now: float) -> None:
        """The network says that a datagram of ours, which begins so, reached nobody."""
        self.layer.datagram_returned(data, now)

    # -- what the call decides; a session that is gone is left alone

    def ring(self, session_id: SessionId, now: float) -> None:
        """Send 180."""
        self._with_offered(session_id, lambda session: session.ring(now))

    def answer(self, session_id: SessionId, local: LocalMedia, now: float) -> None:
        """Send 200; `MediaAgreed` tells where sound goes."""
        self._with_offered(session_id, lambda session: session.answer(local, now))

    def reject(self, session_id: SessionId, status: int, retry_after_s: int | None, now: float) -> None:
        """Refuse an unanswered call."""
        self._with_offered(session_id, lambda session: session.reject(status, retry_after_s, now))

    def hang_up(self, session_id: SessionId, now: float) -> None:
        """End the session."""
        self._with(session_id, lambda session: session.hang_up(now))

    def fail(self, session_id: SessionId, reason: str, detail: str, now: float) -> None:
        """End a session because its line does not work; `reason` is one of `Ended`."""
        self._with(session_id, lambda session: session.fail(reason, detail, now))

    def refer(self, session_id: SessionId, target_uri: str, replaces: SessionId | None, now: float) -> None:
        """Ask the peer to call `target_uri`, in the place of our session `replaces` when given; `Referred` follows.

        Raises:
            GrammarError: no sip, sips or tel URI, or a tel URI with `replaces`.
        """
        talk, other = self._talk(session_id), None if replaces is None else self._talk(replaces)
        if talk is None or (replaces is not None and (other is None or not other.talking)):
            self._with(session_id, lambda session: self._emit(Referred(session.number, 481, final=True, accepted=False)))
            return
        talk.transfer.refer(target_uri, replaces_value(other.dialog) if other else None, now)
        self._reschedule(session_id)

    def refer_result(self, session_id: SessionId, status: int, now: float) -> None:
        """Tell the peer how its `TransferRequested` goes: 1xx, then what came of it. Raises ValueError for no SIP status."""
        talk = self._talk(session_id)
        if talk is not None:
            talk.transfer.result(status, now)
            self._reschedule(session_id)

    # -- what we begin

    def invite(self, asked: OutgoingInvite, now: float) -> SessionId:
        """Place a call. `Progressed`, `Answered`, `MediaAgreed` follow, and `Ended` exactly once.

        Raises:
            GrammarError: the request URI is no SIP URI.
            ValueError: a header field holds a line break.
        """
        self._last_id += 1
        session = OutgoingSession(self._core, SessionId(self._last_id), asked)
        session.begin(now)
        self._sessions[session.number] = self._outgoing[session.key] = session
        self._reschedule(session.number)
        return session.number

    def request(self, request: Request, flow: Flow, credentials: Account | None, now: float) -> RequestId:
        """Send a request outside every dialog; its Via is added. `RequestAnswered` follows; `credentials` answer a challenge."""
        self._last_id += 1
        number = RequestId(self._last_id)
        OutgoingRequest(self._core, number, credentials).send(request, flow, now)
        return number

    def _with(self, session_id: SessionId, act: Callable[[InviteSession | OutgoingSession], object]) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            act(session)
            self._reschedule(session_id)

    def _with_offered(self, session_id: SessionId, act: Callable[[InviteSession], object]) -> None:
        session = self._sessions.get(session_id)
        if isinstance(session, InviteSession):
            act(session)
            self._reschedule(session_id)

    def _talk(self, session_id: SessionId) -> DialogSession | None:
        """The dialog of a session; None when it is gone, or has none yet."""
        session = self._sessions.get(session_id)
        return session.talk if isinstance(session, OutgoingSession) else session

    def _find(self, key: DialogKey | None) -> DialogSession | None:
        """The dialog of this key."""
        if key is None:
            return None
        outgoing = self._outgoing.get(key[:2])
        return self._dialogs.get(key) if outgoing is None else outgoing.dialog(key[2])

    # -- requests

    def _request(self, request: Request, flow: Flow, now: float) -> None:
        known = self.layer.find_server(request)
        if request.method == "ACK":
            if known is None or not self.layer.acknowledge(known, now):
                self._ack(request, now)
            return
        if known is not None:
            self.layer.repeat(known, now)
            return
        if request.method == "CANCEL":
            self._cancel(request, flow, now)
            return
        session = self._find(dialog_key(request))
        if session is not None:
            if self.layer.has_room(flow, in_dialog=True):
                session_requests.receive(session, self.layer.open_server(request, flow), now)
                self._reschedule(session.number)
            return
        self._outside_dialog(request, flow, now)

    def _ack(self, request: Request, now: float) -> None:
        session = self._find(dialog_key(request))
        if session is not None:
            session.acknowledged(request, now)
            self._reschedule(session.number)

    def _cancel(self, request: Request, flow: Flow, now: float) -> None:
        invite = self.layer.find_invite(request)
        if invite is None:
            if isinstance(self._admission(request, flow, now), Admitted):
                self._answer_statelessly(request, flow, request.reply(481))
            return
        if not self.layer.has_room(flow, in_dialog=True):
            return
        session = self._invites.get(invite)
        exchange = self.layer.open_server(request, flow)
        # RFC 3261 §9.2: the To tags of both responses should be the same. A final answer already sent stands.
        exchange.respond(request.reply(200, None, session.local_tag if session else self._tag_for(request)), now)
        if session is not None:
            session.cancelled(session_requests.peer_reason(request), now)
            self._reschedule(session.number)

    def _outside_dialog(self, request: Request, flow: Flow, now: float) -> None:
        admission = self._admission(request, flow, now)
        if isinstance(admission, Silenced):
            return
        if isinstance(admission, Refused):
            self.figures.refused += 1
            response = request.reply(admission.status)
            for name, value in admission.headers:
                response.headers.add(name, value)
            self._answer_statelessly(request, flow, response)
            return
        if not self.layer.has_room(flow, in_dialog=False):
            self.figures.overloaded += 1
            response = request.reply(503)
            response.headers.add("Retry-After", str(self.options.busy_retry_s))
            self._answer_statelessly(request, flow, response)
            return
        merged = self.layer.merged(request)
        exchange = self.layer.open_server(request, flow)
        try:
            self._judge(request, merged)
            if request.method == "OPTIONS":
                self._options(exchange, now)
            else:
                self._invite(exchange, admission, now)
        except RemoteProtocolError as error:
            response = refusal(request, error.status_hint, error.reason, self._new_tag())
            if isinstance(error, IntervalTooSmall):
                response.headers.add("Min-SE", str(self.options.session_timer.min_se_s))
            exchange.respond(response, now)
            if request.method == "INVITE" and request.to.tag is None and not merged:
                self._emit(Declined(request, flow, admission.trunk, response.status, error.reason))

    def _judge(self, request: Request, merged: bool) -> None:
        """The order of RFC 3261 §8.2: method, headers, then the method's own rules."""
        method = request.method
        if method in _IN_DIALOG_ONLY or (request.to.tag is not None and method in ALLOW):
            raise RemoteProtocolError(481, "Call/Transaction Does Not Exist")
        if method == "REFER":
            raise RemoteProtocolError(603, "Only a Call Can Be Transferred")
        if method not in ALLOW:
            raise RemoteProtocolError(*((405, "Method Not Allowed") if method in _KNOWN_METHODS else (501, "Not Implemented")))
        if request.max_forwards == 0 and method == "INVITE":
            # We carry calls on to other places, so that a call without hops left has come in a circle. OPTIONS ends here (§11.2).
            raise RemoteProtocolError(483, "Too Many Hops")
        if merged:
            raise RemoteProtocolError(482, "Loop Detected")
        if unknown_extensions(request):
            raise RemoteProtocolError(420, "Bad Extension")

    def _options(self, exchange: ServerExchange, now: float) -> None:
        response = exchange.request.reply(200, None, self._new_tag())
        describe(response)
        response.headers.add("Accept", SDP)
        response.headers.add("Server", self.options.product)
        exchange.respond(response, now)

    def _invite(self, exchange: ServerExchange, admission: Admitted, now: float) -> None:
        request = exchange.request
        replaces = replaces_of(request)
        replaced = None if replaces is None else self._replaced(replaces, admission)
        SessionTimer(self.options.session_timer).check(request)
        media = SessionMedia.of_invite(request, admission.srtp)
        dialog = Dialog.as_uas(request, self._new_tag(), exchange.flow)
        self._last_id += 1
        session = InviteSession(self._core, SessionId(self._last_id), exchange, dialog, media)
        exchange.respond(request.reply(100), now)
        self._sessions[session.number] = self._dialogs[dialog.key] = self._invites[exchange] = session
        encoding = media.proposed.encoding if media.proposed else None
        self._emit(Invited(session.number, request, exchange.flow, admission.trunk, encoding, replaced, admission.srtp))
        self._reschedule(session.number)

    def _replaced(self, replaces: Replaces, admission: Admitted) -> SessionId:
        """The session that an INVITE asks to replace (RFC 3891 §3)."""
        session = next((found for key in replaces.dialog_keys() if (found := self._find(key)) is not None), None)
        if session is None or session.phase is Phase.RINGING:
            # RFC 3891 §3: an early dialog that the peer began is never replaced. One that we began might be; here it is not.
            raise RemoteProtocolError(481, "No Such Call to Replace")
        if session.phase is Phase.OVER:
            raise RemoteProtocolError(603, "The Call to Replace Is Over")
        if not self.may_replace(admission.trunk, session.number):
            raise RemoteProtocolError(403, "Not Yours to Replace")
        if replaces.early_only:
            raise RemoteProtocolError(486, "The Call to Replace Is Answered")
        return session.number

    def _admission(self, request: Request, flow: Flow, now: float) -> Admission:
        admission = self._gatekeeper.admit(request, flow, now)
        if isinstance(admission, Silenced):
            self.figures.silenced += 1
        return admission

    # -- small things

    def _answer_statelessly(self, request: Request, flow: Flow, response: Response) -> None:
        """RFC 3261 §8.2.7: no transaction; the To tag is the same for the same request."""
        if request.method == "ACK":
            return
        tag = self._tag_for(request)
        try:
            tagged = request.to.tag is not None
        except RemoteProtocolError:
            tagged = True
        if not tagged:
            response.headers.set("To", f"{response.headers.get('To')};tag={tag}")
        self.layer.send(bytes(response), reply_flow(request, flow))

    def _tag_for(self, request: Request) -> str:
        text = f"{request.via.branch}|{request.headers.get('Call-ID')}|{request.headers.get('From')}"
        return blake2s(text.encode("utf-8", "surrogateescape"), key=self._tag_key, digest_size=8).hexdigest()

    def _new_tag(self) -> str:
        return self._entropy(8).hex()

    def _emit(self, event: SessionEvent | RequestAnswered) -> None:
        self._gather()
        self._effects.append(event)

    def _gather(self) -> None:
        """Keep the order between messages and events."""
        self._effects.extend(self.layer.take())

    def _reschedule(self, session_id: SessionId) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            self._timetable.set(session_id, session.deadline)

    def _forget(self, session_id: SessionId) -> None:
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        self._timetable.set(session_id, None)
        if isinstance(session, OutgoingSession):
            self._outgoing.pop(session.key, None)
            return
        self._invites.pop(session.invite, None)
        if self._dialogs.get(session.dialog.key) is session:
            del self._dialogs[session.dialog.key]


def _nobody(trunk: str | None, session: SessionId) -> bool:
    """No call may be replaced."""
    return False

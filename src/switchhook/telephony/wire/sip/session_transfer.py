"""REFER inside one session, both ways, with the subscriptions that it makes (RFC 3515, RFC 4488, RFC 5589).

Ours: sent, accepted, over, with exactly one final `Referred` whatever comes: a refusal, a NOTIFY with a final status, the end of
the subscription or of our patience (408), the end of the session (0). The peer's: one at a time, until `result` is final or the
subscription has lasted `SUBSCRIPTION_S`. Everything goes with the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from weakref import ref

from switchhook.telephony.wire.sip.client_digest import ClientDigest
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.refer import (
    EVENT,
    SIPFRAG,
    Notification,
    read_notification,
    read_refer_to,
    refer_to,
    wants_no_subscription,
    write_sipfrag,
)
from switchhook.telephony.wire.sip.session_core import SessionCore
from switchhook.telephony.wire.sip.session_events import Referred, SessionId, TransferRequested
from switchhook.telephony.wire.sip.transaction_layer import ClientExchange, ServerExchange

SUBSCRIPTION_S = 180.0
"""How long we tell a peer what became of its REFER."""
_UNTOLD = 408
_UNANSWERED = {"timeout": 408, "transport": 503}


class TransferParty(Protocol):
    """The session that REFERs are sent and taken in."""

    core: SessionCore
    number: SessionId
    dialog: Dialog
    digest: ClientDigest

    @property
    def talking(self) -> bool:
        """Answered, and not over."""

    def ok(self, request: Request, body: bytes = b"") -> Response:
        """A 200 with our Contact."""

    def refuse_request(self, exchange: ServerExchange, status: int, reason: str | None, now: float) -> None:
        """Answer a request with a failure."""

    def dress_request(self, request: Request, body: bytes) -> None:
        """Give a request its Contact and abilities."""


@dataclass(slots=True)
class _OurRefer:
    """A REFER that we sent; kept when it is over, for NOTIFYs that come late."""

    cseq: int
    expires_at: float
    status: int = 0
    """The last that was told."""
    accepted: bool = False
    over: bool = False


@dataclass(slots=True)
class _TheirRefer:
    """A REFER that we took."""

    event: str
    """The Event header of its NOTIFYs."""
    expires_at: float
    subscribed: bool
    """The peer wants to hear; it may stop wanting that."""
    status: int = 0
    """The last that was told."""


class SessionTransfer:
    """The REFERs of one session."""

    def __init__(self, session: TransferParty) -> None:
        self._owner = ref(session)  # it owns this object: a finished one does not wait for the garbage collector
        self._ours: _OurRefer | None = None
        self._theirs: _TheirRefer | None = None
        self._taken = 0

    @property
    def _session(self) -> TransferParty:
        session = self._owner()
        assert session is not None
        return session

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        due = [self._theirs.expires_at] if self._theirs is not None else []
        if self._ours is not None and not self._ours.over:
            due.append(self._ours.expires_at)
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        ours, theirs = self._ours, self._theirs
        if ours is not None and not ours.over and ours.expires_at <= now:
            self._tell(ours, _UNTOLD, final=True)
        if theirs is not None and theirs.expires_at <= now:
            self._theirs = None
            # The outcome is not known: the last that was told stands (RFC 3515 §2.4.7).
            self._notify(theirs, "terminated;reason=timeout", now)

    def stop(self, now: float) -> None:
        """The session is over."""
        self._theirs = None
        if self._ours is not None:
            self._tell(self._ours, 0, final=True)

    def end_of_talk(self, reason: str, detail: str) -> tuple[str, str]:
        """Reason and detail of an end by the peer's BYE: `referred` when it had taken our REFER and not told of a failure.

        Many carriers end the call in place of a last NOTIFY; whether the new call stands is known only if a NOTIFY said 2xx.
        """
        ours = self._ours
        if ours is None or not ours.accepted or (ours.over and not 200 <= ours.status < 300):
            return reason, detail
        return "referred", detail or ("" if ours.over else "the peer did not tell what came of the transfer")

    # -- ours

    def refer(self, uri: str, replaces: str | None, now: float) -> None:
        """Ask the peer to call `uri`, in place of the call that the Replaces value names; nothing while another REFER is pending.

        Raises:
            GrammarError: `uri` cannot be called (`refer_to`).
        """
        session = self._session
        value = refer_to(uri, replaces)
        if self._ours is not None and not self._ours.over:
            return
        if not session.talking:
            session.core.emit(Referred(session.number, 481, final=True, accepted=False))
            return
        request = session.dialog.request("REFER")
        session.dress_request(request, b"")
        request.headers.add("Refer-To", value)
        request.headers.add("Referred-By", f"<{session.dialog.local.uri}>")
        self._ours = _OurRefer(request.cseq.number, now + session.core.refer_s)
        session.core.layer.request(request, session.dialog.next_hop(), self, now)

    def notified(self, exchange: ServerExchange, now: float) -> None:
        """A NOTIFY of the peer; it may come before the answer to the REFER (RFC 3515 §2.4.4)."""
        session = self._session
        ours = self._ours
        told = read_notification(exchange.request)
        if told is None or ours is None or told.cseq not in (None, ours.cseq):
            # RFC 6665 §4.1.3: a NOTIFY that matches no subscription.
            session.refuse_request(exchange, 481, "No Such Subscription", now)
            return
        exchange.respond(session.ok(exchange.request), now)
        self._learn(ours, told)

    def _learn(self, ours: _OurRefer, told: Notification) -> None:
        if ours.over:
            return
        ours.accepted = True
        if told.status is not None and told.status >= 200:
            # Final for us whatever the subscription's state: some peers leave it open.
            self._tell(ours, told.status, final=True)
        elif told.terminated:
            self._tell(ours, _UNTOLD, final=True)
        elif told.status is not None or not ours.status:
            self._tell(ours, told.status or 202)

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response to a REFER or NOTIFY of ours."""
        status = response.status
        if status < 200 or self._prove(exchange, response, now):
            return
        if exchange.request.method == "REFER":
            self._refer_answered(exchange.request.cseq.number, status, status < 300)
        elif status == 481:
            self._unsubscribed(exchange.request)

    def _prove(self, exchange: ClientExchange, response: Response, now: float) -> bool:
        """Send a challenged request again with its proof; False when there is no challenge, or none that we can answer."""
        session = self._owner()
        again = session.digest.renewed(exchange.request, response) if session is not None and session.talking else None
        if session is None or again is None:
            return False
        session.dialog.local_seq += 1
        again.headers.set("CSeq", f"{session.dialog.local_seq} {again.method}")
        if self._ours is not None and exchange.request.cseq.number == self._ours.cseq:
            self._ours.cseq = session.dialog.local_seq
        session.core.layer.request(again, exchange.flow, self, now)
        return True

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No answer will come to a REFER or NOTIFY of ours."""
        if exchange.request.method == "REFER":
            self._refer_answered(exchange.request.cseq.number, _UNANSWERED[reason], False)
        else:
            self._unsubscribed(exchange.request)

    def _unsubscribed(self, notify: Request) -> None:
        """RFC 6665 §4.2.2: the peer does not want to hear any more; what it asked for goes on."""
        if self._theirs is not None and self._theirs.event == notify.headers.get("Event"):
            self._theirs.subscribed = False

    def _refer_answered(self, cseq: int, status: int, accepted: bool) -> None:
        ours = self._ours
        if ours is None or ours.over or ours.cseq != cseq:
            return
        if accepted:
            if not ours.accepted:
                ours.accepted = True
                self._tell(ours, 202)
        elif not ours.accepted:
            self._tell(ours, status, final=True)
        # A REFER that a NOTIFY has already told of was taken, whatever became of its answer.

    def _tell(self, ours: _OurRefer, status: int, final: bool = False) -> None:
        if ours.over or (status == ours.status and not final):
            return
        ours.status, ours.over = status, final
        session = self._session
        session.core.emit(Referred(session.number, status, final, ours.accepted))
        session.core.reschedule(session.number)

    # -- the peer's

    def asked(self, exchange: ServerExchange, now: float) -> None:
        """A REFER of the peer: 202, NOTIFY 100 and `TransferRequested`.

        Raises:
            RemoteProtocolError: its Refer-To cannot be followed.
        """
        session, request = self._session, exchange.request
        target = read_refer_to(request)
        if self._theirs is not None or not session.talking:
            # One at a time, and not before there is an answered call to be transferred.
            session.refuse_request(exchange, 491, None, now)
            return
        referred_by, cseq, silent = request.headers.get("Referred-By"), request.cseq.number, wants_no_subscription(request)
        response = session.ok(request)
        response.status, response.reason = 202, "Accepted"
        if silent:
            response.headers.add("Refer-Sub", "false")
        exchange.respond(response, now)
        # RFC 3515 §2.4.6: from the second REFER of a dialog on, a NOTIFY must say which one it means.
        event = f"{EVENT};id={cseq}" if self._taken else EVENT
        self._taken += 1
        self._theirs = _TheirRefer(event, now + SUBSCRIPTION_S, subscribed=not silent)
        self.result(100, now)
        session.core.emit(TransferRequested(session.number, target.uri, target.replaces, referred_by))

    def result(self, status: int, now: float) -> None:
        """Tell the peer how its REFER goes; nothing when there is none, or not any more.

        Raises:
            ValueError: no SIP status.
        """
        if not 100 <= status <= 699:
            raise ValueError(f"{status} is no SIP status")
        theirs = self._theirs
        if theirs is None or status == theirs.status:
            return
        theirs.status = status
        if status >= 200:
            self._theirs = None
            self._notify(theirs, "terminated;reason=noresource", now)
        else:
            self._notify(theirs, f"active;expires={max(1, round(theirs.expires_at - now))}", now)

    def _notify(self, theirs: _TheirRefer, state: str, now: float) -> None:
        if not theirs.subscribed:
            return
        session = self._session
        request = session.dialog.request("NOTIFY")
        session.dress_request(request, b"")
        request.headers.add("Event", theirs.event)
        request.headers.add("Subscription-State", state)
        request.headers.add("Content-Type", SIPFRAG)
        request.body = write_sipfrag(theirs.status)
        session.core.layer.request(request, session.dialog.next_hop(), self, now)

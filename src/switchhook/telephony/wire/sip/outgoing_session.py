"""One session that we begin with an INVITE: forks, challenges, redirections, CANCEL (RFC 3261 §9.1, §13.2).

Every response that makes a dialog gives an `OutgoingDialog`; the first 2xx chooses the one that is the session from then on.
`Ended` is given once: when the attempt has failed or is given up, or by the chosen dialog. A 2xx that comes after that is
acknowledged and ended with BYE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.client_digest import ClientDigest
from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.dialog_session import Phase
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.headers import Headers
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.outgoing_dialog import OutgoingDialog
from switchhook.telephony.wire.sip.redirection import Redirection, flow_to
from switchhook.telephony.wire.sip.session_core import SDP, SessionCore, describe
from switchhook.telephony.wire.sip.session_events import Answered, Ended, Progressed, SessionId
from switchhook.telephony.wire.sip.session_media import SessionMedia
from switchhook.telephony.wire.sip.session_timer import SessionTimer
from switchhook.telephony.wire.sip.transaction_layer import ClientExchange
from switchhook.telephony.wire.sip.uri import SipUri

MAX_FORKS = 16
"""Dialogs that are kept. Further early ones are passed over; a 2xx takes the place of an early one."""
MAX_DETAIL_CHARS = 200
"""Of what the far side says of its refusal: the reason phrase and its Reason headers (RFC 3326)."""
_MAX_INTERVALS = 2
"""422 answers that are followed (RFC 4028 §7.3)."""
_NO_PROGRESS = 408


def _nowhere(contact: SipUri) -> bool:
    """No redirection is followed."""
    return False


@dataclass(frozen=True, slots=True)
class OutgoingInvite:
    """A call to be placed."""

    flow: Flow
    """Where the INVITE goes first."""
    request_uri: str
    """A SIP URI."""
    from_: NameAddr
    """Without a tag."""
    to: NameAddr
    """Without a tag."""
    media: LocalMedia
    proxies: tuple[str, ...] = ()
    """Route header values."""
    credentials: Account | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """Further header fields: P-Asserted-Identity, Privacy, Referred-By, Replaces."""
    ring_s: float = 45.0
    """Given up as `no-answer` so long after the first 18x."""
    setup_s: float = 32.0
    """Given up as `trunk-failed` when no more than 100 has come by then."""
    silence_s: float | None = None
    """Given up as `trunk-failed` when nothing at all has come by then; None: `setup_s`, or timer B if that is sooner."""
    redirects: int = 0
    """How many contacts of 3xx answers are called at most; 0: a redirection is a refusal."""
    may_follow: Callable[[SipUri], bool] = field(default=_nowhere, compare=False)
    """Whether a contact of a 3xx may be called."""


class OutgoingSession:
    """One session as UAC. Methods that come too late do nothing."""

    def __init__(self, core: SessionCore, number: SessionId, asked: OutgoingInvite) -> None:
        self.core = core
        self.number = number
        self.asked = asked
        self.call_id = core.entropy(12).hex()
        self.local = asked.from_.with_tag(core.entropy(8).hex())
        self.timer = SessionTimer(core.timer_policy)
        self.digest = ClientDigest(asked.credentials, core.entropy)
        self.talk: OutgoingDialog | None = None
        """The dialog that has the call."""
        self._redirection = Redirection(asked.request_uri, asked.redirects, asked.may_follow)
        self._flow = asked.flow
        self._cseq = 0
        self._invite: ClientExchange | None = None
        """Sent, and without a final response."""
        self._dialogs: dict[str, OutgoingDialog] = {}
        self._given_up = False
        self._rang = False
        self._told: Progressed | None = None
        self._due: float | None = None
        self._set_up_by = 0.0
        self._intervals = 0

    @property
    def key(self) -> tuple[str, str]:
        """What its dialogs have in common: Call-ID and our tag."""
        return (self.call_id, self.local.tag or "")

    def dialog(self, remote_tag: str) -> OutgoingDialog | None:
        """The dialog with this tag of the peer's."""
        return self._dialogs.get(remote_tag)

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        return self._due if self.talk is None else self.talk.deadline

    # -- decisions of the call

    def begin(self, now: float) -> None:
        """Send the INVITE."""
        silence_s = self.asked.silence_s
        self._due = now + (self.asked.setup_s if silence_s is None else silence_s)
        self._set_up_by = now + self.asked.setup_s
        self._send(self._write(), now)

    def hang_up(self, now: float) -> None:
        """BYE after the answer; before it CANCEL, as soon as a provisional response allows (RFC 3261 §9.1)."""
        self.fail("hung-up", "", now)

    def fail(self, reason: str, detail: str, now: float) -> None:
        """End it for another reason."""
        if self.talk is not None:
            self.talk.finish(reason, detail, now)
        else:
            self._give_up(reason, detail, None, now)

    def tick(self, now: float) -> None:
        """The deadline passed."""
        if self.talk is not None:
            self.talk.tick(now)
        elif self._due is not None and self._due <= now:
            if self._rang:
                self._give_up("no-answer", "nobody answered in time", None, now)
            else:
                self._give_up("trunk-failed", "nothing but 100 Trying, or nothing at all, came in time", _NO_PROGRESS, now)

    # -- responses to the INVITE

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response to the INVITE."""
        if response.status < 200:
            self._progressed(exchange, response, now)
        elif response.status < 300:
            self._accepted(exchange, response, now)
        else:
            self._refused(exchange, response, now)
        self.core.reschedule(self.number)

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No final response will come (timer B, or it could not be sent)."""
        if exchange is not self._invite:
            return  # only the ACK of a failure could not be sent
        self._invite = None
        target = None if self._given_up else self._redirection.another()
        if target is not None:
            self._begin_again(self._to(target), now)
            self.core.reschedule(self.number)
            return
        if reason == "timeout":
            self._give_up("trunk-failed", "the INVITE was never answered", _NO_PROGRESS, now)
        else:
            self._give_up("trunk-failed", "the INVITE could not be sent", None, now)
        self.left()

    def _progressed(self, exchange: ClientExchange, response: Response, now: float) -> None:
        if self._given_up or self.talk is not None:
            return
        if not self._rang:
            self._due = self._set_up_by
        if response.status == 100:
            return
        dialog = self._dialog_of(exchange, response)
        if dialog is None or not dialog.progressed(exchange, response, now):
            return
        if not self._rang and 180 <= response.status < 190:
            self._rang = True
            self._due = now + self.asked.ring_s
        told = Progressed(self.number, response.status, dialog.agreed)
        if told != self._told:
            self._told = told
            self.core.emit(told)

    def _accepted(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """RFC 3261 §13.2.2.4, RFC 6026 §7.2: a 2xx is acknowledged each time; one that is not wanted ends with BYE."""
        dialog = self._dialog_of(exchange, response)
        if dialog is None:
            return
        self._invite = None
        if dialog.acknowledged_once:
            dialog.acknowledge()
            return
        dialog.accepted(exchange, response)
        if self._given_up or self.talk is not None:
            dialog.decline(now)
            return
        self._due = None
        self.talk = dialog
        for other in self._dialogs.values():
            if other is not dialog:
                other.drop()
        try:
            agreed = dialog.open(response, now)
        except RemoteProtocolError as error:
            dialog.finish("line-failed", error.reason, now)
            return
        self.core.emit(Answered(self.number))
        dialog.agree(agreed)

    def _refused(self, exchange: ClientExchange, response: Response, now: float) -> None:
        self._invite = None
        if self._given_up:
            self.left()
            return
        again = self._once_more(exchange, response)
        if again is not None:
            self._begin_again(again, now)
            return
        detail = "; ".join([" ".join(response.reason.split()), *map(str, response.reasons)])
        self._give_up("refused", detail[:MAX_DETAIL_CHARS], response.status, now, response.retry_after)
        self.left()

    def _once_more(self, exchange: ClientExchange, response: Response) -> Request | None:
        """The INVITE that a final response asks for: with a proof, a longer interval, or to another target."""
        try:
            again = self.digest.renewed(exchange.request, response)
            if again is not None:
                self._cseq += 1
                again.headers.set("CSeq", f"{self._cseq} INVITE")
                return again
            if response.status == 422 and self._intervals < _MAX_INTERVALS:
                self._intervals += 1
                self.timer.too_small(response)
                return self._write()
        except RemoteProtocolError:
            return None
        target = self._redirection.next(response)
        return None if target is None else self._to(target)

    def _to(self, target: SipUri) -> Request:
        """The INVITE for a contact of a 3xx."""
        if not self.asked.proxies:
            self._flow = flow_to(target, self._flow, self._redirection.first, self.asked.flow)
        if (self._flow.host, self._flow.port) != (self.asked.flow.host, self.asked.flow.port):
            # The password is for the one we asked.
            self.digest = ClientDigest(None, self.core.entropy)
        return self._write()

    # -- what its dialogs tell

    def abandoned(self, detail: str, now: float) -> None:
        """The callee ended an early dialog."""
        self._give_up("callee-hung-up", detail, None, now)
        self.core.reschedule(self.number)

    def left(self) -> None:
        """Something has come to its end: forget the session once nothing is under way."""
        over = self._given_up if self.talk is None else self.talk.phase is Phase.OVER
        if over and self._invite is None and all(dialog.gone for dialog in self._dialogs.values()):
            self.core.forget(self.number)

    # -- inside

    def _give_up(self, reason: str, detail: str, status: int | None, now: float, retry_after_s: int | None = None) -> None:
        """End an unanswered session: cancel what is under way."""
        if self._given_up or self.talk is not None:
            return
        self._given_up = True
        self._due = None
        for dialog in self._dialogs.values():
            dialog.drop()
        self.core.emit(Ended(self.number, reason, detail, status, retry_after_s))
        if self._invite is not None:
            self.core.layer.cancel(self._invite, now)

    def _begin_again(self, request: Request, now: float) -> None:
        self._dialogs.clear()
        if not self._rang:
            self._due = self._set_up_by
        self._send(request, now)

    def _send(self, request: Request, now: float) -> None:
        self._invite = self.core.layer.request(request, self._flow, self, now)

    def _write(self) -> Request:
        asked = self.asked
        self._cseq += 1
        headers = Headers()
        for proxy in asked.proxies:
            headers.add("Route", proxy)
        headers.add("Max-Forwards", "70")
        headers.add("From", str(self.local))
        headers.add("To", str(asked.to))
        headers.add("Call-ID", self.call_id)
        headers.add("CSeq", f"{self._cseq} INVITE")
        headers.add("Contact", self.core.contact(self._flow))
        for name, value in (*self.timer.proposal(), *asked.headers):
            headers.add(name, value)
        headers.add("User-Agent", self.core.product)
        headers.add("Content-Type", SDP)
        request = Request("INVITE", str(self._redirection.target), headers, SessionMedia.of_offer(asked.media).offer_sent)
        describe(request)
        return request

    def _dialog_of(self, exchange: ClientExchange, response: Response) -> OutgoingDialog | None:
        """The dialog of a response, made by its first; a peer without tags has one. None when there are too many."""
        tag = response.to.tag or ""
        dialog = self._dialogs.get(tag)
        if dialog is None and (len(self._dialogs) < MAX_FORKS or (response.status >= 200 and self._make_room())):
            made = Dialog.as_uac(exchange.request, response, exchange.flow)
            dialog = self._dialogs[tag] = OutgoingDialog(self, made, SessionMedia.of_offer(self.asked.media))
        return dialog

    def _make_room(self) -> bool:
        """An answer is worth more than an early dialog."""
        early = next((tag for tag, dialog in self._dialogs.items() if not dialog.acknowledged_once), None)
        if early is not None:
            del self._dialogs[early]
        return early is not None

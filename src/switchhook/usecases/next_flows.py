"""How a steered call goes on: the customer's address is asked, signed, and its answer read and checked."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlencode, urlsplit, urlunsplit

from switchhook.domain.call_sid import call_sid, sid_of
from switchhook.domain.contract import Http, HttpFailure, HttpRequest
from switchhook.domain.dialling import MOST_EXTENSION_DIGITS, DialResult
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import CallAttempt, CallId, Direction, TransferRecord
from switchhook.domain.phone import e164
from switchhook.domain.plan import Action, AskNext, Converse, HangUp, PlaySound, RouteTo, Say
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.uri import SipUri, is_sip_uri
from switchhook.usecases.repositories import NumberFinder
from switchhook.usecases.steered import (
    Board,
    CallView,
    FlowUnreadable,
    LiveSession,
    Pair,
    shown_number,
    view_of,
)

logger = logging.getLogger(__name__)

TIMEOUT_S = 15.0
REPLY_BYTES = 64 << 10
API_VERSION = "2010-04-01"
APOLOGY = (Say("We are sorry. An application error has occurred. Goodbye."), HangUp())
_BAD_CALLER = 13214
_BAD_NUMBER = 13223
_HTTP_FAILED = 11200
_NOT_TWIML = 12300
_TEXT = ("", "text/xml", "application/xml", "text/html", "application/twiml+xml")
_DIAL_STATUS = {
    DialResult.CONNECTED.value: "completed",
    DialResult.REFERRED.value: "completed",
    DialResult.NO_ANSWER.value: "no-answer",
    DialResult.BUSY.value: "busy",
    DialResult.DECLINED.value: "busy",
    DialResult.CANCELLED.value: "canceled",
}

Fields = Sequence[tuple[str, str]]
Sign = Callable[[str, str, Fields], Mapping[str, str]]
"""(auth token, URL, form fields) → the headers that prove the request to be ours."""
Read = Callable[[bytes, str | None], tuple[Action, ...]]
"""(text, the address it came from) → flow. Raises FlowUnreadable."""
PairOf = Callable[[LiveSession], Pair | None]
"""What a call's requests are signed with."""
SipUser = Callable[[str, str], str | None]
"""(account, SIP URI) → its user part, when the URI leads to a trunk of the account."""


class NextFlowDesk:
    """Implements `domain.ports.NextFlows`."""

    def __init__(self, http: Http, read: Read, sign: Sign, numbers: NumberFinder, sip_user: SipUser) -> None:
        self._http = http
        self._read = read
        self._sign = sign
        self._numbers = numbers
        self._sip_user = sip_user
        self._board: Board | None = None
        self._pair_of: PairOf = lambda session: None

    def attach(self, board: Board, pair_of: PairOf) -> None:
        """Name who is live; to be called before calls come."""
        self._board, self._pair_of = board, pair_of

    async def ask(self, call_id: CallId, question: AskNext, dialled: TransferRecord | None) -> tuple[Action, ...]:
        """The flow that the customer answers with, or an apology. Never raises but for cancellation."""
        session = self._board.find(call_id) if self._board is not None else None
        pair = self._pair_of(session) if session is not None else None
        if session is None or pair is None:
            return (HangUp(),)
        fields = [*form_of(view_of(session), pair.account_sid), *_dial_fields(session.attempt, dialled)]
        asked: AskNext | None = question
        while asked is not None:
            try:
                flow = await self._asked(asked, fields, pair)
                return self.addressed(await self.checked(flow, session.account, parties(session)), session)
            except FlowUnreadable as error:
                logger.warning("a call's next step cannot be used: %s (%s)", error, error.code, extra={"call_id": call_id})
                fields += [("ErrorCode", str(error.code)), ("ErrorUrl", asked.url)]
                asked = asked.fallback
            except SwitchhookError as error:
                logger.warning("a call's next step cannot be checked: %s", error.code, extra={"call_id": call_id})
                break
        return APOLOGY

    def read(self, text: bytes, base_url: str | None = None) -> tuple[Action, ...]:
        """A flow that was given as text. Raises FlowUnreadable."""
        return self._read(text, base_url)

    async def checked(self, flow: Sequence[Action], account: str, parties: Sequence[str]) -> tuple[Action, ...]:
        """The same, with every destination and shown number judged; `parties` are the numbers of the call.

        Raises FlowUnreadable, StoreUnavailable.
        """
        checked = [await self._route(step, account, parties) if isinstance(step, RouteTo) else step for step in flow]
        return tuple(checked)

    def addressed(self, flow: Sequence[Action], session: LiveSession) -> tuple[Action, ...]:
        """The same; the bots in it are told whose call it is, and that it is us who calls them (contract §4.4)."""
        pair = self._pair_of(session)
        return tuple(self._stream(step, session, pair) if isinstance(step, Converse) and pair else step for step in flow)

    def _stream(self, step: Converse, session: LiveSession, pair: Pair) -> Converse:
        spec = step.agent
        if spec.stream is None:
            return step
        names = replace(
            spec.stream,
            account_sid=pair.account_sid,
            call_sid=call_sid(session.attempt),
            stream_sid=f"MZ{secrets.token_hex(16)}",
        )
        return replace(step, agent=replace(spec, stream=names, headers=self._sign(pair.auth_token, spec.url, ())))

    async def _route(self, route: RouteTo, account: str, parties: Sequence[str]) -> RouteTo:
        number = route.number
        if is_sip_uri(number):
            found = self._sip_user(account, number)
            if found is None:
                raise FlowUnreadable(_BAD_NUMBER, "Dial: <Sip> must name a host of one of the account's trunks")
            # Several trunks may have an extension of one name: the host says which is meant.
            number = found if sum(char.isdigit() for char in found) > MOST_EXTENSION_DIGITS else number
        if route.caller is None:
            return replace(route, number=number)
        caller = e164(route.caller)
        known = caller in [e164(party) for party in parties]
        if caller is None or not (known or await self._owns(account, caller)):
            raise FlowUnreadable(_BAD_CALLER, "Dial: callerId must be a number of the account, or the caller's own")
        return replace(route, number=number, caller=caller)

    async def _owns(self, account: str, number: str) -> bool:
        found = await self._numbers.find_number(number)
        return found is not None and found.account == account

    async def _asked(self, question: AskNext, fields: Fields, pair: Pair) -> tuple[Action, ...]:
        outcome = await self._http.send(signed_request(question.url, question.method, fields, pair, self._sign))
        if isinstance(outcome, HttpFailure):
            raise FlowUnreadable(_HTTP_FAILED, f"the address could not be asked: {outcome.reason}: {outcome.detail}")
        if not 200 <= outcome.status < 300:
            raise FlowUnreadable(_HTTP_FAILED, f"the address answered HTTP {outcome.status}")
        if outcome.truncated:
            raise FlowUnreadable(_HTTP_FAILED, "the answer is longer than 64 KiB")
        kind = outcome.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("audio/"):
            return (PlaySound(question.url),)
        if kind == "text/plain" and not outcome.body.lstrip().startswith(b"<"):
            return (Say(outcome.body.decode("utf-8", "replace")),)
        if kind not in (*_TEXT, "text/plain"):
            raise FlowUnreadable(_NOT_TWIML, f"the answer's Content-Type is {kind[:60]}; send text/xml")
        return self._read(outcome.body, question.url)


def trunk_user(addresses: Iterable[str], uri: str) -> str | None:
    """The user of a SIP URI whose host is that of one of these trunk addresses; None for any other: nobody else is dialled."""
    try:
        wanted = SipUri.parse(uri)
        hosts = {SipUri.parse(address).host.lower() for address in addresses}
    except GrammarError:
        return None
    return wanted.user if wanted.user and wanted.host.lower() in hosts else None


def parties(session: LiveSession) -> tuple[str, str]:
    """The numbers of a call: either may be shown to whom it is put through to."""
    return session.attempt.caller, session.attempt.called


def signed_request(url: str, method: str, fields: Fields, pair: Pair, sign: Sign, timeout_s: float = TIMEOUT_S) -> HttpRequest:
    """A request of ours to the customer, as Twilio makes them: a form, or a query with GET."""
    if method == "GET":
        parts = urlsplit(url)
        query = "&".join(piece for piece in (parts.query, urlencode(fields)) if piece)
        url = urlunsplit(parts._replace(query=query, fragment=""))
        headers = {"Accept": "*/*", **sign(pair.auth_token, url, ())}
        return HttpRequest(url, b"", headers, method, timeout_s, REPLY_BYTES, retry_unsent=True)
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Accept": "*/*"}
    headers |= sign(pair.auth_token, url, fields)
    return HttpRequest(url, urlencode(fields).encode(), headers, method, timeout_s, REPLY_BYTES, retry_unsent=True)


def form_of(view: CallView, account_sid: str, status: str = "") -> list[tuple[str, str]]:
    """What Twilio tells with each request about a call (contract §4.1); `status` is a word that only requests know."""
    attempt = view.attempt
    caller, called = shown_number(attempt.caller), shown_number(attempt.called)
    fields = [
        ("CallSid", call_sid(attempt)),
        ("AccountSid", account_sid),
        ("From", caller),
        ("To", called),
        ("Caller", caller),
        ("Called", called),
        ("CallStatus", status or view.status.value),
        ("ApiVersion", API_VERSION),
        ("Direction", direction_of(attempt)),
    ]
    return fields + ([("CallerName", attempt.caller_name)] if attempt.caller_name else [])


def direction_of(attempt: CallAttempt) -> str:
    """Twilio's word for it."""
    return "inbound" if attempt.direction is Direction.INBOUND else "outbound-api"


def _dial_fields(attempt: CallAttempt, dialled: TransferRecord | None) -> list[tuple[str, str]]:
    if dialled is None:
        return []
    talked = dialled.connected_at
    seconds = 0 if talked is None else max(0, round((dialled.ended_at - talked).total_seconds()))
    fields = [
        ("DialCallStatus", _DIAL_STATUS.get(dialled.result, "failed")),
        ("DialCallSid", sid_of(CallId(f"{attempt.call_id} {dialled.started_at.isoformat()}"))),
        ("DialBridged", "true" if talked is not None else "false"),
    ]
    return fields + ([("DialCallDuration", str(seconds))] if talked is not None else [])

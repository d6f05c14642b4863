"""A customer's backend reads and steers its calls: hang up, redirect, list (contract `vns-veevo` §2.4, §4.5).

Who may do so proves it by the account's own Twilio pair, which sees all calls of the account, or by the pair that the start
webhook of a live call gave, for the calls that gave it. Of such pairs nothing but a keyed digest outlives the call.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from switchhook.domain.call_sid import call_sid, sid_of
from switchhook.domain.model import CallId, Direction
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.phone import e164, national
from switchhook.domain.plan import Action, AskNext
from switchhook.domain.ports import Clock
from switchhook.domain.records import CallRecord, CallSearch, TwilioCredentials
from switchhook.usecases.next_flows import NextFlowDesk, parties
from switchhook.usecases.steered import (
    LIVE,
    NO_SUCH_CALL,
    NOT_IN_PROGRESS,
    REASONS,
    Board,
    CallStatus,
    CallView,
    LiveSession,
    Pair,
    Principal,
    SteeringRefused,
    status_of_live,
    view_of,
    view_of_record,
)

REMEMBERED_S = 3600.0
"""A pair that was used during its call may read it for so long afterwards."""
REMEMBERED = 4096
"""Such pairs at one time; the one that was longest unused goes first."""
_HUNG_UP = "hung-up-by-backend"

AccountPairs = Callable[[], Mapping[str, TwilioCredentials]]
"""Account → its configured pair."""


class CallReading(Protocol):
    """Reads records of calls."""

    async def get(self, call_id: CallId) -> CallRecord | None:
        """The record of a call. Raises StoreUnavailable."""


class CallSearching(Protocol):
    """Finds records of calls."""

    async def search(self, wanted: CallSearch) -> Sequence[CallRecord]:
        """Newest first. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls are to be listed; what is None does not matter."""

    limit: int
    status: CallStatus | None = None
    called: str | None = None
    caller: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, str] | None = None


class LiveCalls:
    """What may be asked of calls. Every method that waits may raise StoreUnavailable and SteeringRefused."""

    def __init__(
        self, board: Board, calls: CallReading, searches: CallSearching, flows: NextFlowDesk, pairs: AccountPairs, clock: Clock
    ) -> None:
        self._board = board
        self._calls = calls
        self._searches = searches
        self._flows = flows
        self._pairs = pairs
        self._clock = clock
        self._key = os.urandom(32)
        self._used: OrderedDict[bytes, tuple[float, str, frozenset[CallId]]] = OrderedDict()
        flows.attach(board, self.pair_of)

    # -- who asks -------------------------------------------------------------------------------

    def principal(self, account_sid: str, auth_token: str) -> Principal | None:
        """Who proves itself by this pair."""
        pair = Pair(account_sid, auth_token)
        for account, configured in self._pairs().items():
            if _same(pair, configured.account_sid, configured.auth_token):
                return Principal(account, pair)
        found = [session for session in self._board.sessions() if _gave(session, pair)]
        return self._remember(pair, found) if found else self._remembered(pair)

    def pair_of(self, session: LiveSession) -> Pair | None:
        """What a call's requests to the customer are signed with: its own pair, or else the account's."""
        own = session.plan.carrier_credentials if session.plan is not None else None
        if own is not None:
            return Pair(own.account_sid, own.auth_token)
        configured = self._pairs().get(session.account)
        return None if configured is None else Pair(configured.account_sid, configured.auth_token)

    def _remember(self, pair: Pair, found: Sequence[LiveSession]) -> Principal:
        digest, now = self._digest(pair), self._clock.now()
        account = found[0].account
        calls = frozenset(session.attempt.call_id for session in found if session.account == account)
        _, before_account, before = self._used.pop(digest, (0.0, account, frozenset[CallId]()))
        if before_account == account:
            calls |= before
        self._used[digest] = (now + REMEMBERED_S, account, calls)
        while len(self._used) > REMEMBERED:
            self._used.popitem(last=False)
        return Principal(account, pair, calls)

    def _remembered(self, pair: Pair) -> Principal | None:
        until, account, calls = self._used.get(self._digest(pair), (0.0, "", frozenset[CallId]()))
        return Principal(account, pair, calls) if self._clock.now() < until else None

    def _digest(self, pair: Pair) -> bytes:
        return hmac.digest(self._key, f"{pair.account_sid}:{pair.auth_token}".encode("utf-8", "replace"), hashlib.sha256)

    # -- reading --------------------------------------------------------------------------------

    def live(self, who: Principal, sid: str) -> LiveSession | None:
        """A live call of this one's."""
        for session in self._board.sessions():
            if who.may_see(session.attempt.call_id, session.account) and call_sid(session.attempt) == sid:
                return session
        return None

    async def call(self, who: Principal, sid: str) -> CallView:
        """A call, live or over."""
        session = self.live(who, sid)
        if session is not None:
            return view_of(session)
        call_id = call_id_of(sid)
        record = await self._calls.get(call_id) if call_id is not None else None
        if record is None:
            found = await self._searches.search(CallSearch(who.account, 1, who.calls, twilio_sid=sid))
            record = found[0] if found else None
        if record is None or not who.may_see(record.attempt.call_id, record.account):
            raise SteeringRefused(404, NO_SUCH_CALL, f"The requested resource /Calls/{sid} was not found")
        return view_of_record(record)

    async def sid_of_call(self, who: Principal, call_id: CallId) -> str | None:
        """What a call is called, by our id of it; None: it is none of this one's."""
        found = self._board.find(call_id) or await self._calls.get(call_id)
        return call_sid(found.attempt) if found is not None and who.may_see(call_id, found.account) else None

    async def calls(self, who: Principal, query: CallQuery) -> Sequence[CallView]:
        """At most `limit` calls, newest first."""
        if query.status in LIVE:
            return self._live_ones(who, query)
        found = await self._searches.search(_search(who, query))
        views = []
        for record in found:
            session = self._board.find(record.attempt.call_id)
            views.append(view_of_record(record) if session is None else view_of(session))
        return views

    def _live_ones(self, who: Principal, query: CallQuery) -> Sequence[CallView]:
        """Few enough for one page."""
        if query.after is not None:
            return []
        called, caller = _forms(query.called), _forms(query.caller)
        found = [
            view_of(session)
            for session in self._board.sessions()
            if who.may_see(session.attempt.call_id, session.account)
            and status_of_live(session) is query.status
            and (called is None or session.attempt.called in called)
            and (caller is None or session.attempt.caller in caller)
            and (query.since is None or session.attempt.started_at >= query.since)
            and (query.until is None or session.attempt.started_at < query.until)
        ]
        found.sort(key=lambda view: view.attempt.started_at, reverse=True)
        return found[: query.limit]

    # -- steering -------------------------------------------------------------------------------

    async def hang_up(self, who: Principal, sid: str, only_unanswered: bool = False) -> CallView:
        """End a live call; `only_unanswered`: a call that was answered goes on."""
        session = self.live(who, sid)
        if session is None:
            await self.call(who, sid)
            raise not_in_progress("Cannot hang up")
        if session.connected_at is None:
            ending = Ending.ABANDONED if session.attempt.direction is Direction.INBOUND else Ending.COMPLETED
            session.stop(Verdict(ending, "cancelled", "The customer's backend gave the call up"))
            status = CallStatus.CANCELED
        elif only_unanswered:
            return view_of(session)
        else:
            session.stop(Verdict(Ending.COMPLETED, _HUNG_UP, "The customer's backend hung up"))
            status = CallStatus.COMPLETED
        return replace(view_of(session), status=status, ended_at=self._clock.utc())

    async def redirect(self, who: Principal, sid: str, twiml: bytes | None, question: AskNext | None) -> CallView:
        """Let a live call go on with a flow that is given as text, or with what an address answers."""
        session = self.live(who, sid)
        if session is None:
            await self.call(who, sid)
        if session is None or not session.in_progress:
            raise not_in_progress("Cannot redirect")
        flow: tuple[Action, ...] = (question,) if question is not None else ()
        if twiml is not None:
            checked = await self._flows.checked(self._flows.read(twiml), session.account, parties(session))
            flow = self._flows.addressed(checked, session)
        if not session.in_progress:
            raise not_in_progress("Cannot redirect")
        session.redirect(flow)
        return view_of(session)


def not_in_progress(what: str) -> SteeringRefused:
    """Of a call that is not answered yet, or over."""
    return SteeringRefused(400, NOT_IN_PROGRESS, f"Call is not in-progress. {what}.")


def call_id_of(sid: str) -> CallId | None:
    """Our id in a name that was made from it; None for a name that was made otherwise."""
    digits = sid.removeprefix("CA")
    call_id = CallId("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))
    return call_id if sid_of(call_id) == sid else None


def _gave(session: LiveSession, pair: Pair) -> bool:
    given = session.plan.carrier_credentials if session.plan is not None else None
    return given is not None and _same(pair, given.account_sid, given.auth_token)


def _same(pair: Pair, account_sid: str, auth_token: str) -> bool:
    fits = hmac.compare_digest(pair.auth_token.encode("utf-8", "replace"), auth_token.encode("utf-8", "replace"))
    return fits and bool(auth_token) and pair.account_sid == account_sid


def _search(who: Principal, query: CallQuery) -> CallSearch:
    search = CallSearch(
        who.account,
        query.limit,
        who.calls,
        _forms(query.called),
        _forms(query.caller),
        query.since,
        query.until,
        after=query.after,
    )
    if query.status is None:
        return search
    if query.status is CallStatus.COMPLETED:
        return replace(search, over=True, connected=True)
    if query.status is CallStatus.FAILED:
        known = tuple(reason for reasons in REASONS.values() for reason in reasons)
        return replace(search, over=True, connected=False, other_reasons=known)
    return replace(search, over=True, connected=False, reasons=REASONS[query.status])


def _forms(number: str | None) -> frozenset[str] | None:
    """How lines may have written a number."""
    if number is None:
        return None
    full = e164(number)
    return frozenset({number} if full is None else {number, full, full[1:], national(full)})

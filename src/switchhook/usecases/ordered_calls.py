"""Outbound calls that bring their own flow, and what their orderer is told of them (contract `vns-veevo` §4.5)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from typing import Any, Protocol

from switchhook.calls.steering import Moment, OrderedCall
from switchhook.domain.contract import Http, HttpFailure
from switchhook.domain.model import CallAttempt
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.phone import e164
from switchhook.domain.plan import Action, Answer, AskNext, CallPlan, Converse, PressKeys, RecordingSpec
from switchhook.domain.ports import Clock
from switchhook.domain.records import CallRecord
from switchhook.domain.report import CallReport
from switchhook.usecases.next_flows import NextFlowDesk, Sign, form_of, signed_request
from switchhook.usecases.outgoing import CallOrder, NotPlaced, Outgoing, Unplaced
from switchhook.usecases.repositories import NumberFinder
from switchhook.usecases.steered import (
    Board,
    CallStatus,
    CallView,
    Principal,
    SteeringRefused,
    status_of_end,
    view_of,
)

log = logging.getLogger(__name__)

EVENTS = ("initiated", "ringing", "answered", "completed")
_NOT_OURS, _BAD_NUMBER, _NOT_ALLOWED, _TOO_MANY, _UNAVAILABLE = 21210, 21211, 21215, 20429, 20503
_MOMENTS = {
    Moment.RINGING: ("ringing", CallStatus.RINGING),
    Moment.ANSWERED: ("answered", CallStatus.IN_PROGRESS),
    Moment.OVER: ("completed", CallStatus.COMPLETED),
}


@dataclass(frozen=True, slots=True)
class StatusCallback:
    """Where an orderer wants to be told how its call goes."""

    url: str = field(repr=False)
    method: str = "POST"
    events: frozenset[str] = frozenset({"completed"})


@dataclass(frozen=True, slots=True)
class OutboundOrder:
    """A call to be placed."""

    called: str
    caller: str
    """A number of the account."""
    twiml: bytes | None = field(default=None, repr=False)
    question: AskNext | None = None
    """Asked when the party is there; this or `twiml`."""
    keys: str = field(default="", repr=False)
    """Sent first."""
    ring_s: float = 60.0
    talk_s: float = 14_400.0
    recording: RecordingSpec | None = None
    told: StatusCallback | None = None


class CallBeginning(Protocol):
    """Writes live calls down."""

    async def begin(self, record: CallRecord) -> None:
        """It is committed on return. Raises StoreUnavailable."""


class OrderedCalls:
    """Places calls."""

    def __init__(
        self,
        outgoing: Outgoing,
        board: Board,
        stores: tuple[NumberFinder, CallBeginning],
        flows: NextFlowDesk,
        telling: Telling,
    ) -> None:
        self._outgoing = outgoing
        self._board = board
        self._numbers, self._calls = stores
        self._flows = flows
        self._telling = telling

    async def place(self, who: Principal, order: OutboundOrder) -> CallView:
        """Begin the call. Raises SteeringRefused, StoreUnavailable."""
        caller = e164(order.caller)
        number = await self._numbers.find_number(caller) if caller else None
        if number is None or number.account != who.account:
            raise SteeringRefused(400, _NOT_OURS, "From: is no number of this account; give one that is configured")
        if e164(order.called) is None:
            raise SteeringRefused(400, _BAD_NUMBER, "To: is no telephone number; write it in E.164: +17205551212")
        following = Teller(order.told, who, self._telling)
        plan = CallPlan(
            number,
            await self._flow(order, who),
            max_seconds=order.talk_s,
            max_seconds_cover_transfers=True,
            ring_s=order.ring_s,
            recording=order.recording,
            end_webhook_owed=False,
        )
        ordered = OrderedCall(plan, following.moment)
        placed = await self._outgoing.place(CallOrder(who.account, order.called, number.number), ordered)
        if isinstance(placed, NotPlaced):
            raise _refusal(placed)
        session = self._board.find(placed.call_id)
        assert session is not None  # it was placed this instant
        view = view_of(session)
        try:
            # Written down like a call that a contract routes; nothing is owed for it after a crash.
            await self._calls.begin(CallRecord(view.attempt, who.account, number.number, number.contract))
            following.begin(view.attempt, ordered)
        except BaseException:
            # Its orderer is told to try again, or has gone: two calls would come of it.
            session.stop(Verdict(Ending.INTERNAL_ERROR, "store-unavailable", "The call could not be written down"))
            raise
        finally:
            ordered.written.set()
        return replace(view, status=CallStatus.QUEUED)

    async def _flow(self, order: OutboundOrder, who: Principal) -> tuple[Action, ...]:
        steps: tuple[Action, ...] = (order.question,) if order.question is not None else ()
        if order.twiml is not None:
            steps = await self._flows.checked(self._flows.read(order.twiml), who.account, (order.called,))
            if any(isinstance(step, Converse) for step in steps):
                raise SteeringRefused(400, 12200, "Twiml: <Connect> needs a call that has its name already; give Url instead")
        keys: tuple[Action, ...] = (PressKeys(order.keys),) if order.keys else ()
        return (Answer(), *keys, *steps)


@dataclass(frozen=True, slots=True)
class Telling:
    """How status callbacks leave."""

    http: Http
    sign: Sign
    clock: Clock
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    """Keeps a coroutine alive until it is done."""


class Teller:
    """Posts the moments of one call, one after another: the next one waits until `http` has delivered the last or given it up."""

    def __init__(self, wanted: StatusCallback | None, who: Principal, telling: Telling) -> None:
        self._wanted = wanted
        self._pair = who.pair
        self._telling = telling
        self._turn = asyncio.Lock()
        self._attempt: CallAttempt | None = None
        self._ordered: OrderedCall | None = None
        self._count = 0

    def begin(self, attempt: CallAttempt, ordered: OrderedCall) -> None:
        """The call has its name."""
        self._attempt, self._ordered = attempt, ordered
        self._tell("initiated", CallView(attempt, CallStatus.QUEUED, None), {})

    def moment(self, moment: Moment, report: CallReport | None) -> None:
        """Something has happened."""
        if self._attempt is None:
            return
        event, status = _MOMENTS[moment]
        extra: dict[str, str] = {}
        if report is not None:
            status = status_of_end(report.connected_at, report.verdict.reason)
            seconds = 0.0
            if report.connected_at is not None:
                seconds = (report.ended_at - report.connected_at).total_seconds()
            extra = {"CallDuration": str(round(seconds)), "Duration": str(math.ceil(round(seconds) / 60))}
            if self._ordered is not None and self._ordered.sip_status is not None:
                extra["SipResponseCode"] = str(self._ordered.sip_status)
        self._tell(event, CallView(self._attempt, status, None), extra)

    def _tell(self, event: str, view: CallView, extra: Mapping[str, str]) -> None:
        wanted = self._wanted
        if wanted is None or event not in wanted.events:
            return
        fields = [
            # The call's resource says `queued` all the while that its callbacks tell `initiated`.
            *form_of(view, self._pair.account_sid, event if event == "initiated" else ""),
            *extra.items(),
            ("SequenceNumber", str(self._count)),
            ("CallbackSource", "call-progress-events"),
            ("Timestamp", format_datetime(self._telling.clock.utc())),
        ]
        self._count += 1
        self._telling.spawn(self._post(wanted, fields))

    async def _post(self, wanted: StatusCallback, fields: list[tuple[str, str]]) -> None:
        async with self._turn:
            request = signed_request(wanted.url, wanted.method, fields, self._pair, self._telling.sign)
            outcome = await self._telling.http.send(request)
        if isinstance(outcome, HttpFailure):
            log.warning("a status callback was not delivered: %s: %s", outcome.reason, outcome.detail)
        elif not 200 <= outcome.status < 300:
            log.warning("a status callback was answered HTTP %s", outcome.status)


def _refusal(placed: NotPlaced) -> SteeringRefused:
    # The use case names the fields of another contract.
    field_name, _, rest = placed.message.partition(": ")
    names = {"callerId": "From", "calledNumber": "To"}
    message = f"{names[field_name]}: {rest}" if field_name in names else placed.message
    if placed.why is Unplaced.TOO_MANY:
        return SteeringRefused(429, _TOO_MANY, message)
    if placed.why is Unplaced.UNAVAILABLE:
        return SteeringRefused(503, _UNAVAILABLE, message)
    return SteeringRefused(400, _NOT_ALLOWED, message)

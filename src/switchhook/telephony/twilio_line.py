"""Calls that a carrier with Twilio's interface carries: who rings, whom we dial, and which leg a webhook or a stream is about.

The doors (`api.twilio.voice_routes` for HTTP, `telephony.twilio_media` for streams) hand in what the carrier says once its
signature was checked; the legs decide; what they ask of the carrier goes out as TwiML or over REST.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import CallAttempt, CallId, Direction
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import CallPlan, Refusal
from switchhook.domain.ports import Clock, Leg, OfferedLeg
from switchhook.domain.records import TWILIO_URL, TwilioCredentials
from switchhook.telephony.twilio_carrier import MAX_TALK_S, CarriedCall, Places
from switchhook.telephony.twilio_leg import TwilioLeg
from switchhook.telephony.twilio_legs import TwilioLegs
from switchhook.telephony.twilio_rest import Accepted, NewCall, Refused, RestOutcome, TwilioRest
from switchhook.telephony.wire import twiml

logger = logging.getLogger(__name__)

DECIDE_S = 14.0
"""Twilio gives a voice webhook up after 15 s."""
FORGET_S = 60.0
"""So long a finished call is known, for webhooks that come late or again."""
_ANSWERED = ("in-progress", "answered")
_FINAL = ("completed", "busy", "no-answer", "failed", "canceled")
_CALLER_REFUSED = (21210, 21212, 21213)
"""`From` is no number that Twilio lets this account show."""
_NO_PLACES = (
    "Twilio cannot reach this server: set SWITCHHOOK_PUBLIC_URL (https://…) and SWITCHHOOK_PUBLIC_MEDIA_URL (wss://…) to how it "
    "is reached from outside"
)

Prove = Callable[[str], bool]
"""Whether the request that began a call was signed with this auth token."""
CredentialsOf = Callable[[str], TwilioCredentials | None]
"""Account → what it has configured."""
Offer = Callable[[CallAttempt, OfferedLeg], None]


@dataclass(frozen=True, slots=True)
class LineParts:
    """What the line is made with."""

    rest: TwilioRest
    legs: TwilioLegs
    places: Places | None
    """None: we do not know how we are reached."""
    credentials_of: CredentialsOf
    clock: Clock
    new_call_id: Callable[[], CallId]
    rest_url: str = TWILIO_URL
    """The REST API of calls whose credentials come with the call."""


class TwilioLine:
    """Implements `domain.ports.Dialer` and the HTTP door's `TwilioCalls`."""

    def __init__(self, parts: LineParts, offer: Offer) -> None:
        self._parts = parts
        self._offer = offer
        self._loop = asyncio.get_running_loop()
        self._by_stream: dict[str, CarriedCall] = {}
        self._by_sid: dict[str, CarriedCall] = {}
        self._by_call: dict[CallId, CarriedCall] = {}
        """The offered ones alone."""
        self._forgetting: set[asyncio.TimerHandle] = set()
        # Orders over REST return at once; what carries them out is owned here until `close`.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> int:
        """Calls that are known, those included that ended a moment ago."""
        return len(self._by_stream)

    async def close(self) -> None:
        """Give up what is under way towards the carrier; idempotent."""
        for handle in self._forgetting:
            handle.cancel()
        self._forgetting.clear()
        if self._tasks:  # a last hang-up may be on its way
            await asyncio.wait(set(self._tasks), timeout=2.0)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stream_tokens(self) -> set[str]:
        """Auth tokens that the handshake of a stream may be signed with at this moment."""
        return {call.credentials.auth_token for call in self._by_stream.values() if call.credentials is not None}

    # -- the HTTP door --------------------------------------------------------------------------

    async def voice(self, form: Mapping[str, str], number: str, account: str | None, prove: Prove | None) -> str | None:
        """A call rings at our `number`: the TwiML that answers or refuses it. None: it was forged. Asked again about the same
        call, the answer is the same."""
        call = self._by_sid.get(form["CallSid"])
        if call is None:
            known = self._parts.credentials_of(account) if account is not None and prove is None else None
            call = self._begin(form, number, known, prove)
        try:
            async with asyncio.timeout(DECIDE_S):
                await call.decided.wait()
        except TimeoutError:
            call.decide()
            call.leg.on_failed("line-failed", f"the call was not decided on within {DECIDE_S:g} s")
        if call.forged or (prove is not None and call.credentials and not prove(call.credentials.auth_token)):
            return None
        return call.reply

    def status(self, form: Mapping[str, str]) -> None:
        """CallStatus of a call."""
        call = self._find(form)
        if call is None:
            return
        sip_code = form.get("SipResponseCode", "")
        self._know_sid(call, form.get("CallSid", ""))
        call.in_progress = call.in_progress or form.get("CallStatus") in _ANSWERED
        call.leg.on_status(form.get("CallStatus", ""), int(sip_code) if _is_sip_code(sip_code) else None)

    def dial_answered(self, form: Mapping[str, str]) -> None:
        """Whom a `<Dial>` called has answered."""
        call = self._find(form)
        if call is not None and form.get("CallStatus") in _ANSWERED:
            call.leg.on_dial_answered()

    def dial_over(self, form: Mapping[str, str]) -> str:
        """A `<Dial>` is over: its caller comes back on a new stream, or is hung up."""
        call = self._find(form)
        if call is None or self._parts.places is None:
            return twiml.hang_up()
        if form.get("CallStatus") in _FINAL:
            call.leg.on_status(form["CallStatus"])
        if call.leg.recalled:
            return twiml.wait()
        if call.leg.on_dial_over(form.get("DialCallStatus", "")):
            return twiml.connect_stream(self._parts.places.stream, call.leg.stream_id)
        return twiml.hang_up()

    def auth_token_of(self, leg: str, call_sid: str) -> str | None:
        """What a call's requests are signed with; empty for one that nothing proves. None: that of its Twilio account."""
        call = self._by_stream.get(leg) or self._by_sid.get(call_sid)
        if call is None:
            return None
        if call.credentials is not None:
            return call.credentials.auth_token
        return "" if call.forged or call.prove is not None else None

    # -- the call core --------------------------------------------------------------------------

    def dial(self, request: DialRequest) -> Leg:
        """Begin at once; the leg ends as `trunk-failed` when the carrier does not take the call."""
        beside = self._by_call.get(request.call_id)
        credentials = (beside and beside.credentials) or self._parts.credentials_of(request.account)
        call = self._carry(credentials, request.ring_s, "")
        self._spawn(self._place(call, request, beside.number if beside is not None else ""))
        return call.leg

    def can_dial(self, request: DialRequest) -> bool:
        """Whether there are credentials for it, and the destination is a telephone number."""
        if not request.called.startswith("+"):
            return False
        beside = self._by_call.get(request.call_id)
        return bool(beside and beside.credentials) or self.serves(request.account)

    def serves(self, account: str) -> bool:
        """Whether the account can place calls here."""
        return self._parts.places is not None and self._parts.credentials_of(account) is not None

    def carries(self, call_id: CallId) -> bool:
        """Whether this call came in here."""
        return call_id in self._by_call

    def prove(self, attempt: CallAttempt, plan: CallPlan) -> CallPlan | Refusal:
        """The plan, once what it brings proves the call to be the carrier's (contract §2.8); otherwise a refusal."""
        call = self._by_call.get(attempt.call_id)
        if call is None:
            return plan
        given = plan.carrier_credentials
        if given is not None:
            call.credentials = TwilioCredentials(given.account_sid, given.auth_token, self._parts.rest_url)
        prove, call.prove = call.prove, None
        if prove is None or (given is not None and prove(given.auth_token)):
            return plan
        call.forged = True
        why = "Nothing proves that the call comes from Twilio: its signature does not fit the auth token that CallStart gave"
        return Refusal(403, Ending.REJECTED, "signature-invalid", plan.number, message=why)

    # -- inside ---------------------------------------------------------------------------------

    def _begin(
        self, form: Mapping[str, str], number: str, credentials: TwilioCredentials | None, prove: Prove | None
    ) -> CarriedCall:
        ours_is_from = form.get("Direction", "").startswith("outbound")
        attempt = CallAttempt(
            call_id=self._parts.new_call_id(),
            direction=Direction.INBOUND,
            called=number,
            caller=form.get("To" if ours_is_from else "From", ""),
            caller_name=form.get("CallerName") or None,
            account=None,
            line="twilio",
            started_at=self._parts.clock.utc(),
            line_call_id=form["CallSid"],
        )
        call = self._carry(credentials, None, form["CallSid"])
        call.prove, call.number = prove, number
        self._by_sid[call.leg.call_sid] = call
        self._by_call[attempt.call_id] = call
        call.call_id = attempt.call_id
        if self._parts.places is None:
            logger.error("a call over Twilio is refused. %s", _NO_PLACES)
            call.reject("rejected")
            call.leg.on_failed("line-failed", _NO_PLACES)
        else:
            self._offer(attempt, call.leg)
        return call

    def _carry(self, credentials: TwilioCredentials | None, ring_s: float | None, call_sid: str) -> CarriedCall:
        call = CarriedCall(self._parts.rest, self._parts.places, self._spawn, credentials)
        legs = self._parts.legs
        call.leg = legs.offered(call, call_sid) if ring_s is None else legs.dialled(call, ring_s)
        registered = call.leg.on_over

        def over(leg: TwilioLeg) -> None:
            if registered is not None:
                registered(leg)
            self._forget_soon(call)

        call.leg.on_over = over
        self._by_stream[call.leg.stream_id] = call
        return call

    async def _place(self, call: CarriedCall, request: DialRequest, own_number: str) -> None:
        outcome = await self._create(call, request, request.caller)
        if isinstance(outcome, Refused) and outcome.code in _CALLER_REFUSED and own_number not in ("", request.caller):
            logger.info("twilio: the caller's own number may not be shown; ours is", extra={"call_id": request.call_id})
            outcome = await self._create(call, request, own_number)
        if isinstance(outcome, Accepted):
            self._know_sid(call, outcome.call_sid)
            call.placed()
        else:
            call.leg.on_failed("trunk-failed", str(outcome))

    async def _create(self, call: CarriedCall, request: DialRequest, caller: str) -> RestOutcome | str:
        credentials, places = call.credentials, self._parts.places
        if credentials is None:
            return f"account {request.account} has no Twilio credentials: add twilio: {{account_sid, auth_token}} to it"
        if places is None:
            return _NO_PLACES
        stream = call.leg.stream_id
        return await self._parts.rest.create_call(
            credentials,
            NewCall(
                request.called,
                caller,
                twiml.connect_stream(places.stream, stream),
                places.status(stream),
                max(1, round(request.ring_s)),
                MAX_TALK_S,
            ),
        )

    def _know_sid(self, call: CarriedCall, call_sid: str) -> None:
        if call_sid and not call.leg.call_sid:
            call.leg.call_sid = call_sid
            self._by_sid[call_sid] = call

    def _find(self, form: Mapping[str, str]) -> CarriedCall | None:
        return self._by_stream.get(form.get("leg", "")) or self._by_sid.get(form.get("CallSid", ""))

    def _forget_soon(self, call: CarriedCall) -> None:
        call.decide()
        if call.call_id is not None:
            self._by_call.pop(call.call_id, None)

        def forget() -> None:
            self._forgetting.discard(handle)
            self._by_stream.pop(call.leg.stream_id, None)
            self._by_sid.pop(call.leg.call_sid, None)

        handle = self._loop.call_later(FORGET_S, forget)
        self._forgetting.add(handle)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_sip_code(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit()

"""Which kind of line an outgoing call takes."""

from __future__ import annotations

from collections.abc import Callable

from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import CallAttempt
from switchhook.domain.plan import CallPlan, Refusal
from switchhook.domain.ports import CallRouting, Dialer, Leg
from switchhook.telephony.twilio_line import TwilioLine


class LineDialer:
    """Implements `domain.ports.Dialer`: SIP where the account has a trunk, else Twilio; what belongs to a call that came over
    Twilio goes over Twilio."""

    def __init__(self, sip: Dialer, twilio: TwilioLine, has_trunk: Callable[[str], bool]) -> None:
        self._sip = sip
        self._twilio = twilio
        self._has_trunk = has_trunk

    def dial(self, request: DialRequest) -> Leg:
        """Begin at once."""
        here = self._twilio.carries(request.call_id) or not self._has_trunk(request.account)
        line: Dialer = self._twilio if here and self._twilio.can_dial(request) else self._sip
        return line.dial(request)

    def line_of(self, account: str) -> str | None:
        """The kind of line that an outbound call of the account takes; None: it has none."""
        if self._has_trunk(account):
            return "sip"
        return "twilio" if self._twilio.serves(account) else None


class ProvenRouting:
    """Implements `domain.ports.CallRouting` around another one: a call over Twilio that nothing has proven goes no further than
    to its start webhook, whose reply brings the proof (contract `vns-veevo` §2.8)."""

    def __init__(self, routing: CallRouting, twilio: TwilioLine) -> None:
        self._routing = routing
        self._twilio = twilio

    async def route(self, attempt: CallAttempt) -> CallPlan | Refusal:
        """As the routing inside decides. Never raises but for cancellation."""
        decision = await self._routing.route(attempt)
        if attempt.line != "twilio" or isinstance(decision, Refusal):
            return decision
        return self._twilio.prove(attempt, decision)

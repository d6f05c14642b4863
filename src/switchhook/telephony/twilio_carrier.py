"""One call's orders to its carrier: the TwiML that its webhooks are answered with, and what goes over REST."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from switchhook.domain.model import CallId
from switchhook.domain.records import TwilioCredentials
from switchhook.telephony.twilio_leg import TwilioLeg
from switchhook.telephony.twilio_rest import Accepted, Gone, RestOutcome, TwilioRest
from switchhook.telephony.wire import twiml

logger = logging.getLogger(__name__)

STREAM_PATH = "/twilio/media"
RING_S = (5, 600)
"""What Twilio takes as the `timeout` of a `<Dial>`."""
MAX_TALK_S = 4 * 3600
"""Twilio's own limit; the call core keeps a shorter one."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the carrier reaches us, without a slash at the end."""

    http: str
    """`https://voice.example.com`"""
    media: str
    """`wss://voice.example.com`"""

    @property
    def stream(self) -> str:
        """The media door."""
        return self.media + STREAM_PATH

    def status(self, stream_id: str) -> str:
        """Status callbacks of a call that we dial."""
        return f"{self.http}/twilio/status?leg={stream_id}"

    def dial(self, stream_id: str) -> str:
        """The `action` of a `<Dial>`."""
        return f"{self.http}/twilio/dial?leg={stream_id}"

    def dial_answered(self, stream_id: str) -> str:
        """The status callback of a `<Number>`."""
        return f"{self.http}/twilio/dial/answered?leg={stream_id}"


class CarriedCall:
    """Implements `twilio_leg.CarrierOrders` for one leg, and keeps what the line knows about the call."""

    leg: TwilioLeg

    def __init__(
        self,
        rest: TwilioRest,
        places: Places | None,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        credentials: TwilioCredentials | None,
    ) -> None:
        self.credentials = credentials
        self.call_id: CallId | None = None
        """Of an offered call."""
        self.number = ""
        """Ours, of an offered call."""
        self.prove: Callable[[str], bool] | None = None
        """Set: nothing has proven yet that the call is the carrier's."""
        self.forged = False
        self.in_progress = False
        """The carrier has answered it, or was told to."""
        self.decided = asyncio.Event()
        """`reply` is there."""
        self.reply = ""
        self._rest = rest
        self._places = places
        self._spawn = spawn
        self._given_up = False
        self._redirecting = asyncio.Lock()
        """The carrier is to get redirects in their order."""

    # -- twilio_leg.CarrierOrders ---------------------------------------------------------------

    def answer(self) -> None:
        """Answer the voice webhook with a stream."""
        assert self._places is not None  # without them nothing is offered
        self.in_progress = True
        self._decide(twiml.connect_stream(self._places.stream, self.leg.stream_id))

    def reject(self, reason: str) -> None:
        """Answer the voice webhook with `<Reject>`."""
        self._decide(twiml.reject(busy=reason == "busy"))

    def complete(self) -> None:
        """End the call over REST; one that is just being placed, as soon as its name is known."""
        self._given_up = True
        if self.leg.call_sid and self.credentials is not None:
            self._spawn(self._end(self.credentials))

    def redirect(self, target: str, ring_s: float) -> None:
        """Let the carrier dial."""
        if self.credentials is None or self._places is None:
            self.leg.on_redirect_failed()
            return
        stream = self.leg.stream_id
        order = twiml.Dial(
            target,
            self.leg.shown_caller,
            min(max(round(ring_s), RING_S[0]), RING_S[1]),
            MAX_TALK_S,
            self._places.dial(stream),
            self._places.dial_answered(stream),
        )
        self._spawn(self._redirect(self.credentials, twiml.dial(order), self.leg.on_redirect_failed))

    def recall(self) -> None:
        """Let the carrier bring its party back."""
        if self.credentials is None or self._places is None:
            self.leg.on_recall_failed()
            return
        back = twiml.connect_stream(self._places.stream, self.leg.stream_id)
        self._spawn(self._redirect(self.credentials, back, self.leg.on_recall_failed))

    # -- what the line tells --------------------------------------------------------------------

    def placed(self) -> None:
        """The call that we dial has a name now."""
        if self._given_up:
            self.complete()

    def decide(self) -> None:
        """No answer comes any more: whoever still waits for one is refused."""
        self._decide(twiml.reject(busy=False))

    # -- inside ---------------------------------------------------------------------------------

    def _decide(self, reply: str) -> None:
        if not self.decided.is_set():
            self.reply = reply
            self.decided.set()

    async def _end(self, credentials: TwilioCredentials) -> None:
        outcome = await self._rest.end_call(credentials, self.leg.call_sid, self.in_progress)
        if not isinstance(outcome, Accepted | Gone):
            self._complain("hang-up", outcome)

    async def _redirect(self, credentials: TwilioCredentials, order: str, failed: Callable[[], None]) -> None:
        async with self._redirecting:
            outcome = await self._rest.redirect(credentials, self.leg.call_sid, order)
        if not isinstance(outcome, Accepted):
            self._complain("transfer", outcome)
            failed()

    def _complain(self, what: str, outcome: RestOutcome) -> None:
        logger.warning("twilio: a %s failed: %s", what, outcome, extra={"call_sid": self.leg.call_sid})

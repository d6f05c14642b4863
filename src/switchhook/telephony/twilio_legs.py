"""The legs that a carrier with Twilio's interface carries, by the opaque ids that its streams name."""

from __future__ import annotations

import secrets

from switchhook.telephony.pacer import Pacer
from switchhook.telephony.twilio_leg import MEDIA_TIMEOUT_S, CarrierOrders, TwilioLeg


class TwilioLegs:
    """Makes legs and finds them again for the media door, as long as anything is owed to their carrier."""

    def __init__(self, pacer: Pacer, media_timeout_s: float = MEDIA_TIMEOUT_S) -> None:
        self._pacer = pacer
        self._media_timeout_s = media_timeout_s
        self._legs: dict[str, TwilioLeg] = {}

    def __len__(self) -> int:
        return len(self._legs)

    def offered(self, orders: CarrierOrders, call_sid: str) -> TwilioLeg:
        """A leg for a call that the voice webhook offers; the TwiML that answers it names its `stream_id`."""
        return self._make(orders, None, call_sid)

    def dialled(self, orders: CarrierOrders, ring_s: float) -> TwilioLeg:
        """A leg for a call that we place; set its `call_sid` when REST tells it. Its TwiML names its `stream_id`."""
        return self._make(orders, ring_s, "")

    def claim(self, stream_id: str, call_sid: str) -> TwilioLeg | None:
        """The leg whose stream says these; None when there is none, or it is another call's."""
        leg = self._legs.get(stream_id)
        return leg if leg is not None and leg.call_sid in ("", call_sid) else None

    def _make(self, orders: CarrierOrders, ring_s: float | None, call_sid: str) -> TwilioLeg:
        stream_id = secrets.token_urlsafe(18)
        leg = TwilioLeg(orders, self._pacer, self._media_timeout_s, ring_s, stream_id, call_sid)
        leg.on_over = self._forget
        self._legs[stream_id] = leg
        return leg

    def _forget(self, leg: TwilioLeg) -> None:
        self._legs.pop(leg.stream_id, None)

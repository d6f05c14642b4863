"""Reliable provisional responses as UAS (RFC 3262 §3): a 180 that is repeated until a PRACK acknowledges it."""

from __future__ import annotations

from switchhook.telephony.wire.sip.headers import RAck
from switchhook.telephony.wire.sip.message import Response
from switchhook.telephony.wire.sip.timers import Repeater, TimerValues


class ReliableProvisional:
    """The one reliable provisional response of a session. It carries no SDP, so a 200 need not wait for its PRACK."""

    def __init__(self, response: Response, rseq: int, cseq: int, values: TimerValues, now: float) -> None:
        self.response = response
        self._rseq = rseq
        self._cseq = cseq
        self._repeater: Repeater | None = Repeater(values, None, now)
        response.headers.set("Require", "100rel")
        response.headers.set("RSeq", str(rseq))

    @property
    def deadline(self) -> float | None:
        """When it is repeated, or given up."""
        return self._repeater.deadline if self._repeater else None

    def acknowledged_by(self, rack: RAck) -> bool:
        """Take a PRACK; False when it means another response (481)."""
        if (rack.rseq, rack.cseq.number, rack.cseq.method) != (self._rseq, self._cseq, "INVITE"):
            return False
        self._repeater = None
        return True

    def stop(self) -> None:
        """A final response was sent: no more repetition, while a late PRACK is still taken (RFC 3262 §3)."""
        self._repeater = None

    def given_up(self, now: float) -> bool:
        """Whether no PRACK came in 64*T1."""
        return self._repeater is not None and self._repeater.given_up(now)

    def again(self, now: float) -> bool:
        """Whether it is to be sent again."""
        return self._repeater is not None and self._repeater.again(now)

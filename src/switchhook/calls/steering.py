"""A call whose plan is there before it begins, and what its orderer is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from switchhook.domain.plan import CallPlan
from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, LegProgress
from switchhook.domain.report import CallReport


class Moment(Enum):
    """How far an ordered call has come."""

    RINGING = "ringing"
    ANSWERED = "answered"
    OVER = "over"


Told = Callable[[Moment, CallReport | None], None]
"""The report comes with OVER."""


@dataclass(slots=True)
class OrderedCall:
    """An outbound call with its plan; no contract is asked for one. Each moment is told once, in order."""

    plan: CallPlan
    told: Told
    written: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the call is written down, or given up because it cannot be: nobody is dialled before."""
    sip_status: int | None = None
    """The far side's final SIP answer to the call, once it is known."""
    _seen: set[Moment] = field(default_factory=set)

    async def route(self) -> CallPlan:
        """The plan, when it is time to dial."""
        await self.written.wait()
        return self.plan

    def leg_event(self, event: LegEvent) -> None:
        """The line that was dialled tells something."""
        if isinstance(event, LegAnswered):
            self.sip_status = 200
            self._tell(Moment.ANSWERED)
        elif isinstance(event, LegEnded):
            self.sip_status = self.sip_status or event.status
        elif isinstance(event, LegProgress) and Moment.ANSWERED not in self._seen:
            self._tell(Moment.RINGING)

    def over(self, report: CallReport) -> None:
        """The call is recorded."""
        self._tell(Moment.OVER, report)

    def _tell(self, moment: Moment, report: CallReport | None = None) -> None:
        if moment not in self._seen:
            self._seen.add(moment)
            self.told(moment, report)

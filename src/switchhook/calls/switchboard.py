"""Who is live: exact admission, the tasks of all calls, and the drain."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from switchhook.calls.moving import refuse
from switchhook.calls.parts import CallParts
from switchhook.calls.session import CallSession
from switchhook.calls.steering import OrderedCall
from switchhook.domain.dialling import DialPermit
from switchhook.domain.model import CallAttempt, CallId
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.ports import Leg, LegEvent, OfferedLeg
from switchhook.domain.report import CallReport

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
MOST_REFUSALS_IN_WRITING = 1000
"""Records of refused calls that may wait for the database; past that a refusal is counted, not recorded."""


class Switchboard:
    """Takes every call that a line offers, or refuses it: at most `max_calls` are live, and the live ones never notice."""

    def __init__(self, parts: CallParts, max_calls: int) -> None:
        self._parts = parts
        self._max_calls = max_calls
        self._live: dict[CallId, CallSession] = {}
        self._refusals_in_writing = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = asyncio.Event()
        self.draining = False
        self.counts: Counter[str] = Counter()

    @property
    def live(self) -> int:
        """Calls under way, from the INVITE to the written record."""
        return len(self._live)

    @property
    def max_calls(self) -> int:
        """The cap."""
        return self._max_calls

    async def run(self, ready: asyncio.Event) -> None:
        """Own the tasks of all calls until `close`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            ready.set()
            await self._closed.wait()

    def offer(self, attempt: CallAttempt, leg: OfferedLeg) -> None:
        """A line has a call. Decided at once: the slot is taken before anything else happens."""
        assert self._tasks is not None  # lines open after `run` began
        self.counts["offered"] += 1
        if self.draining or len(self._live) >= self._max_calls:
            self._refuse(attempt, leg)
            return
        self._begin(CallSession(attempt, leg, self._parts))

    def replace(self, attempt: CallAttempt, leg: OfferedLeg, replaced: Leg) -> None:
        """A line wants the place of another one (RFC 3891); the call goes on without a new record. It needs no slot."""
        session = next((session for session in self._live.values() if session.serves(replaced)), None)
        if session is None:
            refuse(leg, 481)
            self._write_down(attempt, Verdict(Ending.REJECTED, "line-refused-481", "The call that was to be replaced is over"))
        else:
            session.replace_line(leg, replaced)

    def place(self, attempt: CallAttempt, permit: DialPermit, ordered: OrderedCall | None = None) -> bool:
        """Begin an outbound call that the dialling policy allows; False when there is no room: the permit is then not used."""
        assert self._tasks is not None  # doors open after `run` began
        self.counts["placed"] += 1
        if self.draining or len(self._live) >= self._max_calls:
            self.counts["refused"] += 1
            return False
        self._begin(CallSession(attempt, None, self._parts, permit, ordered))
        return True

    def find(self, call_id: CallId) -> CallSession | None:
        """A live call."""
        return self._live.get(call_id)

    def sessions(self) -> Sequence[CallSession]:
        """The live calls, the oldest first."""
        return list(self._live.values())

    def _begin(self, session: CallSession) -> None:
        assert self._tasks is not None  # the callers looked
        self._live[session.attempt.call_id] = session
        self._idle.clear()
        self._tasks.create_task(self._run(session))

    async def drain(self, patience_s: float) -> None:
        """Refuse what comes, let live calls finish for `patience_s`, then end them in good order."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), patience_s)
        except TimeoutError:
            for session in list(self._live.values()):
                # Nobody on the call asked for its end: it is our failure, not work done (VNS status 5, contract §1.8).
                session.stop(Verdict(Ending.INTERNAL_ERROR, "server-draining", "The server was shut down during the call"))
            # Each session's own limits bound its end; this wait only has to be longer.
            try:
                await asyncio.wait_for(self._idle.wait(), 30)
            except TimeoutError:
                log.error("calls did not end", extra={"calls": len(self._live)})

    def close(self) -> None:
        """No further call will be offered; `run` ends with the last one."""
        self._closed.set()

    def figures(self) -> Mapping[str, int]:
        """Counters for the metrics."""
        return dict(self.counts)

    async def _run(self, session: CallSession) -> None:
        try:
            await session.run()
        except Exception:  # one call never ends the others
            log.exception("a call's session failed")
        finally:
            self.counts["ended"] += 1
            del self._live[session.attempt.call_id]
            session.forget()
            if not self._live:
                self._idle.set()

    def _refuse(self, attempt: CallAttempt, leg: OfferedLeg) -> None:
        self.counts["refused"] += 1
        leg.subscribe(_ignore)
        leg.reject(503, RETRY_AFTER_S)
        reason = "server-draining" if self.draining else "over-capacity"
        self._write_down(attempt, Verdict(Ending.REJECTED, reason, "No call slot is free"))

    def not_placed(self, attempt: CallAttempt, verdict: Verdict) -> None:
        """An outbound call was refused before it began; only its record is left to write."""
        self.counts["declined"] += 1
        self._write_down(attempt, verdict)

    def declined(self, attempt: CallAttempt, status: int, why: str) -> None:
        """A line refused a call by itself, because of how it was asked for; only its record is left to write."""
        self.counts["declined"] += 1
        self._write_down(attempt, Verdict(Ending.REJECTED, f"line-refused-{status}", why))

    def _write_down(self, attempt: CallAttempt, verdict: Verdict) -> None:
        if self._refusals_in_writing >= MOST_REFUSALS_IN_WRITING:
            self.counts["refused_unrecorded"] += 1
            return
        self._refusals_in_writing += 1
        assert self._tasks is not None
        self._tasks.create_task(self._record_refusal(attempt, verdict))

    async def _record_refusal(self, attempt: CallAttempt, verdict: Verdict) -> None:
        report = CallReport(attempt, None, verdict, connected_at=None, ended_at=self._parts.clock.utc())
        try:
            await self._parts.book.finish(report)
        except Exception:  # the refusal stands whether or not it could be written down
            log.exception("refused call could not be recorded")
        finally:
            self._refusals_in_writing -= 1


def _ignore(event: LegEvent) -> None:
    """A refused call's line has nothing to tell."""

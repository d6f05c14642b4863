"""Keeps the records of calls, and hands what each owes its customer to the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from switchhook.domain.contract import Contract, Http
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallAttempt, CallId
from switchhook.domain.money import PriceTable
from switchhook.domain.plan import CallPlan
from switchhook.domain.ports import Clock
from switchhook.domain.records import CallRecord, OutboxEvent
from switchhook.domain.report import CallReport
from switchhook.usecases.costs import call_costs
from switchhook.usecases.ending import end_event, final_record
from switchhook.usecases.journal import Journal
from switchhook.usecases.live_transcript import LiveTranscript
from switchhook.usecases.repositories import CallStore
from switchhook.usecases.tools import WebhookTools

logger = logging.getLogger(__name__)

PROGRESS_EVERY_S = 1.0
"""A crash loses what was said in this time."""
STORE_PAUSE_S = 1.0
"""After which pause a finished call looks again for a database that is away (writing waits by itself)."""


class CallBookkeeper:
    """Implements `domain.ports.CallBook`; `run` must be running while calls live.

    `queued` is told of each event once it is committed.
    """

    def __init__(
        self,
        calls: CallStore,
        contracts: Mapping[str, Contract],
        http: Http,
        clock: Clock,
        queued: Callable[[OutboxEvent], None],
        prices: PriceTable | None = None,
    ) -> None:
        self._calls = calls
        self._contracts = contracts
        self._http = http
        self._clock = clock
        self._queued = queued
        self._prices = prices if prices is not None else PriceTable()
        self._open: dict[CallId, Journal] = {}
        self._plans: dict[CallId, CallPlan] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Write the journals of live calls down every second, and own the tasks of live transcripts; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    await asyncio.sleep(PROGRESS_EVERY_S)
                    await self.flush()
            finally:
                self._tasks = None

    def open(self, attempt: CallAttempt, plan: CallPlan) -> Journal:
        """Begin writing an accepted call down."""
        journal = Journal(attempt.call_id, plan.journal, plan.customer_call_id or attempt.customer_call_id)
        contract = self._contracts[plan.number.contract]
        journal.attach(
            WebhookTools(plan, attempt, contract, self._http, self._clock, journal.log),
            LiveTranscript(plan, attempt, contract, self._http, self._spawn),
        )
        self._open[attempt.call_id] = journal
        self._plans[attempt.call_id] = plan
        return journal

    async def finish(self, report: CallReport) -> None:
        """Close the record and, in the same transaction, queue the end webhook that is owed. A second time does nothing."""
        call_id = report.attempt.call_id
        report = self._with_costs(report, self._plans.pop(call_id, None))
        journal = self._open.pop(call_id, None)
        lines = journal.lines if journal is not None else []
        # A call that ended while it was being routed does not know its number; the row that was written before CallStart does.
        begun = await self._begun(call_id) if report.number is None else None
        record = final_record(report, begun)
        event = end_event(record, report, lines, self._contracts, self._clock.utc())
        unwritten = journal.take()[1] if journal is not None else []
        if journal is not None:
            journal.detach()
        if await self._calls.finish(record, unwritten, event) and event is not None:
            self._queued(event)

    def _with_costs(self, report: CallReport, plan: CallPlan | None) -> CallReport:
        if plan is None:
            return report
        return replace(report, costs=call_costs(report, plan, self._prices))

    async def _begun(self, call_id: CallId) -> CallRecord | None:
        # As long as it takes, like the writing that follows: giving up would leave the end webhook to the next start.
        while True:
            try:
                return await self._calls.get(call_id)
            except StoreUnavailable:
                await asyncio.sleep(STORE_PAUSE_S)

    async def flush(self) -> None:
        """Write down what changed in live calls."""
        if not self._open:
            return
        taken = [(journal, *journal.take()) for journal in self._open.values()]
        changes = [change for _, change, _ in taken if change is not None]
        lines = [line for _, _, added in taken for line in added]
        try:
            await self._calls.progress(changes, lines, self._clock.utc())
        except Exception:
            # The edge of the writing task: calls go on, and their journals are tried again with the next flush.
            logger.exception("the journals of live calls could not be written")
            return
        for journal, change, added in taken:
            journal.handed_over(change, added)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(work)

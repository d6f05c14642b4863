"""Delivers the events of the outbox until their receivers acknowledge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from switchhook.domain.contract import Contract, Http, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId
from switchhook.domain.ports import Clock
from switchhook.domain.records import OutboxEvent, OutboxState
from switchhook.usecases.delivery_desk import DeliveryDesk, next_attempt
from switchhook.usecases.repositories import NumberFinder, OutboxStore

logger = logging.getLogger(__name__)

STORE_AWAY_S = 5.0
"""How long to wait when the database cannot be read."""


class Undeliverable(Exception):
    """The event cannot be sent as things are configured; the text says why."""


class Delivery:
    """Sends each event, byte for byte as it was written down, until the first recorded acknowledgement.

    An event that was acknowledged is not sent again unless the process died before that was committed. `run` is the task.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        numbers: NumberFinder,
        contracts: Mapping[str, Contract],
        http: Http,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._numbers = numbers
        self._contracts = contracts
        self._http = http
        self._clock = clock
        self._desk = DeliveryDesk()
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = False

    @property
    def under_way(self) -> int:
        """Deliveries under way."""
        return self._desk.under_way

    def offer(self, event: OutboxEvent) -> None:
        """Send an event that has just been committed at once, if a place is free; else it is found later."""
        if self._tasks is not None and self._desk.admit(event.event_id, event.account):
            self._tasks.create_task(self._deliver(event))

    async def resend(self, call_id: CallId) -> int:
        """Send a call's parked events again, from the start of their ladder; gives how many there were."""
        count = await self._outbox.resend(call_id, self._clock.utc())
        self._desk.look_in(0.0, self._clock.now())
        self._wake.set()
        return count

    async def run(self) -> None:
        """Deliver, until `stop`, and then finish what is under way."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while await self._something_due():
                    await self._look()
            finally:
                self._tasks = None

    def stop(self) -> None:
        """Begin nothing more; `run` returns when the requests under way have their replies recorded."""
        self._stopping = True
        self._wake.set()

    async def _something_due(self) -> bool:
        while not self._stopping and (left := self._desk.deadline - self._clock.now()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                break
        return not self._stopping

    async def _look(self) -> None:
        """Take up what is due in the store."""
        limit = self._desk.looking(self._clock.now())
        try:
            now = self._clock.utc()
            events = await self._outbox.due(now, limit, self._desk.full_accounts)
            released = self._desk.released_meanwhile()
            for event in events:
                if event.event_id not in released:
                    self.offer(event)
            following = await self._outbox.next_due(now)
        except StoreUnavailable:
            self._desk.look_in(STORE_AWAY_S, self._clock.now())
            return
        left = None if following is None else (following - self._clock.utc()).total_seconds()
        self._desk.looked(len(events), left, self._clock.now())

    async def _deliver(self, event: OutboxEvent) -> None:
        retry_in_s: float | None = None
        try:
            settled = await self._attempt(event)
            self._desk.replied(event.event_id, self._clock.now())
            self._wake.set()
            await self._outbox.settle(settled)
            if settled.state is OutboxState.PENDING:
                retry_in_s = (settled.next_attempt_at - self._clock.utc()).total_seconds()
        except StoreUnavailable:
            retry_in_s = STORE_AWAY_S
        except Exception:
            # The edge of the task: one event's fault must not stop the others.
            logger.exception("a delivery failed", extra={"call_id": event.call_id})
            retry_in_s = STORE_AWAY_S
        finally:
            self._desk.release(event.event_id, self._clock.now(), retry_in_s)
            self._wake.set()

    async def _attempt(self, event: OutboxEvent) -> OutboxEvent:
        """Try once; gives the event as it stands afterwards."""
        context = {"call_id": event.call_id, "kind": event.kind, "attempt": event.attempts + 1}
        try:
            contract, request = await self._request(event)
        except Undeliverable as error:
            logger.error("event parked: %s", error, extra=context)
            return replace(event, state=OutboxState.PARKED, last_error=str(error))
        outcome = await self._http.send(request)
        now = self._clock.utc()
        tried = replace(event, attempts=event.attempts + 1)
        try:
            acknowledged = contract.acknowledges(outcome)
        except Exception:
            # A fault in a contract's folder must not take the event off its ladder.
            logger.exception("a reply could not be judged", extra=context)
            return self._failed(tried, contract, f"the contract could not judge {describe(outcome)}", now)
        if acknowledged:
            logger.info("event delivered", extra=context)
            return replace(tried, state=OutboxState.DELIVERED, delivered_at=now, last_error=None)
        return self._failed(tried, contract, describe(outcome), now)

    def _failed(self, event: OutboxEvent, contract: Contract, why: str, now: datetime) -> OutboxEvent:
        context = {"call_id": event.call_id, "kind": event.kind, "attempt": event.attempts, "why": why}
        due = next_attempt(contract.retry_delays_s, event.attempts, now)
        if due is None:
            logger.error("event parked after its last try", extra=context)
            return replace(event, state=OutboxState.PARKED, last_error=why)
        logger.warning("event not delivered", extra={**context, "next": due.isoformat()})
        return replace(event, next_attempt_at=due, last_error=why)

    async def _request(self, event: OutboxEvent) -> tuple[Contract, HttpRequest]:
        number = await self._numbers.find_number(event.number)
        if number is None or number.account != event.account:
            raise Undeliverable(f"{event.number} is no longer configured for account {event.account}")
        contract = self._contracts.get(event.contract)
        if contract is None or number.contract != event.contract:
            raise Undeliverable(f"{event.number} no longer runs the contract {event.contract}")
        try:
            return contract, contract.end_request(number, event.body)
        except Exception as error:
            logger.exception("an end request could not be made", extra={"call_id": event.call_id})
            raise Undeliverable("the number's webhook settings cannot be used") from error


def describe(outcome: HttpOutcome) -> str:
    """What came of a request, in a few words without a secret."""
    return f"HTTP {outcome.status}" if isinstance(outcome, HttpReply) else f"{outcome.reason}: {outcome.detail}"

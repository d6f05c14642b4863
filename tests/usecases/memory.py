"""The outbox and the numbers in memory, for tests on virtual time: a database's threads know no virtual time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from switchhook.domain.model import CallId, Number
from switchhook.domain.records import OutboxEvent, OutboxState
from tests.usecases.fakes import NUMBER


class MemoryOutbox:
    """Keeps what was recorded."""

    def __init__(self, *events: OutboxEvent) -> None:
        self.events = {event.event_id: event for event in events}
        self.looks = 0

    async def due(self, now: datetime, limit: int, without: Collection[str] = ()) -> list[OutboxEvent]:
        self.looks += 1
        found = [event for event in self._pending() if event.next_attempt_at <= now and event.account not in without]
        return sorted(found, key=lambda event: event.next_attempt_at)[:limit]

    async def next_due(self, now: datetime) -> datetime | None:
        return min((event.next_attempt_at for event in self._pending() if event.next_attempt_at > now), default=None)

    async def settle(self, event: OutboxEvent) -> None:
        if self.events[event.event_id].state is OutboxState.PENDING:
            self.events[event.event_id] = event

    async def resend(self, call_id: CallId, now: datetime) -> int:
        parked = [event for event in self.events.values() if event.call_id == call_id and event.state is OutboxState.PARKED]
        for event in parked:
            self.events[event.event_id] = replace(event, state=OutboxState.PENDING, attempts=0, next_attempt_at=now)
        return len(parked)

    def _pending(self) -> list[OutboxEvent]:
        return [event for event in self.events.values() if event.state is OutboxState.PENDING]


class MemoryNumbers:
    """One number for each account: the account's name is its host's."""

    def __init__(self, *numbers: Number) -> None:
        self.numbers = {number.number: number for number in numbers or (NUMBER,)}

    async def find_number(self, number: str) -> Number | None:
        return self.numbers.get(number)

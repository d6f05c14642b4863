"""SIP timer values (RFC 3261 §17, Table 4) and one timetable for many machines: a heap, never a scan."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)


class Timer(Enum):
    """Transaction timers by their letters in RFC 3261 and RFC 6026."""

    A = "A"
    B = "B"
    D = "D"
    E = "E"
    F = "F"
    G = "G"
    H = "H"
    I = "I"  # noqa: E741 - the RFC's letter
    J = "J"
    K = "K"
    L = "L"
    M = "M"


_RETRANSMISSION = frozenset({Timer.A, Timer.E, Timer.G})


@dataclass(frozen=True, slots=True)
class TimerValues:
    """The base values in seconds, from which every timer follows."""

    t1: float = 0.5
    """Round-trip estimate."""
    t2: float = 4.0
    """Longest interval between retransmissions of a non-INVITE request or an INVITE response."""
    t4: float = 5.0
    """Longest time a message stays in the network."""

    @property
    def give_up(self) -> float:
        """64*T1: how long an unanswered message is repeated."""
        return 64 * self.t1

    def first(self, timer: Timer, reliable: bool) -> float | None:
        """Seconds until the timer first fires; None when a reliable transport does without it."""
        if timer in _RETRANSMISSION:
            return None if reliable else self.t1
        if timer in (Timer.I, Timer.K):
            return 0.0 if reliable else self.t4
        if timer is Timer.J:
            return 0.0 if reliable else self.give_up
        if timer is Timer.D:  # RFC 3261 §17.1.1.2: at least 32 s on an unreliable transport
            return 0.0 if reliable else max(32.0, self.give_up)
        return self.give_up

    def next_interval(self, timer: Timer, interval: float) -> float:
        """The interval after `interval`: doubled, for E and G up to T2."""
        return interval * 2 if timer is Timer.A else min(interval * 2, self.t2)


class Repeater:
    """When a message is sent again until it is acknowledged, and when that is given up.

    A 2xx to an INVITE is repeated at intervals from T1 doubling up to T2 (RFC 3261 §13.3.1.4), a reliable provisional response at
    intervals that double without a limit (RFC 3262 §3); both for 64*T1, and over every transport.
    """

    def __init__(self, values: TimerValues, limit: float | None, now: float) -> None:
        self._limit = limit
        self._interval = values.t1
        self._next_at = now + values.t1
        self._ends_at = now + values.give_up

    @property
    def deadline(self) -> float:
        """When the next repetition, or the end, is due."""
        return min(self._next_at, self._ends_at)

    def given_up(self, now: float) -> bool:
        """Whether nobody has acknowledged for too long."""
        return now >= self._ends_at

    def again(self, now: float) -> bool:
        """Whether a repetition is due; each is told once."""
        if now < self._next_at:
            return False
        self._interval *= 2
        if self._limit is not None:
            self._interval = min(self._interval, self._limit)
        self._next_at = now + self._interval
        return True


class Timetable(Generic[ItemT]):
    """The deadlines of many items, of which only the earliest is asked for."""

    def __init__(self) -> None:
        self._due: dict[ItemT, float] = {}
        self._heap: list[tuple[float, int, ItemT]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._due)

    def set(self, item: ItemT, due: float | None) -> None:
        """Give the item its deadline, in place of an earlier one; None takes it off."""
        if self._due.get(item) == due:
            return
        if due is None:
            self._due.pop(item, None)
        else:
            self._due[item] = due
            self._order += 1
            heapq.heappush(self._heap, (due, self._order, item))
        # Entries that no longer count stay in the heap until it is mostly made of them.
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    @property
    def deadline(self) -> float | None:
        """The earliest deadline."""
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> list[ItemT]:
        """Take off and return the items whose deadline has come, earliest first."""
        due: list[ItemT] = []
        while (deadline := self.deadline) is not None and deadline <= now:
            item = heapq.heappop(self._heap)[2]
            del self._due[item]
            due.append(item)
        return due

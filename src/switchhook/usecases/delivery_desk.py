"""Decides when an event is tried again, and which of those due may go out at one time. No clock, no socket, no await."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

HOURLY_TRIES = 72
LOOK_EVERY_S = 60.0
"""Events may also be made pending by another process (`switchhook webhook resend`)."""


def next_attempt(ladder_s: Sequence[float], attempts: int, now: datetime) -> datetime | None:
    """When to try after `attempts` failures: the contract's ladder, then hourly for 72 hours, then never (None)."""
    if attempts <= len(ladder_s):
        return now + timedelta(seconds=ladder_s[attempts - 1])
    return now + timedelta(hours=1) if attempts <= len(ladder_s) + HOURLY_TRIES else None


class DeliveryDesk:
    """Hands out places for deliveries under way: so many in all, so many for each account.

    One customer whose server is dead holds its own few places and nobody else's. A place is held until the reply; the event is
    under way until its outcome is recorded, too. The backlog stays in the store; `deadline` says when to look there. Times are
    monotonic seconds.
    """

    def __init__(self, places: int = 32, places_per_account: int = 4) -> None:
        self._places = places
        self._per_account = places_per_account
        self._under_way: dict[str, str | None] = {}
        self._busy: Counter[str] = Counter()
        self._look_at = 0.0
        self._left_behind = False
        self._released: set[str] | None = None

    @property
    def deadline(self) -> float:
        """When to look into the store."""
        return self._look_at

    @property
    def free(self) -> int:
        """Places left."""
        return self._places - self._busy.total()

    @property
    def under_way(self) -> int:
        """Deliveries under way."""
        return len(self._under_way)

    @property
    def full_accounts(self) -> set[str]:
        """Accounts that have no place left."""
        return {account for account, count in self._busy.items() if count >= self._per_account}

    def admit(self, event_id: str, account: str) -> bool:
        """Take a place; False when it is under way already, or no place is left: it is then found in the store later."""
        if event_id in self._under_way:
            return False
        if self.free == 0 or self._busy[account] >= self._per_account:
            self._left_behind = True
            return False
        self._under_way[event_id] = account
        self._busy[account] += 1
        return True

    def replied(self, event_id: str, now: float) -> None:
        """Give the place back while the outcome is being recorded; until `release` the event is not admitted again."""
        self._vacate(self._under_way[event_id])
        self._under_way[event_id] = None
        if self._left_behind:
            self._look_at = now

    def release(self, event_id: str, now: float, retry_in_s: float | None = None) -> None:
        """The event is no longer under way; it is due again in `retry_in_s`, or not at all."""
        self._vacate(self._under_way.pop(event_id))
        if self._released is not None:
            self._released.add(event_id)
        if self._left_behind:
            self._look_at = now
        if retry_in_s is not None:
            self.look_in(retry_in_s, now)

    def look_in(self, seconds: float, now: float) -> None:
        """Look into the store no later than in so many seconds."""
        self._look_at = min(self._look_at, now + max(seconds, 0.0))

    def looking(self, now: float) -> int:
        """A look begins; gives how many due events to fetch, those under way among them."""
        self._look_at = now + LOOK_EVERY_S
        self._released = set()
        self._left_behind = bool(self.full_accounts) or self.free == 0
        return self._places

    def released_meanwhile(self) -> set[str]:
        """Events released since `looking`, to be asked for once, when the rows are there.

        Their rows may have been read before the outcome was recorded and must not be given to `admit`.
        """
        released, self._released = self._released or set(), None
        return released

    def looked(self, fetched: int, next_due_in_s: float | None, now: float) -> None:
        """A look is over, and what it fetched was given to `admit`, but for what was released meanwhile."""
        if fetched >= self._places:
            self._left_behind = True
            if not self._under_way:
                # All were released meanwhile: no release is to come that would look for the rest.
                self._look_at = now
        if next_due_in_s is not None:
            self.look_in(next_due_in_s, now)

    def _vacate(self, account: str | None) -> None:
        """Free one of the account's places; None: that has happened."""
        if account is None:
            return
        self._busy[account] -= 1
        if not self._busy[account]:
            del self._busy[account]

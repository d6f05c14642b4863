"""What the use cases ask of the store. Every method may raise StoreUnavailable; changes are committed when a method returns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Protocol

from switchhook.domain.model import CallId, Number
from switchhook.domain.records import (
    CallLine,
    CallProgress,
    CallRecord,
    Directory,
    DirectoryUpdate,
    KeptRecording,
    OutboxEvent,
    RecordingQuery,
    RecordingRecord,
    Reservation,
)


class NumberFinder(Protocol):
    """Finds configured numbers."""

    async def find_number(self, number: str) -> Number | None:
        """The number, E.164, as it is configured at this moment."""


class TokenFinder(Protocol):
    """Finds API tokens."""

    async def find_token(self, digest: bytes) -> tuple[str, bytes] | None:
        """Account and digest of the API token with this SHA-256."""


class DirectoryStore(Protocol):
    """The configuration as a whole."""

    async def read(self) -> Directory:
        """Everything that is configured."""

    async def write(self, changes: DirectoryUpdate) -> None:
        """Make all changes, or none. Raises DirectoryChanged when they were decided on another version."""

    async def version(self) -> int:
        """Rises with each change, by whichever process."""


class SpendStore(Protocol):
    """What accounts spent on dialling, in millionths of a US dollar by UTC day."""

    async def reserve(self, account: str, day: date, wanted: Reservation) -> int | None:
        """Add to the day's sum what the limit leaves, and give that; None: it leaves too little, and nothing was added."""

    async def add(self, amounts: dict[tuple[str, date], int]) -> None:
        """Add to the sums; an amount below nought gives back what was reserved."""

    async def spent(self, account: str, day: date) -> int:
        """The day's sum."""


class CallStore(Protocol):
    """Records of calls and their journals. A line that is written already is left as it is."""

    async def begin(self, record: CallRecord) -> None:
        """Write a live call down."""

    async def progress(self, changes: Sequence[CallProgress], lines: Sequence[CallLine], now: datetime) -> None:
        """Write down what became known of live calls, and that this node lives."""

    async def finish(self, record: CallRecord, lines: Sequence[CallLine], event: OutboxEvent | None) -> bool:
        """Close the record, add its last lines and queue its event, all or none; False when it is closed already."""

    async def get(self, call_id: CallId) -> CallRecord | None:
        """The record of a call."""

    async def journal(self, call_id: CallId) -> list[CallLine]:
        """The lines of a call in the order of writing."""

    async def live(self) -> list[tuple[CallRecord, datetime]]:
        """This node's calls without an end, each with the last time at which it is known to have lived."""


class OutboxStore(Protocol):
    """Events on their way to customers."""

    async def due(self, now: datetime, limit: int, without: Collection[str] = ()) -> list[OutboxEvent]:
        """Pending events whose time has come, the longest due first; none of the accounts in `without`."""

    async def next_due(self, now: datetime) -> datetime | None:
        """When the next pending event comes due after now."""

    async def settle(self, event: OutboxEvent) -> None:
        """Record how a delivery went."""

    async def resend(self, call_id: CallId, now: datetime) -> int:
        """Make a call's parked events pending once more; gives how many."""


class RecordingStore(Protocol):
    """Which recordings there are, how far each is and how long it is kept."""

    async def add(self, record: RecordingRecord) -> None:
        """Write a recording down; one that is known already is left as it is."""

    async def put(self, record: RecordingRecord, now: datetime) -> bool:
        """Replace what is known; False when the recording is gone (deleted meanwhile)."""

    async def get(self, call_id: CallId) -> RecordingRecord | None:
        """The recording of a call, whatever its state."""

    async def page(self, query: RecordingQuery) -> list[KeptRecording]:
        """Finished recordings of an account, newest first."""

    async def remove(self, account: str, call_id: CallId, now: datetime) -> RecordingRecord | None:
        """From now on nobody finds it; gives what it was, or None when the account has no such recording (any more)."""

    async def expired(self, now: datetime, limit: int, after: RecordingRecord | None = None) -> list[RecordingRecord]:
        """Recordings of this server that are gone and whose files may still lie there, longest first, from behind `after` on.

        Not those whose files are being made.
        """

    async def forget(self, call_ids: Sequence[CallId]) -> None:
        """Nothing of these recordings is left."""

    async def known(self, call_ids: Collection[CallId]) -> set[CallId]:
        """Those of the calls that have a recording."""

    async def kept(self, now: datetime) -> tuple[int, int]:
        """(finished recordings that are kept, their bytes)."""

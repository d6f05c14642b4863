"""What a customer is told of the recordings that it began (contract `vns-veevo` §4.5)."""

from __future__ import annotations

import asyncio
import logging
import wave
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from switchhook.calls.recorded import RecordedLine
from switchhook.domain.contract import Http, HttpFailure
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingState
from switchhook.usecases.kept_recordings import KeptRecordings
from switchhook.usecases.next_flows import API_VERSION, Sign, signed_request
from switchhook.usecases.repositories import RecordingStore
from switchhook.usecases.steered import Pair

log = logging.getLogger(__name__)

EVENTS = ("in-progress", "completed", "absent")
LOOK_EVERY_S = 1.0
LOOKS = 3600
"""A file that is not made in an hour is not waited for."""
LOOKS_FOR_NOTHING = 30
"""Nor one of which nothing is known: the disk did not take it."""


@dataclass(frozen=True, slots=True)
class RecordingCallback:
    """Where a customer wants to be told of its recording."""

    url: str = field(repr=False)
    origin: str
    """How the customer reaches us: addresses of recordings begin with it."""
    method: str = "POST"
    events: frozenset[str] = frozenset({"completed"})


@dataclass(frozen=True, slots=True)
class BegunRecording:
    """A recording that was begun on a customer's order."""

    call_id: CallId
    account: str
    sid: str
    call_sid: str
    begun_at: datetime
    line: RecordedLine


class RecordingNews:
    """Follows recordings to their end. `spawn` keeps a coroutine alive until it is done; what a process that dies was following
    is told of no more."""

    def __init__(
        self,
        stores: tuple[RecordingStore, KeptRecordings],
        http: Http,
        sign: Sign,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store, self._kept = stores
        self._http = http
        self._sign = sign
        self._spawn = spawn
        self._sleep = sleep

    def follow(self, begun: BegunRecording, pair: Pair, wanted: RecordingCallback) -> None:
        """Tell of its beginning at once, and of its end when its file is made."""
        self._spawn(self._tell(begun, pair, wanted))

    async def _tell(self, begun: BegunRecording, pair: Pair, wanted: RecordingCallback) -> None:
        await self._post("in-progress", None, begun, pair, wanted)
        while begun.line.running:
            await self._sleep(LOOK_EVERY_S)
        state = await self._end(begun.call_id)
        if state is RecordingState.FAILED:
            await self._post("absent", None, begun, pair, wanted)
        elif state is RecordingState.READY:
            path = await self._made(begun)
            if path is not None:
                seconds = None
                with suppress(OSError, EOFError, wave.Error):
                    seconds = await asyncio.to_thread(wav_seconds, path)
                await self._post("completed", seconds, begun, pair, wanted)

    async def _end(self, call_id: CallId) -> RecordingState | None:
        """READY or FAILED; None when nobody knows, or it was deleted."""
        unknown = 0
        for _ in range(LOOKS):
            await self._sleep(LOOK_EVERY_S)
            try:
                record = await self._store.get(call_id)
            except StoreUnavailable:
                continue
            if record is None:
                unknown += 1
                if unknown == LOOKS_FOR_NOTHING:
                    return RecordingState.FAILED
            elif record.purge_at is not None or record.state is RecordingState.FAILED:
                # Of one that is not made yet: it was deleted.
                return record.state if record.state in (RecordingState.READY, RecordingState.FAILED) else None
        return None

    async def _made(self, begun: BegunRecording) -> Path | None:
        """The file; None when it was deleted meanwhile, or is on another server's disk."""
        for _ in range(LOOKS):
            try:
                found = await self._kept.file(begun.account, begun.call_id)
            except StoreUnavailable:
                await self._sleep(LOOK_EVERY_S)
            else:
                return found and found[1]
        return None

    async def _post(self, status: str, seconds: int | None, begun: BegunRecording, pair: Pair, wanted: RecordingCallback) -> None:
        if status not in wanted.events:
            return
        place = f"{wanted.origin}/{API_VERSION}/Accounts/{pair.account_sid}/Recordings/{begun.sid}"
        fields = [
            ("AccountSid", pair.account_sid),
            ("CallSid", begun.call_sid),
            ("RecordingSid", begun.sid),
            ("RecordingUrl", place),
            ("RecordingStatus", status),
            *([("RecordingDuration", str(seconds))] if seconds is not None else []),
            ("RecordingChannels", "2"),
            ("RecordingTrack", "both"),
            ("RecordingStartTime", format_datetime(begun.begun_at.replace(microsecond=0))),
            ("RecordingSource", "StartCallRecordingAPI"),
        ]
        outcome = await self._http.send(signed_request(wanted.url, wanted.method, fields, pair, self._sign))
        why = outcome.reason if isinstance(outcome, HttpFailure) else f"HTTP {outcome.status}"
        if isinstance(outcome, HttpFailure) or not 200 <= outcome.status < 300:
            log.warning("a recording's status callback was not delivered: %s", why, extra={"call_id": begun.call_id})


def wav_seconds(path: Path) -> int:
    """Length of a WAV file, to the nearest second. Touches the disk; raises OSError, EOFError, wave.Error."""
    with wave.open(str(path)) as sound:
        frames: int = sound.getnframes()
        rate_hz: int = sound.getframerate()
    return (2 * frames + rate_hz) // (2 * rate_hz)

"""The recording of a call, as whoever steers the call sees and changes it (contract `vns-veevo` §4.5)."""

from __future__ import annotations

import asyncio
import tempfile
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from switchhook.domain.call_sid import call_sid, sid_of
from switchhook.domain.model import CallId
from switchhook.domain.plan import RecordingSpec
from switchhook.domain.ports import Clock
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.media.recording.converting import convert
from switchhook.usecases.kept_recordings import KeptRecordings
from switchhook.usecases.live_calls import LiveCalls, call_id_of, not_in_progress
from switchhook.usecases.recording_news import BegunRecording, RecordingCallback, RecordingNews, wav_seconds
from switchhook.usecases.repositories import RecordingStore
from switchhook.usecases.steered import LiveSession, Principal, SteeringRefused

NOT_FOUND = 20404
NOT_RECORDING = 21220
MISDIRECTED, ELSEWHERE = 421, 20421
"""RFC 9110 §15.5.20."""
FORMATS = ("wav", "mp3")
_NEW = RecordingSpec("wav")


class RecordingStatus(Enum):
    """How far a recording is, in Twilio's words."""

    IN_PROGRESS = "in-progress"
    PAUSED = "paused"
    STOPPED = "stopped"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ABSENT = "absent"


_OF_STATE = {
    RecordingState.SPOOLING: RecordingStatus.PROCESSING,
    RecordingState.MAKING: RecordingStatus.PROCESSING,
    RecordingState.READY: RecordingStatus.COMPLETED,
    RecordingState.FAILED: RecordingStatus.ABSENT,
}


@dataclass(frozen=True, slots=True)
class RecordingView:
    """A call's recording."""

    sid: str
    call_sid: str
    status: RecordingStatus
    started_at: datetime
    encrypted: bool = False
    format: str = "wav"
    seconds: int | None = None
    """Of a finished WAV file; of other formats nobody has counted them."""


class CallRecordings:
    """What may be asked of recordings; every method may raise StoreUnavailable and SteeringRefused.

    `run` runs a function in a worker process.
    """

    def __init__(
        self,
        live: LiveCalls,
        stores: tuple[RecordingStore, KeptRecordings],
        news: RecordingNews,
        run: Callable[..., Awaitable[Any]],
        clock: Clock,
    ) -> None:
        self._live = live
        self._store, self._kept = stores
        self._news = news
        self._run = run
        self._clock = clock

    async def of_call(self, who: Principal, sid: str) -> list[RecordingView]:
        """None or one."""
        session = self._live.live(who, sid)
        if session is not None and session.recorded.running:
            return [_of_live(session)]
        call = await self._live.call(who, sid)
        record = await self._store.get(call.attempt.call_id)
        session = self._live.live(who, sid)  # it may have ended meanwhile
        if session is not None and session.recorded.begun_at is not None and (record is None or record.purge_at is None):
            return [_of_live(session)]  # it was stopped, and its file is not made yet
        return [] if record is None or self._gone(record) else [await self._of_record(record, sid)]

    async def one(self, who: Principal, recording_sid: str) -> RecordingView:
        """By its own name."""
        call_id = call_id_of(f"CA{recording_sid.removeprefix('RE')}")
        sid = await self._live.sid_of_call(who, call_id) if call_id is not None else None
        found = await self.of_call(who, sid) if sid is not None else []
        if not found or found[0].sid != recording_sid:
            raise _not_found(recording_sid)
        return found[0]

    async def start(self, who: Principal, sid: str, told: RecordingCallback | None = None) -> RecordingView:
        """Record from now on, and tell the customer how it goes."""
        session = await self._session(who, sid)
        if not session.in_progress:
            raise not_in_progress("Cannot record")
        if session.recorded.running:
            raise SteeringRefused(400, NOT_RECORDING, "The call is being recorded already")
        if not session.record(_NEW):
            raise SteeringRefused(400, NOT_RECORDING, "The call had its recording, or the disk cannot take one")
        view = _of_live(session)
        if told is not None:
            call_id = session.attempt.call_id
            begun = BegunRecording(call_id, session.account, view.sid, view.call_sid, view.started_at, session.recorded)
            self._news.follow(begun, who.pair, told)
        return view

    async def change(self, who: Principal, sid: str, recording_sid: str, status: RecordingStatus) -> RecordingView:
        """Pause, go on or stop; `recording_sid` may be `Twilio.CURRENT`."""
        session = await self._session(who, sid)
        recorded = session.recorded
        known = recording_sid in ("Twilio.CURRENT", _recording_sid(session.attempt.call_id))
        if recorded.begun_at is None or not known:
            raise _not_found(recording_sid)
        if not recorded.running:
            raise SteeringRefused(400, NOT_RECORDING, "The recording has ended")
        if status is RecordingStatus.STOPPED:
            recorded.stop()
        else:
            recorded.pause(status is RecordingStatus.PAUSED)
        return _of_live(session)

    async def delete(self, who: Principal, recording_sid: str) -> None:
        """From now on nobody finds it."""
        call_id = await self._finished(who, recording_sid)
        if not await self._kept.delete(who.account, call_id):
            raise _not_found(recording_sid)

    async def file(self, who: Principal, recording_sid: str, kind: str) -> AbstractAsyncContextManager[Path]:
        """The sound as a file that is there while the context lasts; `kind` is one of `FORMATS`."""
        call_id = await self._finished(who, recording_sid)
        found = await self._kept.file(who.account, call_id)
        if found is None:
            raise _not_found(recording_sid)
        record, path = found
        if path is None:
            raise _elsewhere(recording_sid)
        if record.encrypted:
            raise SteeringRefused(400, NOT_RECORDING, "The recording is encrypted; fetch it over its contract's own API")
        return self._opened(record, path, kind)

    @asynccontextmanager
    async def _opened(self, record: RecordingRecord, path: Path, kind: str) -> AsyncIterator[Path]:
        if record.format == kind:
            yield path
            return
        folder = await asyncio.to_thread(lambda: tempfile.TemporaryDirectory(prefix="switchhook-"))
        try:
            target = Path(folder.name) / f"{record.call_id}.{kind}"
            await self._run(convert, path, target)
            yield target
        finally:
            await asyncio.to_thread(folder.cleanup)

    async def _finished(self, who: Principal, recording_sid: str) -> CallId:
        call_id = call_id_of(f"CA{recording_sid.removeprefix('RE')}")
        record = await self._store.get(call_id) if call_id is not None else None
        if record is None or call_id is None or not who.may_see(call_id, record.account) or self._gone(record):
            raise _not_found(recording_sid)
        return call_id

    async def _session(self, who: Principal, sid: str) -> LiveSession:
        session = self._live.live(who, sid)
        if session is None:
            await self._live.call(who, sid)
            raise not_in_progress("Cannot record")
        return session

    async def _of_record(self, record: RecordingRecord, sid: str) -> RecordingView:
        own, status, seconds = _recording_sid(record.call_id), _OF_STATE[record.state], None
        if status is RecordingStatus.COMPLETED and record.format == "wav" and not record.encrypted:
            found = await self._kept.file(record.account, record.call_id)
            path = found[1] if found is not None else None
            with suppress(OSError, EOFError, wave.Error):
                seconds = await asyncio.to_thread(wav_seconds, path) if path is not None else None
        return RecordingView(own, sid, status, record.created_at, record.encrypted, record.format, seconds)

    def _gone(self, record: RecordingRecord) -> bool:
        return record.gone(self._clock.utc())


def _recording_sid(call_id: CallId) -> str:
    return f"RE{sid_of(call_id)[2:]}"


def _of_live(session: LiveSession) -> RecordingView:
    recorded = session.recorded
    assert recorded.begun_at is not None  # the callers looked
    status = RecordingStatus.STOPPED
    if recorded.running:
        status = RecordingStatus.PAUSED if recorded.paused else RecordingStatus.IN_PROGRESS
    return RecordingView(_recording_sid(session.attempt.call_id), call_sid(session.attempt), status, recorded.begun_at)


def _not_found(recording_sid: str) -> SteeringRefused:
    return SteeringRefused(404, NOT_FOUND, f"The requested resource /Recordings/{recording_sid} was not found")


def _elsewhere(recording_sid: str) -> SteeringRefused:
    why = f"/Recordings/{recording_sid} lies on another server of this installation; ask the one that took the call"
    return SteeringRefused(MISDIRECTED, ELSEWHERE, why)

"""The recording of a call as its owner asks for it, while the call lives and after."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.usecases.call_recordings import CallRecordings, RecordingStatus
from switchhook.usecases.kept_recordings import KeptRecordings
from switchhook.usecases.live_calls import LiveCalls
from switchhook.usecases.recording_news import RecordingNews
from switchhook.usecases.repositories import RecordingStore
from switchhook.usecases.steered import Pair, Principal, SteeringRefused
from tests.usecases.fakes import START

ID = CallId("9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1")
SID = "CA9e6a9d8e6a924b3f9a2c1c63c1f3a8f1"
WHO = Principal("acme", Pair("AC1", "token"))
MADE = RecordingRecord(ID, "acme", "wav", False, "", RecordingState.READY, START)


class Desk:
    """A live call with a recording that was stopped; it ends while the store is asked."""

    def __init__(self, path: Path | None, ends: bool) -> None:
        self.path = path
        self.attempt = SimpleNamespace(call_id=ID, line="sip", line_call_id="x")
        self.recorded = SimpleNamespace(running=False, paused=False, begun_at=START)
        self.ends = ends
        self.session: Desk | None = self

    def live(self, who: Principal, sid: str) -> Desk | None:
        return self.session

    async def call(self, who: Principal, sid: str) -> Any:
        return self

    async def get(self, call_id: CallId) -> RecordingRecord:
        await asyncio.sleep(0)
        if self.ends:
            self.session = None
        return MADE

    async def file(self, account: str, call_id: CallId) -> tuple[RecordingRecord, Path | None]:
        return MADE, self.path


def recordings(desk: Desk) -> CallRecordings:
    stores = (cast(RecordingStore, desk), cast(KeptRecordings, desk))
    clock: Any = SimpleNamespace(utc=lambda: START)
    return CallRecordings(cast(LiveCalls, desk), stores, cast(RecordingNews, desk), cast(Any, desk), clock)


@pytest.mark.parametrize(("ends", "status"), [(True, RecordingStatus.COMPLETED), (False, RecordingStatus.STOPPED)])
async def test_a_call_that_ends_while_its_recording_is_asked_for_is_answered(
    tmp_path: Path, ends: bool, status: RecordingStatus
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    [found] = await recordings(Desk(path, ends)).of_call(WHO, SID)
    assert found.status is status
    assert found.seconds is None, "an empty file has no length that can be told"


async def test_a_recording_on_another_servers_disk_is_said_to_be_there() -> None:
    with pytest.raises(SteeringRefused, match="lies on another server") as refused:
        await recordings(Desk(None, ends=True)).file(WHO, f"RE{SID[2:]}", "wav")
    assert refused.value.status == 421
    [found] = await recordings(Desk(None, ends=True)).of_call(WHO, SID)
    assert (found.status, found.seconds) == (RecordingStatus.COMPLETED, None), "its length is told by that server"

"""A customer is told of its recording's beginning and end, whatever becomes of it."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest

from switchhook.calls.recorded import RecordedLine
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId
from switchhook.domain.records import RecordingRecord, RecordingState
from switchhook.usecases.kept_recordings import KeptRecordings
from switchhook.usecases.recording_news import LOOKS_FOR_NOTHING, BegunRecording, RecordingCallback, RecordingNews
from switchhook.usecases.repositories import RecordingStore
from switchhook.usecases.steered import Pair
from tests.usecases.fakes import DOWN, START, Customer, always

ID = CallId("9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1")
PAIR = Pair("AC1", "token")
EVERYTHING = frozenset({"in-progress", "completed", "absent"})
WANTED = RecordingCallback("https://backend.example/recorded", "https://voice.example.com", events=EVERYTHING)
SPOOLING = RecordingRecord(ID, "acme", "wav", False, "", RecordingState.SPOOLING, START)
READY = replace(SPOOLING, state=RecordingState.READY, purge_at=START)


class Line:
    """A recording that runs until the test says otherwise."""

    running = True


class Shop:
    """What is known of the recording at each look, the last for good; time passes when it is waited for."""

    def __init__(self, folder: Path, *looks: RecordingRecord | StoreUnavailable | None) -> None:
        self.path = folder / "a.wav"
        with wave.open(str(self.path), "wb") as sound:
            sound.setnchannels(2)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(4 * 8000 * 3))
        self.customer = Customer()
        self.line = Line()
        self.looks = list(looks)
        self.slept = 0
        self.away = 0
        self.work: list[Coroutine[Any, Any, None]] = []
        stores = (cast(RecordingStore, self), cast(KeptRecordings, self))
        self.news = RecordingNews(stores, self.customer, self.sign, self.work.append, self.sleep)

    async def get(self, call_id: CallId) -> RecordingRecord | None:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, StoreUnavailable):
            raise look
        return look

    async def file(self, account: str, call_id: CallId) -> tuple[RecordingRecord, Path] | None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable
        return (READY, self.path) if self.path.exists() else None

    def sign(self, token: str, url: str, fields: Sequence[tuple[str, str]]) -> Mapping[str, str]:
        return {"Signed": f"{token} {url} {len(fields)}"}

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        if self.slept == 3:
            self.line.running = False
        await asyncio.sleep(0)

    async def follow(self, wanted: RecordingCallback = WANTED) -> list[dict[str, str]]:
        """To its end; gives what was told."""
        begun = BegunRecording(ID, "acme", "RE1", "CA1", START, cast(RecordedLine, self.line))
        self.news.follow(begun, PAIR, wanted)
        await self.work.pop()
        return [dict(parse_qsl(request.body.decode())) for request in self.customer.requests]


async def test_its_beginning_and_its_end_are_told_once_its_file_is_made(tmp_path: Path) -> None:
    shop = Shop(tmp_path, None, SPOOLING, StoreUnavailable(), replace(SPOOLING, state=RecordingState.MAKING), READY)
    begun, completed = await shop.follow()
    assert shop.slept == 8, "three while it ran, five until the file was there"
    assert begun == {
        "AccountSid": "AC1",
        "CallSid": "CA1",
        "RecordingSid": "RE1",
        "RecordingUrl": "https://voice.example.com/2010-04-01/Accounts/AC1/Recordings/RE1",
        "RecordingStatus": "in-progress",
        "RecordingChannels": "2",
        "RecordingTrack": "both",
        "RecordingStartTime": "Fri, 17 Apr 2026 16:26:12 +0000",
        "RecordingSource": "StartCallRecordingAPI",
    }
    assert completed == {**begun, "RecordingStatus": "completed", "RecordingDuration": "3"}
    assert [request.headers["Signed"] for request in shop.customer.requests] == [f"token {WANTED.url} {n}" for n in (9, 10)]


async def test_only_what_is_wanted_is_told(tmp_path: Path) -> None:
    shop = Shop(tmp_path, READY)
    [told] = await shop.follow(RecordingCallback(WANTED.url, WANTED.origin))
    assert told["RecordingStatus"] == "completed"


@pytest.mark.parametrize("known", [None, replace(READY, state=RecordingState.FAILED)])
async def test_one_that_was_not_made_is_absent(tmp_path: Path, known: RecordingRecord | None) -> None:
    shop = Shop(tmp_path, known)
    assert [told["RecordingStatus"] for told in await shop.follow()] == ["in-progress", "absent"]
    assert shop.slept <= 3 + LOOKS_FOR_NOTHING


async def test_of_one_that_was_deleted_nothing_more_is_told(tmp_path: Path) -> None:
    early = Shop(tmp_path, replace(SPOOLING, purge_at=START))
    assert len(await early.follow()) == 1
    late = Shop(tmp_path, READY)
    late.path.unlink()
    assert len(await late.follow()) == 1


async def test_a_store_that_is_away_at_the_last_look_does_not_cost_the_news(tmp_path: Path) -> None:
    shop = Shop(tmp_path, READY)
    shop.away = 3
    assert [told["RecordingStatus"] for told in await shop.follow()] == ["in-progress", "completed"]


async def test_a_file_that_cannot_be_measured_is_told_without_its_length(tmp_path: Path) -> None:
    shop = Shop(tmp_path, READY)
    shop.path.write_bytes(b"")
    _, completed = await shop.follow()
    assert completed["RecordingStatus"] == "completed"
    assert "RecordingDuration" not in completed


async def test_a_backend_that_is_away_costs_nothing_but_the_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(tmp_path, READY)
    shop.customer.answers["recorded"] = always(DOWN)
    assert len(await shop.follow()) == 2
    assert "not delivered: unreachable" in caplog.text

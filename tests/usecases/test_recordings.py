"""Recordings from the spool to the purge, on a real database and a real disk, with the days passing as they are told to."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import soundfile

from switchhook.domain.model import CallId, Encoding
from switchhook.domain.plan import RecordingSpec
from switchhook.domain.records import RecordingQuery, RecordingRecord, RecordingState
from switchhook.media.recording.recorder import Background, CallRecorder, SpoolRecorders
from switchhook.store.opened import Store
from switchhook.store.secrets import SecretBox
from switchhook.usecases import kept_recordings
from switchhook.usecases.kept_recordings import PURGE_AT_ONCE, KeptRecordings
from switchhook.usecases.recording_files import RecordingFiles
from switchhook.usecases.recordings import RecordingDesk
from tests.server.waiting import eventually
from tests.store.opening import KEY, SqliteFiles, running_store

CALL = CallId("11111111-2222-3333-4444-555555555555")
WEEK = timedelta(days=7)


class Days:
    """A clock whose days pass when the test says so; it begins with the real present, which files are stamped with."""

    def __init__(self) -> None:
        self.passed = timedelta()
        self.began = datetime.now(UTC)

    def now(self) -> float:
        return 1000.0

    def utc(self) -> datetime:
        return self.began + self.passed


class Shop:
    """Everything about recordings behind one door."""

    def __init__(self, folder: Path, store: Store, url: str) -> None:
        self.folder = folder / "recordings"
        self.url = url
        self.store = store
        self.clock = Days()
        self.files = RecordingFiles(self.folder)
        self.gate: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Awaited in the midst of the making of a file."""
        self.desk = RecordingDesk(self.files, SecretBox(KEY), store.recordings, self._run, self.clock, WEEK)
        self.kept = KeptRecordings(self.files, store.recordings, self.clock)
        self._work: list[Coroutine[Any, Any, None]] = []
        self._sealed: list[CallId] = []
        background = Background(self._run, self._work.append, lambda told: told())
        self.recorders = SpoolRecorders(
            self.files.spools,
            SecretBox(KEY),
            self.clock,
            background,
            lambda header: self._work.append(self.desk.opened(header)),
            self._sealed.append,
        )

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        made = await asyncio.to_thread(function, *args)
        if self.gate is not None and function.__name__ == "make_in_worker":
            await self.gate()
        return made

    async def begin(self, call_id: CallId = CALL, password: str | None = None, account: str = "acme") -> CallRecorder:
        """A call is answered and half a second is heard."""
        recorder = self.recorders.open(call_id, account, RecordingSpec("wav", password), Encoding.PCMU, self.clock.utc())
        for position in range(0, 4000, 160):
            recorder.received(b"\x80" * 160, position)
        await self.settle()
        return recorder

    async def settle(self) -> None:
        """What was written is on the disk, and what was told is done."""
        await asyncio.to_thread(self.recorders.writer.close)
        while self._work:
            await self._work.pop(0)
        await asyncio.to_thread(self.recorders.writer.close)

    async def record(self, call_id: CallId = CALL, password: str | None = None, account: str = "acme") -> None:
        """A whole call, up to the sealed spool."""
        (await self.begin(call_id, password, account)).stop()
        await self.settle()

    async def make(self) -> None:
        """The file is made, as after a call."""
        await self.desk.make(self._sealed.pop())

    async def state(self, call_id: CallId = CALL) -> RecordingState | None:
        record = await self.store.recordings.get(call_id)
        return None if record is None else record.state

    def left(self) -> list[str]:
        """Every file below the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    return SqliteFiles(tmp_path_factory.mktemp("template"))


@pytest.fixture
async def shop(databases: SqliteFiles, tmp_path: Path) -> AsyncIterator[Shop]:
    url = await databases.fresh(tmp_path)
    async with running_store(url) as store:
        yield Shop(tmp_path, store, url)


@pytest.mark.parametrize("password", [None, "secret"])
async def test_a_recording_is_found_when_it_is_made_and_not_before(shop: Shop, password: str | None) -> None:
    recorder = await shop.begin(password=password)
    assert await shop.state() is RecordingState.SPOOLING
    assert await shop.kept.file("acme", CALL) is None
    recorder.stop()
    await shop.settle()
    assert await shop.kept.file("acme", CALL) is None
    await shop.make()
    found = await shop.kept.file("acme", CALL)
    assert found is not None
    record, path = found
    assert path is not None
    assert (record.encrypted, record.salvaged, record.size_bytes) == (password is not None, False, path.stat().st_size)
    assert record.purge_at == shop.clock.utc() + WEEK
    assert shop.left() == [f"{CALL}.wav.enc" if password else f"{CALL}.wav"]
    assert await shop.kept.file("other", CALL) is None
    assert [kept.record for kept in await shop.kept.page(RecordingQuery("acme", shop.clock.utc(), 10))] == [record]


async def test_a_deleted_recording_is_gone_for_good(shop: Shop) -> None:
    await shop.record()
    await shop.make()
    assert not await shop.kept.delete("other", CALL)
    assert shop.left()
    assert await shop.kept.delete("acme", CALL)
    assert await shop.kept.file("acme", CALL) is None
    assert shop.left() == []
    assert await shop.state() is None
    assert not await shop.kept.delete("acme", CALL)


@pytest.mark.parametrize("when", ["during the call", "after the call", "in the midst of making"])
async def test_a_recording_that_is_deleted_too_early_goes_as_soon_as_it_is_made(shop: Shop, when: str) -> None:
    recorder = await shop.begin()
    if when == "during the call":
        assert await shop.kept.delete("acme", CALL)
    recorder.stop()
    await shop.settle()
    if when == "after the call":
        assert await shop.kept.delete("acme", CALL)

    async def midst() -> None:
        assert shop.left() == [f"{CALL}.wav", f"spool/{CALL}/audio", f"spool/{CALL}/end", f"spool/{CALL}/header.json"]
        assert await shop.kept.delete("acme", CALL)

    shop.gate = midst if when == "in the midst of making" else None
    await shop.make()
    assert not await shop.kept.delete("acme", CALL)
    assert shop.left() == []
    assert await shop.state() is None


async def test_a_deletion_survives_a_restart_before_the_file_is_made(shop: Shop) -> None:
    await shop.begin()
    assert await shop.kept.delete("acme", CALL)
    assert await shop.desk.salvage() == 1
    assert shop.left() == []
    assert await shop.state() is None


async def test_what_a_crash_in_the_midst_of_a_deletion_leaves_is_purged(shop: Shop) -> None:
    await shop.record()
    await shop.make()
    assert await shop.store.recordings.remove("acme", CALL, shop.clock.utc()) is not None
    assert await shop.kept.file("acme", CALL) is None
    assert await shop.desk.salvage() == 0
    assert await shop.kept.purge() == 1
    assert shop.left() == []
    assert await shop.state() is None


async def test_recordings_are_kept_for_a_week_and_not_longer(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await shop.record()
    await shop.make()
    size = (shop.folder / f"{CALL}.wav").stat().st_size
    shop.clock.passed = WEEK - timedelta(seconds=1)
    assert await shop.kept.purge() == 0
    assert await shop.kept.file("acme", CALL) is not None
    shop.clock.passed = WEEK
    assert await shop.kept.file("acme", CALL) is None
    assert not await shop.kept.delete("acme", CALL)
    assert await shop.kept.purge() == 1
    assert await shop.kept.purge() == 0
    assert shop.left() == []
    [told] = [record for record in caplog.records if record.getMessage() == "recordings purged"]
    assert (vars(told)["recordings"], vars(told)["bytes"]) == (1, size)


async def test_a_purge_works_in_batches_until_nothing_is_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_recordings, "PURGE_AT_ONCE", 2)
    monkeypatch.setattr(kept_recordings, "PURGE_EVERY_S", 0.01)
    for number in range(5):
        await shop.record(CallId(f"{number}"))
        await shop.make()
    running = asyncio.ensure_future(shop.kept.run())
    await until(lambda: shop.kept.kept[0] == 5)
    assert shop.kept.kept[1] == sum(path.stat().st_size for path in shop.folder.glob("*.wav"))
    shop.clock.passed = WEEK
    await until(lambda: shop.kept.kept == (0, 0) and not shop.left())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert PURGE_AT_ONCE == 100


async def test_a_file_that_cannot_be_removed_is_tried_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        await shop.record(CallId(name))
        await shop.make()
    shop.clock.passed = WEEK
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("a"):
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert await shop.kept.purge() == 1
    assert "could not be removed" in caplog.text
    assert shop.left() == ["a.wav"]
    assert await shop.kept.purge() == 1
    assert shop.left() == []


async def test_files_that_cannot_be_removed_do_not_keep_the_rest_waiting(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though they fill whole batches and come first each time."""
    monkeypatch.setattr(kept_recordings, "PURGE_AT_ONCE", 2)
    for name in ("a1", "a2", "a3", "b1", "b2"):
        await shop.record(CallId(name))
        await shop.make()
    shop.clock.passed = WEEK + timedelta(minutes=1)
    discard = shop.files.discard

    def refuse(record: RecordingRecord) -> None:
        if record.call_id.startswith("a"):
            raise PermissionError(13, "Permission denied")
        discard(record)

    with monkeypatch.context() as patched:
        patched.setattr(shop.files, "discard", refuse)
        assert await shop.kept.purge() == 2
    assert shop.left() == ["a1.wav", "a2.wav", "a3.wav"]
    assert await shop.kept.purge() == 3
    assert shop.left() == []


async def test_a_recording_on_another_servers_disk_is_that_servers(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One database, two disks: whoever has the file serves, purges and deletes it; the other one knows where it is not."""
    await shop.record()
    await shop.make()
    async with running_store(shop.url, node="other-node") as store:
        other = Shop(tmp_path / "other", store, shop.url)
        other.clock = shop.clock
        other.kept = KeptRecordings(other.files, store.recordings, shop.clock)
        assert [kept.record.call_id for kept in await other.kept.page(RecordingQuery("acme", shop.clock.utc(), 10))] == [CALL]
        found = await other.kept.file("acme", CALL)
        assert found is not None and found[1] is None, "it is known to lie on the other disk"
        assert "missing" not in caplog.text
        found = await shop.kept.file("acme", CALL)
        assert found is not None and found[1] == shop.folder / f"{CALL}.wav"
        assert [await other.kept.file(*asked) for asked in (("other", CALL), ("acme", CallId("never")))] == [None, None]
        assert await other.kept.delete("acme", CALL), "any server may be asked to delete it"
        assert await other.kept.file("acme", CALL) is None
        assert await shop.kept.file("acme", CALL) is None
        assert await other.kept.purge() == 0
        assert shop.left() == [f"{CALL}.wav"]
        assert await shop.kept.purge() == 1
        assert shop.left() == []


async def test_servers_that_share_a_disk_serve_each_others_recordings(shop: Shop) -> None:
    await shop.record()
    await shop.make()
    async with running_store(shop.url, node="other-node") as store:
        found = await KeptRecordings(shop.files, store.recordings, shop.clock).file("acme", CALL)
        assert found is not None and found[1] is not None
        assert found[1].is_file()


async def test_a_purge_and_a_deletion_at_the_same_time_both_succeed_or_find_nothing(shop: Shop) -> None:
    for _ in range(5):
        shop.clock.passed = timedelta()
        await shop.record()
        await shop.make()
        shop.clock.passed = WEEK - timedelta(microseconds=1)
        deleting = asyncio.ensure_future(shop.kept.delete("acme", CALL))
        shop.clock.passed = WEEK
        await asyncio.gather(shop.kept.purge(), shop.kept.purge(), deleting, shop.kept.delete("acme", CALL))
        await shop.kept.purge()
        assert shop.left() == []
        assert await shop.state() is None


async def test_a_spool_of_a_killed_process_is_salvaged_and_kept_a_week_from_its_last_sound(shop: Shop) -> None:
    await shop.begin()
    shop.recorders.writer.put(lambda: None)
    recorder = await shop.begin(CallId("b"))
    for position in range(0, 32_000, 160):
        recorder.received(b"\x80" * 160, position)
    await shop.settle()
    last = (shop.files.spools / "b" / "audio").stat().st_mtime
    shop.clock.passed = timedelta(days=3)
    assert await shop.desk.salvage() == 2
    found = await shop.kept.file("acme", CallId("b"))
    assert found is not None
    record, path = found
    assert record.salvaged
    assert record.purge_at is not None
    assert abs((record.purge_at - WEEK).timestamp() - last) < 1
    assert len(soundfile.read(path)[0]) > 8000
    assert not (shop.files.spools / "b").exists()


async def test_a_process_that_died_after_the_listing_does_not_make_the_file_twice(shop: Shop) -> None:
    await shop.record()
    spool_copy = shop.folder.parent / "copy"
    shutil.copytree(shop.files.spools / CALL, spool_copy)
    await shop.make()
    before = (shop.folder / f"{CALL}.wav").stat().st_mtime_ns
    shutil.copytree(spool_copy, shop.files.spools / CALL)
    assert await shop.desk.salvage() == 1
    assert shop.left() == [f"{CALL}.wav"]
    assert (shop.folder / f"{CALL}.wav").stat().st_mtime_ns == before


async def test_leftovers_are_swept_at_the_start_and_nothing_else(shop: Shop) -> None:
    await shop.record()
    await shop.make()
    (shop.folder / "x.opus.draft").write_bytes(b"half")
    (shop.folder / "young.opus").write_bytes(b"of a database that is not this one")
    (shop.folder / "old.opus").write_bytes(b"of nobody")
    (shop.files.spools / "empty").mkdir()
    (shop.files.spools / "empty" / "header.json").write_text("")
    long_ago = (shop.clock.utc() - WEEK - timedelta(hours=1)).timestamp()
    for name in ("old.opus", f"{CALL}.wav"):
        os.utime(shop.folder / name, (long_ago, long_ago))
    await shop.desk.salvage()
    assert shop.left() == [f"{CALL}.wav", "young.opus"]
    assert not (shop.files.spools / "empty").exists()


async def test_a_recording_that_fails_is_tried_at_the_next_start_and_purged_with_its_spool(shop: Shop) -> None:
    await shop.record(password="secret")
    (shop.files.spools / CALL / "file-key").unlink()
    await shop.make()
    assert await shop.state() is RecordingState.FAILED
    assert await shop.kept.file("acme", CALL) is None
    assert await shop.desk.salvage() == 1
    assert await shop.state() is RecordingState.FAILED
    shop.clock.passed = WEEK + timedelta(minutes=1)
    assert await shop.kept.purge() == 1
    assert shop.left() == []


async def test_a_failed_recording_can_be_deleted(shop: Shop) -> None:
    await shop.record(password="secret")
    (shop.files.spools / CALL / "file-key").unlink()
    await shop.make()
    assert await shop.kept.delete("acme", CALL)
    assert shop.left() == []


async def test_a_spool_without_a_readable_header_is_not_kept_for_ever(shop: Shop) -> None:
    await shop.record()
    (shop.files.spools / CALL / "header.json").write_text("{")
    await shop.desk.salvage()
    assert shop.left()
    assert await shop.state() is RecordingState.FAILED
    shop.clock.passed = WEEK + timedelta(minutes=1)
    await shop.desk.salvage()
    assert shop.left() == []
    assert await shop.state() is None


async def test_a_listed_file_that_is_missing_is_not_found(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.record()
    await shop.make()
    (shop.folder / f"{CALL}.wav").unlink()
    assert await shop.kept.file("acme", CALL) is None
    assert "is missing" in caplog.text
    assert await shop.kept.delete("acme", CALL)


async def until(holds: Callable[[], bool]) -> None:
    async def held() -> bool:
        return holds()

    await eventually(held, "the purge is done")

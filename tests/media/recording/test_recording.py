"""Recordings: what was heard is in the file, on its side, at its time, whatever happened to the process."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.domain.errors import RecordingError
from switchhook.domain.model import CallId, Encoding
from switchhook.domain.plan import RecordingSpec
from switchhook.media import g711
from switchhook.media.recording import encryption, spool
from switchhook.media.recording.job import make_in_worker
from switchhook.media.recording.recorder import Background, CallRecorder, SpoolRecorders
from switchhook.media.recording.writer import MOST_WAITING

CALL = CallId("11111111-2222-3333-4444-555555555555")


class Wrap:
    """A server key for tests."""

    def __init__(self) -> None:
        self._key = AESGCM(b"k" * 32)

    def wrap(self, key: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._key.encrypt(nonce, key, None)

    def unwrap(self, wrapped: bytes) -> bytes:
        return self._key.decrypt(wrapped[:12], wrapped[12:], None)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def utc(self) -> datetime:
        return datetime(2026, 3, 12, tzinfo=UTC)


class Rig:
    """Recorders on a folder, with jobs run in place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.keys = Wrap()
        self.waiting: list[Coroutine[Any, Any, None]] = []

        async def run(function: Callable[..., Any], *args: Any) -> Any:
            return function(*args)

        runner: Callable[..., Awaitable[Any]] = run
        self.opened: list[str] = []
        self.sealed: list[CallId] = []
        background = Background(runner, self.waiting.append, lambda told: told())
        self.recorders = SpoolRecorders(
            folder / "spool",
            self.keys,
            self.clock,
            background,
            lambda header: self.opened.append(header.call_id),
            self.sealed.append,
        )

    def open(self, spec: RecordingSpec, encoding: Encoding = Encoding.PCMU) -> CallRecorder:
        recorder = self.recorders.open(CALL, "acme", spec, encoding, self.clock.utc())
        for work in self.waiting:
            asyncio.run(work)
        return recorder

    def make(self) -> Path:
        self.recorders.writer.close()
        folder = self.folder / "spool" / CALL
        header = spool.read_header(folder)
        data_key = self.keys.unwrap(bytes.fromhex(header.wrapped_data_key)) if header.sealed else b""
        salt, wrapped = spool.read_file_key(folder) if header.sealed else (b"", b"")
        made = make_in_worker(folder, self.folder / "done", data_key, self.keys.unwrap(wrapped) if wrapped else b"", salt)
        return self.folder / "done" / made.name


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def tone(hz: float, samples: int, encoding: Encoding = Encoding.PCMU) -> bytes:
    wave = np.sin(2 * np.pi * hz * np.arange(samples) / 8000) * 12000
    return g711.encode(wave.astype("<i2").tobytes(), encoding)


def play(rig: Rig, recorder: CallRecorder, seconds: float, encoding: Encoding = Encoding.PCMU) -> None:
    """The caller at 440 Hz, the agent at 700 Hz, frame by frame."""
    left, right = (tone(hz, int(seconds * 8000), encoding) for hz in (440, 700))
    for position in range(0, int(seconds * 8000), 160):
        rig.clock.time = position / 8000
        recorder.received(left[position : position + 160], position)
        recorder.sent(right[position : position + 160], position)


def frequency(sound: np.ndarray[Any, Any], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum) * rate / len(sound))


def check_sound(path: Path, seconds: float) -> None:
    sound, rate = soundfile.read(path)
    assert sound.shape[1] == 2
    assert abs(len(sound) / rate - seconds) < 0.15
    assert abs(frequency(sound[:, 0], rate) - 440) < 3
    assert abs(frequency(sound[:, 1], rate) - 700) < 3
    frames = sound[: len(sound) // (rate // 50) * (rate // 50)].reshape(-1, rate // 50, 2)
    assert np.sqrt((frames**2).mean(axis=1))[3:-8].min() > 0.1, "there is a hole in the sound"


@pytest.mark.parametrize("kind", ["opus", "mp3", "wav"])
@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA])
def test_both_sides_are_in_the_file(rig: Rig, kind: str, encoding: Encoding) -> None:
    recorder = rig.open(RecordingSpec(kind), encoding)
    play(rig, recorder, 3.5, encoding)
    recorder.stop()
    recorder.stop()
    check_sound(rig.make(), 3.5)
    assert rig.sealed == [CALL]


@pytest.mark.parametrize("kind", ["opus", "wav"])
def test_encrypted_recording_opens_with_its_password_only(rig: Rig, kind: str, tmp_path: Path) -> None:
    recorder = rig.open(RecordingSpec(kind, "open sesame"))
    play(rig, recorder, 2.5)
    recorder.stop()
    path = rig.make()
    assert path.name == f"{CALL}.{kind}.enc"
    plain = tmp_path / f"plain.{kind}"
    plain.write_bytes(encryption.decrypt(path.read_bytes(), "open sesame"))
    check_sound(plain, 2.5)
    with pytest.raises(RecordingError, match="password is wrong"):
        encryption.decrypt(path.read_bytes(), "open sesam")
    with pytest.raises(RecordingError, match="too short"):
        encryption.decrypt(b"short", "open sesame")


def test_a_call_that_is_over_before_its_key_is_derived_waits_for_it(rig: Rig) -> None:
    recorder = rig.recorders.open(CALL, "acme", RecordingSpec("wav", "secret"), Encoding.PCMU, rig.clock.utc())
    play(rig, recorder, 0.2)
    recorder.stop()
    rig.recorders.writer.close()
    assert rig.sealed == []
    asyncio.run(rig.waiting.pop())
    rig.recorders.writer.close()
    assert rig.sealed == [CALL]
    assert rig.make().name == f"{CALL}.wav.enc"


def test_neither_password_nor_sound_lies_plain_on_the_disk(rig: Rig, tmp_path: Path) -> None:
    recorder = rig.open(RecordingSpec("wav", "open sesame"))
    play(rig, recorder, 2.0)
    recorder.stop()
    rig.make()
    piece = tone(440, 400)
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        content = file.read_bytes()
        assert b"open sesame" not in content, file
        assert piece not in content, file


@pytest.mark.parametrize("password", [None, "secret"])
def test_killed_process_leaves_all_but_the_last_seconds(rig: Rig, password: str | None, tmp_path: Path) -> None:
    recorder = rig.open(RecordingSpec("wav", password))
    play(rig, recorder, 6.0)
    # No stop: the process is gone. What was handed to the writer is what the disk has.
    path = rig.make()
    if password:
        plain = tmp_path / "plain.wav"
        plain.write_bytes(encryption.decrypt(path.read_bytes(), password))
        path = plain
    check_sound(path, 4.0)


def test_sound_that_arrives_late_or_out_of_order_is_put_in_its_place(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    sound = tone(440, 16_000)
    frames = [(position, sound[position : position + 160]) for position in range(0, 16_000, 160)]
    frames[30], frames[45] = frames[45], frames[30]
    for position, frame in frames:
        rig.clock.time = position / 8000
        recorder.received(frame, position)
    recorder.stop()
    samples, _ = soundfile.read(rig.make(), dtype="int16")
    expected = np.frombuffer(g711.decode(sound, Encoding.PCMU), "<i2")
    assert np.array_equal(samples[:, 0], expected)
    assert not samples[:, 1].any()


def test_a_side_that_speaks_again_after_a_long_silence_takes_nothing_from_the_other(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    for position in range(0, 6_400, 160):
        rig.clock.time = position / 8000
        recorder.sent(tone(700, 160), position)
    rig.clock.time = 30.0
    recorder.received(tone(440, 160), 30 * 8000)
    recorder.stop()
    sound, rate = soundfile.read(rig.make())
    assert len(sound) == 30 * rate + 160
    assert np.abs(sound[:6_400, 1].reshape(-1, 160)).max(axis=1).min() > 0.3
    assert np.abs(sound[30 * rate :, 0]).max() > 0.3


@pytest.mark.parametrize("size", [1, 160, 1_600, 8_000])
def test_frames_of_any_size_lie_where_they_belong(rig: Rig, size: int) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    sound = tone(440, 40_000)
    for position in range(0, 40_000, size):
        rig.clock.time = position / 8000
        recorder.received(sound[position : position + size], position + 77)
        recorder.sent(sound[position : position + size], position)
    recorder.stop()
    samples, _ = soundfile.read(rig.make(), dtype="int16")
    expected = np.frombuffer(g711.decode(sound, Encoding.PCMU), "<i2")
    assert np.array_equal(samples[77:40_077, 0], expected)
    assert np.array_equal(samples[:40_000, 1], expected)


def test_what_comes_after_the_end_is_not_recorded(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 1.5)
    recorder.stop()
    play(rig, recorder, 3.0)
    check_sound(rig.make(), 1.5)


def test_a_pause_is_silence_and_costs_no_disk(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 1.0)
    rig.clock.time = 600.0
    recorder.received(tone(440, 160), 600 * 8000)
    recorder.stop()
    path = rig.make()
    blocks = (rig.folder / "spool" / CALL / "audio").stat().st_blocks * 512
    assert blocks < 200_000
    samples, rate = soundfile.read(path)
    assert len(samples) == 600 * rate + 160
    assert np.abs(samples[2 * rate : 599 * rate]).max() < 0.001


@pytest.mark.parametrize("kind", ["opus", "mp3", "wav"])
def test_a_call_without_sound_gives_a_file_that_opens(rig: Rig, kind: str) -> None:
    rig.open(RecordingSpec(kind)).stop()
    sound, _ = soundfile.read(rig.make())
    assert not np.abs(sound).max(initial=0) > 0.01


def test_a_timestamp_that_jumps_by_hours_is_not_believed(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 1.0)
    recorder.received(tone(440, 160), 1 << 31)
    recorder.stop()
    check_sound(rig.make(), 1.0)


def sealed_spool(rig: Rig, seconds: float) -> tuple[Path, spool.SpoolHeader, bytes]:
    """A complete spool with a password: its folder, header and data key."""
    recorder = rig.open(RecordingSpec("wav", "secret"))
    play(rig, recorder, seconds)
    recorder.stop()
    rig.recorders.writer.close()
    folder = rig.folder / "spool" / CALL
    header = spool.read_header(folder)
    return folder, header, rig.keys.unwrap(bytes.fromhex(header.wrapped_data_key))


def test_a_changed_second_is_silence_and_the_others_are_kept(rig: Rig, tmp_path: Path) -> None:
    folder, header, data_key = sealed_spool(rig, 4.0)
    content = bytearray((folder / "audio").read_bytes())
    content[spool.record_size(header) + 100] ^= 1
    (folder / "audio").write_bytes(content)
    damaged: list[int] = []
    seconds = list(spool.records(folder, header, data_key, Encoding.PCMU.silence, damaged))
    assert damaged == [1]
    assert seconds[1] == (b"\xff" * 8000, b"\xff" * 8000)
    assert b"".join(caller for caller, _ in seconds[2:]) == tone(440, 32_000)[16_000:]
    plain = tmp_path / "plain.wav"
    salt, wrapped = spool.read_file_key(folder)
    made = make_in_worker(folder, rig.folder / "done", data_key, rig.keys.unwrap(wrapped), salt)
    assert made.salvaged
    plain.write_bytes(encryption.decrypt((rig.folder / "done" / made.name).read_bytes(), "secret"))
    sound, rate = soundfile.read(plain)
    assert len(sound) == 4 * rate
    assert not np.abs(sound[rate : 2 * rate]).max() > 0.001


def test_a_wrong_key_makes_no_file(rig: Rig) -> None:
    folder, _, _ = sealed_spool(rig, 4.0)
    salt, wrapped = spool.read_file_key(folder)
    with pytest.raises(RecordingError, match="key is wrong"):
        make_in_worker(folder, rig.folder / "done", b"w" * 32, rig.keys.unwrap(wrapped), salt)
    assert not list((rig.folder / "done").glob("*.enc"))


def test_a_torn_last_second_is_silence_and_the_recording_counts_as_salvaged(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 3.5)
    recorder.stop()
    rig.recorders.writer.close()
    folder = rig.folder / "spool" / CALL
    os.truncate(folder / "audio", 3 * spool.RECORD_BYTES + 5_000)
    made = make_in_worker(folder, rig.folder / "done", b"", b"", b"")
    assert made.salvaged
    sound, rate = soundfile.read(rig.folder / "done" / made.name)
    assert len(sound) == 3.5 * rate
    assert abs(frequency(sound[: 3 * rate, 0], rate) - 440) < 3
    assert not np.abs(sound[3 * rate :]).max() > 0.001


def test_a_second_that_a_full_disk_cuts_is_silence_and_later_ones_are_in_their_place(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full_at = os.pwrite, spool.RECORD_BYTES + 5_000

    def pwrite(fd: int, data: bytes, position: int) -> int:
        if position == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[: full_at - position] if position < full_at else data, position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 3.0)
    recorder.stop()
    sound, rate = soundfile.read(rig.make())
    assert rig.sealed == [CALL]
    assert len(sound) == 3 * rate
    assert not np.abs(sound[rate : 2 * rate]).max() > 0.001
    assert abs(frequency(sound[2 * rate :, 0], rate) - 440) < 3


def test_the_end_of_a_recording_is_written_however_far_the_disk_is_behind(rig: Rig) -> None:
    writer, free, done = rig.recorders.writer, threading.Event(), list[int]()

    def hold() -> None:
        free.wait(10)

    writer.put(hold)
    recorder = rig.open(RecordingSpec("wav"))
    for _ in range(MOST_WAITING + 100):
        writer.put_sound(lambda: done.append(1))
    recorder.stop()
    free.set()
    writer.close()
    assert rig.sealed == [CALL]
    assert writer.dropped >= 99
    assert len(done) <= MOST_WAITING + 1


def test_a_job_that_fails_does_not_end_the_other_recordings(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("broken job")

    rig.recorders.writer.put(fail)
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 1.5)
    recorder.stop()
    check_sound(rig.make(), 1.5)
    assert "broken job" in caplog.text


def test_a_recording_whose_end_cannot_be_written_is_salvaged(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    rig.recorders.writer.close()
    (rig.folder / "spool" / CALL / "end").mkdir()
    play(rig, recorder, 2.0)
    recorder.stop()
    check_sound(rig.make(), 2.0)
    assert rig.sealed == [CALL]


def test_a_key_that_cannot_be_derived_does_not_leave_the_recording_hanging(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrap(_: bytes) -> bytes:
        raise MemoryError("no memory to derive")

    recorder = rig.recorders.open(CALL, "acme", RecordingSpec("wav", "secret"), Encoding.PCMU, rig.clock.utc())
    monkeypatch.setattr(rig.keys, "wrap", wrap)
    with pytest.raises(MemoryError):
        asyncio.run(rig.waiting.pop())
    recorder.stop()
    rig.recorders.writer.close()
    assert rig.sealed == [CALL]
    assert "no memory to derive" in caplog.text
    with pytest.raises(RecordingError, match="never written"):
        rig.make()


def test_a_key_that_cannot_be_written_does_not_leave_the_recording_hanging(rig: Rig) -> None:
    recorder = rig.recorders.open(CALL, "acme", RecordingSpec("wav", "secret"), Encoding.PCMU, rig.clock.utc())
    rig.recorders.writer.close()
    (rig.folder / "spool" / CALL / "file-key.draft").mkdir()
    asyncio.run(rig.waiting.pop())
    recorder.stop()
    rig.recorders.writer.close()
    assert rig.sealed == [CALL]


def held(rig: Rig) -> threading.Event:
    """The disk does nothing until the event is set."""
    reached, free = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        free.wait(10)

    rig.recorders.writer.put(hold)
    assert reached.wait(10)
    return free


def test_opening_touches_the_disk_on_the_writing_thread_alone(rig: Rig) -> None:
    free = held(rig)
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 1.5)
    assert not (rig.folder / "spool").exists()
    assert rig.opened == []
    recorder.stop()
    free.set()
    check_sound(rig.make(), 1.5)
    assert rig.opened == [CALL]


def test_a_recording_that_cannot_be_opened_is_told_and_costs_only_itself(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    (rig.folder / "spool").write_text("in the way")
    told: list[str] = []
    for spec in (RecordingSpec("wav"), RecordingSpec("wav", "secret")):
        recorder = rig.recorders.open(CALL, "acme", spec, Encoding.PCMU, rig.clock.utc(), told.append)
        play(rig, recorder, 2.5)
        recorder.stop()
    asyncio.run(rig.waiting.pop())
    rig.recorders.writer.close()
    assert told == ["the recording cannot be opened: Not a directory"] * 2
    assert (rig.opened, rig.sealed) == ([], [])
    assert "could not be written" not in caplog.text


def test_a_full_disk_at_the_opening_leaves_nothing_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def full(path: Any, *more: Any, **named: Any) -> int:
        if Path(path).name == "audio" and not named:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *more, **named)

    monkeypatch.setattr(os, "open", full)
    told: list[str] = []
    recorder = rig.recorders.open(CALL, "acme", RecordingSpec("wav"), Encoding.PCMU, rig.clock.utc(), told.append)
    recorder.stop()
    rig.recorders.writer.close()
    assert told == ["the recording cannot be opened: No space left on device"]
    assert not (rig.folder / "spool" / CALL).exists()


def test_a_disk_that_is_too_far_behind_takes_no_new_recording_and_tells_what_it_dropped(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    writer = rig.recorders.writer
    recorder = rig.open(RecordingSpec("wav"))
    free = held(rig)
    for _ in range(MOST_WAITING + 1):
        writer.put_sound(lambda: None)
    with pytest.raises(RecordingError, match="too far behind"):
        rig.open(RecordingSpec("wav"))
    before = writer.dropped
    play(rig, recorder, 3.0)
    recorder.stop()
    free.set()
    rig.make()
    assert writer.dropped == before + 3
    [told] = [record for record in caplog.records if "dropped" in record.getMessage()]
    assert (vars(told)["call_id"], vars(told)["seconds"]) == (CALL, 3)


def place(rig: Rig, recorder: CallRecorder, begin: float, end: float) -> None:
    """Both sides speak between two times."""
    sound = tone(440, int(end * 8000))
    for position in range(int(begin * 8000), int(end * 8000), 160):
        rig.clock.time = position / 8000
        recorder.received(sound[position : position + 160], position)
        recorder.sent(sound[position : position + 160], position)


@pytest.mark.parametrize("password", [None, "secret"])
def test_a_pause_is_silence_of_its_true_length_on_both_sides(rig: Rig, tmp_path: Path, password: str | None) -> None:
    recorder = rig.open(RecordingSpec("wav", password))
    place(rig, recorder, 0, 1.5)
    recorder.pause()
    recorder.pause()
    place(rig, recorder, 1.5, 4.25)
    recorder.resume()
    recorder.resume()
    place(rig, recorder, 4.25, 6)
    recorder.stop()
    path = rig.make()
    if password:
        plain = tmp_path / "plain.wav"
        plain.write_bytes(encryption.decrypt(path.read_bytes(), password))
        path = plain
    sound, rate = soundfile.read(path)
    assert len(sound) == 6 * rate
    assert not np.abs(sound[int(1.5 * rate) : int(4.25 * rate)]).max() > 0.001
    for audible in (sound[: int(1.5 * rate)], sound[int(4.25 * rate) :]):
        for side in (0, 1):
            assert abs(frequency(audible[:, side], rate) - 440) < 3
            assert np.abs(audible[-400:, side]).max() > 0.3


def test_a_line_that_changes_within_a_second_keeps_what_came_before(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    place(rig, recorder, 0, 1.5)
    rig.clock.time = 1.5
    recorder.change_line()
    for position in range(0, 4_000, 160):
        rig.clock.time = 1.5 + position / 8000
        recorder.received(tone(330, 160), 80_000 + position)
    recorder.stop()
    sound, rate = soundfile.read(rig.make())
    assert len(sound) == 2 * rate
    assert np.abs(sound[:, 0].reshape(-1, 160)).max(axis=1).min() > 0.3
    assert np.abs(sound[: int(1.5 * rate), 1].reshape(-1, 160)).max(axis=1).min() > 0.3
    assert not np.abs(sound[int(1.5 * rate) :, 1]).max() > 0.001


@pytest.mark.parametrize("answered_ago", [0, 30 * 8000])
def test_a_call_that_goes_on_over_another_line_is_recorded_on(rig: Rig, answered_ago: int) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    play(rig, recorder, 4.0)
    recorder.change_line()
    low, high = tone(330, 16_000), tone(900, 16_000)
    for position in range(0, 16_000, 160):
        rig.clock.time = 5.0 + position / 8000
        recorder.received(low[position : position + 160], answered_ago + position)
        recorder.sent(high[position : position + 160], answered_ago + position)
    recorder.stop()
    sound, rate = soundfile.read(rig.make())
    assert len(sound) == 7 * rate
    assert abs(frequency(sound[: 4 * rate, 0], rate) - 440) < 3
    assert not np.abs(sound[4 * rate : 5 * rate]).max() > 0.001
    assert abs(frequency(sound[5 * rate :, 0], rate) - 330) < 3
    assert abs(frequency(sound[5 * rate :, 1], rate) - 900) < 3


def test_nothing_of_a_pause_touches_the_disk(rig: Rig, tmp_path: Path) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    recorder.pause()
    place(rig, recorder, 0, 5)
    recorder.stop()
    rig.recorders.writer.close()
    audio = (rig.folder / "spool" / CALL / "audio").read_bytes()
    assert set(audio) <= {0, 0xFF}
    sound, rate = soundfile.read(rig.make())
    assert len(sound) == 5 * rate
    assert not np.abs(sound).max() > 0.001


def test_sound_of_a_pause_that_comes_late_stays_silent(rig: Rig) -> None:
    recorder = rig.open(RecordingSpec("wav"))
    place(rig, recorder, 0, 1)
    recorder.pause()
    recorder.received(b"\xff" * 160, 8000 + 1600)
    recorder.resume()
    for position in range(8000, 8000 + 1600, 160):
        recorder.received(tone(440, 160), position)
    place(rig, recorder, 1.24, 2)
    recorder.stop()
    sound, rate = soundfile.read(rig.make())
    assert len(sound) == 2 * rate
    assert not np.abs(sound[rate : int(1.22 * rate)]).max() > 0.001
    assert np.abs(sound[int(1.24 * rate) :]).max() > 0.3


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["pause", "resume"]),
            st.tuples(st.integers(0, 6 * 8000), st.integers(1, 320), st.booleans()),
        ),
        max_size=60,
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_comes_in_whatever_order_no_frame_of_a_pause_is_written(script: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        recorder = rig.open(RecordingSpec("wav"))
        rig.clock.time, paused = 6.0, False
        for step in script:
            if isinstance(step, str):
                paused = step == "pause"
                recorder.pause() if paused else recorder.resume()
            else:
                position, size, received = step
                frame = (b"\x22" if paused else b"\x11") * size
                (recorder.received if received else recorder.sent)(frame, position)
        recorder.stop()
        rig.recorders.writer.close()
        assert b"\x22" not in (rig.folder / "spool" / CALL / "audio").read_bytes()
        assert rig.sealed == [CALL]

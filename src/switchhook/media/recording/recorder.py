"""Records live calls: both directions placed by RTP time, one second after another handed to a single writing thread."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from switchhook.domain.model import CallId, Encoding
from switchhook.domain.plan import RecordingSpec
from switchhook.domain.ports import Clock
from switchhook.media.recording import spool
from switchhook.media.recording.encryption import SALT_BYTES, derive_key
from switchhook.media.recording.spool import SAMPLES, SpoolHeader

log = logging.getLogger(__name__)

OPEN_SECONDS = 2
"""Seconds kept in memory behind the newest, for sound that arrives out of order."""
AHEAD_S = 5
"""Sound placed further ahead of the clock than this is not believed: a peer's timestamps may jump by hours."""
MOST_WAITING = 2_000
"""Jobs that may wait before a record of sound (16 kB) is dropped and counted, so that a dead disk costs 32 MB at most."""

GATHER_S = 0.25
"""How long a writing thread that has caught up lets jobs gather: one wake-up serves the seconds of many calls."""

Job: TypeAlias = Callable[[], None]
Sealed: TypeAlias = Callable[[CallId], None]
"""Told, on the writing thread, that a spool is complete."""


class KeyWrap(Protocol):
    """Encrypts keys under the server key."""

    def wrap(self, key: bytes) -> bytes:
        """The key, encrypted."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key again."""


class SpoolWriter:
    """One thread that writes all recordings, so that the audio path never waits for the disk."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.dropped = 0

    def put_sound(self, job: Job) -> None:
        """Do this in order with the other jobs. Dropped and counted when the disk is too far behind."""
        if self._jobs.qsize() >= MOST_WAITING:
            self.dropped += 1
        else:
            self.put(job)

    def put(self, job: Job) -> None:
        """Do this in order with the other jobs, however many wait: it holds no sound, and a recording has two of them at most."""
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._run, name="recording-writer", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        """Write what waits, then end."""
        if self._thread is not None:
            self._closing.set()
            self._jobs.put(None)
            self._thread.join(30)
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # the edge of the thread: what fails for one recording must not end all others
                log.exception("recording could not be written")
            if self._jobs.empty():
                self._closing.wait(GATHER_S)


class CallRecorder:
    """One recording under way (the `Recorder` port). `received` and `sent` take G.711 at a position in samples since answer."""

    def __init__(
        self, folder: Path, header: SpoolHeader, data_key: bytes, writer: SpoolWriter, clock: Clock, on_sealed: Sealed
    ) -> None:
        self._on_sealed = on_sealed
        self._folder = folder
        self._header = header
        self._data_key = data_key
        self._writer = writer
        self._clock = clock
        self._started = clock.now()
        self._fd = spool.create(folder, header)
        self._blank = Encoding(header.encoding).silence * (2 * SAMPLES)
        self._open: dict[int, bytearray] = {}
        self._newest = -1
        self._end = 0
        self._stopped = False

    def received(self, payload: bytes, position: int) -> None:
        """Sound from the caller."""
        self._place(payload, position, 0)

    def sent(self, payload: bytes, position: int) -> None:
        """Sound to the caller."""
        self._place(payload, position, SAMPLES)

    def stop(self) -> None:
        """Hand over what is left; idempotent."""
        if self._stopped:
            return
        self._stopped = True
        for index in sorted(self._open):
            self._write(index)
        fd, folder, samples, on_sealed = self._fd, self._folder, self._end, self._on_sealed

        def finish() -> None:
            try:
                os.close(fd)
                spool.end(folder, samples)
            finally:
                # Without its end the spool is salvaged.
                on_sealed(CallId(folder.name))

        self._writer.put(finish)

    def _place(self, payload: bytes, position: int, channel: int) -> None:
        index, offset = divmod(position, SAMPLES)
        record = self._open.get(index)
        if record is None:
            record = self._turn_to(index)
            if record is None:
                return
        size = len(payload)
        if offset + size > SAMPLES:
            first = SAMPLES - offset
            self._place(payload[first:], position + first, channel)
            payload, size = payload[:first], first
        start = channel + offset
        record[start : start + size] = payload
        if position + size > self._end:
            self._end = position + size

    def _turn_to(self, index: int) -> bytearray | None:
        """Open a second; None for one that was already written or that lies too far ahead."""
        if self._stopped or index <= self._newest - OPEN_SECONDS or index < 0:
            return None
        if index > self._clock.now() - self._started + AHEAD_S:
            return None
        record = self._open[index] = bytearray(self._blank)
        if index > self._newest:
            self._newest = index
            for old in [old for old in self._open if old <= index - OPEN_SECONDS]:
                self._write(old)
        return record

    def _write(self, index: int) -> None:
        record = bytes(self._open.pop(index))
        fd, header, key = self._fd, self._header, self._data_key
        position = index * spool.record_size(header)
        self._writer.put_sound(lambda: _write_at(fd, spool.seal(record, index, header, key), position))


class _SealedAfter:
    """Tells that a spool is complete once so many parts of it are written. Called on the writing thread alone."""

    def __init__(self, parts: int, on_sealed: Sealed) -> None:
        self._left = parts
        self._on_sealed = on_sealed

    def __call__(self, call_id: CallId) -> None:
        self._left -= 1
        if self._left == 0:
            self._on_sealed(call_id)


def _write_at(fd: int, data: bytes, position: int) -> None:
    """Write a record whole. Raises OSError when that fails; what was written of it is then zeroed, which reads as silence."""
    done = 0
    try:
        while done < len(data):
            done += os.pwrite(fd, data[done:], position + done)
    except OSError:
        if done:
            os.pwrite(fd, bytes(done), position)
        raise


class SpoolRecorders:
    """Opens recordings in a folder (the `Recorders` port); each gets a folder of its own there, named by its call.

    `run` runs a function in a worker process; `spawn` keeps a coroutine alive until it is done.
    """

    def __init__(
        self,
        folder: Path,
        keys: KeyWrap,
        clock: Clock,
        run: Callable[..., Awaitable[Any]],
        spawn: Callable[[Any], object],
        on_sealed: Sealed,
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._clock = clock
        self._run = run
        self._spawn = spawn
        self._on_sealed = on_sealed
        self.writer = SpoolWriter()

    def open(self, call_id: CallId, account: str, spec: RecordingSpec, encoding: Encoding, started_at: datetime) -> CallRecorder:
        """Begin to spool. Raises OSError when the folder cannot be made."""
        sealed = spec.password is not None
        data_key = os.urandom(32) if sealed else b""
        header = SpoolHeader(
            call_id=call_id,
            account=account,
            encoding=encoding.value,
            format=spec.format,
            started_at=started_at.isoformat(),
            sealed=sealed,
            wrapped_data_key=self._keys.wrap(data_key).hex() if sealed else "",
        )
        folder = self._folder / call_id
        # A call may be over before its password's key is derived: its file is made when both are on disk.
        on_sealed = _SealedAfter(2 if sealed else 1, self._on_sealed)
        recorder = CallRecorder(folder, header, data_key, self.writer, self._clock, on_sealed)
        if spec.password is not None:
            self._spawn(self._keep_file_key(folder, spec.password, on_sealed))
        return recorder

    async def _keep_file_key(self, folder: Path, password: str, kept: Sealed) -> None:
        call_id = CallId(folder.name)
        salt = os.urandom(SALT_BYTES)
        try:
            wrapped = self._keys.wrap(await self._run(derive_key, password, salt))
        except Exception:
            # Without its key no file can be made: the spool is passed on all the same, so that the recording is listed as failed.
            log.exception("the key of a recording could not be derived", extra={"call_id": call_id})
            self.writer.put(lambda: kept(call_id))
            raise

        def keep() -> None:
            try:
                spool.keep_file_key(folder, salt, wrapped)
            finally:
                kept(call_id)

        self.writer.put(keep)

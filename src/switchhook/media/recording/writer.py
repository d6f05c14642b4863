"""The writing side of recordings: one thread for all of them, and the spool as that thread holds it."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from switchhook.domain.model import CallId
from switchhook.media.recording import spool
from switchhook.media.recording.spool import SpoolHeader

log = logging.getLogger(__name__)

MOST_WAITING = 2_000
"""Jobs that may wait before a record of sound (16 kB) is dropped and counted, so that a dead disk costs 32 MB at most."""
GATHER_S = 0.25
"""How long a writing thread that has caught up lets jobs gather: one wake-up serves the seconds of many calls."""

Job: TypeAlias = Callable[[], None]


class SpoolWriter:
    """One thread that writes all recordings, so that the audio path never waits for the disk."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.dropped = 0
        """Seconds of sound that were not written."""

    @property
    def behind(self) -> bool:
        """Whether the disk is too far behind to take more sound."""
        return self._jobs.qsize() >= MOST_WAITING

    def put_sound(self, job: Job) -> bool:
        """Do this in order with the other jobs. False: dropped and counted, because the disk is too far behind."""
        if self.behind:
            self.dropped += 1
            return False
        self.put(job)
        return True

    def put(self, job: Job) -> None:
        """Do this in order with the other jobs, however many wait: it holds no sound, and a recording has three at most."""
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


class SpoolFile:
    """One spool as the writing thread holds it: every method runs there, in the order in which it was asked for.

    `on_sealed` is told when all parts are on disk: the sound, and with a password the key of the finished file too. A spool that
    could not be created swallows everything.
    """

    def __init__(self, folder: Path, header: SpoolHeader, data_key: bytes, on_sealed: Callable[[CallId], None]) -> None:
        self._folder = folder
        self._header = header
        self._data_key = data_key
        self._on_sealed = on_sealed
        # A call may be over before its password's key is derived: its file is made when both are on disk.
        self._owed = 2 if header.sealed else 1
        self._created = False
        self._fd = -1

    def create(self) -> None:
        """Make the folder. Raises OSError, and leaves nothing behind then."""
        try:
            self._fd = spool.create(self._folder, self._header)
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._created = True

    def write(self, record: bytes | bytearray, index: int) -> None:
        """Write one second whole. Raises OSError when that fails; what was written is then zeroed, which reads as silence."""
        if self._created:
            data = spool.seal(record, index, self._header, self._data_key)
            _write_at(self._fd, data, index * spool.record_size(self._header))

    def end(self, samples: int) -> None:
        """The sound is complete. Raises OSError when its end cannot be written; without it the spool is salvaged."""
        if not self._created:
            return
        try:
            fd, self._fd = self._fd, -1  # the number is somebody else's next
            os.close(fd)
            spool.end(self._folder, samples)
        finally:
            self._part_done()

    def keep_file_key(self, salt: bytes, wrapped_key: bytes) -> None:
        """Write the key of the finished file. Raises OSError."""
        if not self._created:
            return
        try:
            spool.keep_file_key(self._folder, salt, wrapped_key)
        finally:
            self._part_done()

    def give_up_file_key(self) -> None:
        """There will be no key: the spool is passed on all the same, so that the recording is listed as failed."""
        if self._created:
            self._part_done()

    def _part_done(self) -> None:
        self._owed -= 1
        if self._owed == 0:
            self._on_sealed(CallId(self._header.call_id))


def _write_at(fd: int, data: bytes | bytearray, position: int) -> None:
    done = 0
    try:
        while done < len(data):
            done += os.pwrite(fd, data[done:] if done else data, position + done)
    except OSError:
        if done:
            os.pwrite(fd, bytes(done), position)
        raise

"""Records live calls: both directions placed by RTP time, one second after another handed to a single writing thread."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from switchhook.domain.errors import RecordingError
from switchhook.domain.model import CallId, Encoding
from switchhook.domain.plan import RecordingSpec
from switchhook.domain.ports import Clock
from switchhook.media.recording.encryption import SALT_BYTES, derive_key
from switchhook.media.recording.spool import RECORD_BYTES, SAMPLES, SpoolHeader
from switchhook.media.recording.writer import SpoolFile, SpoolWriter

log = logging.getLogger(__name__)

OPEN_SECONDS = 2
"""Seconds kept in memory behind the newest, for sound that arrives out of order."""
AHEAD_S = 5
"""Sound placed further ahead of the clock than this is not believed: a peer's timestamps may jump by hours."""
_AT_ONCE = -sys.maxsize
"""Before any position."""

Sealed: TypeAlias = Callable[[CallId], None]
"""Told, on the event loop, that a spool is complete."""
Opened: TypeAlias = Callable[[SpoolHeader], None]
"""Told, on the event loop, that a spool lies on the disk."""


class KeyWrap(Protocol):
    """Encrypts keys under the server key."""

    def wrap(self, key: bytes) -> bytes:
        """The key, encrypted."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key again."""


@dataclass(frozen=True, slots=True)
class Background:
    """How recorders get done what must not keep a call waiting."""

    run: Callable[..., Awaitable[Any]]
    """Runs a function in a worker process."""
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    """Keeps a coroutine alive until it is done."""
    tell: Callable[[Callable[[], None]], object]
    """Runs a function on the event loop; called on the writing thread."""


class CallRecorder:
    """One recording under way (the `Recorder` port). `received` and `sent` take G.711 at a position in samples since answer.

    A frame costs an entry in a list: they are put in their places together, when a second is over and before anything changes
    how they are placed.
    """

    def __init__(self, file: SpoolFile, call_id: CallId, encoding: Encoding, writer: SpoolWriter, clock: Clock) -> None:
        self._file = file
        self._call_id = call_id
        self._writer = writer
        self._clock = clock
        self._started = clock.now()
        self._blank = encoding.silence * RECORD_BYTES
        self._gathered: list[tuple[int, bytes, int]] = []
        """Position on the line, sound, and where its channel begins in a record."""
        self._settle_at = _AT_ONCE
        """The line's first position that is not of an open second: sound from there on has to be placed as it comes."""
        self._open: dict[int, bytearray] = {}
        self._newest = -1
        self._end = 0
        self._audible_from = 0
        """Sound placed before this position is silenced; during a pause that is all of it."""
        self._paused = False
        self._line_changed = False
        self._shift = 0
        """Added to a line's positions; that of the first line is nought."""
        self._dropped = 0
        self._stopped = False

    def received(self, payload: bytes, position: int) -> None:
        """Sound from the caller."""
        self._gathered.append((position, payload, 0))
        if position >= self._settle_at:
            self._settle()

    def sent(self, payload: bytes, position: int) -> None:
        """Sound to the caller."""
        self._gathered.append((position, payload, SAMPLES))
        if position >= self._settle_at:
            self._settle()

    def change_line(self) -> None:
        """What follows comes from another line; its first frame is placed at the present time."""
        self._settle()
        self._line_changed = True
        self._settle_at = _AT_ONCE

    def pause(self) -> None:
        """Silence from here on; idempotent."""
        self._settle()
        self._paused = True
        self._audible_from = sys.maxsize

    def resume(self) -> None:
        """Record again, from the end of what came during the pause; idempotent."""
        if self._paused:
            self._settle()
            self._paused = False
            self._audible_from = self._end

    def stop(self) -> None:
        """Hand over what is left; idempotent."""
        if self._stopped:
            return
        self._settle()
        self._stopped = True
        self._settle_at = _AT_ONCE
        for index in sorted(self._open):
            self._write(index)
        if self._dropped:
            log.warning(
                "seconds of a recording were dropped: the disk was too far behind",
                extra={"call_id": self._call_id, "seconds": self._dropped},
            )
        file, samples = self._file, self._end
        self._writer.put(lambda: file.end(samples))

    def _settle(self) -> None:
        """Place what was gathered, in the order in which it came."""
        gathered, self._gathered = self._gathered, []
        if self._line_changed and gathered:
            self._go_on_from(gathered[0][0])
        newest = self._newest * SAMPLES
        begins, reach = newest - self._shift, 0
        record = self._open.get(self._newest) if newest >= self._audible_from else None
        for position, payload, channel in gathered:
            offset = position - begins
            until = offset + len(payload)
            if record is None or offset < 0 or until > SAMPLES:
                self._place(payload, position + self._shift, channel)
                continue
            # Audible and in the newest second, as nearly all: a copy will do.
            record[channel + offset : channel + until] = payload
            if until > reach:
                reach = until
        if reach:
            self._end = max(self._end, newest + reach)
        if not (self._line_changed or self._stopped):
            self._settle_at = (self._newest + 1) * SAMPLES - self._shift

    def _go_on_from(self, position: int) -> None:
        present = max(int((self._clock.now() - self._started) * SAMPLES), self._end)
        self._shift, self._line_changed = present - position, False

    def _place(self, payload: bytes, position: int, channel: int) -> None:
        index, offset = divmod(position, SAMPLES)
        record = self._open.get(index)
        if record is None:
            record = self._turn_to(index)
            if record is None:
                return
        rest = payload[SAMPLES - offset :]
        if rest:
            payload = payload[: SAMPLES - offset]
        size = len(payload)
        if position >= self._audible_from:
            start = channel + offset
            record[start : start + size] = payload
        if position + size > self._end:
            self._end = position + size
        if rest:
            self._place(rest, position + size, channel)

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
        file, record = self._file, self._open.pop(index)
        if not self._writer.put_sound(lambda: file.write(record, index)):
            self._dropped += 1


class SpoolRecorders:
    """Opens recordings in a folder (the `Recorders` port); each gets a folder of its own there, named by its call."""

    def __init__(
        self, folder: Path, keys: KeyWrap, clock: Clock, background: Background, on_opened: Opened, on_sealed: Sealed
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._clock = clock
        self._background = background
        self._on_opened = on_opened
        self._on_sealed = on_sealed
        self.writer = SpoolWriter()

    def open(
        self,
        call_id: CallId,
        account: str,
        spec: RecordingSpec,
        encoding: Encoding,
        started_at: datetime,
        on_failed: Callable[[str], None] | None = None,
    ) -> CallRecorder:
        """Begin to spool; the writing thread makes the spool's folder, and `on_failed` is told when it cannot.

        Raises RecordingError when the disk is so far behind that nothing of the recording would be written.
        """
        if self.writer.behind:
            raise RecordingError("the recording cannot be opened: the disk is too far behind with those of other calls")
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
        file = SpoolFile(self._folder / call_id, header, data_key, self._tell_sealed)
        self.writer.put(lambda: self._create(file, header, on_failed))
        if spec.password is not None:
            self._background.spawn(self._keep_file_key(file, call_id, spec.password))
        return CallRecorder(file, call_id, encoding, self.writer, self._clock)

    def _create(self, file: SpoolFile, header: SpoolHeader, on_failed: Callable[[str], None] | None) -> None:
        """On the writing thread."""
        tell = self._background.tell
        try:
            file.create()
        except OSError as error:
            text = f"the recording cannot be opened: {error.strerror or type(error).__name__}"
            log.error(text, extra={"call_id": header.call_id})
            if on_failed is not None:
                failed = on_failed
                tell(lambda: failed(text))
        else:
            tell(lambda: self._on_opened(header))

    def _tell_sealed(self, call_id: CallId) -> None:
        self._background.tell(lambda: self._on_sealed(call_id))

    async def _keep_file_key(self, file: SpoolFile, call_id: CallId, password: str) -> None:
        salt = os.urandom(SALT_BYTES)
        try:
            wrapped = self._keys.wrap(await self._background.run(derive_key, password, salt))
        except Exception:
            log.exception("the key of a recording could not be derived", extra={"call_id": call_id})
            self.writer.put(file.give_up_file_key)
            raise
        self.writer.put(lambda: file.keep_file_key(salt, wrapped))

"""Outside programs as test peers: started with their own files, awaited with a deadline, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    returncode: int
    output: str
    """Standard output and error."""


class PeerProcess:
    """One program. Use it as an async context manager: on leaving it is ended if it still runs."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._folder = folder
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.log = folder / "output.log"

    async def __aenter__(self) -> PeerProcess:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.end()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The system's number of it, once started."""
        assert self._process is not None
        return self._process.pid

    def read(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def finished(self, timeout_s: float) -> Finished:
        """Wait until it ends by itself. Raises AssertionError with its output when it does not."""
        assert self._process is not None
        try:
            async with asyncio.timeout(timeout_s):
                code = await self._process.wait()
        except TimeoutError:
            await self.end()
            raise AssertionError(f"{self._command[0]} still ran after {timeout_s} s:\n{self.read()[-4000:]}") from None
        return Finished(code, self.read())

    async def end(self) -> None:
        """Ask it to end, then make it."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(2):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

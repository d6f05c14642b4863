"""`switchhook serve` as a child process: set up by an apply file, awaited until ready, ended within a bound."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from switchhook_demo.backend import TOKEN

T = TypeVar("T")

NUMBER = "+17206999999"
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
LOG_LINES = 25


class ServerFailedError(Exception):
    """The server did not start, or ended by itself."""


def free_port(kind: int, preferred: int | None = None, neighbours: int = 1) -> int:
    """A port on loopback that is free together with the ports after it; the preferred one if it can be had."""
    candidates = [preferred] if preferred else []
    for wanted in [*candidates, *[0] * 50]:
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            port = int(probe.getsockname()[1])
            # SIP listens on UDP and TCP alike.
            other = socket.SOCK_STREAM if kind == socket.SOCK_DGRAM else socket.SOCK_DGRAM
            if _free(other, port) and all(_free(kind, port + offset) for offset in range(1, neighbours)):
                return port
    raise ServerFailedError("no free port on 127.0.0.1")


def _free(kind: int, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
        return False


@dataclass(slots=True)
class ServerChild:
    """A server on loopback with its own data folder."""

    data_dir: Path
    sip_port: int
    http_port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None

    @classmethod
    def in_folder(cls, data_dir: Path, sip_port: int | None = None) -> ServerChild:
        """A server on free ports; not started."""
        sip = free_port(socket.SOCK_DGRAM, sip_port)
        return cls(data_dir, sip, free_port(socket.SOCK_STREAM, neighbours=2))

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.data_dir / "server.log"

    @property
    def media_url(self) -> str:
        """The server's own Realtime endpoint; it sits on the media listener, one port above HTTP."""
        return f"ws://127.0.0.1:{self.http_port + 1}/v1/realtime?model=embedded"

    @property
    def sip_uri(self) -> str:
        """What to dial."""
        return f"sip:{NUMBER}@127.0.0.1:{self.sip_port}"

    def write_apply_file(self, backend: str) -> Path:
        """One account, one trunk for calls from this machine, one number whose calls the backend directs."""
        hooks = {
            key: {"url": f"{backend}/{path}", "headers": {"Token": TOKEN}}
            for key, path in (("call_start", "callstart"), ("call_end", "callend"))
        }
        trunk = {"name": "loopback", "account": "demo", "address": "sip:127.0.0.1:5070", "allow_from": ["127.0.0.0/8"]}
        number = {"number": NUMBER, "account": "demo", "contract": "vns", **hooks}
        content = {
            "accounts": [{"name": "demo", "tokens": [{"name": "main", "value": self.token}]}],
            "trunks": [trunk],
            "numbers": [number],
        }
        path = self.data_dir / "apply.yaml"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    async def start(self, backend: str) -> str:
        """Start and wait for the ready line; returns it. Raises ServerFailedError with the end of the log."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHHOOK_")}
        environment |= {
            "SWITCHHOOK_HTTP_HOST": "127.0.0.1",
            "SWITCHHOOK_HTTP_PORT": str(self.http_port),
            "SWITCHHOOK_SIP_HOST": "127.0.0.1",
            "SWITCHHOOK_SIP_PORT": str(self.sip_port),
            "SWITCHHOOK_RTP_PORTS": "20000-20999",
            "SWITCHHOOK_DATA_DIR": str(self.data_dir),
            "SWITCHHOOK_EGRESS_ALLOW": "127.0.0.0/8",
        }
        apply_file = self.write_apply_file(backend)
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "switchhook", "serve", "--apply", str(apply_file)),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # A Ctrl-C on the terminal is the demo's to handle: it ends the call first and then the server.
                start_new_session=True,
            )
        try:
            return await asyncio.wait_for(self._ready(), READY_TIMEOUT_S)
        except TimeoutError as error:
            raise ServerFailedError(f"no ready line within {READY_TIMEOUT_S} s\n{self.log_tail()}") from error

    async def _ready(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            text = line.decode(errors="replace").strip()
            if "ready" in text.lower():
                self._reader = asyncio.get_running_loop().create_task(self._drain(self.process.stdout))
                return text
        code = await self.process.wait()
        raise ServerFailedError(f"the server ended with {code} before it was ready\n{self.log_tail()}")

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        """Keep reading, so that a full pipe never stops the server."""
        while await stream.readline():
            pass

    async def while_alive(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this with the running server; raises ServerFailedError, and gives the work up, as soon as the server is gone."""
        assert self.process is not None
        doing, dying = asyncio.ensure_future(work), asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise ServerFailedError(f"the server ended by itself with {dying.result()}\n{self.log_tail()}")
            return doing.result()
        finally:
            doing.cancel()
            dying.cancel()
            await asyncio.gather(doing, dying, return_exceptions=True)

    async def stop(self) -> int | None:
        """SIGTERM, and SIGKILL when that does not end it in time; returns the exit code."""
        if self.process is None:
            return None
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        return self.process.returncode

    def log_tail(self) -> str:
        """The end of what the server wrote."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  | {line}" for line in lines[-LOG_LINES:])

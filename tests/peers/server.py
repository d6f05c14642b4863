"""`switchhook serve` as an outside tool starts it: a process of its own, fixed names, one ready line."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.peers.ports import free_port

READY_S = 60.0

RTP_RANGES = range(22_000, 32_000, 400)


def rtp_range(owner: object, ports: int = RTP_RANGES.step) -> str:
    """So many ports for the sound of one server, which no other test's server has while `owner` lives, unless all are given.

    On loopback all telephones are one host: what one still sends to the port of a call that is over would be taken for the sound
    of the next call there, and that caller would hear nothing.
    """
    for first in random.sample(RTP_RANGES, len(RTP_RANGES)):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0switchhook-test-rtp-{first}")  # a name without a file: the system forgets it with the process
        except OSError:
            claim.close()
            continue
        weakref.finalize(owner, claim.close)
        break
    return f"{first}-{first + ports - 1}"


class Server:
    """A server process on loopback with its own data directory and ports. `async with Server(folder, config) as server`."""

    def __init__(self, folder: Path, config: dict[str, Any], **settings: str) -> None:
        self.folder = folder
        self.http_port = free_port()
        self.media_port = free_port()
        self.sip_port = free_port()
        self.log = folder / "server.log"
        self._config = folder / "apply.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._settings = {
            "SWITCHHOOK_HTTP_HOST": "127.0.0.1",
            "SWITCHHOOK_HTTP_PORT": str(self.http_port),
            "SWITCHHOOK_MEDIA_PORT": str(self.media_port),
            "SWITCHHOOK_SIP_HOST": "127.0.0.1",
            "SWITCHHOOK_SIP_PORT": str(self.sip_port),
            "SWITCHHOOK_RTP_PORTS": rtp_range(self),
            "SWITCHHOOK_DATA_DIR": str(folder / "data"),
            "SWITCHHOOK_EGRESS_ALLOW": "127.0.0.0/8",
            "SWITCHHOOK_LOG_LEVEL": "info",
            **settings,
        }
        self.process: asyncio.subprocess.Process | None = None

    @property
    def realtime_url(self) -> str:
        """The server's own Realtime endpoint."""
        return f"ws://127.0.0.1:{self.media_port}/v1/realtime?model=embedded"

    @property
    def http_url(self) -> str:
        """The HTTP API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def data_dir(self) -> Path:
        """Database, spools, recordings and the server key."""
        return self.folder / "data"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the server and of commands that work on its data."""
        return {name: value for name, value in os.environ.items() if not name.startswith("SWITCHHOOK_")} | self._settings

    @staticmethod
    def command(*arguments: str) -> tuple[str, ...]:
        """The words of a `switchhook` command."""
        return (sys.executable, "-m", "switchhook", *arguments)

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run another `switchhook` command with the same settings; gives its exit code and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            env=self.environ,
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), READY_S)
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def start(self) -> None:
        """Start and wait for the ready line."""
        command = self.command("serve", "--apply", str(self._config))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, env=self.environ, cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), READY_S)
        except TimeoutError:
            line = b""
        if not line:
            await self.kill()
            raise AssertionError(f"the server did not get ready:\n{self.log.read_text()[-4000:]}")

    async def kill(self) -> None:
        """kill -9, as a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, kind: signal.Signals) -> int:
        process = self.process
        assert process is not None
        self.process = None
        if process.returncode is None:
            process.send_signal(kind)
        try:
            return await asyncio.wait_for(process.wait(), 60)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log.read_text()[-4000:]}") from None

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None:
            await self.stop()


def config(backend_url: str, sip_port: int = 5070, **number: Any) -> dict[str, Any]:
    """An apply file's content: one account, one trunk for loopback, one VNS number."""
    return {
        "accounts": [{"name": "acme", "tokens": [{"name": "main", "value": "secret-token"}]}],
        "trunks": [
            {
                "name": "local",
                "account": "acme",
                "address": f"sip:127.0.0.1:{sip_port}",
                "allow_from": ["127.0.0.0/8"],
                "username": None,
                "password": None,
                "register": False,
            }
        ],
        "numbers": [
            {
                "number": "+17206999999",
                "account": "acme",
                "contract": "vns",
                "call_start": {"url": f"{backend_url}/callstart", "headers": {"Token": "abc"}},
                "call_end": {"url": f"{backend_url}/callend", "headers": {"Token": "abc"}},
                "fallback": {"number": None, "message": None},
                **number,
            }
        ],
    }

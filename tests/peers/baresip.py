"""baresip as a telephone: its own folder with configuration, control over TCP, what it heard and sent as WAV files."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.processes import PeerProcess, free_port

_CONFIG = """\
poll_method epoll
sip_listen 127.0.0.1:{sip_port}
audio_path /usr/share/baresip
audio_source aufile,{source}
audio_player aufile,{folder}/player.wav
audio_alert aufile,/dev/null
audio_srate 8000
ausrc_srate 8000
auplay_srate 8000
audio_channels 1
rtp_ports {rtp_port}-{last_rtp_port}
net_interface 127.0.0.1
jitter_buffer_delay 1-3
module_path /usr/lib/baresip/modules
module g711.so
module aufile.so
module sndfile.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control_port}
snd_path {folder}
"""


@dataclass
class Baresip:
    """A running telephone. `events` are what it told, in order, as baresip's own JSON objects."""

    folder: Path
    sip_port: int
    process: PeerProcess
    writer: asyncio.StreamWriter
    events: list[dict[str, object]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def command(self, command: str, params: str = "") -> None:
        """Give a command: `dial`, `hangup`, `hold`, `resume`, `sndcode`…"""
        text = json.dumps({"command": command, "params": params, "token": "test"}).encode()
        self.writer.write(b"%d:%s," % (len(text), text))

    async def until_event(self, kind: str, timeout_s: float = 10.0) -> dict[str, object]:
        """Wait for an event type: `CALL_ESTABLISHED`, `CALL_CLOSED`…"""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for event in self.events:
                        if event.get("type") == kind:
                            return event
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            told = [event.get("type") for event in self.events]
            raise AssertionError(f"baresip did not tell {kind}; it told {told}\n{self.process.read()[-3000:]}") from None

    @property
    def heard(self) -> Path:
        """The newest recording of what it received."""
        return max(self.folder.glob("dump-*-dec.wav"), key=lambda path: path.stat().st_mtime)

    @property
    def sent(self) -> Path:
        """The newest recording of what it sent."""
        return max(self.folder.glob("dump-*-enc.wav"), key=lambda path: path.stat().st_mtime)


@asynccontextmanager
async def baresip(
    folder: Path,
    source: Path,
    account: str = "",
    codecs: str = "PCMU/8000/1,PCMA/8000/1",
    sip_port: int = 0,
    answers: bool = True,
) -> AsyncIterator[Baresip]:
    """Start a telephone that plays `source` (mono WAV, 8 kHz, long enough for the call) to whom it talks.

    `account` adds parameters to its account line, such as `;auth_user=pbx;auth_pass=secret;mediaenc=srtp-mand`.
    `sip_port` 0: a free one. `answers` False: it rings until the command `accept`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sip_port, control_port = sip_port or free_port(), free_port(socket.SOCK_STREAM)
    rtp_port = free_port() // 2 * 2
    config = _CONFIG.format(
        sip_port=sip_port,
        control_port=control_port,
        source=source,
        folder=folder,
        rtp_port=rtp_port,
        last_rtp_port=min(rtp_port + 20, 65534),
    )
    (folder / "config").write_text(config)
    (folder / "contacts").write_text("")
    mode = "auto" if answers else "manual"
    address = f"<sip:+17205550111@127.0.0.1:{sip_port}>"
    (folder / "accounts").write_text(f'"Ann" {address};regint=0;answermode={mode};audio_codecs={codecs};ptime=20{account}\n')
    async with PeerProcess(["baresip", "-f", str(folder), "-v"], folder) as process:
        reader, writer = await _connect(control_port, process)
        phone = Baresip(folder, sip_port, process, writer)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_listen(reader, phone))
            try:
                yield phone
            finally:
                phone.command("quit")
                listening.cancel()
                writer.close()


async def _connect(port: int, process: PeerProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    return await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.running, process.read()
                    await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"baresip did not open its control port:\n{process.read()[-3000:]}") from None


async def _listen(reader: asyncio.StreamReader, phone: Baresip) -> None:
    """Read netstrings of JSON."""
    try:
        while True:
            length = int((await reader.readuntil(b":"))[:-1])
            text = (await reader.readexactly(length + 1))[:-1]
            message = json.loads(text)
            if message.get("event"):
                phone.events.append(message)
                phone.changed.set()
    except asyncio.IncompleteReadError:
        return

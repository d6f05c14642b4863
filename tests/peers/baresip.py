"""baresip as a telephone: its own folder with configuration, control over TCP, what it heard and sent as WAV files."""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.certificates import Identity
from tests.peers.ports import free_port, free_row
from tests.peers.processes import PeerProcess

_CONFIG = """\
poll_method epoll
sip_listen {host}:{sip_port}
call_max_calls {calls}
audio_path /usr/share/baresip
audio_source aufile,{source}
audio_player aufile,{folder}/player.wav
audio_alert aufile,/dev/null
audio_srate 8000
ausrc_srate 8000
auplay_srate 8000
audio_channels 1
rtp_ports {rtp_port}-{last_rtp_port}
net_interface {host}
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
{tls}"""
_WAV_HEADER_BYTES = 44
_RTP_PORTS = 22
_MESSAGE = re.compile(r"^(?:UDP|TCP|TLS) \S+ -> \S+\n(.*?)(?=\x1b\[;m|\Z)", re.MULTILINE | re.DOTALL)
"""What follows the addresses in its SIP trace, to the end of the colour that it is printed in."""


@dataclass(frozen=True)
class BaresipLine:
    """Who a telephone is."""

    user: str = "+17205550111"
    host: str = "127.0.0.1"
    sip_port: int = 0
    """0: a free one."""
    parameters: str = ""
    """Added to its account, such as `;auth_user=pbx;auth_pass=secret`."""
    codecs: str = "PCMU/8000/1,PCMA/8000/1"
    answers: bool = True
    """False: it rings until the command `accept`."""
    calls: int = 4
    """At a time; one more is told 486."""
    identity: Identity | None = None
    """Its certificate, which it shows over TLS, at the port after `sip_port`."""
    authority: str = ""
    """PEM file: over TLS it calls only whom this authority vouches for."""

    def tls(self, folder: Path) -> str:
        """The lines of baresip's file `config`; it wants certificate and key in one file."""
        lines = ""
        if self.identity is not None:
            both = folder / "identity.pem"
            both.write_text(Path(self.identity.certificate).read_text() + Path(self.identity.key).read_text())
            lines += f"sip_certificate {both}\n"
        return lines + (f"sip_cafile {self.authority}\n" if self.authority else "")

    def account(self, sip_port: int) -> str:
        """The line of baresip's file `accounts`."""
        mode = "auto" if self.answers else "manual"
        address = f"<sip:{self.user}@{self.host}:{sip_port}>"
        return f'"Ann" {address};regint=0;answermode={mode};audio_codecs={self.codecs};ptime=20{self.parameters}\n'


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

    async def until_event(self, kind: str, timeout_s: float = 20.0, count: int = 1) -> dict[str, object]:
        """Wait for so many events of a type, such as `CALL_ESTABLISHED` or `CALL_CLOSED`; gives the last of them."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = [event for event in self.events if event.get("type") == kind]
                    if len(found) >= count:
                        return found[count - 1]
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            told = [event.get("type") for event in self.events]
            raise AssertionError(f"baresip did not tell {count} {kind}; it told {told}\n{self.process.read()[-3000:]}") from None

    @property
    def heard(self) -> Path:
        """The recording of what it received in its newest call. Calls that begin within one second share a file."""
        return max(self.folder.glob("dump-*-dec.wav"))

    @property
    def sent(self) -> Path:
        """The recording of what it sent in its newest call."""
        return max(self.folder.glob("dump-*-enc.wav"))

    @property
    def hearing(self) -> Hearing:
        """How far what it receives is recorded at this moment."""
        return Hearing(self.heard, len(_samples(self.heard)))

    def heard_after(self, begun: Hearing) -> array[int]:
        """What came since: of a call that has begun meanwhile, all; the recording may still be written."""
        recording = self.heard
        return _samples(recording)[begun.samples if recording == begun.recording else 0 :]

    def messages(self, first_word: str) -> list[str]:
        """SIP messages on its wire, in both directions and in order, that begin with this method or with `SIP/2.0`."""
        return [text for text in _MESSAGE.findall(self.process.read().replace("\r", "")) if text.startswith(f"{first_word} ")]


@dataclass(frozen=True)
class Hearing:
    """A place in a telephone's recordings."""

    recording: Path
    samples: int


def _samples(path: Path) -> array[int]:
    """What a recording has so far: while it is written, its header does not know its length."""
    data = path.read_bytes()[_WAV_HEADER_BYTES:]
    samples = array("h")
    samples.frombytes(data[: len(data) // 2 * 2])
    return samples


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
    line = BaresipLine(sip_port=sip_port, parameters=account, codecs=codecs, answers=answers)
    async with baresip_line(folder, source, line) as phone:
        yield phone


@asynccontextmanager
async def baresip_line(folder: Path, source: Path, line: BaresipLine) -> AsyncIterator[Baresip]:
    """The same for a telephone with a number or an address of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    sip_port = line.sip_port or free_row(2)  # it speaks TLS at the port after that of UDP and TCP
    control_port, rtp_port = free_port(), free_row(_RTP_PORTS)
    config = _CONFIG.format(
        host=line.host,
        calls=line.calls,
        sip_port=sip_port,
        control_port=control_port,
        source=source,
        folder=folder,
        rtp_port=rtp_port,
        last_rtp_port=rtp_port + _RTP_PORTS - 1,
        tls=line.tls(folder),
    )
    (folder / "config").write_text(config)
    (folder / "contacts").write_text("")
    (folder / "accounts").write_text(line.account(sip_port))
    async with PeerProcess(["baresip", "-f", str(folder), "-v", "-s"], folder) as process:
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
        async with asyncio.timeout(20):
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

"""The model's socket against a strict server on loopback, and against peers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import picows
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from switchhook.agents.conversation import ModelLoss
from switchhook.agents.realtime import dialect
from switchhook.agents.realtime import socket as model_socket
from switchhook.agents.realtime.socket import ModelSocket, PinnedTarget
from switchhook.domain.errors import EgressRefused
from tests.peers.loopback import stream_server
from tests.peers.model import Event, ModelServer, ModelSession

WAIT_S = 20.0
UPDATE = b'{"type":"session.update","session":{"type":"realtime"}}'


@dataclass
class Pin:
    host: str = "127.0.0.1"
    port: int = 0
    addresses: tuple[str, ...] = ("127.0.0.1",)


@dataclass
class Pins:
    """Pins every URL to one port of loopback."""

    port: int
    addresses: tuple[str, ...] = ("127.0.0.1",)
    problem: Exception | None = None

    async def pin(self, url: str) -> Pin:
        if self.problem is not None:
            raise self.problem
        return Pin(port=self.port, addresses=self.addresses)


@dataclass
class Owner:
    """What the owner of a socket was told."""

    opened: int = 0
    frames: list[bytes] = field(default_factory=list)
    losses: list[ModelLoss] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_open(self) -> None:
        self.opened += 1
        self.changed.set()

    def on_frame(self, data: bytes) -> None:
        self.frames.append(data)
        self.changed.set()

    def on_lost(self, loss: ModelLoss) -> None:
        self.losses.append(loss)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def make(owner: Owner, pins: Pins, tls: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> ModelSocket:
    return ModelSocket(pins, tls, owner.on_open, owner.on_frame, owner.on_lost)


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


@pytest.fixture(autouse=True)
async def _disconnected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """After a test, every connection of ours comes to its end before the loop does."""
    transports: list[picows.WSTransport] = []
    plugs: list[socket.socket] = []
    plug = ModelSocket._plug

    async def watched(link: ModelSocket, target: PinnedTarget) -> socket.socket:
        plugs.append(await plug(link, target))
        return plugs[-1]

    monkeypatch.setattr(ModelSocket, "_plug", watched)

    class Watched(model_socket._Wire):
        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            transports.append(transport)
            super().on_ws_connected(transport)

    monkeypatch.setattr(model_socket, "_Wire", Watched)
    yield
    for transport in transports:
        transport.disconnect(False)
        with contextlib.suppress(Exception):
            await transport.wait_disconnected()
    async with asyncio.timeout(WAIT_S):
        while any(used.fileno() != -1 for used in plugs):  # noqa: ASYNC110 - a link that was left tells nobody
            await asyncio.sleep(0.01)


async def test_frames_go_both_ways_and_the_headers_as_given() -> None:
    owner = Owner()
    async with ModelServer() as server:
        link = make(owner, Pins(port_of(server.url)))
        link.open(server.url, {"Authorization": "Bearer k", "OpenAI-Beta": "realtime=v1", "Host": "evil", "Upgrade": "h2c"})
        await owner.until(lambda: owner.opened == 1)
        link.send(UPDATE)
        await owner.until(lambda: any(b"session.updated" in frame for frame in owner.frames))
        assert b"session.created" in owner.frames[0]
        headers = server.headers[0]
        assert (headers["Authorization"], headers["OpenAI-Beta"]) == ("Bearer k", "realtime=v1")
        assert (headers["Host"], headers["Upgrade"]) == (f"127.0.0.1:{port_of(server.url)}", "websocket")
        link.close()
        link.close()
        link.send(b"{}")
    assert owner.losses == []


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (404, False), (429, False), (500, True), (503, True), (302, False)]
)
async def test_a_refused_handshake(status: int, retryable: bool) -> None:
    owner = Owner()
    async with ModelServer() as server:
        server.statuses.append(status)
        make(owner, Pins(port_of(server.url))).open(server.url, {"Authorization": "Bearer secret-key"})
        await owner.until(lambda: bool(owner.losses))
    assert [loss.retryable for loss in owner.losses] == [retryable]
    assert str(status) in owner.losses[0].detail
    assert "secret" not in owner.losses[0].detail


@pytest.mark.parametrize(
    ("problem", "retryable"), [(EgressRefused("10.0.0.1 is a private address"), False), (OSError("no such name"), True)]
)
async def test_an_address_that_cannot_be_pinned(problem: Exception, retryable: bool) -> None:
    owner = Owner()
    make(owner, Pins(1, problem=problem)).open("wss://model.example/", {})
    await owner.until(lambda: bool(owner.losses))
    assert [loss.retryable for loss in owner.losses] == [retryable]


@pytest.mark.parametrize("headers", [{"X": "a\r\nInjected: yes"}, {"X\n": "a"}, {"X Y": "a"}, {"X": "\u2603"}])
async def test_a_header_that_would_break_the_handshake_is_refused(headers: Mapping[str, str]) -> None:
    owner = Owner()
    async with ModelServer() as server:
        make(owner, Pins(port_of(server.url))).open(server.url, headers)
        await owner.until(lambda: bool(owner.losses))
        assert server.headers == []
    assert not owner.losses[0].retryable


async def test_the_next_address_is_tried() -> None:
    owner = Owner()
    async with ModelServer() as server:
        link = make(owner, Pins(port_of(server.url), ("127.0.0.9", "127.0.0.1")))
        link.open(server.url, {})
        await owner.until(lambda: owner.opened == 1)
        link.close()


async def test_a_drop_is_told_once() -> None:
    owner = Owner()
    async with ModelServer() as server:
        link = make(owner, Pins(port_of(server.url)))
        link.open(server.url, {})
        await owner.until(lambda: owner.opened == 1)
        await server.until(lambda: bool(server.sessions))
        await server.drop(1001)
        await owner.until(lambda: bool(owner.losses))
        assert [(loss.retryable, "1001" in loss.detail) for loss in owner.losses] == [(True, True)]
        link.open(server.url, {})
        await owner.until(lambda: owner.opened == 2)
        link.close()
    assert len(owner.losses) == 1


async def test_a_call_that_ends_during_the_handshake_leaves_nothing_behind() -> None:
    gone = asyncio.Event()
    greeted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        greeted.set()
        await reader.read()
        gone.set()

    owner = Owner()
    async with stream_server(silent) as port:
        link = make(owner, Pins(port))
        link.open(f"ws://127.0.0.1:{port}/", {})
        async with asyncio.timeout(WAIT_S):
            await greeted.wait()
            link.close()
            await gone.wait()
    assert (owner.opened, owner.losses) == (0, [])
    gc.collect()


async def test_a_peer_that_never_answers_is_lost_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_socket, "HANDSHAKE_S", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    owner = Owner()
    async with stream_server(silent) as port:
        make(owner, Pins(port)).open(f"ws://127.0.0.1:{port}/", {})
        await owner.until(lambda: bool(owner.losses))
    assert [loss.retryable for loss in owner.losses] == [True]


async def test_a_half_open_socket_is_found_by_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_socket, "PING_IDLE_S", 0.1)
    monkeypatch.setattr(model_socket, "PING_REPLY_S", 0.1)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await upgrade(reader))
        await reader.read()

    owner = Owner()
    async with stream_server(deaf) as port:
        make(owner, Pins(port)).open(f"ws://127.0.0.1:{port}/", {})
        await owner.until(lambda: bool(owner.losses))
    assert (owner.opened, len(owner.losses)) == (1, 1)


async def test_messages_in_parts_are_put_together_and_binary_ones_ignored() -> None:
    async def parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await upgrade(reader) + b"\x82\x02no" + b"\x01\x02he" + b"\x00\x02ll" + b"\x80\x01o" + b"\x81\x02hi")
        await reader.read()

    owner = Owner()
    async with stream_server(parts) as port:
        link = make(owner, Pins(port))
        link.open(f"ws://127.0.0.1:{port}/", {})
        await owner.until(lambda: len(owner.frames) == 2)
        link.close()
    assert owner.frames == [b"hello", b"hi"]


async def test_a_socket_that_does_not_drain_drops_the_oldest_sound_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, done = asyncio.Event(), asyncio.Event()
    received = bytearray()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await upgrade(reader))
        await gate.wait()
        while len(data := await reader.read(1 << 16)):
            received.extend(data)
        done.set()

    owner = Owner()
    async with stream_server(slow) as port:
        link = make(owner, Pins(port))
        link.open(f"ws://127.0.0.1:{port}/", {})
        await owner.until(lambda: owner.opened == 1)
        wire = link._wire
        assert wire is not None
        monkeypatch.setattr(model_socket, "LATE_S", 60.0)
        for _ in range(20_000):
            link.send(dialect.append(b"\x7f" * 160))
        assert wire.dropped == 0, "a burst that has not waited is kept"
        monkeypatch.setattr(model_socket, "LATE_S", -1.0)
        link.send(dialect.append(b"\x7f" * 160))
        assert wire.dropped > 10_000
        link.send(b"x" * 70_000)
        gate.set()
        link.close()
        async with asyncio.timeout(WAIT_S):
            await done.wait()
    assert owner.losses == []
    assert 70_000 < len(received) < 10_000 * 270


async def test_tls_checks_the_certificate_against_the_name_of_the_url(tmp_path: Path) -> None:
    served, trusted = certificate(tmp_path, "model.test")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await upgrade(reader) + b"\x81\x02hi")
        await reader.read()

    good, bad = Owner(), Owner()
    async with stream_server(greet, served) as port:
        link = make(good, Pins(port), lambda: trusted)
        link.open(f"wss://model.test:{port}/", {})
        await good.until(lambda: good.frames == [b"hi"])
        make(bad, Pins(port), lambda: trusted).open(f"wss://other.test:{port}/", {})
        await bad.until(lambda: bool(bad.losses))
        link.close()
    assert (good.opened, bad.opened) == (1, 0)


async def test_a_conversation_over_a_real_socket() -> None:
    said: list[str] = []

    def script(session: ModelSession, event: Event) -> None:
        if event["type"] == "response.create":
            session.respond()
            session.say("Hello", ms=200)
            session.finish()
            said.append("Hello")

    owner = Owner()
    async with ModelServer(script) as server:
        link = make(owner, Pins(port_of(server.url)))
        link.open(server.url, {})
        await owner.until(lambda: owner.opened == 1)
        link.send(UPDATE)
        link.send(dialect.append(bytes(960)))
        link.send(dialect.response_create("r1"))
        await owner.until(lambda: any(b"response.done" in frame for frame in owner.frames))
        link.close()
        assert server.sessions[0].errors == []
        assert bytes(server.sessions[0].audio) == bytes(960)
    sound = b"".join(delta.delta for delta in map(read_or_none, owner.frames) if isinstance(delta, dialect.AudioDelta))
    assert len(sound) == 200 * 48
    assert said == ["Hello"]


def read_or_none(frame: bytes) -> dialect.AudioDelta | dialect.Words | None:
    try:
        delta: dialect.AudioDelta | dialect.Words = dialect.read_delta(frame)
    except dialect.UNREADABLE:
        return None
    return delta


async def upgrade(reader: asyncio.StreamReader) -> bytes:
    """Read a handshake and return the answer to it."""
    request = await reader.readuntil(b"\r\n\r\n")
    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    digest = hashes.Hash(hashes.SHA1())  # RFC 6455 §4.2.2 asks for it
    digest.update(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
    accept = base64.b64encode(digest.finalize())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's context, a client's that trusts it) with a fresh self-signed certificate for `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(private + made.public_bytes(pem))
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(folder / "both.pem")
    return served, ssl.create_default_context(cadata=made.public_bytes(pem).decode())

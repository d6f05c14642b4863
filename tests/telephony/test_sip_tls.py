"""SIP over TLS: whom we believe, whom we show ourselves to, and what the operator reads when it fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvloop

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Srtp
from switchhook.telephony.sip_server import SipConfig
from switchhook.telephony.sip_tls import TlsContexts, TlsFault, TlsPeer, vouches_for
from switchhook.telephony.sip_transport import SipTransport
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.framing import Frame
from switchhook.telephony.wire.sip.message import Response
from tests.peers.answering_machine import LOCAL_TRUNK, LOOPBACK, answering_machine
from tests.peers.certificates import Authority, Identity
from tests.peers.loopback import stream_server
from tests.peers.sip_caller import sdp
from tests.telephony.test_sip_server import WAIT_S, here, line

DOMAIN = "sip.carrier.test"
OPTIONS = b"OPTIONS sip:carrier SIP/2.0\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Carrier:
    """A TLS server that keeps what it gets."""

    port: int = 0
    got: bytes = b""
    names: list[str | None] = field(default_factory=list)
    """What each client asked for (SNI)."""
    clients: list[object] = field(default_factory=list)
    """The certificate each client showed."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer.get_extra_info("peercert"))
        while data := await reader.read(4096):
            self.got += data
            self.changed.set()


class Told:
    """The transport's receiver: remembers which flows failed."""

    answers_strangers = True

    def __init__(self) -> None:
        self.failed: list[Flow] = []
        self.changed = asyncio.Event()

    def reads(self, host: str) -> bool:
        return True

    def knows(self, host: str) -> bool:
        return True

    def datagram(self, data: bytes, flow: Flow) -> None:
        """None comes."""

    def frame(self, frame: Frame, flow: Flow) -> None:
        """None comes."""

    def flow_failed(self, flow: Flow) -> None:
        self.failed.append(flow)
        self.changed.set()

    def datagram_returned(self, data: bytes) -> None:
        """None does."""

    def end_of_batch(self) -> None:
        """Nothing to do."""

    async def until_failed(self) -> Flow:
        async with asyncio.timeout(WAIT_S):
            while not self.failed:
                self.changed.clear()
                await self.changed.wait()
        return self.failed[0]


@asynccontextmanager
async def carrier(
    identity: Identity, client_ca: str | None = None, newest: ssl.TLSVersion | None = None
) -> AsyncIterator[Carrier]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    if newest is not None:
        context.maximum_version = newest
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    made = Carrier()
    context.sni_callback = lambda _socket, name, _context: made.names.append(name)
    async with stream_server(made.serve, context) as made.port:
        yield made


@asynccontextmanager
async def transport(*peers: TlsPeer) -> AsyncIterator[tuple[SipTransport, Told]]:
    """A transport that knows these trunks."""
    told = Told()
    by_name = {peer.name: peer for peer in peers}
    made = SipTransport(told, None, lambda flow: by_name[flow.trunk])
    yield made, told
    await made.close()
    async with asyncio.timeout(WAIT_S):
        while made.connections:  # noqa: ASYNC110 - each says goodbye to its peer, and waits for the same
            await asyncio.sleep(0.01)


def over_tls(authority: Authority, client_ca: str | None) -> SipConfig:
    """A server of ours at 127.0.0.1."""
    identity = authority.vouch_for("127.0.0.1")
    return replace(
        LOOPBACK,
        transports=("udp", "tls"),
        tls_port=0,
        tls_certificate=identity.certificate,
        tls_key=identity.key,
        tls_client_ca=client_ca,
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize(
    ("names", "domain"),
    [
        ([DOMAIN], DOMAIN),
        (["other.test", DOMAIN.upper()], DOMAIN),
        (["*.carrier.test"], DOMAIN),
        ([f"sip:{DOMAIN}"], DOMAIN),
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "::1"),
    ],
)
async def test_a_peer_that_its_certificate_names_gets_the_message(authority: Authority, names: list[str], domain: str) -> None:
    """The domain is the trunk's, whatever address it was found at; it is asked for by name (SNI)."""
    async with carrier(authority.vouch_for(*names)) as peer, transport(TlsPeer("acme", domain, authority.file)) as (ours, told):
        ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk="acme"))
        await peer.until(lambda: peer.got == OPTIONS)
        assert not told.failed
        assert peer.names == [domain if domain == DOMAIN else None]
        assert ours.connections == 1


@pytest.mark.parametrize(
    "names", [["other.test"], ["carrier.test"], ["*.test"], [f"sip:bob@{DOMAIN}"], ["sip:other.test"], ["127.0.0.1"], []]
)
async def test_a_certificate_for_somebody_else_ends_the_attempt(
    authority: Authority, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with carrier(authority.vouch_for(*names)) as peer, transport(TlsPeer("acme", DOMAIN, authority.file)) as (ours, told):
        flow = Flow("tls", "127.0.0.1", peer.port, trunk="acme")
        ours.send(OPTIONS, flow)
        assert await told.until_failed() == flow
        assert (ours.connections, ours.unsent, peer.got) == (0, 1, b"")
    [record] = [record for record in caplog.records if record.name.endswith("sip_transport")]
    assert "trunk acme" in record.getMessage()
    assert f"not for {DOMAIN} but for {', '.join(names) or 'nobody'}" in record.getMessage()
    assert "address" in record.getMessage()


async def test_an_unknown_authority_ends_the_attempt(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path, "stranger")
    for ca in (authority.file, None):
        async with carrier(stranger.vouch_for(DOMAIN)) as peer, transport(TlsPeer("acme", DOMAIN, ca)) as (ours, told):
            ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk="acme"))
            await told.until_failed()
            assert peer.got == b""
    assert caplog.text.count("trunk acme") == 2
    assert caplog.text.count("set tls_ca to a PEM file of its authority, or tls_verify: false") == 2


async def test_verification_can_be_turned_off_and_that_is_warned_of_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    peer_of_ours = TlsPeer("acme", DOMAIN, verify=False)
    other = authority.vouch_for("other.test")
    async with carrier(other) as one, carrier(other) as two, transport(peer_of_ours) as (ours, told):
        for peer in (one, two):
            ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk="acme"))
            await peer.until(lambda peer=peer: peer.got == OPTIONS)  # type: ignore[misc]  # mypy cannot infer the default
        assert not told.failed
    assert caplog.text.count("is not checked") == 1


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_peer_that_wants_our_certificate(
    authority: Authority, tmp_path: Path, newest: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """With it, calls go; without, or with one that it does not know, the flow fails and the log says what to set."""
    mine, stranger = authority.vouch_for("us.test"), Authority(tmp_path, "stranger").vouch_for("us.test")
    known = TlsPeer("known", DOMAIN, authority.file, True, mine.certificate, mine.key)
    nobody = TlsPeer("nobody", DOMAIN, authority.file)
    unknown = TlsPeer("unknown", DOMAIN, authority.file, True, stranger.certificate, stranger.key)
    async with (
        carrier(authority.vouch_for(DOMAIN), authority.file, newest) as peer,
        transport(known, nobody, unknown) as (ours, told),
    ):
        ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk="known"))
        await peer.until(lambda: peer.got == OPTIONS)
        for name in ("nobody", "unknown"):
            told.failed.clear()
            ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk=name))
            assert (await told.until_failed()).trunk == name
        assert peer.got == OPTIONS
        assert ours.connections == 1
    assert "trunk nobody" in caplog.text
    assert "set tls_certificate and tls_key" in caplog.text
    assert "trunk unknown" in caplog.text
    assert "the one it was shown may not be good enough" in caplog.text


async def test_a_connection_serves_one_trunk(authority: Authority) -> None:
    """Two trunks at one address may show different certificates: they share nothing."""
    first, second = (TlsPeer(name, DOMAIN, authority.file) for name in ("first", "second"))
    async with carrier(authority.vouch_for(DOMAIN)) as peer, transport(first, second) as (ours, _):
        for name in ("first", "second", "first", "second"):
            size = len(peer.got)
            ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk=name))
            await peer.until(lambda size=size: len(peer.got) > size)  # type: ignore[misc]  # mypy cannot infer the default
        assert ours.connections == len(peer.names) == 2


async def test_a_file_of_the_trunk_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty.pem").write_text("")
    missing, empty = str(tmp_path / "no.pem"), str(tmp_path / "empty.pem")
    identity = authority.vouch_for("us.test")
    broken = [
        TlsPeer("a", DOMAIN, ca=missing),
        TlsPeer("b", DOMAIN, ca=empty),
        TlsPeer("c", DOMAIN, certificate=empty),
        TlsPeer("d", DOMAIN, certificate=identity.certificate, key=authority.vouch_for("x.test").key),
    ]
    async with carrier(authority.vouch_for(DOMAIN)) as peer, transport(*broken) as (ours, told):
        for trunk in broken:
            told.failed.clear()
            ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk=trunk.name))
            await told.until_failed()
            assert f"trunk {trunk.name}" in caplog.text
        assert not peer.clients
    assert all(file in caplog.text for file in (missing, empty, identity.certificate))


async def test_a_peer_that_speaks_no_tls_or_is_not_there(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SIP/2.0 400 What?\r\n\r\n")
        await reader.read(1)

    async with stream_server(echo) as port, transport(TlsPeer("acme", DOMAIN, authority.file)) as (ours, told):
        ours.send(OPTIONS, Flow("tls", "127.0.0.1", port, trunk="acme"))
        await told.until_failed()
        assert "does the peer speak TLS on this port?" in caplog.text
        told.failed.clear()
        ours.send(OPTIONS, Flow("tls", "127.0.0.1", 1, trunk="acme"))
        await told.until_failed()
        assert "check address, port and firewall" in caplog.text


async def test_a_renewed_certificate_is_used_by_the_next_connection(authority: Authority) -> None:
    old, new = authority.vouch_for("us.test"), authority.vouch_for("us.test")
    contexts, peer = TlsContexts(), TlsPeer("acme", DOMAIN, authority.file, True, old.certificate, old.key)
    first = await contexts.of(peer)
    assert await contexts.of(peer) is first
    Path(old.certificate).write_bytes(Path(new.certificate).read_bytes())
    with pytest.raises(TlsFault, match="cannot be used"):
        await contexts.of(peer)  # the key is not renewed yet
    Path(old.key).write_bytes(Path(new.key).read_bytes())
    assert await contexts.of(peer) is not first


async def test_an_outgoing_connection_shows_that_it_is_in_use(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchhook.telephony.sip_transport.PING_S", 0.05)
    async with carrier(authority.vouch_for(DOMAIN)) as peer, transport(TlsPeer("acme", DOMAIN, authority.file)) as (ours, _):
        ours.send(OPTIONS, Flow("tls", "127.0.0.1", peer.port, trunk="acme"))
        await peer.until(lambda: peer.got.startswith(OPTIONS + b"\r\n\r\n" * 2))


def test_on_uvloop_a_wrong_name_is_refused_and_a_right_one_taken(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases: list[Coroutine[None, None, None]] = [
        test_a_peer_that_its_certificate_names_gets_the_message(authority, [f"sip:{DOMAIN}"], DOMAIN),
        test_a_certificate_for_somebody_else_ends_the_attempt(authority, ["other.test"], caplog),
        test_a_peer_that_wants_our_certificate(authority, tmp_path, ssl.TLSVersion.TLSv1_3, caplog),
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for case in cases:
            runner.run(case)


def test_an_odd_name_in_a_certificate_is_passed_over() -> None:
    odd = {"subjectAltName": (("URI", "sip:"), ("IP Address", "x"), ("DirName", "x"), ("URI", "https://carrier.test"))}
    assert not vouches_for(odd, "carrier.test")
    assert vouches_for({"subjectAltName": (*odd["subjectAltName"], ("DNS", "carrier.test."))}, "Carrier.test")
    assert not vouches_for({}, "carrier.test")


async def test_who_connects_to_us_can_be_asked_for_a_certificate(authority: Authority, tmp_path: Path) -> None:
    """And a call over TLS with SRTP is an encrypted one."""
    config = over_tls(authority, authority.file)
    trunk = replace(LOCAL_TRUNK, srtp=Srtp.OFFERED)
    trusting = ssl.create_default_context(cafile=authority.file)
    async with answering_machine(config, [trunk]) as machine:
        address = here(machine, "tls")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            reader, writer = await asyncio.open_connection(*address, ssl=trusting)
            try:
                writer.write(OPTIONS)
                await reader.readexactly(1)
            finally:
                writer.close()
        mine = authority.vouch_for("phone.test")
        trusting.load_cert_chain(mine.certificate, mine.key)
        async with line(address, "tls", trusting) as end:
            caller = end.caller()
            crypto = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"
            end.send(caller.invite(sdp(host="127.0.0.1") + crypto))
            assert [await end.status(), await end.status()] == [100, 180]
            ok = await end.next()
            assert isinstance(ok, Response)
            assert b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" in ok.body
            caller.learn(ok)
            end.send(caller.ack())
            [call] = machine.calls
            await machine.until(lambda: call.leg.encrypted)
            end.send(caller.invite(sdp(host="127.0.0.1", version=2)))
            await machine.until(lambda: not call.leg.encrypted)


async def test_authorities_that_cannot_be_read_are_named(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="client CA"):
        async with answering_machine(over_tls(authority, str(tmp_path / "no.pem"))):
            pass

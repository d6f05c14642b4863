"""The SIP server over real loopback sockets: UDP, TCP, TLS, ports, floods and its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Encoding, Trunk
from switchhook.domain.ports import LegAnswered, LegEnded
from switchhook.telephony.sip_leg import SipLeg
from switchhook.telephony.sip_server import SipConfig, SipServer
from switchhook.telephony.wire.sip.digest import Account, Challenge, respond
from switchhook.telephony.wire.sip.framing import StreamFramer
from switchhook.telephony.wire.sip.message import Request, Response, parse_message
from switchhook.telephony.wire.sip.timers import TimerValues
from tests.peers.answering_machine import LOOPBACK, AnsweringMachine, TakenCall, answering_machine, play_tone
from tests.peers.loopback import stream_server
from tests.peers.sip_caller import Caller, sdp

UDP_TCP = LOOPBACK
ELSEWHERE = Trunk("elsewhere", "acme", "sip:192.0.2.1", allow_from=("192.0.2.0/24",))
WAIT_S = 20.0


class Line:
    """One end of a real transport, with the messages that came, each once: what is not answered in time is repeated."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.messages: asyncio.Queue[Request | Response | bytes] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._came: set[bytes] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._writer: asyncio.StreamWriter | None = None

    def send(self, data: bytes) -> None:
        if self._udp is not None:
            self._udp.sendto(data)
        elif self._writer is not None:
            self._writer.write(data)

    def take(self, message: Request | Response) -> None:
        """A message came."""
        if bytes(message) not in self._came:
            self._came.add(bytes(message))
            self.messages.put_nowait(message)

    async def next(self) -> Request | Response:
        async with asyncio.timeout(WAIT_S):
            message = await self.messages.get()
        assert not isinstance(message, bytes)
        return message

    async def status(self) -> int:
        message = await self.next()
        assert isinstance(message, Response)
        return message.status

    def caller(self, **more: object) -> Caller:
        name = (self._udp or self._writer).get_extra_info("sockname")  # type: ignore[union-attr]  # one of them is there
        return Caller(host="127.0.0.1", port=name[1], transport=self.transport, **more)  # type: ignore[arg-type]  # fields of Caller


@asynccontextmanager
async def line(address: tuple[str, int], transport: str = "udp", context: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    end = Line(transport)
    loop = asyncio.get_running_loop()
    if transport == "udp":

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                end.take(parse_message(data))

        end._udp, _ = await loop.create_datagram_endpoint(Receiver, remote_addr=address)
        yield end
        end._udp.close()
        return
    reader, end._writer = await asyncio.open_connection(*address, ssl=context)

    async def read() -> None:
        framer = StreamFramer()
        with suppress(OSError):
            while data := await reader.read(65536):
                if data == b"\r\n":
                    end.messages.put_nowait(data)
                    continue
                for frame in framer.feed(data):
                    if isinstance(frame, Request | Response):
                        end.take(frame)
        end.closed.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(read())
        yield end
        task.cancel()
    end._writer.close()
    with suppress(OSError):
        await end._writer.wait_closed()


def here(machine: AnsweringMachine, transport: str = "udp") -> tuple[str, int]:
    address = machine.server.address(transport)
    assert address is not None
    return address


async def placed(end: Line, caller: Caller, invite: bytes) -> Response:
    """A call that is answered and acknowledged; gives the answer."""
    end.send(invite)
    assert [await end.status(), await end.status()] == [100, 180]
    ok = await end.next()
    assert isinstance(ok, Response)
    assert ok.status == 200
    caller.learn(ok)
    end.send(caller.ack())
    return ok


async def converse(machine: AnsweringMachine, end: Line) -> None:
    """A whole call: answered, acknowledged, ended by the caller."""
    caller = end.caller()
    ok = await placed(end, caller, caller.invite(sdp(host="127.0.0.1")))
    assert b"c=IN IP4 127.0.0.1" in ok.body
    end.send(caller.write("BYE"))
    assert await end.status() == 200
    call = machine.calls[-1]
    await machine.until(lambda: bool(call.endings))
    assert call.events[0] == LegAnswered()
    assert call.endings == [LegEnded("caller-hung-up")]
    assert machine.ports.leased == 0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call(transport: str) -> None:
    async with answering_machine(UDP_TCP) as machine, line(here(machine, transport), transport) as end:
        await converse(machine, end)
        attempt = machine.calls[0].attempt
        assert (attempt.called, attempt.caller, attempt.caller_name) == ("+17205550100", "+17205550111", "Ann")
        assert (attempt.account, attempt.trunk, attempt.line, attempt.line_call_id) == ("acme", "local", "sip", "call-1@phone")
        assert str(attempt.call_id).count("-") == 4


async def test_a_call_that_the_line_itself_refuses_is_told_for_its_record() -> None:
    async with answering_machine(UDP_TCP) as machine, line(here(machine)) as end:
        told: list[tuple[str, str | None, int]] = []
        machine.server.on_declined = lambda attempt, status, reason: told.append((attempt.called, attempt.account, status))
        caller = end.caller()
        end.send(caller.invite(sdp(host="127.0.0.1").replace(b"RTP/AVP", b"RTP/SAVP")))
        assert await end.status() == 488
        end.send(caller.ack_failure())
    assert told == [("+17205550100", "acme", 488)]


@dataclass
class Certificate:
    """A self-made certificate for 127.0.0.1."""

    chain: Path
    key: Path


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "switchhook test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    made.chain.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


async def call_over_tls(certificate: Certificate) -> None:
    config = replace(
        LOOPBACK,
        transports=("udp", "tls"),
        tls_port=0,
        tls_certificate=str(certificate.chain),
        tls_key=str(certificate.key),
    )
    context = ssl.create_default_context(cafile=str(certificate.chain))
    async with answering_machine(config) as machine, line(here(machine, "tls"), "tls", context) as end:
        await converse(machine, end)


async def test_a_call_over_tls(certificate: Certificate) -> None:
    await call_over_tls(certificate)


async def test_a_stranger_who_proves_itself_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchhook.telephony.sip_transport.STRANGER_IDLE_S", 2.0)  # long enough to prove it
    monkeypatch.setattr("switchhook.telephony.sip_gate.PROOF_HOLDS_S", 0)  # the connection itself is the proof
    pbx = Trunk("pbx", "acme", "sip:127.0.0.1", username="pbx", password="secret")
    async with answering_machine(UDP_TCP, trunks=[pbx]) as machine:
        address = here(machine, "tcp")
        async with line(address, "tcp") as end:
            caller = end.caller()
            end.send(caller.invite())
            refused = await end.next()
            challenge = Challenge.parse(refused.headers.get("WWW-Authenticate") or "")
            end.send(caller.ack_failure())
            proof = respond(challenge, Account("pbx", "secret", challenge.realm), "INVITE", caller.target, "c0ffee")
            end.send(caller.invite(headers=[("Authorization", str(proof))]))
            assert [await end.status() for _ in range(3)] == [100, 180, 200]
            for _ in range(100):
                end.send(caller.write("OPTIONS"))
            await machine.until(lambda: machine.server.figures["requests"] >= 100)
            async with line(address, "tcp") as idle, asyncio.timeout(WAIT_S):
                await idle.closed.wait()
            assert not end.closed.is_set()
            assert machine.server.figures["connections"] == 1


def test_calls_on_uvloop(certificate: Certificate) -> None:
    async def calls() -> None:
        await test_a_call("udp")
        await test_a_call("tcp")
        await call_over_tls(certificate)
        await test_strangers_cannot_hold_connections()
        await test_a_stream_is_kept_alive_and_closed_on_garbage()
        await test_our_bye_finds_a_caller_whose_connection_is_gone_or_gives_up()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(calls())


def test_tls_without_a_certificate_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match="certificate"):
        SipConfig(transports=("tls",))
    with pytest.raises(SettingError, match="quic"):
        SipConfig(transports=("udp", "quic"))
    with pytest.raises(SettingError, match="unknown sources"):
        SipConfig(unknown_sources="maybe")


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = SipConfig(
        transports=("tls",), tls_port=0, tls_certificate=str(tmp_path / "no.pem"), tls_key=str(tmp_path / "no.key")
    )
    with pytest.raises(SettingError, match="cannot be read"):
        async with answering_machine(config):
            pass


async def test_a_port_that_is_taken_is_named() -> None:
    async with answering_machine(UDP_TCP) as machine:
        taken = here(machine)[1]
        other = SipServer(
            replace(UDP_TCP, host="127.0.0.1", port=taken),
            machine.directory,
            machine.server._streams,
            machine.on_call,
            machine.server._clock,
            machine.server._entropy,
        )
        with pytest.raises(OSError, match=f"udp 127.0.0.1:{taken}"):
            await other.start()


async def test_a_refused_call_costs_no_port_and_says_when_to_try_again() -> None:
    leased = []

    def treat(call: TakenCall) -> None:
        call.leg.ring()
        leased.append(machine.ports.leased)
        call.leg.reject(503, 7)

    async with answering_machine(UDP_TCP, treat=treat) as machine, line(here(machine)) as end:
        caller = end.caller()
        end.send(caller.invite())
        assert [await end.status(), await end.status()] == [100, 180]
        full = await end.next()
        assert (isinstance(full, Response) and full.status, full.retry_after) == (503, 7)
        end.send(caller.ack_failure())
        await machine.until(lambda: bool(machine.calls[0].endings))
        assert machine.calls[0].events == [LegEnded("rejected", "503")]
        assert leased == [0]


async def test_without_a_free_rtp_port_the_call_is_refused_503() -> None:
    async with answering_machine(UDP_TCP, rtp_pairs=1) as machine, line(here(machine)) as end:
        lease = machine.ports.lease()
        end.send(end.caller().invite())
        assert [await end.status() for _ in range(2)] == [100, 180]
        full = await end.next()
        assert isinstance(full, Response)
        assert (full.status, full.retry_after) == (503, 5)
        await machine.until(lambda: bool(machine.calls[0].endings))
        assert machine.calls[0].events == [LegEnded("line-failed", "rtp-ports-exhausted")]
        machine.ports.release(lease)


async def test_closing_a_leg_gives_its_port_back_at_once_and_hangs_up() -> None:
    async with answering_machine(UDP_TCP) as machine, line(here(machine)) as end:
        caller = end.caller()
        await placed(end, caller, caller.invite())
        end.send(caller.write("OPTIONS"))
        assert await end.status() == 200
        call = machine.calls[0]
        call.leg.close()
        call.leg.close()
        assert machine.ports.leased == 0
        bye = await end.next()
        assert isinstance(bye, Request)
        end.send(bytes(bye.reply(200)))
        await machine.until(lambda: machine.server.figures["dialogs"] == 0)
        assert call.endings == [LegEnded("hung-up")]
        call.leg.answer()
        call.leg.hang_up()
        assert call.leg.playout.idle in (True, False)
        assert machine.ports.leased == 0


async def test_digits_by_info_reach_the_leg() -> None:
    async with answering_machine(UDP_TCP) as machine, line(here(machine)) as end:
        caller = end.caller()
        await placed(end, caller, caller.invite(sdp(payloads="0", host="127.0.0.1")))
        end.send(caller.write("INFO", body=b"Signal=9\r\nDuration=120\r\n", content_type="application/dtmf-relay"))
        assert await end.status() == 200
        await machine.until(lambda: machine.calls[0].digits == "9")


async def test_an_alaw_offer_makes_an_alaw_leg() -> None:
    async with answering_machine(UDP_TCP) as machine, line(here(machine)) as end:
        end.send(end.caller().invite(sdp(payloads="8 0 101", host="127.0.0.1")))
        assert [await end.status() for _ in range(3)] == [100, 180, 200]
        assert machine.calls[0].leg.encoding is Encoding.PCMA


async def test_unknown_sources_hear_nothing() -> None:
    async with answering_machine(UDP_TCP, trunks=[ELSEWHERE]) as machine, line(here(machine)) as end:
        for count in range(50):
            end.send(end.caller(call_id=f"scan-{count}").write("OPTIONS"))
            end.send(end.caller(call_id=f"call-{count}").invite())
            end.send(b"\x00" * 100)
        figures = machine.server.figures
        await machine.until(lambda: machine.server.figures["silenced"] + machine.server.figures["malformed"] >= 150)
        figures = machine.server.figures
        assert (figures["transactions"], figures["dialogs"]) == (0, 0)
        assert end.messages.empty()
        assert machine.calls == []


async def test_unknown_sources_hear_403_when_that_is_set() -> None:
    config = replace(UDP_TCP, unknown_sources="403")
    async with answering_machine(config, trunks=[ELSEWHERE]) as machine, line(here(machine)) as end:
        end.send(end.caller().invite())
        assert await end.status() == 403


async def test_strangers_cannot_hold_connections() -> None:
    async with answering_machine(UDP_TCP, trunks=[ELSEWHERE]) as machine, line(here(machine, "tcp"), "tcp") as end:
        async with asyncio.timeout(WAIT_S):
            await end.closed.wait()
        assert machine.server.figures["connections"] == 0


async def test_a_stream_is_kept_alive_and_closed_on_garbage() -> None:
    async with answering_machine(UDP_TCP) as machine, line(here(machine, "tcp"), "tcp") as end:
        end.send(b"\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            assert await end.messages.get() == b"\r\n"
        end.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            await end.closed.wait()
        await machine.until(lambda: machine.server.figures["connections"] == 0)


async def test_our_bye_finds_a_caller_whose_connection_is_gone_or_gives_up() -> None:
    async with answering_machine(UDP_TCP) as machine:
        async with line(here(machine, "tcp"), "tcp") as end:
            caller = end.caller()
            await placed(end, caller, caller.invite())
            end.send(caller.write("OPTIONS"))
            assert await end.status() == 200
        await machine.until(lambda: machine.server.figures["connections"] == 0)
        machine.calls[0].leg.hang_up()
        await machine.until(lambda: machine.server.figures["dialogs"] == 0)
        assert machine.calls[0].endings == [LegEnded("hung-up")]


@pytest.mark.parametrize("lost", ["before our BYE", "with our BYE"])
async def test_our_bye_goes_to_the_contact_when_the_connection_is_lost(lost: str) -> None:
    requests: asyncio.Queue[Request] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        [bye] = StreamFramer().feed(await reader.read(65536))
        assert isinstance(bye, Request)
        writer.write(bytes(bye.reply(200)))
        requests.put_nowait(bye)

    async with stream_server(listen) as port, answering_machine(UDP_TCP) as machine:
        contact = ("Contact", f"<sip:ann@127.0.0.1:{port};transport=tcp>")
        async with line(here(machine, "tcp"), "tcp") as end:
            caller = end.caller()
            await placed(end, caller, caller.invite(headers=[contact]))
            end.send(caller.write("OPTIONS"))
            assert await end.status() == 200
            if lost == "with our BYE":
                machine.calls[0].leg.hang_up()
                assert isinstance(await end.next(), Request)
        if lost == "before our BYE":
            await machine.until(lambda: machine.server.figures["connections"] == 0)
            machine.calls[0].leg.hang_up()
        async with asyncio.timeout(WAIT_S):
            bye = await requests.get()
        assert (bye.method, bye.call_id) == ("BYE", caller.call_id)
        await machine.until(lambda: machine.server.figures["dialogs"] == 0)


async def test_stopping_ends_every_call_in_good_order() -> None:
    config = replace(UDP_TCP, stop_grace_s=20.0)
    async with answering_machine(config) as machine, line(here(machine)) as end:
        caller = end.caller()
        await placed(end, caller, caller.invite())
        end.send(caller.write("OPTIONS"))
        assert await end.status() == 200
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(machine.server.stop())
            bye = await end.next()
            assert isinstance(bye, Request)
            assert bye.method == "BYE"
            late = end.caller(call_id="late")
            end.send(late.invite())
            assert [await end.status(), await end.status()] == [100, 503]
            assert not stopping.done()
            end.send(bytes(bye.reply(200)))
        await machine.until(lambda: bool(machine.calls[0].endings))
        assert machine.ports.leased == 0
        await machine.server.stop()


async def test_stopping_does_not_wait_for_a_dead_peer() -> None:
    config = replace(UDP_TCP, stop_grace_s=0.05)
    async with answering_machine(config) as machine, line(here(machine)) as end:
        end.send(end.caller().invite())
        assert [await end.status() for _ in range(3)] == [100, 180, 200]
        await machine.server.stop()
        await machine.until(lambda: bool(machine.calls[0].endings))
        assert machine.ports.leased == 0


async def test_a_switchboard_that_fails_refuses_that_call_alone(caplog: pytest.LogCaptureFixture) -> None:
    def treat(call: TakenCall) -> None:
        if call.attempt.line_call_id == "bad":
            raise RuntimeError("broken")
        play_tone(call)

    async with answering_machine(UDP_TCP, treat=treat) as machine, line(here(machine)) as end:
        bad = end.caller(call_id="bad")
        end.send(bad.invite())
        assert [await end.status() for _ in range(2)] == [100, 500]
        end.send(bad.ack_failure())
        assert "sip.on_call failed" in caplog.text
        await converse(machine, end)


async def test_what_breaks_in_one_call_leaves_the_effects_for_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    async with answering_machine(UDP_TCP) as machine, line(here(machine)) as end:
        machine.server.on_declined = broken
        caller = end.caller()
        end.send(caller.invite(sdp(host="127.0.0.1")))
        assert [await end.status(), await end.status()] == [100, 180]
        ok = await end.next()
        assert isinstance(ok, Response)
        caller.learn(ok)
        end.send(caller.ack())
        # What is sent at once is read at once.
        end.send(end.caller(call_id="refused").invite(sdp(host="127.0.0.1").replace(b"RTP/AVP", b"RTP/SAVP")))
        end.send(caller.write("OPTIONS"))
        assert [await end.status(), await end.status()] == [488, 200]
        monkeypatch.setattr(SipLeg, "on_digit", broken)
        end.send(caller.write("INFO", body=b"Signal=9\r\n", content_type="application/dtmf-relay"))
        end.send(caller.write("BYE"))
        assert [await end.status(), await end.status()] == [200, 200]
        await machine.until(lambda: bool(machine.calls[0].endings))
        assert machine.ports.leased == 0
    assert caplog.text.count("sip.effect failed") == 2


async def test_a_call_without_sound_ends_as_media_timeout() -> None:
    config = replace(UDP_TCP, timers=TimerValues(t1=0.05))
    async with answering_machine(config, media_timeout_s=0.3) as machine, line(here(machine)) as end:
        caller = end.caller()
        await placed(end, caller, caller.invite(sdp(host="127.0.0.1", port=9)))
        await machine.until(lambda: bool(machine.calls[0].endings))
        assert machine.calls[0].endings[0].reason == "media-timeout"
        assert machine.ports.leased == 0


async def test_many_datagrams_at_once_are_all_served() -> None:
    async with answering_machine(UDP_TCP, treat=lambda call: call.leg.reject(486)) as machine:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for count in range(300):
                out.sendto(Caller(call_id=f"call-{count}", host="127.0.0.1").invite(), here(machine))
        await machine.until(lambda: len(machine.calls) == 300)
        await machine.until(lambda: all(call.endings for call in machine.calls))


@pytest.mark.parametrize(("advertised", "shown"), [(None, "127.0.0.1"), ("198.51.100.7", "198.51.100.7")])
async def test_on_every_address_we_show_the_one_that_reaches_the_peer(advertised: str | None, shown: str) -> None:
    config = replace(LOOPBACK, host="0.0.0.0", advertised_host=advertised, advertised_port=5999 if advertised else None)
    async with answering_machine(config) as machine, line(("127.0.0.1", here(machine)[1])) as end:
        end.send(end.caller().invite(sdp(host="127.0.0.1")))
        assert [await end.status() for _ in range(2)] == [100, 180]
        ok = await end.next()
        assert f"c=IN IP4 {shown}".encode() in ok.body
        port = 5999 if advertised else here(machine)[1]
        assert ok.headers.get("Contact") == f"<sip:{shown}:{port}>"

"""SIP towards a whole server: what sipp does within a call, and how requests that are wrong are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from switchhook_demo import sip_text
from switchhook_demo.phone import Phone
from switchhook_demo.rtp_line import RtpLine
from switchhook_demo.sip_text import Message
from tests.peers import sipp
from tests.server.house import NUMBER, House, ear_has
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone, caller_tone, heard_tone, of_turn, speech
from tests.server.model import LiveSession, Model
from tests.server.waiting import Watched, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIPP_CALLER = "+17205550111"


async def _greet(session: LiveSession) -> None:
    await session.got("response.create")
    session.speaks(speech(200), "Hello!")


@pytest.mark.peer("sipp")
@pytest.mark.parametrize("scenario", ["uac_prack", "uac_offerless", "uac_hold"])
async def test_ways_of_a_call(house: House, tmp_path: Path, scenario: str) -> None:
    """Reliable provisional responses, an INVITE without an offer, hold by INVITE and resumption by UPDATE: whole calls."""
    async with Model(_greet) as model:
        house.answer_with(model)
        run = sipp.SippRun(scenario, ("127.0.0.1", house.server.sip_port), tmp_path, service=NUMBER)
        finished = await sipp.run(run)
        assert finished.returncode == 0, finished.output
        end = await house.end_of((await house.start_of(SIPP_CALLER))["sessionGuid"])
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    assert end["callConnected"] is not None
    await house.quiet()


async def test_a_caller_who_moves_to_another_address_and_codec(house: House) -> None:
    """A re-INVITE in the midst of the talk: from then on both are heard there, in A-law."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session, before = talk.call, talk.session, talk.call.line
            await session.got("response.create")
            session.speaks(agent_tone(300), "Hello!")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 280), 20, "the greeting")
            before.sending = False
            call.line = RtpLine("127.0.0.1")
            call.phone.encodings = ("PCMA",)
            await call.reinvite("sendrecv")
            session.speaks(agent_tone(800), "I hear you there.")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 580), 20, "the agent at the other address")
            assert call.ear.encoding == "PCMA"
            await call.say(caller_tone(600))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 580), "the caller's tone from there")
            await call.hang_up()
            await before.close()
        assert (await house.end_of(talk.guid))["status"] == 0


@pytest.mark.peer("sipp")
async def test_options_and_a_cancelled_call(house: House, tmp_path: Path) -> None:
    """OPTIONS is answered by a server that is alive; CANCEL while it rings ends with 487 and one CallEnd."""
    remote = ("127.0.0.1", house.server.sip_port)
    for folder in ("options", "cancel"):
        (tmp_path / folder).mkdir()
    finished = await sipp.run(sipp.SippRun("uac_options", remote, tmp_path / "options", service=NUMBER))
    assert finished.returncode == 0, finished.output
    async with Model() as model:
        house.answer_with(model)
        house.backend.start_gate.clear()
        finished = await sipp.run(sipp.SippRun("uac_cancel", remote, tmp_path / "cancel", service=NUMBER))
        assert finished.returncode == 0, finished.output
        house.backend.start_gate.set()
        guid = (await house.start_of(SIPP_CALLER))["sessionGuid"]
        end = await house.end_of(guid)
        assert (end["status"], end["callConnected"], model.handshakes) == (0, None, 0)
    assert len(house.ends_of(guid)) == 1


class Sender(asyncio.DatagramProtocol, Watched):
    """A socket that says what it is told, byte for byte; `answers` are the responses."""

    def __init__(self) -> None:
        Watched.__init__(self)
        self.answers: list[Message] = []
        self.raw: list[bytes] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    @asynccontextmanager
    async def to(cls, house: House, host: str = "127.0.0.1") -> AsyncIterator[Sender]:
        """Open it towards the server."""
        loop = asyncio.get_running_loop()
        remote = ("127.0.0.1", house.server.sip_port)
        transport, sender = await loop.create_datagram_endpoint(cls, local_addr=(host, 0), remote_addr=remote)
        sender.port, sender._transport = transport.get_extra_info("sockname")[1], transport
        try:
            yield sender
        finally:
            transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = sip_text.parse(data)
        if message is not None and message.status:
            self.answers.append(message)
            self.raw.append(data)
            self.changed()

    def send(self, message: Message | bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(bytes(message))

    async def status_of(self, message: Message | bytes, final: bool = True) -> Message:
        """Send it and wait for the answer with its CSeq, a final one unless told otherwise."""
        count = len(self.answers)
        self.send(message)
        return await self.until(
            lambda: next((answer for answer in self.answers[count:] if not final or answer.status >= 200), None), "an answer"
        )

    def request(self, method: str = "INVITE", uri: str = "", caller: str = "+17205550177", body: bytes = b"") -> Message:
        """A request that is in order, outside any call."""
        made = Message(method=method, uri=uri or f"sip:{NUMBER}@127.0.0.1", body=body)
        made.add("via", f"SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{sip_text.token()};rport")
        made.add("from", f"<sip:{caller}@127.0.0.1>;tag={sip_text.token()}")
        made.add("to", f"<sip:{NUMBER}@127.0.0.1>")
        made.add("call-id", sip_text.token())
        made.add("cseq", f"1 {method}")
        made.add("contact", f"<sip:{caller}@127.0.0.1:{self.port}>")
        made.add("max-forwards", "70")
        if body:
            made.add("content-type", "application/sdp")
        return made


OFFER = sip_text.write_sdp("127.0.0.1", 40_000, ("PCMU",), "sendrecv", 1)
G729 = OFFER.replace(b"RTP/AVP 0 101", b"RTP/AVP 18 101").replace(b"a=rtpmap:0 PCMU/8000", b"a=rtpmap:18 G729/8000")


def _without(message: Message, name: str) -> Message:
    message.headers = [(key, value) for key, value in message.headers if key != name]
    return message


def _with(message: Message, name: str, value: str) -> Message:
    _without(message, name).add(name, value)
    return message


WRONG: dict[str, tuple[int, Callable[[Sender], Message | bytes]]] = {
    "no-call-id": (400, lambda sender: _without(sender.request(body=OFFER), "call-id")),
    "no-cseq-method": (400, lambda sender: _with(sender.request(body=OFFER), "cseq", "1")),
    "another-method-in-cseq": (400, lambda sender: _with(sender.request(body=OFFER), "cseq", "1 BYE")),
    "version": (505, lambda sender: bytes(sender.request(body=OFFER)).replace(b" SIP/2.0\r\n", b" SIP/7.0\r\n", 1)),
    "scheme": (416, lambda sender: sender.request(uri="unheard:of", body=OFFER)),
    "no-hops-left": (483, lambda sender: _with(sender.request(body=OFFER), "max-forwards", "0")),
    "method": (501, lambda sender: sender.request("DANCE")),
    "extension": (420, lambda sender: _with(sender.request(body=OFFER), "require", "teleport")),
    "codec": (488, lambda sender: sender.request(body=G729)),
    "no-description": (415, lambda sender: _with(sender.request(body=b"hello"), "content-type", "text/plain")),
    "session-too-short": (
        422,
        lambda sender: _with(_with(sender.request(body=OFFER), "session-expires", "30"), "supported", "timer"),
    ),
    "no-such-call": (481, lambda sender: _with(sender.request("BYE"), "to", f"<sip:{NUMBER}@127.0.0.1>;tag=unknown")),
    "nothing-to-cancel": (481, lambda sender: sender.request("CANCEL")),
}


@pytest.mark.parametrize("case", list(WRONG))
async def test_a_request_that_is_wrong_gets_the_answer_that_says_so(house: House, case: str) -> None:
    """RFC 3261 §8.2, §16.3, §21.4; nothing of it reaches the customer."""
    status, build = WRONG[case]
    async with Sender.to(house) as sender:
        answer = await sender.status_of(build(sender))
        assert answer.status == status, answer
        if status == 420:
            assert answer.get("unsupported") == "teleport"
        if status == 422:
            assert int(answer.get("min-se").partition(";")[0]) == 90
        if answer.cseq[1] == "INVITE" and status not in (400, 505):
            assert sip_text.parameter(answer.get("to"), "tag")
    assert not house.backend.requests


async def test_the_same_invite_by_another_way_is_one_call(house: House) -> None:
    """A fork that meets again is 482 (RFC 3261 §8.2.2.2); the call itself goes on."""
    house.backend.start_gate.clear()
    async with Model() as model, Sender.to(house) as sender:
        house.answer_with(model)
        caller = house.new_caller()
        invite = sender.request(caller=caller, body=OFFER)
        sender.send(invite)
        guid = (await house.start_of(caller))["sessionGuid"]
        again = _with(invite, "via", f"SIP/2.0/UDP 127.0.0.1:{sender.port};branch=z9hG4bK{sip_text.token()};rport")
        assert (await sender.status_of(again)).status == 482
        house.backend.start_gate.set()
        taken = await sender.until(lambda: next((one for one in sender.answers if one.status == 200), None), "the answer")
        assert len(house.backend.of("/callstart")) == 1
        bye = _with(sender.request("BYE", caller=caller), "cseq", "2 BYE")
        for name in ("from", "to", "call-id"):
            bye = _with(bye, name, taken.get(name))
        sender.send(bye)
        assert (await house.end_of(guid))["status"] == 0


async def test_a_repeated_invite_gets_the_same_answer(house: House) -> None:
    """Byte for byte, one CallStart, one record: a retransmission is no second call."""
    house.backend.start_status = 500
    async with Sender.to(house) as sender:
        caller = house.new_caller()
        invite = bytes(sender.request(caller=caller, body=OFFER))
        for _ in range(3):
            sender.send(invite)
        first = await sender.until(lambda: next((raw for raw in sender.raw if b" 480 " in raw[:20]), None), "480")
        count = len(sender.raw)
        sender.send(invite)
        again = await sender.until(lambda: sender.raw[count] if len(sender.raw) > count else None, "480 again")
        assert again == first
        answer = sip_text.parse(first)
        assert answer is not None
        assert f"rport={sender.port}" in answer.get("via")
        assert "received=127.0.0.1" in answer.get("via")
    await house.end_of((await house.start_of(caller))["sessionGuid"])
    assert await house.record_of(caller) == ("upstream-error", "call-start-http-error")
    assert len(house.backend.of("/callstart")) == 1


async def test_who_calls_is_read_from_what_the_carrier_asserts(house: House) -> None:
    """P-Asserted-Identity goes before From (RFC 3325), with its name."""
    async with Model() as model, Phone(user="anonymous", display_name="Anonymous") as phone:
        house.answer_with(model)
        identity = house.new_caller()
        call = await phone.dial(house.uri(), {"P-Asserted-Identity": f'"Ada Caller" <sip:{identity}@carrier.example>'})
        await call.answered()
        start = await house.start_of(identity)
        assert start["callerIdName"] == "Ada Caller"
        await call.hang_up()
        await house.end_of(start["sessionGuid"])


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


GARBAGE = (
    b"\x00" * 1400,
    b"INVITE " * 200,
    b"INVITE sip:x@127.0.0.1 SIP/2.0\r\n" + b"Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\n" * 30,
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\nCall-ID: x\r\n\r\n",
    b"\r\n\r\n",
    b"REGISTER sip:127.0.0.1 SIP/2.0\r\nContent-Length: 99999999\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\né".encode(),
)


async def test_a_flood_of_garbage_harms_no_call_and_takes_no_memory(house: House) -> None:
    """From an address that may call and from one that may not; the live caller loses no frame."""
    process = house.server.process
    assert process is not None
    async with Model() as model:
        house.answer_with(model)
        async with Sender.to(house) as sender, Sender.to(house, "127.0.0.2") as stranger, house.talk(model) as talk:
            await talk.session.got("response.create")

            async def flood(rounds: int) -> None:
                for count in range(rounds):
                    for data in GARBAGE:
                        sender.send(data + str(count).encode())
                        stranger.send(data + str(count).encode())
                    if count % 10 == 9:
                        await asyncio.sleep(0.01)  # what is too fast for a socket is lost unread

            await flood(100)
            before = _resident_mib(process.pid)
            talk.session.speaks(speech(2000), "Still here.")
            await flood(1500)
            await ear_has(talk.call, 100)
            assert of_turn(talk.call.ear.packets, 0) == list(range(100))
            await talk.call.hang_up()
        assert (await house.end_of(talk.guid))["status"] == 0

        async def given_back() -> bool:
            return _resident_mib(process.pid) - before < 8

        await eventually(given_back, "the memory of before", 40)
    assert (await house.get("/healthz"))[0] == 200

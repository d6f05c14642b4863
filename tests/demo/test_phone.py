"""The telephone against a scripted peer and against sipp."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path

import numpy as np
import pytest

from switchhook_demo import sip_text
from switchhook_demo.phone import CallRefusedError, Phone
from switchhook_demo.sip_text import Message
from switchhook_demo.sound import decode, loudness, tone
from tests.demo.conftest import Peer
from tests.peers.ports import free_port, free_row


def pitch_hz(ulaw: bytes) -> float:
    """The strongest frequency of some sound."""
    samples = decode(ulaw).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / 8000)[int(np.argmax(spectrum))])


async def test_call_carries_sound_both_ways_and_ends_with_bye(peer: Peer) -> None:
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        assert await call.ringing() == 180
        await call.answered()
        peer.line.queue(tone(700, 400))
        began = await call.heard(call.answered_at)
        await call.quiet(200)
        await call.say(tone(440, 400), tone(440, 200), pause_ms=60)
        await peer.until(lambda: sum(packet.voiced for packet in peer.line.ear.packets) == 30)
        heard = b"".join(p.payload for p in call.ear.packets if p.voiced)
        said = b"".join(p.payload for p in peer.line.ear.packets if p.voiced)
        await call.hang_up()
    assert call.answered_at is not None and began >= call.answered_at
    assert abs(pitch_hz(heard) - 700) < 10
    assert abs(pitch_hz(said) - 440) < 10
    assert [method for method in peer.methods() if method != "ACK"] == ["INVITE", "BYE"]
    assert call.ended_by == "us"


async def test_alaw_is_spoken_where_the_peer_wants_it(peer: Peer) -> None:
    peer.handlers["INVITE"] = lambda peer, request: peer.send(peer.accept(request, ("PCMA",)))
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        peer.line.ear.encoding = "PCMA"
        await call.say(tone(440, 300))
        await peer.until(lambda: sum(packet.voiced for packet in peer.line.ear.packets) == 15)
        voiced = b"".join(packet.payload for packet in peer.line.ear.packets if packet.voiced)
    samples = decode(voiced, "PCMA").astype(np.float64)
    assert abs(float(np.fft.rfftfreq(len(samples), 1 / 8000)[int(np.argmax(np.abs(np.fft.rfft(samples))))]) - 440) < 40


async def test_keys_arrive_as_events_once_each_or_by_info(peer: Peer) -> None:
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        await call.press("15#")
        await peer.until(lambda: len(peer.line.ear.digits) == 3)
        await call.press("7", method="info")
    assert peer.line.ear.digits == ["1", "5", "#"]
    info = next(request for request in peer.requests if request.method == "INFO")
    assert info.get("content-type") == "application/dtmf-relay"
    assert b"Signal=7" in info.body


async def test_hold_and_resume_offer_the_directions(peer: Peer) -> None:
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        await call.hold()
        await call.resume()
    offers = [sip_text.read_sdp(request.body) for request in peer.requests if request.method == "INVITE"]
    assert [offer.direction for offer in offers if offer] == ["sendrecv", "sendonly", "sendrecv"]
    assert [request.cseq[0] for request in peer.requests if request.method in ("INVITE", "BYE")] == [1, 2, 3, 4]


async def test_remote_bye_ends_the_call(peer: Peer) -> None:
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        invite = peer.requests[0]
        bye = Message(method="BYE", uri=sip_text.address_uri(invite.get("contact")))
        bye.add("via", f"SIP/2.0/UDP 127.0.0.1:{peer.port};branch=z9hG4bKbye")
        bye.add("from", f"{invite.get('to')};tag=peer")
        bye.add("to", invite.get("from"))
        bye.add("call-id", invite.get("call-id"))
        bye.add("cseq", "1 BYE")
        peer.send(bye)
        assert await call.ended() == "them"
    assert "BYE" not in peer.methods()


async def test_refusal_tells_status_and_is_acknowledged(peer: Peer) -> None:
    peer.handlers["INVITE"] = lambda peer, request: peer.send(request.reply(486, "Busy Here", "peer"))
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 486
        await peer.until(lambda: "ACK" in peer.methods())
    invite, ack = peer.requests[0], peer.requests[1]
    assert ack.branch == invite.branch
    assert call.ended_by == "them"


async def test_cancel_gives_up_a_ringing_call(peer: Peer) -> None:
    peer.handlers["INVITE"] = lambda peer, request: peer.send(request.reply(180, "Ringing", "peer"))

    def cancelled(peer: Peer, request: Message) -> None:
        peer.send(request.reply(200, "OK"))
        peer.send(peer.requests[0].reply(487, "Request Terminated", "peer"))

    peer.handlers["CANCEL"] = cancelled
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.ringing()
        await call.cancel()
        with pytest.raises(CallRefusedError, match="487"):
            await call.answered()
    assert peer.requests[1].branch == peer.requests[0].branch


async def test_challenge_is_answered_with_credentials(peer: Peer) -> None:
    def invited(peer: Peer, request: Message) -> None:
        if request.get("authorization"):
            peer.send(peer.accept(request))
            return
        challenge = request.reply(401, "Unauthorized", "peer")
        challenge.add("www-authenticate", 'Digest realm="desk", nonce="n1", qop="auth", algorithm=SHA-256')
        peer.send(challenge)

    peer.handlers["INVITE"] = invited
    async with Phone(credentials=("alice", "secret")) as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
    given = next(value for request in peer.requests if (value := request.get("authorization")))
    assert 'username="alice"' in given and "nc=00000001" in given and "secret" not in given


def test_digest_answer_is_the_one_of_rfc_2617() -> None:
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"'
    answer = sip_text.digest_answer(challenge, "GET", "/dir/index.html", "Mufasa", "Circle Of Life")
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in answer
    assert 'opaque="5ccc"' in answer


async def test_invite_is_repeated_until_answered(peer: Peer) -> None:
    def deaf_once(peer: Peer, request: Message) -> None:
        if peer.methods().count("INVITE") > 1:
            peer.send(peer.accept(request))

    peer.handlers["INVITE"] = deaf_once
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
    assert peer.requests[0].branch == peer.requests[1].branch


async def test_waiting_has_a_deadline(peer: Peer) -> None:
    peer.handlers["INVITE"] = lambda peer, request: peer.send(request.reply(100, "Trying"))
    peer.handlers["CANCEL"] = lambda peer, request: peer.send(request.reply(200, "OK"))
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        with pytest.raises(TimeoutError, match="did not ring"):
            await call.ringing(0.1)


SIPP_ANSWERER = """\
    <?xml version="1.0"?>
    <scenario name="answerer that echoes and hangs up">
      <recv request="INVITE" crlf="true" rrs="true"/>
      <send><![CDATA[
    SIP/2.0 180 Ringing
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]s[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Contact: <sip:uas@[local_ip]:[local_port]>
    Content-Length: 0

    ]]></send>
      <send retrans="500"><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]s[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Contact: <sip:uas@[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=uas 1 1 IN IP[local_ip_type] [local_ip]
    s=-
    c=IN IP[media_ip_type] [media_ip]
    t=0 0
    m=audio [rtpstream_audio_port] RTP/AVP 0
    a=rtpmap:0 PCMU/8000
    a=ptime:20
    ]]></send>
      <recv request="ACK" crlf="true"/>
      <nop><action><exec rtp_stream="SOUND,1,0,PCMU/8000"/></action></nop>
      <recv request="BYE" timeout="10000"/>
      <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

    ]]></send>
    </scenario>
"""


@pytest.mark.peer("sipp")
async def test_sipp_answers_and_its_tone_is_heard(tmp_path: Path) -> None:
    (tmp_path / "sound.ul").write_bytes(tone(700, 1500))
    scenario = textwrap.dedent(SIPP_ANSWERER).replace("SOUND", str(tmp_path / "sound.ul"))
    (tmp_path / "answer.xml").write_text(scenario)
    port = free_port()
    command = ["sipp", "-sf", "answer.xml", "-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", str(port)]
    command += ["-mp", str(free_row(4)), "-m", "1", "-nostdin", "-timeout", "20"]
    null = asyncio.subprocess.DEVNULL
    sipp = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=null, stderr=null, stdin=null)
    try:
        async with Phone() as phone:
            call = await phone.dial(f"sip:desk@127.0.0.1:{port}")  # repeated until sipp has opened its port
            await call.answered()
            await call.heard(call.answered_at)
            await call.quiet(300)
            await call.hang_up()
            heard = b"".join(packet.payload for packet in call.ear.packets if packet.voiced)
        assert await asyncio.wait_for(sipp.wait(), 20) == 0
    finally:
        if sipp.returncode is None:
            sipp.kill()
            await sipp.wait()
    assert abs(pitch_hz(heard) - 700) < 5
    assert loudness(heard) > 1000

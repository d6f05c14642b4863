"""baresip calls the SIP server: both hear each other, by frequency."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from switchhook.domain.model import Encoding, Srtp, Trunk
from switchhook.domain.ports import LegEnded
from switchhook.media import tones
from tests.peers.answering_machine import LOCAL_TRUNK, TONE_HZ, answering_machine
from tests.peers.baresip import baresip
from tests.peers.sound import loud_part, read_wav, write_wav

pytestmark = pytest.mark.peer("baresip")

PBX = Trunk("pbx", "acme", "sip:127.0.0.1", username="pbx", password="secret")
SECURE = replace(LOCAL_TRUNK, srtp=Srtp.REQUIRED)
EITHER = replace(LOCAL_TRUNK, srtp=Srtp.OFFERED)


@pytest.mark.parametrize(
    ("codec", "encoding", "transport", "trunk", "account"),
    [
        ("PCMU/8000/1", Encoding.PCMU, "udp", LOCAL_TRUNK, ""),
        ("PCMA/8000/1", Encoding.PCMA, "tcp", LOCAL_TRUNK, ""),
        ("PCMU/8000/1", Encoding.PCMU, "udp", PBX, ";auth_user=pbx;auth_pass=secret"),
        ("PCMU/8000/1", Encoding.PCMU, "udp", SECURE, ";mediaenc=srtp-mand"),
        ("PCMA/8000/1", Encoding.PCMA, "udp", EITHER, ";mediaenc=srtp"),
        ("PCMU/8000/1", Encoding.PCMU, "udp", EITHER, ""),
    ],
    ids=["mulaw-udp", "alaw-tcp", "digest", "srtp-required", "srtp-optional", "srtp-not-wanted"],
)
async def test_both_hear_each_other(
    codec: str, encoding: Encoding, transport: str, trunk: Trunk, account: str, tmp_path: Path
) -> None:
    source = tmp_path / "source.wav"
    write_wav(source, 440, 30_000)
    async with answering_machine(trunks=[trunk]) as machine, baresip(tmp_path / "phone", source, account, codec) as phone:
        address = machine.server.address(transport)
        assert address is not None
        phone.command("dial", f"sip:+17205550100@127.0.0.1:{address[1]};transport={transport}")
        await phone.until_event("CALL_ESTABLISHED")
        call = machine.calls[0]
        assert call.leg.encoding is encoding
        assert call.attempt.trunk == trunk.name
        await machine.until(lambda: len(call.heard) >= 2 * 8000)
        phone.command("sndcode", "5")
        await machine.until(lambda: call.digits == "5")
        phone.command("hangup")
        await phone.until_event("CALL_CLOSED")
        await machine.until(lambda: bool(call.endings))
        assert call.endings == [LegEnded("caller-hung-up")]
        assert tones.frequency_hz(bytes(call.heard[-8000:]), encoding) == pytest.approx(440, abs=5)
    assert ("SRTP is Enabled" in phone.process.read()) is ("mediaenc" in account)
    samples, rate_hz = read_wav(phone.heard)  # it is whole when baresip has ended
    assert rate_hz == 8000
    heard = loud_part(samples)
    assert len(heard) >= 8000
    assert tones.dominant_hz(heard) == pytest.approx(TONE_HZ, abs=5)


async def test_we_hang_up(tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    write_wav(source, 440, 30_000)
    async with answering_machine() as machine, baresip(tmp_path / "phone", source) as phone:
        address = machine.server.address()
        assert address is not None
        phone.command("dial", f"sip:+17205550100@127.0.0.1:{address[1]}")
        await phone.until_event("CALL_ESTABLISHED")
        machine.calls[0].leg.hang_up()
        await phone.until_event("CALL_CLOSED")
        await machine.until(lambda: machine.server.figures["dialogs"] == 0)
        assert machine.calls[0].endings == [LegEnded("hung-up")]


@pytest.mark.parametrize(
    ("mode", "account"),
    [(Srtp.OFF, ";mediaenc=srtp-mand"), (Srtp.REQUIRED, "")],
    ids=["we-do-not", "it-does-not"],
)
async def test_who_insists_on_srtp_gets_no_plain_call(mode: Srtp, account: str, tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    write_wav(source, 440, 30_000)
    trunk = replace(LOCAL_TRUNK, srtp=mode)
    async with answering_machine(trunks=[trunk]) as machine, baresip(tmp_path / "phone", source, account) as phone:
        address = machine.server.address()
        assert address is not None
        phone.command("dial", f"sip:+17205550100@127.0.0.1:{address[1]}")
        closed = await phone.until_event("CALL_CLOSED")
        assert "488" in str(closed.get("param"))
        assert not machine.calls

"""Calls whose signalling comes over a stream: TCP, and TLS with our certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.baresip import baresip
from tests.peers.certificates import Authority
from tests.peers.ports import free_port
from tests.peers.sound import write_wav
from tests.server.call_end import spoken_lines
from tests.server.house import House, open_house
from tests.server.listening import AGENT_HZ, CALLER_HZ, NEAR_HZ, agent_tone, heard_tone, loud_part, mono, peak_hz
from tests.server.model import LiveSession, Model

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("baresip")]


async def _converse(session: LiveSession) -> None:
    """Greet, hear the caller's tone, and hang up."""
    await session.got("response.create")
    session.speaks(agent_tone(200), "Hello!")  # over long before the caller, who does not wait for it, has been heard
    await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 900), "the caller's tone")
    session.caller_spoke("Beep.")
    session.calls_tool("call_1", "vns_end_conversation", {"user_input": "Beep."})
    await session.got("response.create", 2)
    session.speaks(agent_tone(600), "Goodbye.")


async def _call(house: House, folder: Path, uri: str) -> None:
    """A baresip caller; both sides hear each other, and CallEnd tells it."""
    source = folder / "caller.wav"
    write_wav(source, CALLER_HZ, 20_000)
    async with Model(_converse) as model, baresip(folder / "baresip", source) as phone:
        house.answer_with(model, ["vns_end_conversation"])
        phone.command("dial", uri)
        await phone.until_event("CALL_ESTABLISHED", 30)
        await phone.until_event("CALL_CLOSED", 30)
        end = await house.end_of((await house.start_of("+17205550111"))["sessionGuid"])
        heard = loud_part(mono(phone.heard))
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    assert spoken_lines(end) == ["AI : Hello!", "User: Beep.", "AI : Goodbye."]
    assert abs(peak_hz(heard) - AGENT_HZ) < NEAR_HZ
    assert abs(len(heard) / 8 - 800) <= 100


async def test_a_call_over_tcp(house: House, tmp_path: Path) -> None:
    await _call(house, tmp_path, f"{house.uri()};transport=tcp")


async def test_a_call_over_tls(tmp_path: Path) -> None:
    identity, port = Authority(tmp_path).vouch_for("127.0.0.1"), free_port()
    async with open_house(
        tmp_path,
        SWITCHHOOK_SIP_TRANSPORTS="udp,tls",
        SWITCHHOOK_SIP_TLS_PORT=str(port),
        SWITCHHOOK_TLS_CERTIFICATE=identity.certificate,
        SWITCHHOOK_TLS_KEY=identity.key,
        SWITCHHOOK_DRAIN_S="1",
    ) as house:
        await _call(house, tmp_path, f"sip:+17206999999@127.0.0.1:{port};transport=tls")

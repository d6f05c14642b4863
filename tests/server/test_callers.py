"""Callers that are not ours: sipp and baresip complete a VNS call, checked by content on all sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers import sipp
from tests.peers.baresip import baresip
from tests.peers.sound import write_ulaw, write_wav
from tests.server.call_end import spoken_lines
from tests.server.house import House
from tests.server.listening import AGENT_HZ, CALLER_HZ, NEAR_HZ, agent_tone, heard_tone, loud_part, mono, peak_hz, recorded
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _converse(session: LiveSession) -> None:
    """Greet, and answer once the caller's tone was heard."""
    await session.got("response.create")
    session.speaks(agent_tone(200), "Hello!")  # over long before the caller, who does not wait for it, has been heard
    await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 900), "the caller's tone")
    session.caller_spoke("Beep.")
    session.speaks(agent_tone(400), "Beep yourself.")


async def _converse_and_part(session: LiveSession) -> None:
    """The same, and the model hangs up."""
    await _converse(session)
    session.calls_tool("call_1", "vns_end_conversation", {"user_input": "Beep."})
    await session.got("response.create", 2)
    session.speaks(agent_tone(300), "Goodbye.")


async def _check_call(house: House, lines: list[str], agent_ms: int) -> dict[str, Any]:
    """CallEnd, transcript and recording of the call from 7205550111."""
    guid = (await house.start_of("+17205550111"))["sessionGuid"]
    end = await house.end_of(guid)
    assert (end["status"], end["errorMessage"], end["callerIdName"]) == (0, "No Errors", "Ann")
    assert spoken_lines(end) == lines
    left, right, _ = recorded(await house.recording(guid, "wav"))
    for channel, frequency_hz in ((left, CALLER_HZ), (right, AGENT_HZ)):
        assert abs(peak_hz(loud_part(channel)) - frequency_hz) < NEAR_HZ
    assert abs(len(loud_part(right)) / 8 - agent_ms) <= 60
    assert len(loud_part(left)) / 8 >= 900
    return end


@pytest.mark.peer("sipp")
async def test_a_sipp_caller(house: House, tmp_path: Path) -> None:
    """It speaks, listens and hangs up."""
    write_ulaw(tmp_path / "speech.ul", CALLER_HZ, 1500)
    async with Model(_converse) as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        call = sipp.SippRun("uac_call", ("127.0.0.1", house.server.sip_port), tmp_path, service="+17206999999")
        finished = await sipp.run(call)
        assert finished.returncode == 0, finished.output
        await _check_call(house, ["AI : Hello!", "User: Beep.", "AI : Beep yourself."], agent_ms=600)


@pytest.mark.peer("baresip")
async def test_a_baresip_caller(house: House, tmp_path: Path) -> None:
    """The model hangs up; baresip's own recording tells that it heard every word."""
    source = tmp_path / "caller.wav"
    write_wav(source, CALLER_HZ, 20_000)
    async with Model(_converse_and_part) as model, baresip(tmp_path / "baresip", source) as phone:
        house.answer_with(model, ["vns_end_conversation"], recordCall=True, recordCallFormat="wav")
        phone.command("dial", house.uri())
        await phone.until_event("CALL_ESTABLISHED", 30)
        await phone.until_event("CALL_CLOSED", 30)
        await _check_call(house, ["AI : Hello!", "User: Beep.", "AI : Beep yourself.", "AI : Goodbye."], agent_ms=900)
        heard = loud_part(mono(phone.heard))
    assert abs(peak_hz(heard) - AGENT_HZ) < NEAR_HZ
    assert abs(len(heard) / 8 - 900) <= 100

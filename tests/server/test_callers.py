"""Callers that are not ours: sipp and baresip complete a VNS call, checked by content on all sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import sipp
from tests.server.call_end import spoken_lines
from tests.server.house import House
from tests.server.listening import AGENT_HZ, CALLER_HZ, NEAR_HZ, agent_tone, caller_tone, heard_tone, loud_part, peak_hz, recorded
from tests.server.model import Model, ModelSession

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _host(session: ModelSession) -> None:
    """Greet, and answer once the caller's tone was heard."""
    await session.got("response.create")
    await session.say(agent_tone(800), "Hello!")
    await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 900), "the caller's tone")
    await session.caller_spoke("Beep.")
    await session.say(agent_tone(400), "Beep yourself.")


async def _check_call(house: House, guid: str, caller: str) -> None:
    end = await house.end_of(guid)
    assert (end["status"], end["errorMessage"], end["callerId"]) == (0, "No Errors", caller)
    assert spoken_lines(end) == ["AI : Hello!", "User: Beep.", "AI : Beep yourself."]
    left, right, _ = recorded(await house.recording(guid, "wav"))
    assert abs(peak_hz(loud_part(left)) - CALLER_HZ) < NEAR_HZ
    assert abs(peak_hz(loud_part(right)) - AGENT_HZ) < NEAR_HZ
    assert abs(len(loud_part(right)) / 8 - 1200) <= 40


@pytest.mark.peer("sipp")
async def test_a_sipp_caller(house: House, tmp_path: Path) -> None:
    (tmp_path / "speech.ul").write_bytes(caller_tone(1500))
    async with Model(_host) as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        call = sipp.SippRun("uac_call", ("127.0.0.1", house.server.sip_port), tmp_path, service="+17206999999")
        finished = await sipp.run(call)
        assert finished.returncode == 0, finished.output
        guid = (await house.start_of("+17205550111"))["sessionGuid"]
        await _check_call(house, guid, "7205550111")

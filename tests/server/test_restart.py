"""CallEnd comes exactly once for each call, whatever dies: the server, the customer, or both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.call_end import TICKS, spoken_lines
from tests.server.house import Opener, ear_has, open_house
from tests.server.listening import (
    AGENT_HZ,
    CALLER_HZ,
    NEAR_HZ,
    agent_tone,
    caller_tone,
    heard_tone,
    loud_part,
    peak_hz,
    recorded,
    speech,
)
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_kill_9_in_the_middle_of_a_call(tmp_path: Path, opener: Opener) -> None:
    """After the restart one CallEnd with status 5 and the lines so far, and a recording of what was said."""
    async with opener(tmp_path) as house, Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(agent_tone(1000), "Hello!")
            await talk.call.say(caller_tone(1000))
            await talk.call.ear.until(lambda: heard_tone(talk.call.ear.ulaw(), AGENT_HZ, 980), 20, "the greeting")
            talk.session.caller_spoke("Hello there.")
            talk.session.speaks(speech(3000), "This is never told.")  # long enough for the lines and seconds to be on disk
            await ear_has(talk.call, 140)
            await house.server.kill()
        assert not house.backend.of("/callend")
        await house.server.start()
        end = await house.end_of(talk.guid)
        assert (end["status"], end["customerCallId"]) == (5, "CallId-001")
        assert end["errorMessage"] not in (None, "", "No Errors")
        assert spoken_lines(end)[:2] == ["AI : Hello!", "User: Hello there."]
        assert TICKS.fullmatch(end["callEnd"])
        assert end["callStart"] <= end["callConnected"] <= end["callEnd"]
        caller, agent, _ = recorded(await house.recording(talk.guid, "wav"))
        assert abs(peak_hz(loud_part(caller)) - CALLER_HZ) < NEAR_HZ
        assert abs(peak_hz(loud_part(agent)[:8000]) - AGENT_HZ) < NEAR_HZ
        await house.idle()
        await house.server.kill()
        await house.server.start()
        await house.short_call(model)
        assert len(house.ends_of(talk.guid)) == 1


async def test_kill_9_after_the_acknowledgement(tmp_path: Path) -> None:
    """What was acknowledged is not sent again."""
    async with open_house(tmp_path) as house, Model() as model:
        house.answer_with(model)
        first = await house.short_call(model)
        await house.idle()
        await house.server.kill()
        await house.server.start()
        await house.short_call(model)
        await house.idle()
        assert len(house.ends_of(first)) == 1


async def test_kill_9_while_call_start_is_under_way(tmp_path: Path, opener: Opener) -> None:
    """The customer knows the call, so its end is owed, too."""
    async with opener(tmp_path) as house, Model() as model:
        house.answer_with(model)
        house.backend.start_gate.clear()
        caller = house.new_caller()
        async with house.phone(caller) as phone:
            await phone.dial(house.uri())
            guid = (await house.start_of(caller))["sessionGuid"]
            await house.server.kill()
        house.backend.start_gate.set()
        await house.server.start()
        end = await house.end_of(guid)
        assert (end["status"], end["callConnected"]) == (5, None)
        await house.short_call(model)
        assert len(house.ends_of(guid)) == 1


async def test_a_customer_who_fails_gets_the_same_bytes_again(tmp_path: Path) -> None:
    """One answers 500, one is down while the server restarts: each is tried again until it acknowledges, and then no more."""
    async with open_house(tmp_path) as house, Model() as model:
        house.answer_with(model)
        house.backend.end_statuses.append(500)
        async with house.talk(model) as failing, house.talk(model) as down:
            await failing.call.hang_up()
            await house.end_of(failing.guid)
            await house.backend.go_down()
            await down.call.hang_up()
        await house.quiet()
        assert await house.server.stop() == 0
        await house.backend.come_up()
        await house.server.start()
        await house.idle()
        first, second = [got.body for got in house.backend.of("/callend") if got.json["sessionGuid"] == failing.guid]
        assert first == second
        [late] = house.ends_of(down.guid)
        assert late["status"] == 0


async def test_a_spool_that_no_encoder_takes_stops_nobody(tmp_path: Path) -> None:
    """It is kept and logged; the server starts and makes the next recording."""
    spool = tmp_path / "data" / "recordings" / "spool" / "left-behind"
    spool.mkdir(parents=True)
    header = {"call_id": "left-behind", "account": "acme", "encoding": "audio/pcmu", "format": "unheard-of"}
    (spool / "header.json").write_text(json.dumps(header | {"started_at": "2026-03-12T10:42:15+00:00"}))
    (spool / "audio").write_bytes(b"\xff" * 16_000)
    async with open_house(tmp_path) as house, Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        await house.recording(await house.short_call(model), "wav")
        assert spool.exists()
        assert await house.server.stop() == 0
    assert "left-behind" in house.server.log.read_text()

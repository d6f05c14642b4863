"""The same server on PostgreSQL: a whole call, and one in whose midst the server dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.call_end import spoken_lines
from tests.server.house import House, Talk, ear_has, open_house
from tests.server.listening import AGENT_HZ, CALLER_HZ, NEAR_HZ, agent_tone, caller_tone, loud_part, peak_hz, recorded, speech
from tests.server.model import Model
from tests.store.opening import PostgresDatabases, postgres_databases

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("postgresql")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


async def _converse(talk: Talk) -> None:
    """The agent greets, the caller answers."""
    await talk.session.got("response.create")
    talk.session.speaks(agent_tone(1000), "Hello!")
    await talk.call.say(caller_tone(1000))
    await ear_has_tone(talk)
    talk.session.caller_spoke("Hello \N{PILE OF POO}.\0")  # no text is one that the database cannot take


async def _recorded_both(house: House, talk: Talk) -> None:
    caller, agent, _ = recorded(await house.recording(talk.guid, "wav"))
    assert abs(peak_hz(loud_part(caller)) - CALLER_HZ) < NEAR_HZ
    assert abs(peak_hz(loud_part(agent)[:8000]) - AGENT_HZ) < NEAR_HZ


async def test_calls_are_remembered_in_postgresql(tmp_path: Path, postgres: PostgresDatabases) -> None:
    """From an empty database: transcript, recording, one CallEnd for each call, also after kill -9."""
    url = await postgres.empty()
    async with open_house(tmp_path, SWITCHHOOK_DATABASE_URL=url) as house, Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        async with house.talk(model) as whole:
            await _converse(whole)
            whole.session.speaks(speech(200, turn=1), "Goodbye.")
            await ear_has(whole.call, 10, turn=1)
            await whole.call.hang_up()
        end = await house.end_of(whole.guid)
        assert (end["status"], end["customerCallId"]) == (0, "CallId-001")
        assert [line.rstrip("\0") for line in spoken_lines(end)] == [
            "AI : Hello!",
            "User: Hello \N{PILE OF POO}.",
            "AI : Goodbye.",
        ]
        await _recorded_both(house, whole)

        async with house.talk(model) as cut_off:
            await _converse(cut_off)
            cut_off.session.speaks(speech(3000), "This is never told.")  # long enough for the lines and seconds to be on disk
            await ear_has(cut_off.call, 140)
            await house.server.kill()
        await house.server.start()
        end = await house.end_of(cut_off.guid)
        assert (end["status"], end["customerCallId"]) == (5, "CallId-001")
        assert spoken_lines(end)[:2] == ["AI : Hello!", "User: Hello \N{PILE OF POO}.\N{REPLACEMENT CHARACTER}"]
        await _recorded_both(house, cut_off)

        await house.zero("deliveries_under_way")  # every CallEnd that came is also known to have come
        await house.server.kill()
        await house.server.start()
        async with house.talk(model) as last:
            await last.call.hang_up()
        assert (await house.end_of(last.guid))["status"] == 0
        assert [len(house.ends_of(talk.guid)) for talk in (whole, cut_off, last)] == [1, 1, 1]
        assert not (house.server.data_dir / "switchhook.db").exists()


async def ear_has_tone(talk: Talk) -> None:
    """The greeting was heard to its end."""
    await talk.call.ear.until(lambda: sum(packet.voiced for packet in talk.call.ear.packets) >= 50, 20, "the greeting")

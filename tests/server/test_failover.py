"""The customer's application is away, or the server's disk: callers are not stranded, and it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers.party import Party
from tests.peers.ports import free_port
from tests.peers.server import config
from tests.peers.vns_backend import VnsBackend
from tests.server.call_end import log_texts
from tests.server.exchange import DESTINATION, talking, transfer_of
from tests.server.house import FALLBACK_MESSAGE, House, ear_has, open_house
from tests.server.listening import of_turn, speech
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.peer("flite")
@pytest.mark.parametrize("message", [None, FALLBACK_MESSAGE])
async def test_callers_get_through_to_a_person_while_the_application_is_down(tmp_path: Path, message: str | None) -> None:
    """CallStart finds nobody: the number's own fallback is called, after its message; CallEnd is told when somebody listens."""
    port = free_port()

    def content(backend: VnsBackend) -> dict[str, Any]:
        made = config(backend.url)
        made["trunks"][0] |= {"address": f"sip:127.0.0.1:{port}", "allow_from": ["127.0.0.1/32"]}
        made["numbers"][0]["fallback"] = {"number": DESTINATION, "message": message}
        return made

    async with (
        open_house(tmp_path, content, SWITCHHOOK_DRAIN_S="1") as house,
        Party("127.0.0.1", house.new_caller()) as phone,
        Party("127.0.0.1", DESTINATION, port) as person,
    ):
        await house.backend.go_down()
        call = await phone.dial(house.uri())
        await call.answered()
        if message is not None:
            await call.heard(0)
            assert not person.taken
        other = await person.call()
        other.answer()
        await talking(call, other)
        await other.hang_up()
        assert await call.ended() == "them"
        await house.quiet()
        await house.backend.come_up()
        end = await _end(house)
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (1, "Connected")
    assert transfer_of(end)["transferCalledNumber"].endswith(DESTINATION.removeprefix("+1"))
    assert end["callConnected"] is not None


async def _end(house: House) -> dict[str, Any]:
    """The only CallEnd, once the server tries again."""
    [got] = await house.backend.wait_for("/callend", 1, 60)
    told: dict[str, Any] = got.json
    return told


async def test_a_recording_that_cannot_be_written_is_told_and_costs_nobody_the_call(tmp_path: Path) -> None:
    """The talk goes on; CallEnd's log says that there is no recording, and why; the next one is made when the disk is back."""
    async with open_house(tmp_path) as house, Model() as model:
        spools = house.server.data_dir / "recordings" / "spool"
        for works in (False, True):
            house.answer_with(model, recordCall=True, recordCallFormat="wav")
            if works:
                spools.unlink()
                spools.mkdir()
            else:
                spools.parent.mkdir(exist_ok=True)
                spools.write_text("no folder")
            async with house.talk(model) as talk:
                await talk.session.got("response.create")
                talk.session.speaks(speech(400), "Hello!")
                await ear_has(talk.call, 20)
                await talk.call.hang_up()
            assert of_turn(talk.call.ear.packets, 0) == list(range(20))
            end = await house.end_of(talk.guid)
            assert end["status"] == 0
            assert any(line.startswith("Recording: ") for line in log_texts(end)) is not works
        await house.recording(talk.guid, "wav")

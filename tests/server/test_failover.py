"""The customer's application is away: callers are not stranded, and its webhooks come when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers.party import Party
from tests.peers.server import config, free_port
from tests.peers.vns_backend import VnsBackend
from tests.server.exchange import DESTINATION, talking, transfer_of
from tests.server.house import FALLBACK_MESSAGE, House, open_house

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

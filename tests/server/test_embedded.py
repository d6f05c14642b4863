"""A call whose AI is the server's own Realtime endpoint: no key, no network, and the caller's words decide."""

from __future__ import annotations

import asyncio

import pytest

from switchhook_demo.phone import Phone
from switchhook_demo.sound import pause, spoken
from tests.peers.vns_backend import start_reply
from tests.server.call_end import spoken_lines
from tests.server.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.peer("flite")
async def test_a_spoken_phrase_is_understood(house: House) -> None:
    """The embedded engine greets, hears a flite voice say a phrase, and answers it."""
    reply = start_reply(house.server.realtime_url, f"{house.backend.url}/tools")
    house.backend.start_reply = reply
    line = await asyncio.to_thread(spoken, "what time do you open")
    caller = house.new_caller()
    async with Phone(user=caller) as phone:
        call = await phone.dial(house.uri())
        await call.answered()
        await call.heard(timeout_s=20)
        await call.quiet(700, 20)
        await call.say(pause(300), line, pause(300))
        await call.heard(timeout_s=20)
        await call.quiet(700, 20)
        await call.hang_up()
    end = await house.end_of((await house.start_of(caller))["sessionGuid"])
    lines = spoken_lines(end)
    assert end["status"] == 0
    assert lines[0].startswith("AI :")
    assert any(line.startswith("User:") and "open" in line.lower() for line in lines)
    assert lines[-1].startswith("AI :")

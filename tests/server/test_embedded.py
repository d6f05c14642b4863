"""A call whose AI is the server's own Realtime endpoint: no key, no network, and the caller's words decide."""

from __future__ import annotations

import asyncio

import pytest

from switchhook_demo.phone import Call, Phone
from switchhook_demo.sound import FRAME_BYTES, pause, spoken
from tests.peers.vns_backend import start_reply
from tests.server.call_end import spoken_lines
from tests.server.house import House, function

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _hear_out(call: Call, text: str) -> None:
    """Until more voice has come than this text takes: what follows it has begun."""
    begun = asyncio.get_running_loop().time()
    frames = 1.5 * len(await asyncio.to_thread(spoken, text, "slt")) / FRAME_BYTES
    await call.ear.until(lambda: sum(p.voiced and p.at > begun for p in call.ear.packets) > frames, 20, f"more than {text!r}")


@pytest.mark.peer("flite")
async def test_what_the_caller_says_and_keys_decides(house: House) -> None:
    """The embedded engine offers the session's tools; a flite voice chooses one, a key the other, and says goodbye."""
    tools = [function("opening_hours"), function("parking"), function("vns_end_conversation")]
    house.backend.start_reply = start_reply(house.server.realtime_url, f"{house.backend.url}/tools", tools)
    house.backend.tool_reply = lambda got: {"answer": f"This is about {got.json['VoiceElements_InvokeTool']['toolName']}."}
    choice, goodbye = [await asyncio.to_thread(spoken, text) for text in ("option one please", "goodbye")]
    caller = house.new_caller()
    async with Phone(user=caller) as phone:
        call = await phone.dial(house.uri())
        await call.answered()
        await call.heard(timeout_s=20)
        await call.say(pause(200), choice, pause(200))  # into the menu: nobody has to hear it out
        await house.backend.wait_for("/tools", 1)
        await _hear_out(call, "One moment.")
        await call.press("2")
        await house.backend.wait_for("/tools", 2)
        await _hear_out(call, "One moment.")
        await call.say(pause(200), goodbye, pause(200))
        assert await call.ended(30) == "them"
    end = await house.end_of((await house.start_of(caller))["sessionGuid"])
    chosen = [got.json["VoiceElements_InvokeTool"]["toolName"] for got in house.backend.of("/tools")]
    assert chosen == ["opening_hours", "parking"]
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    lines = spoken_lines(end)
    assert lines[0].startswith("AI : Hello.")
    told = [line.lower() for line in lines if line.startswith("User:")]
    assert told[0].removeprefix("user: ").rstrip(".") in ("option one please", "option one")
    assert "user: dtmf: 2" in told
    assert "goodbye" in told[-1]
    assert any("This is" in line for line in lines)

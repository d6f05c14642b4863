"""Calls give back what they took, at whatever moment they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from switchhook_demo.phone import Call, CallOverError, CallRefusedError, Phone
from tests.peers.server import rtp_range
from tests.server.house import House, open_house
from tests.server.listening import speech
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

FREE_HANDS = 5
"""Descriptors more than before that are no leak: idle connections to the customer."""


async def _talkative(session: LiveSession) -> None:
    """Greet, run a tool, greet again."""
    await session.got("response.create")
    session.speaks(speech(600), "Hello!")
    session.calls_tool("call_1", "book", {})
    await session.got("response.create", 2)
    session.speaks(speech(600, 1), "Booked.")


async def _call(house: House, stage: int) -> None:
    """A call that ends at one of its stages, and its CallEnd where one is owed."""
    caller = house.new_caller()
    async with Phone(user=caller) as phone:
        call = await phone.dial(house.uri("+17205559999" if stage == 0 else "+17206999999"))
        with contextlib.suppress(CallRefusedError, CallOverError):
            await _until_stage(house, call, caller, stage)
        await call.close()
    if stage > 1:
        await house.end_of((await house.start_of(caller))["sessionGuid"])


async def _until_stage(house: House, call: Call, caller: str, stage: int) -> None:
    """0: unknown number, 1: cancelled at once, 2: while CallStart runs, 3: on the answer, 4 to 6: in the talk."""
    if stage == 0:
        await call.answered()
    elif stage == 1:
        await call.cancel()
    elif stage == 2:
        await house.start_of(caller)
        await call.cancel()
    else:
        await call.answered()
        frames = (stage - 3) * 15
        await call.ear.until(lambda: sum(p.voiced for p in call.ear.packets) >= frames, 20, f"{frames} frames")


def _descriptors(house: House) -> int:
    assert house.server.process is not None
    return len(os.listdir(f"/proc/{house.server.process.pid}/fd"))


async def test_thirty_calls_that_end_anywhere_leave_nothing_behind(tmp_path: Path) -> None:
    """Live calls, leased ports and descriptors are back where they were; ten ports serve thirty calls."""
    async with Model(_talkative) as model, open_house(tmp_path, SWITCHHOOK_RTP_PORTS=rtp_range(model, 20)) as house:
        house.answer_with(model, ["book"], recordCall=True, recordCallFormat="wav")
        for stage in (0, 2, 6):
            await _call(house, stage)
        await house.idle()
        before = _descriptors(house)
        for batch in range(5):
            await asyncio.gather(*(_call(house, stage) for stage in (batch % 3, 2, 3, 4, 5, 6)))
        await house.idle()
        await house.zero("rtp_ports_leased")

        async def settled() -> bool:
            return _descriptors(house) <= before + FREE_HANDS

        await eventually(settled, "descriptors are given back")
        guids = [got.json["sessionGuid"] for got in house.backend.of("/callend")]
        assert len(guids) == len(set(guids))
        assert set(guids) == {got.json["sessionGuid"] for got in house.backend.of("/callstart")}
        spools = house.server.data_dir / "recordings" / "spool"

        async def made() -> bool:
            return not list(spools.iterdir())

        await eventually(made, "every recording is made")
        assert await house.server.stop() == 0
    assert b"Traceback" not in house.server.log.read_bytes()
    assert b"was never retrieved" not in house.server.log.read_bytes()

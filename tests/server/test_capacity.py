"""Admission and the end of the server: the calls that live do not notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from switchhook_demo.phone import CallRefusedError
from tests.server.house import House, Opener, Talk, ear_has
from tests.server.listening import of_turn, speech
from tests.server.model import Model
from tests.server.twilio_exchange import ExchangeOverTwilio
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _refused(house: House, reason: str) -> CallRefusedError:
    """Dial once more, in vain; the attempt is on record."""
    caller = house.new_caller()
    async with house.phone(caller) as phone:
        call = await phone.dial(house.uri())
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
    assert await house.record_of(caller) == ("client-error", reason)
    return refused.value


async def _goes_on(talk: Talk, turn: int) -> None:
    """The model is heard from the first frame to the last."""
    talk.session.speaks(speech(400, turn), "We are still here.")
    await ear_has(talk.call, 20, turn)
    assert of_turn(talk.call.ear.packets, turn) == list(range(20))


async def _not_ready(house: House) -> bool:
    status, text = await house.get("/readyz")
    return status == 503 and "drain" in text


async def test_beyond_capacity_and_through_the_drain(tmp_path: Path, opener: Opener) -> None:
    """The third call gets 503 with Retry-After, or busy. On SIGTERM a live call finishes, no other begins; the exit code is 0."""
    async with opener(tmp_path, SWITCHHOOK_MAX_CALLS="2") as house, Model() as model:
        house.answer_with(model)
        async with house.talk(model) as first:
            async with house.talk(model) as second:
                for _ in range(3):
                    refusal = await _refused(house, "over-capacity")
                    assert refusal.status == house.refusal(503)
                    if not isinstance(house, ExchangeOverTwilio):
                        assert int(refusal.response.get("retry-after")) > 0
                assert len(house.backend.of("/callstart")) == 2
                await asyncio.gather(_goes_on(first, 1), _goes_on(second, 2))
                await second.call.hang_up()
            await house.end_of(second.guid)
            stopping = asyncio.ensure_future(house.server.stop())
            await eventually(lambda: _not_ready(house), "/readyz says that the server drains")
            assert (await _refused(house, "server-draining")).status == house.refusal(503)
            await _goes_on(first, 3)
            assert not stopping.done()
            await first.call.hang_up()
            assert await stopping == 0
        assert (await house.end_of(first.guid))["status"] == 0
        assert len(house.backend.of("/callend")) == 2


async def test_the_drain_does_not_wait_for_ever(tmp_path: Path, opener: Opener) -> None:
    """After SWITCHHOOK_DRAIN_S the caller is hung up on in good order, and the customer is told."""
    async with opener(tmp_path, SWITCHHOOK_DRAIN_S="1") as house, Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            stopping = asyncio.ensure_future(house.server.stop())
            assert await talk.call.ended() == "them"
            assert await stopping == 0
        end = await house.end_of(talk.guid)
        assert (end["status"], end["errorMessage"]) == (5, "The server was shut down during the call")

"""Many calls in one moment: of a server that has just started, and of one that has room for some of them alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from switchhook_demo.phone import CallRefusedError
from tests.server.exchange import CALLED, Exchange, open_exchange
from tests.server.house import House, open_house
from tests.server.listening import frames_heard, speech
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUSH = 30
"""Callers at once. A carrier's trunk is one address for all of them."""
PLACES = 5
FRAMES = 25


async def _greeted(house: House) -> tuple[list[int], list[tuple[int, int]]]:
    """What a caller saw before the answer, and the sound of the greeting."""
    async with house.phone(house.new_caller()) as phone:
        call = await phone.dial(house.uri())
        await call.answered()
        await call.ear.until(lambda: len(frames_heard(call.ear.packets)) >= FRAMES, 40, "the greeting")
        await call.hang_up(20)
    return call.provisionals, frames_heard(call.ear.packets)


async def test_the_first_moment_of_a_server_is_a_rush(tmp_path: Path) -> None:
    """Nothing has to warm up: each caller hears ringing, is answered, and hears one greeting from its first frame to its last."""

    async def greet(session: LiveSession) -> None:
        await session.got("response.create")
        session.speaks(speech(FRAMES * 20, model.sessions.index(session)), "Hello!")

    async with open_house(tmp_path) as house, Model(greet) as model:
        house.answer_with(model)
        callers = await asyncio.gather(*(_greeted(house) for _ in range(RUSH)))
        assert all(180 in seen for seen, _ in callers)
        heard = sorted(sound for _, sound in callers)
        assert heard == [[(turn, frame) for frame in range(FRAMES)] for turn in range(RUSH)]
        ends = await house.backend.wait_for("/callend", RUSH)
        assert [end.json["status"] for end in ends] == [0] * RUSH
        await house.idle()


async def _rings(exchange: Exchange, admitted: asyncio.Event) -> int:
    """One call in; gives the status of its refusal, or 200."""
    async with exchange.party_caller() as phone:
        call = await phone.dial(exchange.uri())
        try:
            await call.answered(60)
        except CallRefusedError as refused:
            assert refused.response.get("retry-after") or refused.status != 503
            return refused.status
        await admitted.wait()
        await call.hang_up()
    return 200


async def _asked(exchange: Exchange) -> int:
    """One call out; gives the status of the reply."""
    status, _, headers = await exchange.ask(calledNumber=CALLED)
    assert int(headers["Retry-After"]) > 0 if status == 503 else True
    return status


async def test_calls_in_and_out_that_come_at_once_share_the_places_exactly(tmp_path: Path) -> None:
    """Not one more than SWITCHHOOK_MAX_CALLS gets through in the gap between the look and the count, and not one fewer."""
    over = asyncio.Event()
    async with open_exchange(tmp_path, SWITCHHOOK_MAX_CALLS=str(PLACES), SWITCHHOOK_DRAIN_S="1") as exchange:
        async with Model() as model, exchange.party(answers=True):
            exchange.answer_with(model)
            exchange.backend.start_gate.clear()
            callers = [asyncio.ensure_future(_rings(exchange, over)) for _ in range(PLACES + 3)]
            replies = await asyncio.gather(*(_asked(exchange) for _ in range(PLACES + 3)))
            await exchange.backend.wait_for("/callstart", PLACES)
            begun = replies.count(200)
            await _until_refused(callers, PLACES + 3 - (PLACES - begun))
            assert sorted(set(replies)) in ([200, 503], [503])
            assert (await exchange.metrics())["switchhook_calls_live"] == PLACES
            assert len(exchange.backend.of("/callstart")) == PLACES
            exchange.backend.start_gate.set()
            await model.until(lambda: len(model.sessions) == PLACES, "a session for each call")
            over.set()
            statuses = await asyncio.gather(*callers)
        assert statuses.count(200) == PLACES - begun
        assert statuses.count(503) == len(statuses) - statuses.count(200)
        await exchange.all_given_back()


async def _until_refused(callers: Sequence[asyncio.Future[int]], count: int) -> None:
    async def find() -> bool:
        return sum(caller.done() for caller in callers) == count

    await eventually(find, f"{count} refused callers")

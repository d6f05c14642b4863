"""What a caller hears of a blind transfer whose far side announces sound (183 with SDP) before it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.peers.party import PartyCall
from tests.server.exchange import (
    DESTINATION,
    DESTINATION_HZ,
    LONG_MS,
    Caller,
    Exchange,
    conversation,
    destination_tone,
    hears,
    hears_ringback,
    latest,
)
from tests.server.listening import CALLER_HZ, caller_tone, linear, share_at

pytestmark = pytest.mark.asyncio(loop_scope="session")
CADENCE_MS = 6000
"""One ringback: two seconds of tone, four of silence."""


@asynccontextmanager
async def announced(exchange: Exchange) -> AsyncIterator[tuple[Caller, PartyCall]]:
    """The far side has announced sound and hears the caller; (caller, far side's call)."""
    async with conversation(exchange) as (caller, _), exchange.party(DESTINATION) as party:
        caller.transfers()
        call = await party.call()
        call.ring(183, early=True)
        caller.call.start_saying(caller_tone(LONG_MS))
        await hears(call, CALLER_HZ)
        yield caller, call


async def test_ringback_goes_on_until_the_far_side_is_heard(exchange: Exchange) -> None:
    async with announced(exchange) as (caller, call):
        await hears_ringback(caller.call)
        call.start_saying(destination_tone(LONG_MS))
        await hears(caller.call, DESTINATION_HZ, 1000)
        call.answer()
        await caller.session.until(lambda: caller.session.closed, "put through")
        await hears(caller.call, DESTINATION_HZ)
        await caller.call.hang_up()
        await caller.end()


async def test_an_answer_ends_the_ringback_however_silent_it_is(exchange: Exchange) -> None:
    async with announced(exchange) as (caller, call):
        call.answer()
        await caller.session.until(lambda: caller.session.closed, "put through")
        answered = len(caller.call.ear.ulaw())
        enough = answered + 8 * (CADENCE_MS + 1000)
        await caller.call.ear.until(lambda: len(caller.call.ear.ulaw()) >= enough, 20, "a whole cadence")
        heard = linear(latest(caller.call, CADENCE_MS))
        assert share_at(heard, 440) < 0.01
        assert share_at(heard, 480) < 0.01
        await caller.call.hang_up()
        await caller.end()

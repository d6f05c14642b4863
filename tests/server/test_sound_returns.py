"""A party whose port for sound is closed for a moment: the network says so (ICMP), and the call goes on as before."""

from __future__ import annotations

import pytest

from tests.server.exchange import (
    DESTINATION_HZ,
    LONG_MS,
    Exchange,
    agent_is_heard,
    conversation,
    destination_tone,
    model_hears,
)
from tests.server.listening import CALLER_HZ, caller_tone, linear, share_at

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLOSED_S = 0.3
"""Some fifteen packets of ours meet a closed port."""
TONE_MS = 1000
FRAME_MS = 20
FRAME = 160


def tone_ms(sound: bytes) -> int:
    """How much of µ-law is the caller's tone."""
    signal = linear(sound)
    return sum(FRAME_MS for start in range(0, len(signal), FRAME) if share_at(signal[start : start + FRAME], CALLER_HZ) > 0.5)


async def test_a_port_that_was_closed_for_a_moment(exchange: Exchange) -> None:
    """Both hear each other before and afterwards."""
    async with conversation(exchange) as (caller, _):
        caller.call.start_saying(destination_tone(LONG_MS))
        await model_hears(caller.session, DESTINATION_HZ)
        caller.call.line.hush()
        await caller.call.line.shut_for(CLOSED_S)
        caller.call.start_saying(caller_tone(TONE_MS))
        # Nearly all of it: who is deaf for a second misses the only word that is said.
        await caller.session.hears(lambda sound: tone_ms(sound) > 0.9 * TONE_MS, "all of the tone at the model")
        await agent_is_heard(caller.call, caller.session, "I still hear you.")
        await caller.call.hang_up()
        assert (await caller.end())["status"] == 0

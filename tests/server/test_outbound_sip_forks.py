"""A carrier that rings several parties for one INVITE, and one that wants longer sessions: sipp says what each gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchhook_demo.sound import tone
from tests.peers.outgoing_call import content
from tests.server.exchange import Exchange, model_hears
from tests.server.listening import AGENT_HZ
from tests.server.model import Model

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("sipp")]


@pytest.mark.parametrize("scenario", ["uas_forks", "uas_longer_sessions"])
async def test_one_party_has_the_call(exchange: Exchange, tmp_path: Path, scenario: str) -> None:
    """Three forks ring, the second is answered and has the call; the third's 200 that follows gets ACK and BYE of its own.

    422 with Min-SE: the INVITE is made again with that interval (RFC 4028 §7.3). In both cases sound goes both ways and the
    agent's farewell ends the call.
    """
    async with Model() as model, exchange.sipp(scenario, tmp_path, "-rtp_echo") as process:
        exchange.answer_with(model, ["vns_end_conversation"])
        guid = await exchange.place()
        session = await model.session()
        await session.got("response.create")
        session.speaks(tone(AGENT_HZ, 1500), "Hello!")
        await model_hears(session, AGENT_HZ)
        session.calls_tool("call_1", "vns_end_conversation", {"user_input": "bye"})
        await session.got("response.create", 2)
        session.speaks(tone(AGENT_HZ, 100), "Bye.")
        end = await exchange.end_of(guid)
        await content(process, tmp_path)
    assert (end["status"], end["outboundCallResult"]) == (0, "Connected")
    assert len(exchange.ends_of(guid)) == 1

"""baresip at either end of a call: it talks with the agent, and is called; judged by frequency."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.baresip import Baresip, BaresipLine, baresip_line
from tests.peers.sound import write_wav
from tests.server.exchange import DESTINATION, DESTINATION_HZ, TRANSFER, Exchange, model_hears
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone
from tests.server.model import LiveSession, Model
from tests.server.test_transfers_baresip import A_SECOND_MS, SOURCE_MS, telephone_hears


@dataclass(frozen=True)
class TelephoneCall:
    """A caller on a telephone, in conversation with the agent."""

    phone: Baresip
    session: LiveSession
    guid: str

    def transfers(self, **arguments: Any) -> None:
        """The model transfers the caller."""
        self.session.calls_tool("call_t", TRANSFER, {"transferNumber": DESTINATION, **arguments})


@asynccontextmanager
async def telephone_talks(
    exchange: Exchange, folder: Path, line: BaresipLine, uri: str, **instructions: Any
) -> AsyncIterator[TelephoneCall]:
    """A telephone calls: it hears the agent and the model hears it."""
    write_wav(folder / "caller.wav", CALLER_HZ, SOURCE_MS)
    async with Model() as model, baresip_line(folder / "caller", folder / "caller.wav", line) as phone:
        exchange.answer_with(model, [TRANSFER], **instructions)
        phone.command("dial", uri)
        session = await model.session()
        await session.got("response.create")
        await phone.until_event("CALL_ESTABLISHED", 20)
        session.speaks(agent_tone(2000), "Hello!")
        await telephone_hears(phone, AGENT_HZ, A_SECOND_MS)
        await model_hears(session, CALLER_HZ)
        yield TelephoneCall(phone, session, (await exchange.start_of(line.user))["sessionGuid"])


@asynccontextmanager
async def telephone_at(exchange: Exchange, folder: Path, **line: Any) -> AsyncIterator[Baresip]:
    """A telephone where the first trunk leads to."""
    write_wav(folder / "destination.wav", DESTINATION_HZ, SOURCE_MS)
    known = BaresipLine(DESTINATION, sip_port=exchange.port, **line)
    async with baresip_line(folder / "destination", folder / "destination.wav", known) as phone:
        yield phone


def encrypts(phone: Baresip) -> bool:
    """Whether a telephone says that its sound is encrypted."""
    return "SRTP is Enabled" in phone.process.read()

"""A customer's backend in Node that verifies every callback with `timingSafeEqual`, behind a whole call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.peers.processes import PeerProcess
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone
from tests.server.veevo_house import CANARIES, MANAGEMENT_KEY, MOVED, VeevoHouse, reply
from tests.server.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("node")]

PROGRAM = Path(__file__).resolve().parents[1] / "peers" / "veevo_backend.mjs"


@dataclass(frozen=True)
class NodeBackend:
    """The program, running."""

    process: PeerProcess

    def lines(self) -> list[Any]:
        """What it told so far, whole lines only."""
        return [json.loads(line) for line in self.process.read().split("\n")[:-1]]

    async def told(self, count: int) -> list[Any]:
        """Wait for so many callbacks."""

        async def find() -> list[Any] | None:
            return got if len(got := self.lines()[1:]) >= count else None

        return await eventually(find, f"{count} callbacks in Node")

    async def url(self) -> str:
        """Where it listens."""

        async def find() -> str | None:
            return next((f"http://127.0.0.1:{line['port']}" for line in self.lines()), None)

        return await eventually(find, "Node's port")


async def test_node_verifies_every_callback_of_a_call(veevo: VeevoHouse, tmp_path: Path) -> None:
    """Also those whose bodies are not all ASCII; a signature of another form does not pass there."""
    words = "Zwölf Stück für „München“, bitte 🙂"
    told = json.dumps(reply(metadata={"städte": ["Köln", 1.0]}))
    async with PeerProcess(("node", str(PROGRAM), CANARIES["secret"], told), tmp_path) as process:
        node = NodeBackend(process)
        url = await node.url()
        status, said = await veevo.register(
            MANAGEMENT_KEY, phoneNumber=MOVED, onCallStartUrl=f"{url}/calls/start", onCallEndUrl=f"{url}/calls/end"
        )
        assert status == 200, said
        async with aiohttp.ClientSession() as http:
            for forged in ("", "sha256=" + "0" * 64, "0" * 64):
                async with http.post(f"{url}/calls/end", data=b"{}", headers={"X-Veevo-Signature": forged}) as got:
                    assert got.status == 401
        count, caller = len(veevo.model.sessions) + 1, veevo.new_caller()
        async with veevo.telephone(caller) as telephone:
            call = await veevo.dial(telephone, MOVED)
            await call.answered()
            session = await veevo.model.session(count)
            await session.got("response.create")
            session.speaks(agent_tone(600), "Grüß Gott!")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 560), 20, "the agent")
            session.caller_spoke(words)
            session.calls_tool("call_1", "check_availability", {"wo": "Köln ☎"})
            assert await session.output_of("call_1") == "Two units, délivrées vendredi ☎."
            await call.hang_up()
        start, tool, end = (await node.told(6))[3:]
        await veevo.idle()  # it is there until it has acknowledged
    assert [(got["path"], got["good"]) for got in (start, tool, end)] == [
        ("/calls/start", True),
        ("/calls/tool", True),
        ("/calls/end", True),
    ]
    assert start["body"]["callerNumber"] == caller
    assert tool["body"]["arguments"] == {"wo": "Köln ☎"}
    assert [line["content"] for line in end["body"]["transcript"]] == ["Grüß Gott!", words]
    assert end["body"]["metadata"] == tool["body"]["metadata"] == {"städte": ["Köln", 1.0]}
    assert veevo.backend.callbacks == [], "the number left its old backend"

"""`probe_s`: OPTIONS tell whether a trunk lives; one that does not is passed over until it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchhook_demo import sip_text
from tests.peers.party import Party
from tests.peers.ports import free_port
from tests.server.trunk_house import at, call_reaches, figure, open_trunks, trunk

pytestmark = pytest.mark.asyncio(loop_scope="session")


class ProbedParty(Party):
    """A telephone whose answer to OPTIONS a test chooses; None: it hears nothing at all."""

    def __init__(self, port: int) -> None:
        super().__init__(port=port)
        self.answer: int | None = 200
        self.probes = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = sip_text.parse(data)
        if self.answer is None or message is None:
            return
        if message.method == "OPTIONS":
            self.probes += 1
            self.send(message.reply(self.answer, "As it is", sip_text.token()), addr)
        else:
            super().datagram_received(data, addr)


@pytest.mark.parametrize("fault", [None, 503], ids=["silent", "unavailable"])
async def test_a_trunk_that_stops_answering_is_passed_over_until_it_answers(tmp_path: Path, fault: int | None) -> None:
    """While it is down, calls go to the next one at once and it gets no INVITE."""
    first_port, second_port = free_port(), free_port()
    trunks = [
        trunk("first", at(first_port), priority=1, probe_s=1),
        trunk("second", at(second_port), priority=2),
    ]
    async with (
        ProbedParty(first_port) as first,
        Party(port=second_port) as second,
        open_trunks(tmp_path, trunks, settles=fault is not None) as exchange,
    ):
        await figure(exchange, "healthy", "first", 1)
        await call_reaches(exchange, first)
        first.answer = fault
        await figure(exchange, "healthy", "first", 0, 60)
        await call_reaches(exchange, second)
        assert len(first.taken) == 1
        first.answer = 200
        await figure(exchange, "healthy", "first", 1, 60)
        await call_reaches(exchange, first)
        assert len(second.taken) == 1
        log = exchange.server.log.read_text()
    assert "first is down: 3 probes in a row" in log
    assert "first is up: the peer answers again" in log


async def test_a_trunk_without_probes_is_asked_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with ProbedParty(port) as party, open_trunks(tmp_path, [trunk("carrier", at(port))]) as exchange:
        await call_reaches(exchange, party)
        assert not party.probes

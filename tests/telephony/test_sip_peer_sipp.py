"""sipp calls the SIP server: whole calls, cancellations, digest, PRACK, hold and resume, delayed offers, many at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchhook.domain.model import Encoding, Trunk
from switchhook.domain.ports import LegAnswered, LegEnded
from switchhook.media import tones
from tests.peers.answering_machine import AnsweringMachine, answering_machine
from tests.peers.processes import Finished
from tests.peers.sipp import SippRun, run
from tests.peers.sound import write_ulaw

pytestmark = pytest.mark.peer("sipp")


async def sipp(machine: AnsweringMachine, scenario: str, folder: Path, **more: object) -> Finished:
    transport = str(more.get("transport", "u1"))
    remote = machine.server.address("tcp" if transport.startswith("t") else "udp")
    assert remote is not None
    finished = await run(SippRun(scenario, remote, folder, **more))  # type: ignore[arg-type]  # fields of SippRun
    assert finished.returncode == 0, finished.output
    await machine.until(lambda: all(call.endings for call in machine.calls))
    assert machine.ports.leased == 0
    return finished


@pytest.mark.parametrize("transport", ["u1", "t1"])
async def test_a_call_with_sound(transport: str, tmp_path: Path) -> None:
    write_ulaw(tmp_path / "speech.ul", 440, 2000)
    async with answering_machine() as machine:
        await sipp(machine, "uac_call", tmp_path, transport=transport)
        call = machine.calls[0]
        assert call.events[0] == LegAnswered()
        assert call.endings == [LegEnded("caller-hung-up")]
        assert (call.attempt.caller, call.attempt.caller_name) == ("+17205550111", "Ann")
        spoken = bytes(call.heard).strip(b"\xff\x7f")
        assert 1700 <= len(spoken) / 8 <= 2300
        assert tones.frequency_hz(spoken, Encoding.PCMU) == pytest.approx(440, abs=5)
        assert call.leg.figures["packets_in"] >= 95
        assert call.leg.figures["packets_lost"] == 0


async def test_cancel_while_ringing(tmp_path: Path) -> None:
    async with answering_machine(treat=lambda call: call.leg.ring()) as machine:
        await sipp(machine, "uac_cancel", tmp_path)
        assert machine.calls[0].events == [LegEnded("caller-cancelled")]


async def test_a_refusal(tmp_path: Path) -> None:
    async with answering_machine(treat=lambda call: call.leg.reject(486)) as machine:
        await sipp(machine, "uac_refused", tmp_path)
        assert machine.calls[0].events == [LegEnded("rejected", "486")]


async def test_digest(tmp_path: Path) -> None:
    pbx = Trunk("pbx", "acme", "sip:127.0.0.1", username="pbx", password="open sesame")
    async with answering_machine(trunks=[pbx]) as machine:
        await sipp(machine, "uac_digest", tmp_path, extra=("-au", "pbx", "-ap", "open sesame"))
        assert machine.calls[0].attempt.trunk == "pbx"
        assert machine.calls[0].endings == [LegEnded("caller-hung-up")]


@pytest.mark.parametrize("scenario", ["uac_prack", "uac_offerless", "uac_hold"])
async def test_variations_of_a_call(scenario: str, tmp_path: Path) -> None:
    async with answering_machine() as machine:
        await sipp(machine, scenario, tmp_path)
        assert machine.calls[0].endings == [LegEnded("caller-hung-up")]


async def test_options(tmp_path: Path) -> None:
    async with answering_machine() as machine:
        await sipp(machine, "uac_options", tmp_path)


async def test_forty_calls_a_second(tmp_path: Path) -> None:
    async with answering_machine() as machine:
        await sipp(machine, "uac_short", tmp_path, calls=40, rate=40, at_once=40)
        assert len(machine.calls) == 40
        assert {call.endings[0].reason for call in machine.calls} == {"caller-hung-up"}

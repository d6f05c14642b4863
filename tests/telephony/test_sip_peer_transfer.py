"""sipp takes, refuses and sends REFER: transfers between real user agents (RFC 3515)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from switchhook.domain.model import TransferMode
from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, ReferProgress, TransferAsked
from tests.peers.answering_machine import LOCAL_TRUNK, AnsweringMachine, TakenCall, answering_machine
from tests.peers.processes import Finished
from tests.peers.sipp import SippRun, run

pytestmark = pytest.mark.peer("sipp")

REFERRING = replace(LOCAL_TRUNK, transfer=TransferMode.REFER)
TARGET = "+17205550199"


async def sipp(machine: AnsweringMachine, scenario: str, folder: Path, keys: dict[str, str] | None = None) -> Finished:
    remote = machine.server.address("udp")
    assert remote is not None
    finished = await run(SippRun(scenario, remote, folder, keys=keys or {}))
    assert finished.returncode == 0, finished.output
    await machine.until(lambda: all(call.endings for call in machine.calls))
    assert machine.ports.leased == 0
    return finished


def refer_when_answered(call: TakenCall) -> None:
    def on_event(event: LegEvent) -> None:
        call.events.append(event)
        if event == LegAnswered():
            call.leg.refer(TARGET)
        elif isinstance(event, LegEnded):
            call.leg.close()

    call.leg.subscribe(on_event)
    call.leg.answer()
    assert call.leg.transfer_mode is TransferMode.REFER


def put_through_when_asked(call: TakenCall) -> None:
    def on_event(event: LegEvent) -> None:
        call.events.append(event)
        if isinstance(event, TransferAsked):
            call.leg.refer_result(180)
            call.leg.refer_result(200)
        elif isinstance(event, LegEnded):
            call.leg.close()

    call.leg.subscribe(on_event)
    call.leg.answer()


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [("200 OK", 200, "referred"), ("486 Busy Here", 486, "caller-hung-up"), ("603", 603, "caller-hung-up")],
)
async def test_a_peer_that_takes_our_refer(outcome: str, status: int, reason: str, tmp_path: Path) -> None:
    async with answering_machine(trunks=[REFERRING], treat=refer_when_answered) as machine:
        await sipp(machine, "uac_takes_refer", tmp_path, {"outcome": outcome})
        assert machine.calls[0].events == [
            LegAnswered(),
            ReferProgress(202, final=False),
            ReferProgress(100, final=False),
            ReferProgress(180, final=False),
            ReferProgress(status, final=True),
            LegEnded(reason),
        ]


async def test_a_peer_that_refuses_our_refer(tmp_path: Path) -> None:
    async with answering_machine(trunks=[REFERRING], treat=refer_when_answered) as machine:
        await sipp(machine, "uac_refuses_refer", tmp_path)
        assert machine.calls[0].events == [
            LegAnswered(),
            ReferProgress(603, final=True, accepted=False),
            LegEnded("caller-hung-up"),
        ]


async def test_a_peer_that_hangs_up_in_place_of_telling(tmp_path: Path) -> None:
    async with answering_machine(trunks=[REFERRING], treat=refer_when_answered) as machine:
        await sipp(machine, "uac_takes_refer_and_leaves", tmp_path)
        assert machine.calls[0].events == [
            LegAnswered(),
            ReferProgress(202, final=False),
            ReferProgress(100, final=False),
            LegEnded("referred", "the peer did not tell what came of the transfer"),
        ]


@pytest.mark.parametrize(
    ("refer_to", "asked"),
    [
        ("sip:+17205550199@pbx.example", TransferAsked("+17205550199")),
        (
            "sip:1001@pbx.example?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2",
            TransferAsked("sip:1001@pbx.example", "a@b;to-tag=1;from-tag=2"),
        ),
    ],
)
async def test_a_peer_that_asks_for_a_transfer(refer_to: str, asked: TransferAsked, tmp_path: Path) -> None:
    async with answering_machine(treat=put_through_when_asked) as machine:
        await sipp(machine, "uac_refers", tmp_path, {"refer_to": refer_to})
        assert machine.calls[0].events == [LegAnswered(), asked, LegEnded("caller-hung-up")]

"""baresip is transferred and transfers: REFER with a user agent of another make, the sound checked by frequency."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, ReferProgress, TransferAsked
from switchhook.media import tones
from tests.peers.answering_machine import TakenCall, answering_machine
from tests.peers.baresip import Baresip, Hearing, baresip
from tests.peers.sound import write_wav

pytestmark = pytest.mark.peer("baresip")

CALLER_HZ, DESTINATION_HZ = 440, 900
A_SECOND = 9600
"""Samples. baresip names a recording by the second in which the call began: a call as long as this keeps its own."""


async def test_a_caller_is_handed_to_another_telephone(tmp_path: Path) -> None:
    write_wav(tmp_path / "caller.wav", CALLER_HZ, 30_000)
    write_wav(tmp_path / "destination.wav", DESTINATION_HZ, 30_000)
    async with (
        answering_machine() as machine,
        baresip(tmp_path / "caller", tmp_path / "caller.wav") as caller,
        baresip(tmp_path / "destination", tmp_path / "destination.wav") as destination,
    ):
        address = machine.server.address()
        assert address is not None
        caller.command("dial", f"sip:+17205550100@127.0.0.1:{address[1]}")
        await caller.until_event("CALL_ESTABLISHED")
        call = machine.calls[0]
        await machine.until(lambda: len(call.heard) >= A_SECOND)
        call.leg.refer(f"sip:+17205550111@127.0.0.1:{destination.sip_port}")
        await machine.until(lambda: any(isinstance(event, ReferProgress) and event.final for event in call.events))
        progress = [event for event in call.events if isinstance(event, ReferProgress)]
        assert progress[0] == ReferProgress(202, final=False)
        assert progress[-1] == ReferProgress(200, final=True)
        await destination.until_event("CALL_ESTABLISHED")
        call.leg.hang_up()
        await machine.until(lambda: bool(call.endings) and machine.ports.leased == 0)
        here, there = caller.hearing, destination.hearing
        await machine.until(lambda: hears(caller, here, DESTINATION_HZ) and hears(destination, there, CALLER_HZ))
        assert len(caller.messages("NOTIFY")) == 2
        destination.command("hangup")
        await destination.until_event("CALL_CLOSED")


def hears(phone: Baresip, begun: Hearing, frequency_hz: float) -> bool:
    """Whether a second of this tone has come since."""
    latest = phone.heard_after(begun)[-8000:]
    return len(latest) == 8000 and tones.dominant_hz(latest) == pytest.approx(frequency_hz, abs=5)


@pytest.mark.parametrize(("status", "told"), [(200, "CALL_CLOSED"), (486, "TRANSFER_FAILED")])
async def test_a_telephone_asks_to_be_replaced_by_somebody_else(status: int, told: str, tmp_path: Path) -> None:
    def treat(call: TakenCall) -> None:
        def on_event(event: LegEvent) -> None:
            call.events.append(event)
            if isinstance(event, TransferAsked):
                call.leg.refer_result(180)
                call.leg.refer_result(status)
            elif isinstance(event, LegEnded):
                call.leg.close()

        call.leg.subscribe(on_event)
        call.leg.answer()

    write_wav(tmp_path / "source.wav", CALLER_HZ, 30_000)
    async with answering_machine(treat=treat) as machine, baresip(tmp_path / "phone", tmp_path / "source.wav") as phone:
        address = machine.server.address()
        assert address is not None
        phone.command("dial", f"sip:+17205550100@127.0.0.1:{address[1]}")
        await phone.until_event("CALL_ESTABLISHED")
        phone.command("transfer", "sip:+17205550199@pbx.example")
        await phone.until_event(told)
        call = machine.calls[0]
        if status != 200:
            phone.command("hangup")
        await machine.until(lambda: bool(call.endings))
        assert call.events == [LegAnswered(), TransferAsked("+17205550199"), LegEnded("caller-hung-up")]

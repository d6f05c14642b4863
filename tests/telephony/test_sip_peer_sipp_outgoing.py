"""sipp as the carrier of calls that we place: refusals, early media, digest, failover, races, PRACK, hang-ups."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

import pytest

from switchhook.domain.model import Encoding
from switchhook.domain.ports import LegAnswered, LegEnded, LegProgress
from switchhook.media import tones
from switchhook.telephony.wire.sip.digest import Account
from tests.peers.answering_machine import answering_machine
from tests.peers.outgoing_call import all_given_back, carrier, content, dial, route, waiting_call
from tests.peers.sound import write_ulaw

pytestmark = pytest.mark.peer("sipp")


async def test_busy(tmp_path: Path) -> None:
    async with answering_machine() as machine, carrier("uas_busy", tmp_path) as (port, process):
        call = dial(machine, port)
        await machine.until(lambda: bool(call.endings))
        assert call.events == [LegEnded("refused", "Busy Here", 486)]
        assert call.over == [("carrier-1", "refused", 486)]
        await content(process, tmp_path)
        await all_given_back(machine)


async def test_nobody_answers(tmp_path: Path) -> None:
    async with answering_machine() as machine, carrier("uas_rings", tmp_path) as (port, process):
        call = dial(machine, port, ring_s=2)
        await machine.until(lambda: bool(call.endings))
        assert call.events == [LegProgress(180, False), LegEnded("no-answer", "nobody answered in time")]
        await content(process, tmp_path)
        await all_given_back(machine)


async def test_we_give_up_while_it_rings(tmp_path: Path) -> None:
    async with answering_machine() as machine, carrier("uas_rings", tmp_path) as (port, process):
        call = dial(machine, port)
        await machine.until(lambda: bool(call.progress))
        call.leg.hang_up()
        await content(process, tmp_path)
        await all_given_back(machine)
        assert call.endings == [LegEnded("hung-up")]


@pytest.mark.parametrize(
    ("scenario", "line", "house"),
    [
        ("uas_early_media", Encoding.PCMU, Encoding.PCMU),
        ("uas_early_alaw", Encoding.PCMA, Encoding.PCMA),
        ("uas_early_alaw", Encoding.PCMA, Encoding.PCMU),
        ("uas_early_media", Encoding.PCMU, Encoding.PCMA),
    ],
)
async def test_early_media_then_an_answer_with_echo(scenario: str, line: Encoding, house: Encoding, tmp_path: Path) -> None:
    """440 Hz before the answer, our own 700 Hz back after it; the house hears its own encoding whatever the line speaks."""
    write_ulaw(tmp_path / "early.ul", 440, 900)
    (tmp_path / "early.al").write_bytes(tones.tone([440], 900, Encoding.PCMA))
    async with answering_machine() as machine, carrier(scenario, tmp_path, ["-rtp_echo"]) as (port, process):
        call = dial(machine, port, encoding=house)
        assert call.leg.encoding is house
        await machine.until(lambda: call.answered)
        assert call.progress == [(183, True)]
        early = loud(call.heard_early, house)
        assert len(early) >= 4000
        assert pitch_hz(early, house) == pytest.approx(440, abs=5)
        call.leg.playout.enqueue("tone", tones.tone([700], 2000, house), asyncio.get_running_loop().time())
        call.leg.playout.finish("tone", asyncio.get_running_loop().time())
        # The end of the early sound may come after the answer.
        await machine.until(lambda: pitch_hz(loud(call.heard, house)[-4000:], house) == pytest.approx(700, abs=5))
        call.leg.hang_up()
        await content(process, tmp_path)
        await all_given_back(machine)
        assert call.endings == [LegEnded("hung-up")]
        assert call.over == [("carrier-1", "hung-up", 200)]


def loud(heard: bytes | bytearray, encoding: Encoding) -> bytes:
    """What is no silence."""
    return bytes(heard).strip(b"\xff\x7f" if encoding is Encoding.PCMU else b"\xd5\x55")


def pitch_hz(sound: bytes, encoding: Encoding) -> float:
    """What most pieces of 0.2 s sound like: sipp may send a packet late, which leaves a hole in one of them."""
    pieces = [sound[at : at + 1600] for at in range(0, len(sound) - 1599, 800)]
    return median(tones.frequency_hz(piece, encoding) for piece in pieces) if pieces else 0.0


async def test_digest(tmp_path: Path) -> None:
    account = Account("carrier", "open sesame")
    async with answering_machine() as machine, carrier("uas_digest", tmp_path) as (port, process):
        call = waiting_call(machine)
        call.leg.begin([route(call.leg, port, credentials=account)])
        await machine.until(lambda: call.answered or bool(call.endings))
        assert call.events == [LegAnswered()]
        call.leg.hang_up()
        await content(process, tmp_path)
        await all_given_back(machine)


async def test_failover_to_a_second_route(tmp_path: Path) -> None:
    async with (
        answering_machine() as machine,
        carrier("uas_unavailable", tmp_path / "first") as (first, refusing),
        carrier("uas_answers", tmp_path / "second") as (second, taking),
    ):
        call = dial(machine, first, second)
        await machine.until(lambda: call.answered)
        assert call.over == [("carrier-1", "refused", 503)]
        assert call.retry_after_s == [20]
        assert call.begun == ["carrier-1", "carrier-2"]
        assert machine.ports.leased == 1
        call.leg.close()
        assert machine.ports.leased == 0
        await content(refusing, tmp_path / "first")
        await content(taking, tmp_path / "second")
        await all_given_back(machine)
        assert call.endings == [LegEnded("hung-up")]
        assert call.over[1:] == [("carrier-2", "hung-up", 200)]


async def test_an_answer_that_crosses_our_cancel(tmp_path: Path) -> None:
    async with answering_machine() as machine, carrier("uas_cancel_race", tmp_path) as (port, process):
        call = dial(machine, port)
        await machine.until(lambda: bool(call.progress))
        call.leg.hang_up()
        await content(process, tmp_path)
        await all_given_back(machine)
        assert call.events == [LegProgress(180, False), LegEnded("hung-up")]


async def test_a_carrier_that_is_slow_to_answer_prack(tmp_path: Path) -> None:
    async with answering_machine() as machine, carrier("uas_slow_prack", tmp_path) as (port, process):
        call = dial(machine, port)
        await machine.until(lambda: call.answered)
        assert call.progress == [(183, True), (180, True)]
        call.leg.hang_up()
        await content(process, tmp_path)
        await all_given_back(machine)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_callee_hangs_up(transport: str, tmp_path: Path) -> None:
    sipp = "u1" if transport == "udp" else "t1"
    async with answering_machine() as machine, carrier("uas_hangs_up", tmp_path, transport=sipp) as (port, process):
        call = waiting_call(machine)
        call.leg.begin([route(call.leg, port, transport=transport)])
        await machine.until(lambda: bool(call.endings))
        assert call.events == [LegProgress(180, False), LegAnswered(), LegEnded("callee-hung-up")]
        await content(process, tmp_path)
        await all_given_back(machine)


async def test_silence_ends_a_call_only_after_its_answer(tmp_path: Path) -> None:
    """This carrier announces early media and never sends any sound."""
    async with answering_machine(media_timeout_s=0.5) as machine, carrier("uas_slow_prack", tmp_path) as (port, process):
        call = dial(machine, port)
        await machine.until(lambda: bool(call.endings))
        assert call.answered
        assert call.endings == [LegEnded("media-timeout", "no sound came from the party")]
        await content(process, tmp_path)
        await all_given_back(machine)

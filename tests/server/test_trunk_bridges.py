"""Two lines that the server joins: codecs that differ and that do not, telephones at both ends, and what is recorded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from switchhook_demo.rtp_line import Heard
from switchhook_demo.sound import FRAME_BYTES, decode, encode
from tests.peers.baresip import BaresipLine
from tests.peers.party import PartyCall
from tests.server.exchange import (
    DESTINATION,
    DESTINATION_HZ,
    TRANSFER,
    UNRECORDED,
    Exchange,
    agent_is_heard,
    transfer_of,
)
from tests.server.house import NUMBER
from tests.server.listening import AGENT_HZ, CALLER_HZ, recorded
from tests.server.model import Model
from tests.server.telephones import telephone_at, telephone_talks
from tests.server.test_transfers_baresip import has_tone, talk_together
from tests.server.waiting import DEADLINE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")
BARESIP = pytest.mark.peer("baresip")

FRAMES = 100
ULAW, ALAW = "PCMU/8000/1", "PCMA/8000/1"


@BARESIP
@pytest.mark.parametrize(
    ("callers", "destinations"),
    [(ULAW, ALAW), (ALAW, ULAW), (ALAW, ALAW)],
    ids=["mulaw-alaw", "alaw-mulaw", "alaw-alaw"],
)
async def test_telephones_of_other_codecs(exchange: Exchange, tmp_path: Path, callers: str, destinations: str) -> None:
    """Each is spoken to in its own; three parties by frequency."""
    line = BaresipLine(exchange.new_caller(), codecs=callers)
    async with (
        telephone_talks(exchange, tmp_path, line, exchange.uri()) as caller,
        telephone_at(exchange, tmp_path, codecs=destinations) as destination,
    ):
        caller.transfers()
        await destination.until_event("CALL_ESTABLISHED", 20)
        await talk_together(caller.phone, destination)
        destination.command("hangup")
        await caller.phone.until_event("CALL_CLOSED", 20)
        end = await exchange.end_of(caller.guid)
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (0, "Connected")


@BARESIP
@pytest.mark.parametrize(("number", "goes_on"), [(NUMBER, True), (UNRECORDED, False)])
async def test_a_recording_of_telephones_put_through(exchange: Exchange, tmp_path: Path, number: str, goes_on: bool) -> None:
    """The agent is in it in any case, the destination only where the number's setting lets the recording go on."""
    line = BaresipLine(exchange.new_caller())
    instructions = {"recordCall": True, "recordCallFormat": "wav"}
    async with (
        telephone_talks(exchange, tmp_path, line, exchange.uri(number), **instructions) as caller,
        telephone_at(exchange, tmp_path) as destination,
    ):
        caller.transfers()
        await destination.until_event("CALL_ESTABLISHED", 20)
        await talk_together(caller.phone, destination)
        caller.phone.command("hangup")
        await destination.until_event("CALL_CLOSED", 20)
        end = await exchange.end_of(caller.guid)
    assert (end["status"], transfer_of(end)["transferCallResult"]) == (0, "Connected")
    left, right, _ = recorded(await exchange.recording(caller.guid, "wav"))
    assert has_tone(left, CALLER_HZ) and has_tone(right, AGENT_HZ)
    assert has_tone(right, DESTINATION_HZ) is goes_on
    assert not has_tone(left, DESTINATION_HZ) and not has_tone(left, AGENT_HZ)


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_sound_of_one_codec_passes_as_it_is(exchange: Exchange, codec: str) -> None:
    """Bit by bit: of µ-law, a decoder would make positive zero of negative zero, which each of these frames has."""
    async with (
        Model() as model,
        exchange.party_caller() as telephone,
        exchange.party(DESTINATION, answers=True) as party,
    ):
        telephone.encodings = party.encodings = (codec,)
        exchange.answer_with(model, [TRANSFER])
        call = await telephone.dial(exchange.uri())
        await call.answered()
        session = await model.session()
        await session.got("response.create")
        await agent_is_heard(call, session)
        session.calls_tool("call_t", TRANSFER, {"transferNumber": DESTINATION})
        other = await party.call()
        await asyncio.wait_for(other.acknowledged.wait(), DEADLINE_S)
        await session.until(lambda: session.closed, "the agent has left")
        await asyncio.gather(pass_frames(call, other, codec), pass_frames(other, call, codec))
        await call.hang_up()
        end = await exchange.end_of((await exchange.start_of(telephone.user))["sessionGuid"])
    assert transfer_of(end)["transferCallResult"] == "Connected"


async def pass_frames(speaker: PartyCall, listener: PartyCall, codec: str) -> None:
    """What one says is what the other hears, in its order; a machine under load may lose a few frames."""
    said = noise(FRAMES)
    heard_before = len(listener.ear.packets)
    sent = [frame if codec == "PCMU" else encode(decode(frame), codec) for frame in said]
    await speaker.say(*said)

    def passed() -> list[int]:
        return numbers_of(listener.ear.packets[heard_before:], sent)

    await listener.ear.until(lambda: max(passed(), default=0) >= FRAMES - 5, DEADLINE_S, "the last frames")
    assert passed() == sorted(set(passed()))
    assert len(passed()) > 0.9 * FRAMES


def noise(frames: int) -> list[bytes]:
    """Frames of 20 ms, no two alike, that have every value of a byte somewhere and 0x7F in each."""
    chance = random.Random(7)
    return [bytes([0x7F, *(chance.randrange(256) for _ in range(FRAME_BYTES - 1))]) for _ in range(frames)]


def numbers_of(packets: Sequence[Heard], sent: Sequence[bytes]) -> list[int]:
    """Which frames came whole and unchanged, in the order in which they came."""
    known = {frame: number for number, frame in enumerate(sent)}
    return [known[packet.payload] for packet in packets if packet.payload in known]

"""baresip is whom callers are put through to: by our bridge, by REFER, and by REFER with Replaces. All are judged by frequency.

baresip 1.0.0 knows no Replaces. As the caller's line it takes our REFER and writes the whole Refer-To URI into an ordinary
INVITE; as the destination it takes an INVITE that replaces its call for a second call, or refuses it with 420 when the INVITE
requires the extension.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from switchhook_demo.phone import CallRefusedError
from tests.peers.baresip import Baresip, BaresipLine, baresip_line
from tests.peers.party import Party, PartyCall
from tests.peers.sound import write_wav
from tests.server.exchange import (
    DESTINATION,
    DESTINATION_HZ,
    LONG_MS,
    REFERRING,
    REFERRING_HOST,
    TRANSFER,
    Caller,
    Exchange,
    conversation,
    hears,
    model_hears,
    transfer_of,
)
from tests.server.listening import (
    AGENT_HZ,
    CALLER_HZ,
    NEAR_HZ,
    Signal,
    agent_tone,
    caller_tone,
    loud_part,
    mono,
    peak_hz,
    recorded,
    share_at,
)
from tests.server.model import LiveSession, Model
from tests.server.test_transfers import connected, hold_sound_is_heard
from tests.server.waiting import DEADLINE_S, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("baresip")]

A_SECOND_MS = 1200
"""baresip names a recording by the second in which the call began: what is heard this long has a file of its own."""
SOURCE_MS = 60_000


# -- what telephones hear ---------------------------------------------------------------------------------------------


def is_tone(signal: Signal, frequency_hz: float) -> bool:
    """Whether the signal is this tone from its beginning to its end, and nothing else."""
    loud = loud_part(signal)
    if len(loud) < 0.85 * len(signal) or not len(loud):
        return False
    return abs(peak_hz(loud) - frequency_hz) < NEAR_HZ and share_at(loud, frequency_hz) > 0.8


def has_tone(signal: Signal, frequency_hz: float, duration_ms: int = 400) -> bool:
    """Whether there is a stretch of this tone."""
    size = 8 * duration_ms
    return any(is_tone(signal[at : at + size], frequency_hz) for at in range(0, len(signal) - size + 1, size // 4))


async def telephone_hears(phone: Baresip, frequency_hz: float, duration_ms: int = 400) -> None:
    """Wait until there is a stretch of this tone, and nothing else, in what comes from now on."""
    begun = phone.hearing

    async def found() -> bool:
        return has_tone(np.array(phone.heard_after(begun), dtype=np.float64), frequency_hz, duration_ms)

    await eventually(found, f"{frequency_hz:g} Hz for {duration_ms} ms at the telephone")


async def talk_together(caller: Baresip, destination: Baresip) -> None:
    """Two telephones hear each other for a second."""
    await asyncio.gather(telephone_hears(caller, DESTINATION_HZ, 1000), telephone_hears(destination, CALLER_HZ, 1000))


# -- telephones -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def destination_of(exchange: Exchange, folder: Path, answers: bool = True, calls: int = 4) -> AsyncIterator[Baresip]:
    """A telephone where the trunks lead to; it takes so many calls at a time."""
    write_wav(folder / "destination.wav", DESTINATION_HZ, SOURCE_MS)
    line = BaresipLine(DESTINATION, sip_port=exchange.port, answers=answers, calls=calls)
    async with baresip_line(folder / "destination", folder / "destination.wav", line) as phone:
        yield phone


@dataclass(frozen=True)
class TelephoneCaller:
    """A caller on a baresip whose trunk makes transfers by REFER, in conversation with the agent."""

    phone: Baresip
    session: LiveSession
    guid: str

    def transfers(self, **arguments: Any) -> None:
        """The model transfers the caller."""
        self.session.calls_tool("call_t", TRANSFER, {"transferNumber": DESTINATION, **arguments})

    def progress(self) -> list[str]:
        """The statuses that its NOTIFYs told of our REFER, in order."""
        return [text.rstrip().splitlines()[-1].split()[1] for text in self.phone.messages("NOTIFY")]


@asynccontextmanager
async def telephone_caller(exchange: Exchange, folder: Path, **instructions: Any) -> AsyncIterator[TelephoneCaller]:
    """The agent has greeted, and both hear each other."""
    write_wav(folder / "caller.wav", CALLER_HZ, SOURCE_MS)
    line = BaresipLine(exchange.new_caller(), REFERRING_HOST)
    async with Model() as model, baresip_line(folder / "caller", folder / "caller.wav", line) as phone:
        exchange.answer_with(model, [TRANSFER], **instructions)
        phone.command("dial", exchange.uri(REFERRING))
        session = await model.session()
        await session.got("response.create")
        await phone.until_event("CALL_ESTABLISHED")
        session.speaks(agent_tone(2000), "Hello!")
        await telephone_hears(phone, AGENT_HZ, A_SECOND_MS)
        await model_hears(session, CALLER_HZ)
        yield TelephoneCaller(phone, session, (await exchange.start_of(line.user))["sessionGuid"])


def replaced_by(refer: str) -> str:
    """The Replaces value in the Refer-To of a REFER's text."""
    header = re.search(r"^Refer-To: <[^?>]*\?Replaces=([^>]*)>$", refer, re.MULTILINE)
    assert header is not None, refer
    return unquote(header[1])


def first_call_of(destination: Baresip) -> str:
    """How a Replaces names the first call that a telephone answered: its own tag is the to-tag (RFC 3891 §3)."""
    answer = next(text for text in destination.messages("SIP/2.0") if text.startswith("SIP/2.0 200") and " INVITE\n" in text)
    ours, theirs, call_id = (
        re.search(pattern, answer, re.MULTILINE) for pattern in (r"^To:.*;tag=(\S+)", r"^From:.*;tag=(\S+)", r"^Call-ID: (\S+)")
    )
    assert ours and theirs and call_id, answer
    return f"{call_id[1]};to-tag={ours[1]};from-tag={theirs[1]}"


# -- by the line ------------------------------------------------------------------------------------------------------


async def test_the_line_puts_its_caller_through(exchange: Exchange, tmp_path: Path) -> None:
    """REFER, NOTIFY 100 and 200, BYE: the telephones talk on when nothing of the call is left at the gateway."""
    async with (
        telephone_caller(exchange, tmp_path, recordCall=True, recordCallFormat="wav") as caller,
        destination_of(exchange, tmp_path, answers=False) as destination,
    ):
        caller.transfers()
        await destination.until_event("CALL_INCOMING")
        assert not caller.session.closed
        assert not exchange.ends_of(caller.guid)
        destination.command("accept")
        await destination.until_event("CALL_ESTABLISHED")
        end = await exchange.end_of(caller.guid)
        await exchange.all_given_back()
        await talk_together(caller.phone, destination)
        [refer] = caller.phone.messages("REFER")
        assert f"\nRefer-To: <sip:{DESTINATION}@127.0.0.1:{exchange.port}>\n" in refer
        assert caller.progress() == ["100", "200"]
        destination.command("hangup")
        await caller.phone.until_event("CALL_CLOSED", count=2)
    assert (end["status"], end["callReferredOut"], transfer_of(end)["transferCallResult"]) == (0, True, "Connected")
    heard_there, heard_here = mono(destination.heard), mono(caller.phone.heard)
    assert is_tone(loud_part(heard_there), CALLER_HZ) and is_tone(loud_part(heard_here), DESTINATION_HZ)
    left, right, _ = recorded(await exchange.recording(caller.guid, "wav"))
    assert has_tone(left, CALLER_HZ) and has_tone(right, AGENT_HZ)
    assert not has_tone(left, DESTINATION_HZ) and not has_tone(right, DESTINATION_HZ)


async def test_a_destination_that_declines_the_line(exchange: Exchange, tmp_path: Path) -> None:
    """NOTIFY tells of the refusal: the caller and the agent hear each other again."""
    async with (
        telephone_caller(exchange, tmp_path) as caller,
        destination_of(exchange, tmp_path, answers=False) as destination,
    ):
        caller.transfers()
        await destination.until_event("CALL_INCOMING")
        destination.command("hangup")
        assert "Busy" in await caller.session.output_of("call_t")
        await caller.session.got("response.create", 2)
        caller.session.speaks(agent_tone(1000), "I am sorry.")
        await telephone_hears(caller.phone, AGENT_HZ)
        heard = len(caller.session.audio)
        await caller.session.hears(lambda sound: len(sound) > heard + 8000, "a second of the caller")
        await model_hears(caller.session, CALLER_HZ)
        assert caller.progress() == ["100", "486"]
        caller.phone.command("hangup")
        end = await exchange.end_of(caller.guid)
    assert (end["status"], end["callReferredOut"], transfer_of(end)["transferCallResult"]) == (0, False, "Busy")


@pytest.mark.parametrize("answers", [True, False], ids=["by-itself", "by-hand"])
async def test_the_line_makes_an_attended_transfer(exchange: Exchange, tmp_path: Path, answers: bool) -> None:
    """The agent briefs the destination; REFER names that call. A second call comes in its place, and ours is hung up."""
    async with (
        telephone_caller(exchange, tmp_path) as caller,
        destination_of(exchange, tmp_path, answers) as destination,
    ):
        caller.transfers(attended=True)
        await accepted(destination, answers)
        await telephone_briefed(caller, destination)
        caller.session.calls_tool("call_c", "complete_transfer", {})
        await caller.phone.until_event("TRANSFER")
        await accepted(destination, answers, 2)
        end = await exchange.end_of(caller.guid)
        await exchange.all_given_back()
        await talk_together(caller.phone, destination)
        [refer] = caller.phone.messages("REFER")
        assert replaced_by(refer) == first_call_of(destination)
        assert caller.progress() == ["100", "200"]
        assert len(destination.messages("BYE")) == 1  # of the agent's call
    assert (end["status"], end["callReferredOut"], transfer_of(end)["transferCallResult"]) == (0, True, "Connected")
    assert is_tone(loud_part(mono(destination.heard)), CALLER_HZ)
    assert is_tone(loud_part(mono(caller.phone.heard)), DESTINATION_HZ)


async def test_a_destination_without_room_for_a_second_call(exchange: Exchange, tmp_path: Path) -> None:
    """The line hears 486 and says so: the agent's call is still there, and the two are bridged here."""
    async with (
        telephone_caller(exchange, tmp_path) as caller,
        destination_of(exchange, tmp_path, calls=1) as destination,
    ):
        caller.transfers(attended=True)
        await destination.until_event("CALL_ESTABLISHED")
        await telephone_briefed(caller, destination)
        caller.session.calls_tool("call_c", "complete_transfer", {})
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        await talk_together(caller.phone, destination)
        assert caller.progress() == ["100", "486"]
        assert not exchange.ends_of(caller.guid)
        destination.command("hangup")
        end = await exchange.end_of(caller.guid)
    assert (end["status"], end["callReferredOut"], transfer_of(end)["transferCallResult"]) == (0, False, "Connected")
    heard = mono(destination.heard)
    assert has_tone(heard, AGENT_HZ) and has_tone(heard, CALLER_HZ) and not has_tone(heard, DESTINATION_HZ)


async def telephone_briefed(caller: TelephoneCaller, destination: Baresip) -> None:
    """The agent and the destination hear each other; the caller hears hold sound alone."""
    begun = caller.phone.hearing
    await caller.session.got("response.create", 2)
    caller.session.speaks(agent_tone(2000), "There is a caller for you.")
    await telephone_hears(destination, AGENT_HZ, A_SECOND_MS)
    await model_hears(caller.session, DESTINATION_HZ)
    waiting = np.array(caller.phone.heard_after(begun), dtype=np.float64)
    assert len(loud_part(waiting, quiet_rms=60)) > 1600
    assert not has_tone(waiting, AGENT_HZ) and not has_tone(waiting, DESTINATION_HZ)


async def accepted(phone: Baresip, answers: bool, count: int = 1) -> None:
    """Wait until a telephone has taken so many calls; one that does not answer by itself is told to."""
    if not answers:
        await phone.until_event("CALL_INCOMING", count=count)
        phone.command("accept")
    await phone.until_event("CALL_ESTABLISHED", count=count)


@pytest.mark.parametrize("required", [False, True])
async def test_a_phone_system_that_replaces_the_agents_call(exchange: Exchange, tmp_path: Path, required: bool) -> None:
    """It dials with the Replaces that our REFER gave it. When the destination refuses that (420), the two are bridged here."""
    async with (
        conversation(exchange, REFERRING, REFERRING_HOST) as (caller, _),
        destination_of(exchange, tmp_path) as destination,
    ):
        await briefed(caller, destination)
        caller.session.calls_tool("call_c", "complete_transfer", {})
        await asyncio.wait_for(caller.call.referred.wait(), DEADLINE_S)
        await caller.call.notify(100, over=False)
        if required:
            with pytest.raises(CallRefusedError) as refused:
                await dial_as_referred(caller, destination, {"Require": "replaces"})
            assert refused.value.status == 420
            await caller.call.notify(420, over=True)
            call = caller.call
        else:
            call = await dial_as_referred(caller, destination)
            await caller.call.notify(200, over=True)
            assert await caller.call.ended() == "them"
            await destination.until_event("CALL_CLOSED")
            call.start_saying(caller_tone(LONG_MS))
        await asyncio.gather(hears(call, DESTINATION_HZ), telephone_hears(destination, CALLER_HZ))
        destination.command("hangup")
        assert await call.ended() == "them"
        end = await caller.end()
    assert transfer_of(end)["transferCallResult"] == "Connected"
    assert end["callReferredOut"] is not required


async def dial_as_referred(caller: Caller, destination: Baresip, headers: dict[str, str] | None = None) -> PartyCall:
    """Do what our REFER asks for: call the destination in place of the agent."""
    [refer] = [bytes(request).decode().replace("\r", "") for request in caller.call.requests if request.method == "REFER"]
    replaces = replaced_by(re.sub(r"^refer-to:", "Refer-To:", refer, flags=re.MULTILINE | re.IGNORECASE))
    assert replaces == first_call_of(destination)
    party = caller.call.phone
    assert isinstance(party, Party)
    call = await party.dial(f"sip:{DESTINATION}@127.0.0.1:{destination.sip_port}", {"Replaces": replaces, **(headers or {})})
    await call.answered()
    return call


# -- by our bridge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["complete_transfer", "key"])
async def test_an_attended_transfer_to_a_telephone(exchange: Exchange, tmp_path: Path, how: str) -> None:
    """The agent briefs the destination while the caller waits; then the two hear each other, and the recording has both."""
    async with (
        conversation(exchange, recordCall=True, recordCallFormat="wav") as (caller, _),
        destination_of(exchange, tmp_path) as destination,
    ):
        await briefed(caller, destination)
        if how == "key":
            destination.command("sndcode", "1")
        else:
            caller.session.calls_tool("call_c", how, {})
        await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
        await asyncio.gather(hears(caller.call, DESTINATION_HZ, 1000), telephone_hears(destination, CALLER_HZ, 1000))
        destination.command("hangup")
        assert await caller.call.ended() == "them"
        connected(await caller.end(), caller=caller.number)
    heard = mono(destination.heard)
    assert has_tone(heard, AGENT_HZ) and has_tone(heard, CALLER_HZ) and not has_tone(heard, DESTINATION_HZ)
    left, right, _ = recorded(await exchange.recording(caller.guid, "wav"))
    assert is_tone(loud_part(left), CALLER_HZ)
    assert has_tone(right, DESTINATION_HZ, 800)
    assert not has_tone(right, CALLER_HZ) and not has_tone(right, AGENT_HZ)  # the briefing was not for the caller


async def briefed(caller: Caller, destination: Baresip) -> None:
    """The telephone answers: it talks with the agent, and the caller, who says something, hears and is heard by neither."""
    caller.transfers(attended=True)
    await destination.until_event("CALL_ESTABLISHED")
    await caller.session.got("response.create", 2)
    caller.call.start_saying(caller_tone(LONG_MS))
    caller.session.speaks(agent_tone(2000), "There is a caller for you.")
    await asyncio.gather(
        telephone_hears(destination, AGENT_HZ, A_SECOND_MS),
        model_hears(caller.session, DESTINATION_HZ),
        hold_sound_is_heard(caller.call),
    )

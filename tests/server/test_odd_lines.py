"""Lines as they are: telephones that are silent, behind an address translator, with keys of their own, or that fit nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchhook_demo.phone import Call, CallRefusedError, Phone
from switchhook_demo.rtp_line import RtpLine
from tests.peers.server import rtp_range
from tests.server.exchange import Exchange, agent_is_heard, model_hears
from tests.server.house import House, ear_has, open_house
from tests.server.listening import (
    AGENT_HZ,
    CALLER_HZ,
    NEAR_HZ,
    Signal,
    agent_tone,
    caller_tone,
    heard_tone,
    of_turn,
    peak_hz,
    recorded,
    speech,
)
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYPAD_TYPE = 96
STALL_MS = 300
"""So long a telephone of ours may be silent within a word, on a busy machine."""
NOBODYS_HOST = "127.0.0.77"
"""Where a telephone behind an address translator believes itself to be."""


class OddCall(Call):
    """A call whose offer says something else than `Phone` would."""

    def _offer(self, direction: str) -> bytes:
        offer = super()._offer(direction)
        for ours, theirs in self.phone.rewrites if isinstance(self.phone, OddPhone) else ():
            offer = offer.replace(ours, theirs)
        return offer


class OddPhone(Phone):
    """`rewrites`: what is replaced in its offers. `deaf`: it answers nothing more."""

    rewrites: tuple[tuple[bytes, bytes], ...] = ()
    deaf = False

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Sort one datagram, unless it is deaf."""
        if not self.deaf:
            super().datagram_received(data, addr)

    async def dial(self, uri: str, headers: dict[str, str] | None = None) -> Call:
        """Place a call."""
        call = OddCall(self, uri)
        self.calls[call.call_id] = call
        await call.line.close()
        call.line = Keypad(self.host)
        call.invite(headers or {})
        return call


class Keypad(RtpLine):
    """Its events have no marker, and the network loses every packet that tells of a key's end."""

    def _send(self, payload_type: int, payload: bytes, timestamp: int, marker: bool = False) -> None:
        if payload_type != KEYPAD_TYPE or not payload[1] & 0x80:
            super()._send(payload_type, payload, timestamp)


def _typed(session: LiveSession) -> list[str]:
    return [text for role, text in session.texts() if role == "user"]


async def test_an_agent_that_speaks_first_is_heard_by_who_sends_nothing(exchange: Exchange) -> None:
    """A caller, and a party that we called: neither need send a packet to hear the greeting."""
    async with Model() as model, Phone(user=exchange.new_caller()) as phone, exchange.party() as party:
        exchange.answer_with(model)
        call = await phone.dial(exchange.uri())
        call.line.sending = False
        await call.answered()
        first = await model.session()
        await first.got("response.create")
        await agent_is_heard(call, first)
        await call.hang_up()
        guid = await exchange.place()
        called = await party.call()
        called.line.sending = False
        called.answer()
        second = await model.session(2)
        await second.got("response.create")
        await agent_is_heard(called, second)
        await called.hang_up()
        assert (await exchange.end_of(guid))["outboundCallResult"] == "Connected"


async def test_a_caller_of_whom_no_packet_ever_comes(house: House) -> None:
    """One-way sound from the first moment: the call does not stay up in silence, and its record says why."""
    async with Model() as model, Phone(user=house.new_caller()) as phone:
        house.answer_with(model)
        call = await phone.dial(house.uri())
        call.line.sending = False
        await call.answered()
        assert await call.ended(30) == "them"
        assert (await house.record_of(phone.user))[1] == "media-timeout"
        await house.idle()


async def test_a_telephone_that_answers_no_hang_up(house: House) -> None:
    """It is hung up on at its time limit and never says that it knows: the call is over and its port is back all the same."""
    async with Model() as model, OddPhone(user=house.new_caller()) as phone:
        house.answer_with(model, maxSeconds=4)
        call = await phone.dial(house.uri())
        await call.answered()
        phone.deaf = True
        end = await house.end_of((await house.start_of(phone.user))["sessionGuid"])
        assert (end["status"], end["errorMessage"]) == (0, "Maximum call duration reached")
        await house.zero("calls_live", "rtp_ports_leased")
        assert call.ended_at is None


async def test_a_telephone_that_does_not_know_its_own_address(house: House) -> None:
    """Its description names a host where nobody listens: both hear each other where its packets come from."""
    async with Model() as model, OddPhone(user=house.new_caller()) as phone:
        phone.rewrites = ((b"IN IP4 127.0.0.1", f"IN IP4 {NOBODYS_HOST}".encode()),)
        house.answer_with(model)
        call = await phone.dial(house.uri())
        await call.answered()
        session = await model.session()
        await session.got("response.create")
        call.start_saying(caller_tone(600))
        await model_hears(session, CALLER_HZ)
        await agent_is_heard(call, session)
        await call.hang_up()
        assert (await house.end_of((await house.start_of(phone.user))["sessionGuid"]))["status"] == 0


async def test_keys_of_telephones_of_other_makes(house: House) -> None:
    """Another payload type, no marker, no end; INFO of the other body; and a telephone that offers no events at all."""
    rows: tuple[tuple[bytes, bytes], ...] = ((b" 101", b" 96"), (b":101 ", b":96 "))
    async with Model() as model, OddPhone(user=house.new_caller()) as phone:
        phone.rewrites = rows
        house.answer_with(model)
        call = await phone.dial(house.uri())
        await call.answered()
        assert call.media is not None
        assert call.media.dtmf_payload_type == KEYPAD_TYPE
        session = await model.session()
        await session.got("response.create")
        session.speaks(speech(100), "Your number?")
        await ear_has(call, 5)
        await call.press("1224")
        await session.until(lambda: _typed(session) == ["DTMF: 1224"], "the keys of events")
        await call.info("application/dtmf", b"5")
        await call.info("application/dtmf", b"#")
        await session.until(lambda: _typed(session) == ["DTMF: 1224", "DTMF: 5"], "the key of INFO")
        await call.hang_up()

        phone.rewrites = ((b" 101\r\n", b"\r\n"), (b"a=rtpmap:101 telephone-event/8000\r\n", b""), (b"a=fmtp:101 0-16\r\n", b""))
        call = await phone.dial(house.uri())
        await call.answered()
        assert call.media is not None
        assert call.media.dtmf_payload_type is None
        session = await model.session(2)
        await session.got("response.create")
        await call.press("77#", method="info")
        await session.until(lambda: _typed(session) == ["DTMF: 77"], "the keys of INFO alone")
        await call.hang_up()
        await house.idle()


async def test_a_call_that_fits_nothing_is_on_record(house: House) -> None:
    """488: refused before the customer could be asked, and yet written down with its reason."""
    async with OddPhone(user=house.new_caller()) as phone:
        phone.rewrites = ((b"RTP/AVP 0 8 101", b"RTP/AVP 18 101"), (b"a=rtpmap:0 PCMU", b"a=rtpmap:18 G729"))
        call = await phone.dial(house.uri())
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 488
        outcome, reason = await house.record_of(phone.user)
    assert (outcome, bool(reason)) == ("client-error", True)
    assert not house.backend.requests


async def test_a_call_without_a_port_for_its_sound_is_on_record(tmp_path: Path) -> None:
    """Every RTP port is leased: 503 and a record that says so; the call that has one does not notice."""
    async with Model() as model, open_house(tmp_path, SWITCHHOOK_RTP_PORTS=rtp_range(model, 2)) as house:
        house.answer_with(model)
        async with house.talk(model) as talk, Phone(user=house.new_caller()) as phone:
            await talk.session.got("response.create")
            call = await phone.dial(house.uri())
            with pytest.raises(CallRefusedError) as refused:
                await call.answered()
            assert refused.value.status == 503
            assert await house.record_of(phone.user) == ("server-error", "line-failed")
            refusal = await house.end_of((await house.start_of(phone.user))["sessionGuid"])
            assert "ports" in refusal["errorMessage"], refusal
            talk.session.speaks(speech(400), "I am still here.")
            await ear_has(talk.call, 20)
            assert of_turn(talk.call.ear.packets, 0) == list(range(20))
            await talk.call.hang_up()
        assert (await house.end_of(talk.guid))["status"] == 0


def _spoken(channel: Signal, hz: float) -> list[tuple[int, int]]:
    """(begin, end) in ms of each stretch of this tone, whose pauses are longer than a stall."""
    frames = channel[: len(channel) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 1000)
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > STALL_MS // 20) + 1)
    for part in parts:
        assert abs(peak_hz(channel[part[0] * 160 : (part[-1] + 1) * 160]) - hz) < NEAR_HZ
    return [(int(part[0]) * 20, (int(part[-1]) + 1) * 20) for part in parts]


async def test_a_recording_of_a_caller_who_sends_nothing_in_pauses(house: House) -> None:
    """Silence suppression and a hold: each side stays at its time, and the file is as long as the call."""
    async with Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            call.line.sending = False
            await _says(call, session, 2000, 2000)
            call.line.sending = True
            await call.say(caller_tone(600))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 560), "the caller's tone")
            await _says(call, session, 400, 2400)
            await call.hold()
            await call.resume()
            await call.say(caller_tone(600))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 1120), "the caller's second tone")
            await _says(call, session, 400, 2800)
            await call.hang_up()
            lasted_ms = _lasted_ms(call)
        await house.end_of(talk.guid)
    caller, agent, _ = recorded(await house.recording(talk.guid, "wav"))
    left, right = _spoken(caller, CALLER_HZ), _spoken(agent, AGENT_HZ)
    _check_lengths(left, (600, 600), STALL_MS)
    _check_lengths(right, (2000, 400, 400))
    turns = [right[0], left[0], right[1], left[1], right[2]]
    for (_, ended), (began, _) in itertools.pairwise(turns):
        assert -100 < began - ended < 3000, turns  # one after the other, as it was
    assert abs(len(caller) / 8 - lasted_ms) < 1000


async def _says(call: Call, session: LiveSession, duration_ms: int, all_ms: int) -> None:
    session.speaks(agent_tone(duration_ms), "Well.")
    await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, all_ms - 40), 20, "the agent")


def _lasted_ms(call: Call) -> float:
    assert call.answered_at is not None
    assert call.ended_at is not None
    return (call.ended_at - call.answered_at) * 1000


def _check_lengths(spoken: list[tuple[int, int]], lengths_ms: tuple[int, ...], stall_ms: int = 0) -> None:
    found: list[Any] = [ended - began for began, ended in spoken]
    assert len(found) == len(lengths_ms), found
    assert all(-60 <= one - other <= 60 + stall_ms for one, other in zip(found, lengths_ms, strict=True)), found

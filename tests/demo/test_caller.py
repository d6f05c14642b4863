"""The simulated caller against an agent that is nothing but tones: it waits its turn, interrupts once, and is hung up on."""

from __future__ import annotations

import asyncio
import io
import wave
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from switchhook_demo import caller, sip_text
from switchhook_demo.backend import Event
from switchhook_demo.caller import CallerFailedError, Step, converse
from switchhook_demo.phone import Phone
from switchhook_demo.rtp_line import Ear
from switchhook_demo.show import Screen, read_recording
from switchhook_demo.sip_text import Message
from switchhook_demo.sound import tone
from tests.demo.conftest import Peer

SCRIPT = (Step("say", "one"), Step("press", "5"), Step("interrupt", "two"), Step("say", "three"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are tones, and patience is short."""
    monkeypatch.setattr(caller, "sound_of", lambda text: tone(440, 700 if text == "two" else 300))
    monkeypatch.setattr(caller, "QUIET_MS", 600)
    monkeypatch.setattr(caller, "BARGE_AFTER_S", 0.3)
    monkeypatch.setattr(caller, "GOODBYE_TIMEOUT_S", 15)
    monkeypatch.setattr(caller, "ANSWER_TIMEOUT_S", 4)


def hang_up(peer: Peer) -> None:
    invite = peer.requests[0]
    bye = Message(method="BYE", uri=sip_text.address_uri(invite.get("contact")))
    for name, value in (
        ("via", f"SIP/2.0/UDP 127.0.0.1:{peer.port};branch=z9hG4bKbye"),
        ("from", f"{invite.get('to')};tag=peer"),
        ("to", invite.get("from")),
        ("call-id", invite.get("call-id")),
        ("cseq", "1 BYE"),
    ):
        bye.add(name, value)
    peer.send(bye)


def has_turn(ear: Ear, since: float, keys: int) -> bool:
    return ear.last_voice(since) is not None or len(ear.digits) > keys


async def agent(peer: Peer, polite: bool = True, replies: int = 3) -> list[str]:
    """Greet, answer each turn with a tone, hush when spoken into, hang up after the last; returns the kinds of turns."""
    log: list[str] = []
    ear, loop = peer.line.ear, asyncio.get_running_loop()
    peer.line.queue(tone(700, 300))
    for turn in range(replies + 1):
        since, keys = loop.time(), len(ear.digits)
        await ear.until(partial(has_turn, ear, since, keys), 20, "no turn came")
        interrupted = peer.line.speaking
        if interrupted and polite:
            peer.line.hush()
        log.append("interrupted" if interrupted else "key" if len(ear.digits) > keys else "turn")
        await ear.quiet(400, 10)
        if turn < replies:
            peer.line.queue(tone(700, 2_000 if turn == 1 else 300))
    hang_up(peer)
    return log


async def test_caller_waits_interrupts_and_is_hung_up_on(peer: Peer) -> None:
    told_lines: list[str] = []
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        far = asyncio.ensure_future(agent(peer))
        told = await converse(call, SCRIPT, told_lines.append)
        assert await far == ["turn", "key", "interrupted", "turn"]
    assert told_lines == ["says “one”", "presses 5", "interrupts: “two”", "says “three”"]
    assert len(told.turn_gaps_ms) == 3 and all(gap > 0 for gap in told.turn_gaps_ms)
    assert told.interruption_ms is not None and told.interruption_ms < 1_200


async def test_an_agent_that_talks_on_fails_the_step_by_name(peer: Peer) -> None:
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        peer.line.queue(tone(700, 6_000))
        with pytest.raises(CallerFailedError, match=r"interrupting with “two”.*talked on"):
            await converse(call, SCRIPT[2:], lambda line: None)


async def test_silence_after_a_line_fails_the_step_by_name(peer: Peer) -> None:
    async with Phone() as phone:
        call = await phone.dial(peer.uri)
        await call.answered()
        peer.line.queue(tone(700, 300))
        with pytest.raises(CallerFailedError, match="an answer to “one”"):
            await converse(call, SCRIPT, lambda line: None)


def test_every_line_of_the_demo_is_shipped_and_small() -> None:
    for step in caller.SCRIPT:
        if step.action != "press":
            path = caller.line_file(step.what)
            assert 0 < path.stat().st_size < 40_000, path
    assert (caller.LINES / "NOTICE").exists()


def test_screen_shows_speakers_tools_and_call_end() -> None:
    out = io.StringIO()
    screen = Screen(out)
    invoked = {"toolName": "check_availability", "sessionGuid": "g", "customerCallId": None}
    screen.event(Event("line", {"speaker": "AI", "text": "Good day."}, {}))
    screen.event(Event("tool", {"VoiceElements_InvokeTool": invoked, "day": "friday"}, {"available": True}))
    screen.event(Event("end", {"status": 0, "errorMessage": "No Errors"}, {}))
    shown = out.getvalue()
    assert "agent  Good day." in shown
    assert 'check_availability {"day": "friday"} → {"available": true}' in shown
    assert "CallEnd: status 0, No Errors" in shown


def write_wave(path: Path, channels: int, right: int) -> Path:
    samples = np.full((800, channels), 1_000, dtype=np.int16)
    samples[:, -1] = right
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(samples.tobytes())
    return path


def test_recording_must_have_sound_on_two_channels(tmp_path: Path) -> None:
    assert read_recording(write_wave(tmp_path / "good.wav", 2, 500)).seconds == 0.1
    with pytest.raises(ValueError, match=r"1 channel"):
        read_recording(write_wave(tmp_path / "mono.wav", 1, 500))
    with pytest.raises(ValueError, match="empty"):
        read_recording(write_wave(tmp_path / "deaf.wav", 2, 0))

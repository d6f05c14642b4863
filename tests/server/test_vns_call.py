"""A VNS call from the first webhook to the last, with everything that the customer, the model and the caller see of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.call_end import FIELDS, TICKS, log_texts, spoken_lines
from tests.server.house import House
from tests.server.listening import (
    AGENT_HZ,
    CALLER_HZ,
    NEAR_HZ,
    agent_tone,
    caller_tone,
    heard_tone,
    loud_part,
    pcm24_tone,
    peak_hz,
    recorded,
    share_at,
)
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")

GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


async def test_a_whole_call(house: House) -> None:
    """The caller and the model hear each other, a tool runs, and both webhooks tell it exactly."""
    house.backend.tool_reply = lambda got: {"opens": "9:00", "unicode": "é"}
    caller = house.new_caller()
    async with Model() as model:
        reply = house.answer_with(model, ["opening_hours"], recordCall=True, recordCallFormat="wav")
        reply["session"]["unknown"] = {"deep": [1, 1.0, 1e3, None, "ü"], "big": 12345678901234567890}
        async with house.talk(model, caller, display_name="Ada Caller") as talk:
            call, session, guid = talk.call, talk.session, talk.guid
            _check_call_start(house, caller, guid)
            [update] = session.sent("session.update")
            assert update == {name: value for name, value in reply.items() if name != "VoiceElements_Instructions"}
            assert session.headers["Authorization"] == "Bearer secret-token"

            await session.got("response.create")
            session.speaks(agent_tone(800), "Hello!")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 780), 20, "the greeting")
            await call.say(caller_tone(1000))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 980), "the caller's tone")
            item_id = session.speech_started()
            session.speech_stopped(item_id)

            session.calls_tool("call_1", "opening_hours", {"day": "Monday"})
            assert json.loads(await session.output_of("call_1")) == {"opens": "9:00", "unicode": "é"}
            await session.got("response.create", 2)
            session.speaks(agent_tone(400), "We open at nine.")
            session.transcribed(item_id, "When do you open?")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 1180), 20, "the answer")
            await call.hang_up()
        await session.until(lambda: session.closed, "the model's socket is closed")
        end = await house.end_of(guid)
    _check_tool_request(house, guid)
    _check_call_end(house, caller, guid, end)
    assert spoken_lines(end) == ["AI : Hello!", "User: When do you open?", "AI : We open at nine."]
    _check_recording(await house.recording(guid, "wav"))


def _check_call_start(house: House, caller: str, guid: str) -> None:
    [start] = house.backend.of("/callstart")
    assert start.headers["Token"] == "abc"
    assert start.headers["Content-Type"] == "application/json"
    assert GUID.fullmatch(guid)
    assert SECONDS.fullmatch(start.json["callStart"])
    assert list(start.json.items()) == [
        ("sessionGuid", guid),
        ("calledNumber", "7206999999"),
        ("callerId", caller.removeprefix("+1")),
        ("callerIdName", "Ada Caller"),
        ("outboundTriggered", False),
        ("softwareVersion", "0.1.0.0"),
        ("callStart", start.json["callStart"]),
        ("customerCallId", None),
    ]


def _check_tool_request(house: House, guid: str) -> None:
    [tool] = house.backend.of("/tools")
    assert tool.headers["Token"] == "tool-token"
    assert tool.headers["Content-Type"] == "application/json"
    metadata = {"toolName": "opening_hours", "sessionGuid": guid, "customerCallId": "CallId-001"}
    assert list(tool.json.items()) == [("VoiceElements_InvokeTool", metadata), ("day", "Monday")]


def _check_call_end(house: House, caller: str, guid: str, end: dict[str, Any]) -> None:
    [start] = house.backend.of("/callstart")
    [got] = house.backend.of("/callend")
    assert got.headers["Token"] == "abc"
    assert tuple(end) == FIELDS
    times = [end["callStart"], end["callConnected"], end["callEnd"]]
    assert all(TICKS.fullmatch(time) for time in times)
    assert times == sorted(times)
    assert end["callStart"][:19] == start.json["callStart"][:19]
    assert {name: end[name] for name in FIELDS if name not in ("callStart", "callConnected", "callEnd")} == {
        "sessionGuid": guid,
        "calledNumber": "7206999999",
        "callerId": caller.removeprefix("+1"),
        "callerIdName": "Ada Caller",
        "status": 0,
        "errorMessage": "No Errors",
        "outboundTriggered": False,
        "outboundCallResult": "N/A",
        "customerCallId": "CallId-001",
        "callReferredOut": False,
        "transfers": None,
        "logInformation": end["logInformation"],
        "transcription": end["transcription"],
    }
    logged = log_texts(end)
    assert logged[0] == "Logging Started."
    assert 'Tool Request: opening_hours {"day": "Monday"}' in logged
    [answer] = [line for line in logged if line.startswith("Tool Reply:")]
    found = re.fullmatch(r"Tool Reply: opening_hours 200 \d+ms (.*)", answer)
    assert found is not None
    assert json.loads(found.group(1)) == {"opens": "9:00", "unicode": "é"}
    assert "tool-token" not in got.body.decode()


def _check_recording(path: Path) -> None:
    """Caller left, agent right, neither in the other's channel, as long as they spoke."""
    left, right, rate_hz = recorded(path)
    assert rate_hz == 8_000
    for channel, frequency_hz, spoken_ms in ((left, CALLER_HZ, 1000), (right, AGENT_HZ, 1200)):
        loud = loud_part(channel)
        assert abs(peak_hz(loud) - frequency_hz) < NEAR_HZ
        assert abs(len(loud) / 8 - spoken_ms) <= 40
        assert share_at(loud, frequency_hz) > 0.8
    first_of_caller, first_of_agent = (int(np.argmax(abs(channel) > 1000)) for channel in (left, right))
    assert first_of_agent + 700 * 8 < first_of_caller  # the caller spoke after the greeting


PASSWORD = "Sesam öffne dich"
FIRST_BYTES = {"opus": (b"OggS",), "mp3": (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xe3")}


async def _decrypted(house: House, sealed: Path, folder: Path) -> Path:
    """What `switchhook recording decrypt` makes of a file: nothing with another password."""
    right, wrong, opened = folder / "right", folder / "wrong", folder / sealed.stem
    right.write_text(f"{PASSWORD}\n")
    wrong.write_text("Sesam\n")
    decrypt = ("recording", "decrypt", str(sealed), "-o", str(opened), "--password-file")
    code, told = await house.server.run(*decrypt, str(wrong))
    assert code == 1
    assert "Traceback" not in told
    assert not opened.exists()
    code, told = await house.server.run(*decrypt, str(right))
    assert code == 0, told
    return opened


@pytest.mark.parametrize(("suffix", "asked"), [("opus", {}), ("mp3", {"recordCallFormat": "mp3"})])
@pytest.mark.parametrize("password", [None, PASSWORD], ids=["open", "sealed"])
async def test_a_recording_in_the_format_that_was_asked_for(
    house: House, tmp_path: Path, suffix: str, asked: dict[str, str], password: str | None
) -> None:
    """Opus by default. With a password the file is no audio, and `switchhook recording decrypt` makes it one. Caller left."""
    async with Model() as model:
        house.answer_with(model, recordCall=True, **asked, **({"recordCallPassword": password} if password else {}))
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(agent_tone(1000), "Hello!")
            await talk.call.say(caller_tone(1000))
            await talk.call.ear.until(lambda: heard_tone(talk.call.ear.ulaw(), AGENT_HZ, 980), 20, "the greeting")
            await talk.call.hang_up()
    kept = await house.recording(talk.guid, f"{suffix}.enc" if password else suffix)
    assert kept.read_bytes().startswith(FIRST_BYTES[suffix]) != bool(password)
    opened = await _decrypted(house, kept, tmp_path) if password else kept
    assert opened.read_bytes().startswith(FIRST_BYTES[suffix])
    caller, agent, rate_hz = recorded(opened)
    for channel, own_hz, other_hz in ((caller, CALLER_HZ, AGENT_HZ), (agent, AGENT_HZ, CALLER_HZ)):
        loud = loud_part(channel, rate_hz)
        assert abs(len(loud) / rate_hz - 1.0) < 0.1
        assert abs(peak_hz(loud, rate_hz) - own_hz) < NEAR_HZ
        assert share_at(loud, other_hz, rate_hz) < 0.01


async def test_nothing_is_logged_or_recorded_unless_asked(house: House) -> None:
    """The flags' defaults: no log, no transcript, no file."""
    async with Model() as model:
        reply = house.answer_with(model)
        told = reply["VoiceElements_Instructions"]
        for name in ("logTranscription", "logToolCallRequests", "logToolCallReplies"):
            del told[name]
        async with house.talk(model, number="+17206999999") as talk:
            await talk.session.got("response.create")
            talk.session.speaks(agent_tone(100), "Hello!")
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    assert (end["logInformation"], end["transcription"], end["status"]) == (None, None, 0)
    assert not list((house.server.data_dir / "recordings").glob(f"*{talk.guid}*"))


@pytest.mark.parametrize("user", ["+17206999999", "17206999999", "7206999999"])
async def test_every_form_of_the_number_finds_it(house: House, user: str) -> None:
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model, number=user) as talk:
            await talk.call.hang_up()
        assert (await house.end_of(talk.guid))["calledNumber"] == "7206999999"


async def _call_with_a_24_khz_model(house: House, **phone: Any) -> str:
    """Both hear each other; gives the encoding that the caller heard."""
    async with Model() as model:
        reply = house.answer_with(model)
        for direction in ("input", "output"):
            reply["session"]["audio"][direction]["format"] = {"type": "audio/pcm", "rate": 24000}
        async with house.talk(model, **phone) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            session.speaks(pcm24_tone(AGENT_HZ, 800), "Hello!")
            await call.say(caller_tone(800))
            await session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 760, pcm24=True), "the caller's tone in 24 kHz")
            await call.ear.until(lambda: heard_tone(call.ear.ulaw(), AGENT_HZ, 760), 20, "the model's tone")
            await call.hang_up()
        await house.end_of(talk.guid)
    return call.ear.encoding


async def test_a_24_khz_model(house: House) -> None:
    """Both directions are transcoded when the line and the model differ."""
    assert await _call_with_a_24_khz_model(house) == "PCMU"


async def test_a_law_caller_with_a_24_khz_model(house: House) -> None:
    """The same for a line that speaks A-law alone."""
    assert await _call_with_a_24_khz_model(house, encodings=("PCMA",)) == "PCMA"


async def test_audio_from_before_the_model_was_ready_is_not_lost(house: House) -> None:
    """The caller speaks at once; the model's session takes a while to be ready."""
    async with Model() as model:
        model.update_gate.clear()
        house.answer_with(model)
        async with house.talk(model) as talk:
            await talk.call.say(caller_tone(600))
            model.update_gate.set()
            await talk.session.hears(lambda sound: heard_tone(sound, CALLER_HZ, 580), "what the caller said early")
            await talk.call.hang_up()
        await house.end_of(talk.guid)


async def test_the_transcript_is_told_live(house: House) -> None:
    """`transcriptionToolName`: phrase by phrase, in order, while the call lasts; the model never sees the replies."""
    async with Model() as model:
        house.answer_with(model, transcriptionToolName="phrase", defaultToolsUrlAdapter="/<<toolname>>/<<customerCallId>>")
        async with house.talk(model) as talk:
            session = talk.session
            await session.got("response.create")
            session.speaks(agent_tone(100), "Hello!")
            await house.backend.wait_for("/tools/phrase/CallId-001", 1)
            session.caller_spoke("Hi.")
            await house.backend.wait_for("/tools/phrase/CallId-001", 2)
            session.speaks(agent_tone(100), "How are you?")
            told = await house.backend.wait_for("/tools/phrase/CallId-001", 3)
            assert [(got.json["speaker"], got.json["text"]) for got in told] == [
                ("AI", "Hello!"),
                ("User", "Hi."),
                ("AI", "How are you?"),
            ]
            assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got.json["timestamp"]) for got in told)
            assert told[0].headers["Token"] == "tool-token"
            assert not session.sent("conversation.item.create")
            await talk.call.hang_up()
        await house.end_of(talk.guid)

"""Recordings as a customer fetches them from a running server: listed, downloaded, deleted, salvaged, purged, paused."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from switchhook.media.recording.encryption import decrypt
from tests.server.house import KEYPAD_NUMBER, House, Opener, Talk, ear_has
from tests.server.listening import (
    AGENT_HZ,
    CALLER_HZ,
    NEAR_HZ,
    agent_tone,
    caller_tone,
    heard_tone,
    linear,
    loud_part,
    peak_hz,
    recorded,
    share_at,
    speech,
)
from tests.server.model import Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

URL = "/api/customer/recordings"
TOKEN = {"Token": "secret-token"}
NOT_FOUND = (404, {"status": 404, "errorMessage": "Not found"})


async def ask(house: House, path: str = "", method: str = "GET", token: str = "secret-token") -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(house.server.http_url) as http,
        http.request(method, URL + path, headers={"Token": token}) as reply,
    ):
        return reply.status, await reply.json()


async def fetched(house: House, guid: str, target: Path) -> dict[str, str]:
    """Wait until the recording can be downloaded, and do it; gives the headers."""

    async def find() -> dict[str, str] | None:
        async with aiohttp.ClientSession(house.server.http_url) as http, http.get(f"{URL}/{guid}", headers=TOKEN) as reply:
            if reply.status == 404:
                return None
            assert reply.status == 200
            target.write_bytes(await reply.read())
            return dict(reply.headers)

    return await eventually(find, f"a recording of {guid}")


async def both_speak(talk: Talk) -> None:
    await talk.session.got("response.create")
    talk.session.speaks(agent_tone(1000), "Hello!")
    await talk.call.say(caller_tone(1000))
    await talk.call.ear.until(lambda: heard_tone(talk.call.ear.ulaw(), AGENT_HZ, 980), 20, "the greeting")


def check_tones(path: Path) -> None:
    caller, agent, rate_hz = recorded(path)
    assert abs(peak_hz(loud_part(caller, rate_hz), rate_hz) - CALLER_HZ) < NEAR_HZ
    assert abs(peak_hz(loud_part(agent, rate_hz), rate_hz) - AGENT_HZ) < NEAR_HZ


async def test_a_recording_from_the_call_to_its_deletion(house: House, tmp_path: Path) -> None:
    async with Model() as model:
        house.answer_with(model, recordCall=True)
        async with house.talk(model) as talk:
            assert await ask(house, f"/{talk.guid}") == NOT_FOUND
            await both_speak(talk)
            await talk.call.hang_up()
        end = await house.end_of(talk.guid)
    path = tmp_path / "sound.opus"
    headers = await fetched(house, talk.guid, path)
    check_tones(path)
    assert headers["Content-Type"] == "audio/ogg; codecs=opus"
    assert "X-Recording-Salvaged" not in headers
    status, listed = await ask(house, f"?customerCallId=CallId-001&from={end['callStart']}")
    assert status == 200
    [mine] = [recording for recording in listed if recording["sessionGuid"] == talk.guid]
    assert mine == {
        "sessionGuid": talk.guid,
        "customerCallId": "CallId-001",
        "callStart": end["callStart"],
        "callEnd": end["callEnd"],
        "format": "opus",
        "encrypted": False,
        "sizeBytes": path.stat().st_size,
        "salvaged": False,
    }
    assert await ask(house, f"/{talk.guid}", token="wrong") == (401, {"status": 401, "errorMessage": "Unauthorized"})
    assert await ask(house, f"/{talk.guid}", "DELETE") == (200, {"status": 0, "errorMessage": "Success"})
    assert await ask(house, f"/{talk.guid}", "DELETE") == NOT_FOUND
    assert await ask(house, f"/{talk.guid}") == NOT_FOUND
    assert not list((house.server.data_dir / "recordings").rglob(f"*{talk.guid}*"))


async def test_an_encrypted_recording_is_fetched_and_opened(house: House, tmp_path: Path) -> None:
    async with Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav", recordCallPassword="Sesam")
        async with house.talk(model) as talk:
            await both_speak(talk)
            await talk.call.hang_up()
    sealed, plain = tmp_path / "sound.enc", tmp_path / "sound.wav"
    headers = await fetched(house, talk.guid, sealed)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == f'attachment; filename="{talk.guid}.wav.enc"'
    plain.write_bytes(decrypt(sealed.read_bytes(), "Sesam"))
    check_tones(plain)


async def test_a_recording_that_is_deleted_during_its_call_leaves_nothing(house: House) -> None:
    folder = house.server.data_dir / "recordings"
    async with Model() as model:
        house.answer_with(model, recordCall=True)
        async with house.talk(model) as talk:

            async def spooled() -> bool:
                return (await ask(house, f"/{talk.guid}", "DELETE"))[0] == 200

            await eventually(spooled, "the recording is known")
            assert await ask(house, f"/{talk.guid}", "DELETE") == NOT_FOUND
            await both_speak(talk)
            await talk.call.hang_up()

        async def swept() -> bool:
            return not list(folder.rglob(f"*{talk.guid}*"))

        await eventually(swept, "nothing is left of the recording")
    assert await ask(house, f"/{talk.guid}") == NOT_FOUND


async def test_a_salvaged_recording_says_so_and_an_old_one_is_purged_at_the_start(tmp_path: Path, opener: Opener) -> None:
    async with opener(tmp_path) as house, Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        async with house.talk(model) as talk:
            await both_speak(talk)
            talk.session.speaks(speech(3000), "Still talking.")
            await ear_has(talk.call, 140)
            await house.server.kill()
        await house.server.start()
        path = tmp_path / "sound.wav"
        headers = await fetched(house, talk.guid, path)
        assert headers["X-Recording-Salvaged"] == "true"
        assert abs(peak_hz(loud_part(recorded(path)[0])) - CALLER_HZ) < NEAR_HZ
        [listed] = (await ask(house))[1]
        assert (listed["sessionGuid"], listed["salvaged"]) == (talk.guid, True)
        await house.server.stop()
        with contextlib.closing(sqlite3.connect(house.server.data_dir / "switchhook.db")) as database:
            # What a week does.
            database.execute("UPDATE recordings SET purge_at = '2026-01-01 00:00:00.000000'")
            database.commit()
        await house.server.start()
        assert await ask(house, f"/{talk.guid}") == NOT_FOUND

        async def purged() -> bool:
            return not list((house.server.data_dir / "recordings").rglob(f"*{talk.guid}*"))

        await eventually(purged, "the old recording is removed")
        assert await ask(house) == (200, [])


@pytest.mark.parametrize("prefix", ["vns_", ""])
async def test_the_agent_pauses_the_recording(house: House, tmp_path: Path, prefix: str) -> None:
    """What the caller says meanwhile is in the model's ear and not in the file, whose time goes on."""
    pause, resume = f"{prefix}recording_pause", f"{prefix}recording_resume"
    async with Model() as model:
        house.answer_with(model, [pause, resume], recordCall=True, recordCallFormat="wav")
        async with house.talk(model) as talk:
            session, call = talk.session, talk.call
            await session.got("response.create")
            await call.say(caller_tone(600))
            session.calls_tool("call_1", pause, {})
            assert "paused" in await session.output_of("call_1")
            await call.say(agent_tone(1000))
            await session.hears(lambda sound: share_at(loud_part(linear(sound)), AGENT_HZ) > 0.3, "the secret")
            session.calls_tool("call_2", resume, {})
            assert "recording" in await session.output_of("call_2")
            await call.say(caller_tone(600))
            await call.hang_up()
    path = tmp_path / "sound.wav"
    await fetched(house, talk.guid, path)
    _check_secret_is_missing(path, 2.2)


async def test_digits_are_not_in_the_recording_of_a_number_that_says_so(house: House, tmp_path: Path) -> None:
    async with Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="wav")
        async with house.talk(model, number=KEYPAD_NUMBER) as talk:
            await talk.session.got("response.create")
            await talk.call.say(caller_tone(600))
            await talk.call.press("4")
            await talk.call.say(agent_tone(1000))
            await talk.call.press("2")
            await talk.call.say(agent_tone(1000))
            await talk.call.say(b"\xff" * 8 * 2600, caller_tone(600))  # by then the silence around the digits is over
            await talk.call.hang_up()
    path = tmp_path / "sound.wav"
    await fetched(house, talk.guid, path)
    _check_secret_is_missing(path, 5.0)


def _check_secret_is_missing(path: Path, at_least_s: float) -> None:
    """The caller's first and last words are there, the tone between them is not, and the time is."""
    caller, _, rate_hz = recorded(path)
    assert len(caller) / rate_hz >= at_least_s
    loud = loud_part(caller, rate_hz)
    assert share_at(loud, CALLER_HZ, rate_hz) > 0.8
    assert share_at(loud, AGENT_HZ, rate_hz) < 0.05
    heard_at = np.flatnonzero(np.abs(caller) > 1000)
    gaps = np.diff(heard_at)
    assert gaps.max() / rate_hz > 0.9
    assert heard_at[0] + gaps.max() < heard_at[-1]

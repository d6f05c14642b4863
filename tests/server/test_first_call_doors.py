"""The server's other doors as users find them: our Realtime endpoint, the pages, the log, end webhooks that were given up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from switchhook.media.recording.encryption import decrypt
from tests.server.house import House, ear_has, open_house
from tests.server.listening import AGENT_HZ, CALLER_HZ, NEAR_HZ, agent_tone, caller_tone, loud_part, peak_hz, recorded, speech
from tests.server.model import Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKEN = "secret-token"


@pytest.mark.peer("flite")
async def test_the_typed_client_of_the_openai_package(house: House) -> None:
    """It speaks, calls a tool, truncates and cancels; the key is an account's token, and another key is refused with 401."""
    from openai import APIStatusError, AsyncOpenAI
    from websockets.exceptions import InvalidStatus

    from tests.agents.realtime.test_endpoint_openai import converse

    base = f"127.0.0.1:{house.server.media_port}/v1"
    await converse(base, TOKEN)
    stranger = AsyncOpenAI(api_key="sk-guess", base_url=f"http://{base}", websocket_base_url=f"ws://{base}")
    with pytest.raises((InvalidStatus, APIStatusError)) as refused:
        async with asyncio.timeout(20), stranger.realtime.connect(model="embedded"):
            pass
    assert "401" in str(refused.value)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing/here", 404),
        ("POST", "/healthz", 405),
        ("GET", "/v1/realtime", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/api/customer/nothing", 401),
        ("POST", "/api/customer/makecall", 401),
        ("PUT", "/metrics", 405),
    ],
)
async def test_doors_that_lead_nowhere(house: House, method: str, path: str, status: int) -> None:
    """JSON with the status and a word, in each contract's own shape, and nothing of the inside."""
    async with aiohttp.ClientSession() as http, http.request(method, house.server.http_url + path) as reply:
        assert reply.status == status
        told = json.loads(await reply.text())
        assert "Server" not in reply.headers
    assert (told.get("status") or told["error"]["status"]) == status


@pytest.mark.parametrize(("path", "body", "status"), [("makecall", b"{", 400), ("makecall", b"[]", 400), ("nothing", b"{}", 404)])
async def test_a_customer_who_is_known_but_wrong(house: House, path: str, body: bytes, status: int) -> None:
    url = f"{house.server.http_url}/api/customer/{path}"
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers={"tOKEN": TOKEN}) as reply:
        assert reply.status == status
        told = json.loads(await reply.text())
    assert told["status"] == status
    assert told["errorMessage"]


async def test_the_media_port_takes_no_plain_request(house: House) -> None:
    """Nor one without a token."""
    url = f"http://127.0.0.1:{house.server.media_port}"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/v1/realtime?model=embedded") as reply:
            assert reply.status in (400, 401, 426)
        async with http.get(f"{url}/nothing") as reply:
            assert reply.status in (400, 404)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{url}/v1/realtime?model=embedded")
        assert refused.value.status == 401


async def test_what_a_call_leaves_in_the_log_and_the_figures(house: House) -> None:
    """Each line is one JSON object; those of the call name it; the figures count it by its outcome."""
    before = await house.metrics()
    async with Model() as model:
        house.answer_with(model)
        guid = await house.short_call(model)
    await house.idle()
    lines = [json.loads(line) for line in house.server.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("call_id") == guid]
    assert mine
    assert {"time", "level", "logger", "message"} <= mine[0].keys()
    after = await house.metrics()
    for name in ("switchhook_calls_offered_total", "switchhook_calls_ended_total"):
        assert after[name] == before.get(name, 0) + 1
    await house.zero("rtp_ports_leased")


def _outbox(house: House, query: str, *values: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(house.server.data_dir / "switchhook.db")) as database:
        found = database.execute(query, values).fetchall()
        database.commit()
        return found


async def test_an_end_webhook_that_was_given_up_is_sent_again_when_asked(tmp_path: Path) -> None:
    """5 s to the second try; after the last one it is parked and listed; `webhook resend` sends the same bytes."""
    async with open_house(tmp_path) as house, Model() as model:
        house.answer_with(model)
        house.backend.end_statuses += [500, 503, 500]
        async with house.talk(model) as talk:
            await talk.call.hang_up()
        loop = asyncio.get_running_loop()
        await house.backend.wait_for("/callend", 1)
        first = loop.time()
        await house.backend.wait_for("/callend", 2)
        assert 4.5 < loop.time() - first < 25
        await house.server.stop()
        # What 72 hours of failures do.
        _outbox(house, "UPDATE outbox SET attempts = 77, next_attempt_at = '2026-01-01 00:00:00.000000'")
        await house.server.start()

        async def parked() -> bool:
            return _outbox(house, "SELECT state FROM outbox") == [("parked",)]

        await eventually(parked, "the end webhook is parked")
        _, told = await house.server.run("webhook", "parked")
        assert talk.guid in told
        assert "HTTP 500" in told
        assert (await house.server.run("webhook", "resend", talk.guid))[0] == 0
        assert (await house.server.run("webhook", "parked"))[1].strip() == "none"
        code, told = await house.server.run("webhook", "resend", talk.guid)
        assert (code, talk.guid in told) == (1, True)
        await house.server.stop()
        await house.server.start()
        await house.idle()
        bodies = [got.body for got in house.backend.of("/callend")]
    assert len(bodies) == 4
    assert len(set(bodies)) == 1


async def test_a_sealed_recording_is_saved_from_a_crash(tmp_path: Path) -> None:
    """kill -9 in the midst: what was said is in the encrypted mp3, the password opens it, and no plain sound lies on the disk."""
    async with open_house(tmp_path) as house, Model() as model:
        house.answer_with(model, recordCall=True, recordCallFormat="mp3", recordCallPassword="Sesam")
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(agent_tone(1000), "Hello!")
            await talk.call.say(caller_tone(1000))
            talk.session.speaks(speech(3000), "Still talking.")
            await ear_has(talk.call, 140)
            await house.server.kill()
        spooled = b"".join(path.read_bytes() for path in (house.server.data_dir / "recordings").rglob("*") if path.is_file())
        assert caller_tone(40) not in spooled
        await house.server.start()
        sealed = await house.recording(talk.guid, "mp3.enc")
        plain = tmp_path / "sound.mp3"
        plain.write_bytes(decrypt(sealed.read_bytes(), "Sesam"))
        caller, agent, rate_hz = recorded(plain)
        assert abs(peak_hz(loud_part(caller, rate_hz), rate_hz) - CALLER_HZ) < NEAR_HZ
        assert abs(peak_hz(loud_part(agent, rate_hz)[:rate_hz], rate_hz) - AGENT_HZ) < NEAR_HZ
        assert not list((house.server.data_dir / "recordings").rglob(f"*{talk.guid}*.mp3"))
        assert (await house.end_of(talk.guid))["status"] == 5

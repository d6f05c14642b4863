"""A canary for every secret: none may sing in a log, a webhook, a figure or a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchhook_demo.phone import CallRefusedError, Phone
from tests.peers.vns_backend import VnsBackend
from tests.server.canaries import DATABASE_PASSWORD, check_log, singing, singing_files, singing_rows, with_password
from tests.server.house import NUMBER, House, ear_has, house_config, open_house
from tests.server.listening import caller_tone, speech
from tests.server.model import Model
from tests.store.opening import PostgresDatabases, postgres_databases

pytestmark = pytest.mark.asyncio(loop_scope="session")

CANARIES = {
    name: f"canary-{name}-9f3c2ab7"
    for name in ("start", "end", "api", "trunk", "ai", "aiurl", "tool", "toolurl", "recording", "basic")
} | {"database": DATABASE_PASSWORD}


def _config(backend: VnsBackend) -> dict[str, Any]:
    content = house_config(backend)
    content["accounts"][0]["tokens"][0]["value"] = CANARIES["api"]
    pbx = {"name": "pbx", "account": "acme", "address": "sip:127.0.0.1:5071", "username": "u", "password": CANARIES["trunk"]}
    content["trunks"].append(pbx)
    for number in content["numbers"]:
        number["call_start"] = {**number["call_start"], "headers": {"Token": CANARIES["start"]}}
        number["call_end"] = {**number["call_end"], "headers": {"Authorization": f"Bearer {CANARIES['end']}"}}
    content["numbers"][1]["call_end"] = {
        "url": content["numbers"][0]["call_end"]["url"],
        "basic": {"username": "u", "password": CANARIES["basic"]},
    }
    return content


def _instruct(house: House, model: Model, url: str | None = None, tools_url: str | None = None) -> None:
    reply = house.answer_with(model, ["book"], recordCall=True, recordCallPassword=CANARIES["recording"])
    told = reply["VoiceElements_Instructions"]
    told["aiUrl"] = {"url": f"{url or model.url}&key={CANARIES['aiurl']}", "headers": {"Authorization": CANARIES["ai"]}}
    base = tools_url or f"{house.backend.url}/tools"
    told["defaultToolsUrlBase"] = {"url": f"{base}?key={CANARIES['toolurl']}", "headers": {"X-Key": CANARIES["tool"]}}


async def _good_call(house: House, model: Model) -> set[str]:
    """A call with a tool and a recording; gives the canaries that sang in files while it lived."""
    _instruct(house, model)
    async with house.talk(model) as talk:
        await talk.session.got("response.create")
        talk.session.speaks(speech(1500), "Hello!")
        await talk.call.say(caller_tone(1500))
        talk.session.calls_tool("call_1", "book", {"table": 1})
        await talk.session.output_of("call_1")
        await ear_has(talk.call, 75)
        sang = await asyncio.to_thread(singing_files, CANARIES, house.server.data_dir)
        await talk.call.hang_up()
    await house.recording(talk.guid, "opus.enc")
    await house.end_of(talk.guid)
    return sang


async def _bad_calls(house: House, model: Model) -> None:
    """Calls on which everything that holds a secret goes wrong."""
    _instruct(house, model, tools_url="http://127.0.0.1:9/tools")
    async with house.talk(model) as talk:
        await talk.session.got("response.create")
        talk.session.calls_tool("call_1", "book", {})
        await talk.session.output_of("call_1")
        talk.session.die()
        model.refuse_with = 401
        await talk.call.ended(20)
    await house.end_of(talk.guid)
    for url in ("ws://127.0.0.1:9/?x=1", "ws://nowhere.invalid/?x=1", "wss://10.1.2.3/?x=1", model.url):
        _instruct(house, model, url=url)
        await _ends_by_itself(house)
    house.backend.start_status = 500
    await _ends_by_itself(house)


async def _ends_by_itself(house: House) -> None:
    caller = house.new_caller()
    async with Phone(user=caller) as phone:
        call = await phone.dial(house.uri())
        try:
            await call.answered()
            await call.ended(20)
        except CallRefusedError:
            pass
    await house.end_of((await house.start_of(caller))["sessionGuid"])


async def _through_everything(house: House, model: Model) -> None:
    """Calls that work and calls on which everything fails; what is told outside is looked at here."""
    sang = await _good_call(house, model)
    await _bad_calls(house, model)
    got = house.backend.of("/tools")[0]
    assert (got.headers["X-Key"], CANARIES["toolurl"] in got.path) == (CANARIES["tool"], True)
    assert model.sessions[0].headers["Authorization"] == CANARIES["ai"]
    assert house.backend.of("/callstart")[0].headers["Token"] == CANARIES["start"]
    assert house.backend.of("/callend")[0].headers["Authorization"] == f"Bearer {CANARIES['end']}"
    for command in (("check",), ("webhook", "test", "+17206999999"), ("webhook", "parked")):
        _, told = await house.server.run(*command)
        assert singing(CANARIES, told.encode()) == []
    _, figures = await house.get("/metrics")
    assert singing(CANARIES, figures.encode()) == []
    assert [name for end in house.backend.of("/callend") for name in singing(CANARIES, end.body)] == []
    assert sang | singing_files(CANARIES, house.server.data_dir) == set()


async def test_no_secret_is_written_down_or_told(tmp_path: Path) -> None:
    """Through calls that work and calls on which everything fails, at debug level, with a wrong API token and password too."""
    async with open_house(tmp_path, _config, SWITCHHOOK_LOG_LEVEL="debug") as house, Model() as model:
        await _through_everything(house, model)
    check_log(CANARIES, house.server.log.read_bytes())


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


@pytest.mark.peer("postgresql")
async def test_no_secret_is_written_into_postgresql(tmp_path: Path, postgres: PostgresDatabases) -> None:
    """The same, with the rows of the database server; the password in its URL is told nowhere either."""
    url = await postgres.empty()
    settings = {"SWITCHHOOK_DATABASE_URL": with_password(url), "SWITCHHOOK_LOG_LEVEL": "debug"}
    async with open_house(tmp_path, _config, **settings) as house, Model() as model:
        await _through_everything(house, model)
        assert await singing_rows(CANARIES, url) == set()
        assert "number in calls" in await singing_rows({"number": NUMBER}, url), "the rows are read"
        assert not (house.server.data_dir / "switchhook.db").exists()
    check_log(CANARIES, house.server.log.read_bytes())

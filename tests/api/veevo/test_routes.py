"""`POST /api/phone-numbers` over real HTTP, against a real directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.app import HttpDoor, application
from switchhook.api.veevo.routes import BadRequest, read_registration, routes
from switchhook.domain.addresses import networks
from switchhook.domain.errors import DirectoryChanged
from switchhook.domain.model import Number
from switchhook.domain.records import AccountSettings, Directory, DirectoryUpdate
from switchhook.usecases.apply import Applier
from switchhook.usecases.number_desk import TRIES, NumberDesk
from tests.api.veevo.cases import VEEVO

NUMBER = "+15551234567"
ASKED = {
    "phoneNumber": NUMBER,
    "onCallStartUrl": "https://backend.example/calls/start",
    "onCallEndUrl": "https://backend.example/calls/end",
}


class MemoryDirectory:
    """Accounts `acme` and `other`."""

    def __init__(self) -> None:
        self.numbers: dict[str, Number] = {}
        self.writes = 0
        self.meanwhile: list[Callable[[], None]] = []
        """What another process does just before each write."""

    async def read(self) -> Directory:
        return Directory(
            {"acme": {}, "other": {}}, {}, dict(self.numbers), {name: AccountSettings(name) for name in ("acme", "other")}
        )

    async def write(self, changes: DirectoryUpdate) -> None:
        await asyncio.sleep(0)  # as long as any database takes
        if self.meanwhile:
            self.meanwhile.pop()()
        if changes.based_on not in (None, self.writes):
            raise DirectoryChanged
        self.writes += 1
        self.numbers |= {number.number: number for number in changes.numbers}

    async def version(self) -> int:
        return self.writes


@dataclass
class Door:
    url: str
    directory: MemoryDirectory
    refreshed: int = 0

    async def post(self, body: Any = ASKED, key: str | None = "rtk_acme") -> tuple[int, dict[str, Any]]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with aiohttp.ClientSession() as http, http.post(self.url, headers=headers, **data) as reply:
            return reply.status, await reply.json()


@asynccontextmanager
async def opened() -> AsyncIterator[Door]:
    directory = MemoryDirectory()
    door = Door("", directory)

    async def refresh() -> None:
        door.refreshed += 1

    desk = NumberDesk(directory, VEEVO, refresh)
    table = routes({"rtk_acme": "acme", "rtk_other": "other"}.get, desk, networks(["127.0.0.0/8"]))
    http = HttpDoor("127.0.0.1", 0, application([table]), grace_s=0.1)
    await http.start()
    door.url = f"http://127.0.0.1:{http.port}/api/phone-numbers"
    try:
        yield door
    finally:
        await http.stop()


async def test_a_number_is_registered_once() -> None:
    async with opened() as door:
        status, told = await door.post()
        assert (status, told["phoneNumber"], told["onCallEndUrl"]) == (201, NUMBER, ASKED["onCallEndUrl"])
        stored = door.directory.numbers[NUMBER]
        assert (stored.account, stored.contract) == ("acme", "veevo")
        assert stored.settings["on_call_start"]["url"] == ASKED["onCallStartUrl"]
        assert (await door.post())[0] == 200
        assert (door.directory.writes, door.refreshed) == (1, 1)


async def test_registered_again_it_gets_the_new_callbacks_and_keeps_the_rest() -> None:
    async with opened() as door:
        settings = VEEVO.read_number_settings(
            {"on_call_start": {"url": "https://a.example/"}, "on_call_end": {"url": "https://a.example/"}, "dialect": "newer"}
        )
        door.directory.numbers[NUMBER] = Number(NUMBER, "acme", "veevo", settings)
        short = {"phoneNumber": NUMBER, "onCallStart": "https://b.example/s", "onCallEnd": "http://127.0.0.1:9000/e"}
        assert (await door.post(short))[0] == 200
        stored = door.directory.numbers[NUMBER].settings
        assert (stored["on_call_end"]["url"], stored["dialect"]) == ("http://127.0.0.1:9000/e", "newer")


@pytest.mark.parametrize("key", [None, "", "rtk_wrong", "rtk_acmé"])
async def test_without_the_right_key_nothing_is_told(key: str | None) -> None:
    async with opened() as door:
        status, told = await door.post(key=key)
        assert (status, list(told)) == (401, ["error"])
        assert door.directory.writes == 0


async def test_a_number_that_is_not_free_stays_as_it_is() -> None:
    async with opened() as door:
        await door.post()
        status, told = await door.post(key="rtk_other")
        assert (status, "acme" in told["error"]) == (409, False)
        door.directory.numbers[NUMBER] = Number(NUMBER, "acme", "vns", {})
        assert (await door.post())[0] == 409
        assert door.directory.writes == 1


async def test_an_apply_file_has_the_last_word_on_whose_a_number_is() -> None:
    """A key cannot take what a file names for another account, and a file takes back what a key has taken."""
    file = f"""
accounts: [{{name: other}}]
numbers:
  - number: "{NUMBER}"
    account: other
    contract: veevo
    on_call_start: {{url: "https://o.example/s"}}
    on_call_end: {{url: "https://o.example/e"}}
"""
    async with opened() as door:
        assert (await door.post())[0] == 201
        applier = Applier(door.directory, {"veevo": VEEVO})
        await applier.apply(file)
        assert (await door.post())[0] == 409
        stored = door.directory.numbers[NUMBER]
        assert (stored.account, stored.settings["on_call_start"]["url"]) == ("other", "https://o.example/s")


async def test_a_number_that_another_server_registers_meanwhile_is_not_taken_from_it() -> None:
    async with opened() as door:

        def elsewhere() -> None:
            door.directory.numbers[NUMBER] = Number(NUMBER, "other", "veevo", {})
            door.directory.writes += 1

        door.directory.meanwhile = [elsewhere]
        assert (await door.post())[0] == 409
        assert door.directory.numbers[NUMBER].account == "other"


async def test_who_finds_the_configuration_changing_all_the_time_is_asked_to_come_again() -> None:
    async with opened() as door:

        def elsewhere() -> None:
            door.directory.writes += 1

        door.directory.meanwhile = [elsewhere] * TRIES
        assert (await door.post())[0] == 503
        assert (await door.post())[0] == 201


async def test_of_two_accounts_that_ask_at_one_time_one_gets_the_number() -> None:
    async with opened() as door:
        answers = await asyncio.gather(door.post(key="rtk_acme"), door.post(key="rtk_other"))
        assert sorted(status for status, _ in answers) == [201, 409]
        assert door.directory.writes == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"phoneNumber": None}, "phoneNumber"),
        ({"phoneNumber": "5551234567"}, "phoneNumber"),
        ({"phoneNumber": "+442079460000"}, "phoneNumber"),
        ({"phoneNumber": "+1555123456"}, "phoneNumber"),
        ({"phoneNumber": "+18765551212"}, "phoneNumber"),
        ({"phoneNumber": "+14165551212"}, "phoneNumber"),
        ({"onCallStartUrl": ""}, "onCallStartUrl"),
        ({"onCallStartUrl": 7}, "onCallStartUrl"),
        ({"onCallEndUrl": "ftp://backend.example/"}, "onCallEndUrl"),
        ({"onCallEndUrl": "http://backend.example/"}, "onCallEndUrl"),
        ({"onCallEndUrl": "http://10.0.0.1/"}, "onCallEndUrl"),
    ],
)
async def test_a_bad_field_is_named(change: dict[str, Any], field: str) -> None:
    async with opened() as door:
        status, told = await door.post({**ASKED, **change})
        assert status == 400
        assert told["error"].startswith(f"{field}: ")
        assert door.directory.writes == 0


async def test_a_body_that_is_no_object_is_refused() -> None:
    async with opened() as door:
        assert (await door.post(b"<"))[0] == 400
        assert (await door.post([1]))[0] == 400


@given(st.binary())
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_registration(body)

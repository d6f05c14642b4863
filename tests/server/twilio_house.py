"""A house whose calls come over Twilio: the service beside it, and public addresses that lead to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.server import Server
from tests.peers.twilio_party import Party
from tests.peers.twilio_service import CarriedCall, TwilioService
from tests.peers.vns_backend import VnsBackend
from tests.server.house import NUMBER, House, house_config, open_house
from tests.server.model import LiveSession, Model

PUBLIC = "https://voice.example.com"
PUBLIC_MEDIA = "wss://media.example.com"
PUBLIC_SETTINGS: Mapping[str, str] = {"SWITCHHOOK_PUBLIC_URL": PUBLIC, "SWITCHHOOK_PUBLIC_MEDIA_URL": PUBLIC_MEDIA}


@dataclass(frozen=True)
class TwilioTalk:
    """A call under way."""

    call: CarriedCall
    session: LiveSession
    guid: str

    @property
    def party(self) -> Party:
        """Who is on the telephone."""
        return self.call.party


@dataclass(frozen=True)
class TwilioHouse:
    """A running server, its customer, and Twilio."""

    house: House
    twilio: TwilioService

    @asynccontextmanager
    async def talk(
        self, model: Model, caller: str = "", number: str = NUMBER, name: str | None = None
    ) -> AsyncIterator[TwilioTalk]:
        """A call that is answered and whose model session is open; whoever has not hung up at the end does."""
        caller = caller or self.house.new_caller()
        count = len(model.sessions) + 1
        call = self.twilio.ring(caller, number, name)
        try:
            session = await model.session(count)
            await session.got("session.update")
            await self.twilio.until(lambda: call.streams, "a media stream")
            yield TwilioTalk(call, session, (await self.house.start_of(caller))["sessionGuid"])
        finally:
            call.party.hang_up()
        await call.party.ended()

    async def hears(self, party: Party, found: Callable[[bytes], bool], what: str) -> None:
        """Wait until what the party heard so far satisfies a condition."""
        await party.until(lambda: found(bytes(party.heard)), what)


def twilio_config(backend: VnsBackend, twilio: TwilioService) -> dict[str, Any]:
    """The house's numbers, of an account that has Twilio credentials and no trunk."""
    return over_twilio(house_config(backend), twilio)


def over_twilio(content: dict[str, Any], twilio: TwilioService) -> dict[str, Any]:
    """The same without trunks, the first account's calls carried by Twilio."""
    content["trunks"] = []
    pair = {"account_sid": twilio.account_sid, "auth_token": twilio.auth_token, "rest_base_url": twilio.url}
    content["accounts"][0]["twilio"] = pair
    return content


def lead(twilio: TwilioService, server: Server, voice: str = "/voice", status: str | None = "/twilio/status") -> None:
    """The public addresses lead to this server; Twilio asks it at `voice` and tells it at `status`, if anywhere."""
    twilio.routes = {PUBLIC: server.http_url, PUBLIC_MEDIA: f"http://127.0.0.1:{server.media_port}"}
    twilio.voice_url, twilio.status_url = PUBLIC + voice, status and PUBLIC + status


@asynccontextmanager
async def open_twilio_house(
    folder: Path,
    settings: Mapping[str, str] = {},
    content: Callable[[VnsBackend, TwilioService], dict[str, Any]] = twilio_config,
) -> AsyncIterator[TwilioHouse]:
    """A house of its own for a test."""
    async with TwilioService() as twilio:
        made = lambda backend: content(backend, twilio)  # noqa: E731
        async with open_house(folder, made, **PUBLIC_SETTINGS, **settings) as house:
            lead(twilio, house.server, "/twilio/voice")
            yield TwilioHouse(house, twilio)
            for call in list(twilio.calls.values()):
                call.party.hang_up()
            if house.server.process is not None:
                await asyncio.wait_for(house.quiet(), 30)

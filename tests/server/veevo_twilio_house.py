"""A Veevo customer's server whose calls come over Twilio; the account at Twilio is the one which each reply names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from switchhook_demo.phone import Call, Phone
from tests.peers.server import Server
from tests.peers.twilio_service import TwilioService
from tests.peers.veevo_backend import VeevoBackend
from tests.server.model import Model
from tests.server.twilio_house import PUBLIC, PUBLIC_MEDIA
from tests.server.twilio_phone import PartyCall
from tests.server.veevo_house import CANARIES, NUMBER, VeevoHouse, content, reply


@dataclass
class VeevoHouseOverTwilio(VeevoHouse):
    """As a house on a SIP trunk, but for how telephones reach it."""

    twilio: TwilioService = field(kw_only=True)

    async def dial(self, telephone: Phone, number: str = NUMBER) -> Call:
        """Who has this telephone calls, by way of Twilio; its own line stays unused."""
        return cast(Call, self.ring(telephone.user, number))

    def ring(self, caller: str, number: str = NUMBER) -> PartyCall:
        """The same for who has no other telephone."""
        said = self.backend.start_reply
        if isinstance(said, dict) and said.get("twilioAccountSid") and said.get("twilioAuthToken"):
            self.twilio.account_sid, self.twilio.auth_token = said["twilioAccountSid"], said["twilioAuthToken"]
        carried = self.twilio.ring(caller, number)
        return PartyCall(self.twilio, carried.party, carried)

    def leave(self) -> None:
        """Whoever has not hung up does."""
        for call in self.twilio.calls.values():
            call.party.hang_up()


def _without_trunk(backend: VeevoBackend, model: Model) -> dict[str, Any]:
    return content(backend, model) | {"trunks": []}


@asynccontextmanager
async def open_veevo_over_twilio(folder: Path, **settings: str) -> AsyncIterator[VeevoHouseOverTwilio]:
    """A house of its own for a test."""
    async with TwilioService() as twilio, Model() as model, VeevoBackend(CANARIES["secret"], reply()) as backend:
        public = {"SWITCHHOOK_PUBLIC_URL": PUBLIC, "SWITCHHOOK_PUBLIC_MEDIA_URL": PUBLIC_MEDIA}
        more = {"SWITCHHOOK_TWILIO_REST_URL": twilio.url, "SWITCHHOOK_DRAIN_S": "1", "SWITCHHOOK_MEDIA_TIMEOUT_S": "5"}
        async with Server(folder, _without_trunk(backend, model), **public, **more, **settings) as server:
            twilio.routes = {PUBLIC: server.http_url, PUBLIC_MEDIA: f"http://127.0.0.1:{server.media_port}"}
            twilio.voice_url, twilio.status_url = f"{PUBLIC}/voice", f"{PUBLIC}/twilio/status"
            house = VeevoHouseOverTwilio(server, backend, model, twilio=twilio)
            yield house
            house.leave()

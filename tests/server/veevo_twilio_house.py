"""A Veevo customer's server whose calls come over Twilio; the account at Twilio is the one which each reply names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from switchhook_demo.phone import Call, Phone
from tests.peers.server import Server
from tests.peers.twilio_service import TwilioService
from tests.peers.veevo_backend import VeevoBackend
from tests.server.model import Model
from tests.server.twilio_house import PUBLIC_SETTINGS, lead
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

    def prove_calls(self) -> None:
        """The reply names the account of Twilio by which calls come."""
        self.backend.start_reply |= {"twilioAccountSid": self.twilio.account_sid, "twilioAuthToken": self.twilio.auth_token}

    async def leave(self) -> None:
        """Whoever has not hung up does. Then Twilio has told of every end, by the pair that the call had."""
        calls = list(self.twilio.calls.values())
        for call in calls:
            call.party.hang_up()
        for call in calls:
            await call.party.ended()


def without_trunk(backend: VeevoBackend, model: Model) -> dict[str, Any]:
    """The account has a pair for Twilio; those of the replies are others."""
    return content(backend, model) | {"trunks": []}


def without_pair(backend: VeevoBackend, model: Model) -> dict[str, Any]:
    """All credentials come with the call."""
    made = without_trunk(backend, model)
    del made["accounts"][0]["twilio"]
    return made


Made = Callable[[VeevoBackend, Model], dict[str, Any]]
"""What the server's apply file holds."""


@asynccontextmanager
async def open_veevo_over_twilio(
    folder: Path, made: Made = without_trunk, /, status: str | None = "/twilio/status", **settings: str
) -> AsyncIterator[VeevoHouseOverTwilio]:
    """A house of its own for a test; Twilio tells of its calls at `status`, if anywhere."""
    async with TwilioService() as twilio, Model() as model, VeevoBackend(CANARIES["secret"], reply()) as backend:
        more = {"SWITCHHOOK_TWILIO_REST_URL": twilio.url, "SWITCHHOOK_DRAIN_S": "1", "SWITCHHOOK_MEDIA_TIMEOUT_S": "5"}
        async with Server(folder, made(backend, model), **PUBLIC_SETTINGS, **more, **settings) as server:
            lead(twilio, server, status=status)
            house = VeevoHouseOverTwilio(server, backend, model, twilio=twilio)
            yield house
            await house.leave()

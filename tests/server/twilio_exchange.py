"""An exchange whose callers come over Twilio and whose transfers Twilio carries out.

It serves tests that ask for a house or an exchange and do not know how their caller reaches it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from switchhook_demo.phone import Phone
from tests.peers.party import Party
from tests.peers.ports import free_port
from tests.peers.twilio_service import TwilioService
from tests.peers.vns_backend import VnsBackend
from tests.server.exchange import CALLED, Exchange, exchange_config
from tests.server.house import numbers_with_settings
from tests.server.twilio_house import open_twilio_house, over_twilio
from tests.server.twilio_phone import TwilioDestination, TwilioPhone

BUSY = (486, 503, 600)


@dataclass
class ExchangeOverTwilio(Exchange):
    """As an exchange on a SIP trunk, but for how telephones reach it."""

    twilio: TwilioService = field(kw_only=True)
    cut_slack_frames: ClassVar[int] = 5  # so much may be played while `clear` is on its way to a carrier on a busy machine

    def phone(self, user: str, **options: Any) -> Phone:
        """Somebody at Twilio."""
        return cast(Phone, TwilioPhone(self.twilio, user, **options))

    def refusal(self, status: int) -> int:
        """`<Reject>` has two reasons, busy and rejected; the telephone tells them as 486 and 603."""
        return 486 if status in BUSY else 603

    def party_caller(self, host: str = "127.0.0.1") -> Party:
        """Somebody at Twilio who calls us."""
        return cast(Party, TwilioPhone(self.twilio, self.new_caller()))

    def party(self, user: str = CALLED, answers: bool = False, second: bool = False) -> Party:
        """Whom Twilio reaches at a number."""
        return cast(Party, TwilioDestination(self.twilio, user, answers))


def _config(backend: VnsBackend, twilio: TwilioService) -> dict[str, Any]:
    """Every number that a house or an exchange has, and the API tokens of both."""
    content = exchange_config(backend, free_port(), free_port())
    content["accounts"][0]["tokens"].append({"name": "house", "value": "secret-token"})
    content["numbers"] += numbers_with_settings(content["numbers"][0])
    return over_twilio(content, twilio)


@asynccontextmanager
async def open_exchange_over_twilio(folder: Path, **settings: str) -> AsyncIterator[ExchangeOverTwilio]:
    """An exchange of its own for a test."""
    async with open_twilio_house(folder, settings, _config) as there:
        yield ExchangeOverTwilio(there.house.server, there.house.backend, twilio=there.twilio)

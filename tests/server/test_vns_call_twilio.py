"""One suite, two legs: what the VNS contract promises of a call over SIP holds of a call over Twilio, in the very same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_asyncio

from switchhook_demo.phone import Call
from switchhook_demo.rtp_line import Heard
from switchhook_demo.sound import loudness
from tests.peers.twilio_party import FRAME, Party
from tests.peers.twilio_service import TwilioService
from tests.server.house import NUMBER, House, Talk, ear_has
from tests.server.listening import FRAME_MS, frames_heard, of_turn, speech
from tests.server.model import Model
from tests.server.test_failures import (  # noqa: F401 - collected here for the other leg
    test_a_failed_tool_does_not_end_the_talk,
    test_a_model_that_dies_is_tried_once_more,
)
from tests.server.test_recordings_api import (  # noqa: F401
    test_a_recording_from_the_call_to_its_deletion,
    test_a_recording_that_is_deleted_during_its_call_leaves_nothing,
    test_an_encrypted_recording_is_fetched_and_opened,
)
from tests.server.test_turns import (  # noqa: F401
    _interrupted_turn,
    test_a_tool_outlives_an_interruption_and_the_call,
    test_interruptions_can_be_switched_off,
    test_the_farewell_is_heard_in_full,
    test_tools_of_the_gateway,
)
from tests.server.test_vns_call import (  # noqa: F401
    test_a_recording_in_the_format_that_was_asked_for,
    test_a_whole_call,
    test_audio_from_before_the_model_was_ready_is_not_lost,
    test_every_form_of_the_number_finds_it,
    test_nothing_is_logged_or_recorded_unless_asked,
    test_the_transcript_is_told_live,
)
from tests.server.twilio_house import open_twilio_house

pytestmark = pytest.mark.asyncio(loop_scope="session")


class PartyCall:
    """A party at Twilio, with the words of a telephone."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self.ear = self

    @property
    def packets(self) -> list[Heard]:
        """All that was heard, in frames of 20 ms."""
        sound = self.ulaw()
        frames = [sound[at : at + FRAME] for at in range(0, len(sound), FRAME)]
        return [Heard(at * 0.02, at, at * FRAME, False, frame, loudness(frame)) for at, frame in enumerate(frames)]

    def ulaw(self) -> bytes:
        """All that was heard."""
        return bytes(self._party.heard)

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition on what was heard."""
        await self._party.until(condition, what, timeout_s)

    async def say(self, sound: bytes) -> None:
        """Speak."""
        self._party.say(sound)

    async def ended(self, timeout_s: float) -> str:
        """Wait until the far side hangs up."""
        await self._party.ended(timeout_s)
        return "them"

    async def hang_up(self) -> None:
        """Put the receiver down."""
        self._party.hang_up()
        await self._party.ended()


class HouseOverTwilio(House):
    """A house whose callers come over Twilio."""

    twilio: TwilioService

    @asynccontextmanager
    async def talk(self, model: Model, caller: str = "", number: str = NUMBER, **phone: Any) -> AsyncIterator[Talk]:
        """As over SIP."""
        caller = caller or self.new_caller()
        count = len(model.sessions) + 1
        call = self.twilio.ring(caller, number, phone.get("display_name"))
        try:
            session = await model.session(count)
            await session.got("session.update")
            yield Talk(cast(Call, PartyCall(call.party)), session, (await self.start_of(caller))["sessionGuid"])
        finally:
            call.party.hang_up()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def twilio_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HouseOverTwilio]:
    """Lives as long as this module's tests."""
    async with open_twilio_house(tmp_path_factory.mktemp("twilio"), {"SWITCHHOOK_DRAIN_S": "1"}) as there:
        house = HouseOverTwilio(there.house.server, there.house.backend)
        house.twilio = there.twilio
        yield house


@pytest_asyncio.fixture(loop_scope="session")
async def house(twilio_house: HouseOverTwilio) -> HouseOverTwilio:
    """The customer's backend as new."""
    backend = twilio_house.backend
    backend.requests.clear()
    backend.start_status, backend.start_reply = 200, {}
    backend.tool_reply = lambda got: {"ok": True}
    return twilio_house


async def test_an_interrupted_reply_is_cut_where_it_was_heard(house: House) -> None:
    """At several offsets: what was heard is a clean beginning, and truncate says its length, by Twilio's marks. One more frame
    may have been played while `clear` was on its way."""
    offsets_ms = (0, 20, 130, 470, 1010)
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            call, session = talk.call, talk.session
            await session.got("response.create")
            items = [await _interrupted_turn(session, call, turn, ms) for turn, ms in enumerate(offsets_ms, start=1)]
            last = len(offsets_ms) + 1
            session.speaks(speech(200, last), "At your service.")
            await ear_has(call, 10, last)
            await call.hang_up()
    heard = frames_heard(call.ear.packets)
    assert heard == sorted(heard)  # no frame twice, none of an earlier turn after a later one
    truncations = session.sent("conversation.item.truncate")
    assert [event["item_id"] for event in truncations] == items
    for turn, event in enumerate(truncations, start=1):
        frames = of_turn(call.ear.packets, turn)
        assert frames == list(range(len(frames)))
        assert abs(event["audio_end_ms"] - len(frames) * FRAME_MS) <= 2 * FRAME_MS, (turn, event, len(frames))

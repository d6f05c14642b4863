"""One suite, two legs: what the VNS contract promises of a call over SIP holds of a call over Twilio, in the very same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server import (
    test_agent_races,
    test_capacity,
    test_event_orders,
    test_failures,
    test_recordings_api,
    test_restart,
    test_transfers,
    test_turns,
    test_vns_call,
)
from tests.server.house import Opener
from tests.server.one_suite import both_legs, left_out_in_vain
from tests.server.twilio_exchange import ExchangeOverTwilio, open_exchange_over_twilio

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE_LEG = {
    "test_a_law_caller_with_a_24_khz_model": "Media Streams speak µ-law alone",
    "test_keys_that_come_by_events_and_by_info_count_once": "SIP has two ways of telling a key, Media Streams have one",
    "test_a_source_that_no_trunk_allows_hears_nothing": "a signature proves who calls over Twilio: test_twilio_call",
    "test_d_a_briefing_has_sixty_seconds": "no line takes part",
    "test_a_blind_transfer_to_a_telephone": "of a SIP telephone; over Twilio the sound of a blind transfer never reaches us",
    "test_a_transfer_that_fails_returns_to_the_agent": "tells statuses of SIP; its like is in test_twilio_transfers",
    "test_a_carrier_says_busy": "of a SIP carrier; its like is in test_twilio_transfers",
    "test_destinations_that_ring_on": "Twilio stops ringing by itself; its like is in test_twilio_transfers",
    "test_keys_hold_and_hang_up_of_two_who_were_put_through": "Media Streams have no hold, and keys of a `<Dial>` are Twilio's",
    "test_what_the_destination_plays_before_it_answers_is_heard": "Media Streams have no early media",
    "test_the_caller_gives_up_while_it_rings": "the ringback is Twilio's; its like is in test_twilio_transfers",
    "test_the_number_for_the_case_that_the_agent_fails": "the ringback is Twilio's; but for it this is test_e_the_model_refuses",
    "test_a_party_that_we_called_is_put_through": "one telephone has two numbers; calls out are in test_twilio_transfers",
    "test_kill_9_after_the_acknowledgement": "of the outbox, no line takes part",
    "test_a_customer_who_fails_gets_the_same_bytes_again": "of the outbox, no line takes part",
    "test_a_salvaged_recording_says_so_and_an_old_one_is_purged_at_the_start": "of files, as test_kill_9_in_the_middle_of_a_call",
    "test_a_spool_that_no_encoder_takes_stops_nobody": "of files, no line takes part",
    "test_a_reply_in_odd_pieces_is_one_even_tone": "Media Streams have no packets whose time can be told",
}
"""Tests that know their leg, and why."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ExchangeOverTwilio]:
    """Lives as long as this module's tests."""
    folder = tmp_path_factory.mktemp("twilio")
    async with open_exchange_over_twilio(folder, SWITCHHOOK_DRAIN_S="1", SWITCHHOOK_MEDIA_TIMEOUT_S="5") as exchange:
        yield exchange


@pytest_asyncio.fixture(loop_scope="session")
async def exchange(shared_exchange: ExchangeOverTwilio) -> AsyncIterator[ExchangeOverTwilio]:
    """The shared one."""
    async with shared_exchange.as_new():
        yield shared_exchange


@pytest_asyncio.fixture(loop_scope="session")
async def house(exchange: ExchangeOverTwilio) -> ExchangeOverTwilio:
    """A house is an exchange that calls nobody."""
    return exchange


@pytest.fixture
def opener() -> Opener:
    """Opens an exchange of its own for a test."""
    return open_exchange_over_twilio


TALK = (test_vns_call, test_turns, test_agent_races, test_event_orders, test_transfers, test_recordings_api)
SUITE = (*TALK, test_failures, test_capacity, test_restart)
globals().update(both_legs(ONE_LEG, *SUITE))


async def test_no_test_is_left_out_in_vain() -> None:
    assert left_out_in_vain(ONE_LEG, *SUITE) == set()

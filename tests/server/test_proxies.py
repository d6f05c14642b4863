"""A server behind a reverse proxy: whose word counts for the address under which requests were signed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from twilio.request_validator import RequestValidator

from tests.server.rest_house import ACCOUNT_PAIR, CALL_PAIRS, NUMBER, RestHouse, basic, open_house
from tests.server.twilio_house import PUBLIC, PUBLIC_MEDIA

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"
OUTSIDE = "https://calls.acme.example"
FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "calls.acme.example"}
_sids = (f"CA{number:032x}" for number in itertools.count(1 << 64))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    """It knows its proxy, and not its own public address."""
    async with open_house(tmp_path_factory.mktemp("bare"), SWITCHHOOK_TRUSTED_PROXIES=f"{PROXY}/32") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def named(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    """It knows its public addresses, and its proxy."""
    proxies = {"SWITCHHOOK_TRUSTED_PROXIES": f"{PROXY}/32"}
    async with open_house(tmp_path_factory.mktemp("named"), ACCOUNT_PAIR, **proxies) as opened:
        yield opened


def from_address(address: str, **headers: str) -> aiohttp.ClientSession:
    """A client whose requests come from this address."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0)), headers=headers)


async def voice(house: RestHouse, source: str, signed_url: str, headers: dict[str, str], path: str = "/voice") -> int:
    """Ask what to do with a call to a number of nobody's, signed as Twilio signs for that address; gives the HTTP status."""
    form = {"CallSid": next(_sids), "AccountSid": ACCOUNT_PAIR[0], "To": "+17205550001", "From": "+19805551234"}
    form |= {"Direction": "inbound", "CallStatus": "ringing"}
    signature = RequestValidator(ACCOUNT_PAIR[1]).compute_signature(signed_url, form)
    signed = {**headers, "X-Twilio-Signature": signature}
    async with from_address(source) as http, http.post(house.server.http_url + path, data=form, headers=signed) as reply:
        text = await reply.text()
    assert ("<Reject" in text) == (reply.status == 200)
    return reply.status


@pytest.mark.parametrize("path", ["/voice", "/twilio/voice"])
async def test_forwarded_headers_count_from_a_trusted_proxy_alone(bare: RestHouse, path: str) -> None:
    asked = bare.server.http_url
    assert await voice(bare, PROXY, OUTSIDE + path, FORWARDED, path) == 200
    assert await voice(bare, PROXY, asked + path, FORWARDED, path) == 403, "the proxy says otherwise"
    assert await voice(bare, PROXY, asked + path, {}, path) == 200, "a proxy that says nothing"
    assert await voice(bare, STRANGER, OUTSIDE + path, FORWARDED, path) == 403, "nobody believes a stranger"
    assert await voice(bare, STRANGER, asked + path, FORWARDED, path) == 200, "his headers are passed over"


async def test_each_forwarded_header_counts_by_itself(bare: RestHouse) -> None:
    host = f"127.0.0.1:{bare.server.http_port}"
    assert await voice(bare, PROXY, f"https://{host}/voice", {"X-Forwarded-Proto": "https"}) == 200
    assert await voice(bare, PROXY, "http://calls.acme.example/voice", {"X-Forwarded-Host": "calls.acme.example"}) == 200
    chain = {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "calls.acme.example, inner.example"}
    assert await voice(bare, PROXY, f"{OUTSIDE}/voice", chain) == 200, "of a chain of proxies the outermost counts"


async def test_the_public_address_of_the_settings_beats_every_header(named: RestHouse) -> None:
    for source in (PROXY, STRANGER):
        for headers in ({}, FORWARDED):
            assert await voice(named, source, f"{PUBLIC}/voice", headers) == 200
            assert await voice(named, source, f"{OUTSIDE}/voice", headers) == 403
            assert await voice(named, source, f"{named.server.http_url}/voice", headers) == 403


@pytest.mark.parametrize(("source", "believed"), [(PROXY, True), (STRANGER, False)])
async def test_addresses_that_are_given_out_begin_as_the_client_asked(bare: RestHouse, source: str, believed: bool) -> None:
    """The recording's address in its callback."""
    bare.customer.got.clear()
    async with bare.talk() as (_, _, sid):
        url = f"{bare.server.http_url}/2010-04-01/Accounts/{ACCOUNT_PAIR[0]}/Calls/{sid}/Recordings.json"
        order = {
            "RecordingStatusCallback": f"{bare.customer.url}/recorded",
            "RecordingStatusCallbackEvent": "in-progress",
        }
        async with from_address(source, **basic(*ACCOUNT_PAIR)) as http, http.post(url, data=order, headers=FORWARDED) as reply:
            assert reply.status == 201, await reply.text()
        [form] = await bare.customer.asked("recorded")
    origin = OUTSIDE if believed else bare.server.http_url
    assert form["RecordingUrl"].startswith(f"{origin}/2010-04-01/Accounts/{ACCOUNT_PAIR[0]}/Recordings/RE")


async def test_both_voice_doors_are_one(named: RestHouse) -> None:
    assert named.twilio is not None
    async with named.ring() as (call, _):
        again = [await named.twilio.ask(call, f"{PUBLIC}{path}") for path in ("/voice", "/twilio/voice")]
        assert again == [(200, call.twiml[0])] * 2
        assert [got.json["callSid"] for got in named.backend.of("start")].count(call.sid) == 1


async def handshake(house: RestHouse, signature: str | None, source: str = STRANGER) -> int:
    """The HTTP status of a media stream's handshake; 101 when it was taken."""
    url = f"http://127.0.0.1:{house.server.media_port}/twilio/media"
    headers = {**FORWARDED, **({"X-Twilio-Signature": signature} if signature is not None else {})}
    async with from_address(source) as http:
        try:
            async with http.ws_connect(url, headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def test_a_media_handshake_must_bear_the_signature_of_its_public_address(named: RestHouse) -> None:
    def signed(url: str, auth_token: str = ACCOUNT_PAIR[1]) -> str:
        return str(RequestValidator(auth_token).compute_signature(url, {}))

    good = f"{PUBLIC_MEDIA}/twilio/media"
    async with named.ring() as (call, session):
        for source in (PROXY, STRANGER):
            assert await handshake(named, signed(good), source) == 101
            assert await handshake(named, None, source) == 403
            assert await handshake(named, "A" * 28, source) == 403
            for wrong in (
                f"ws://127.0.0.1:{named.server.media_port}/twilio/media",
                good.replace("wss:", "https:"),
                "wss://calls.acme.example/twilio/media",
                f"{PUBLIC_MEDIA}/v1/realtime",
            ):
                assert await handshake(named, signed(wrong), source) == 403, wrong
            assert await handshake(named, signed(good, CALL_PAIRS[0][1]), source) == 403, "the token of nobody who is live"
        assert not session.closed
        assert call.status == "in-progress", "whoever knocked did not disturb the call"


async def test_no_number_of_a_stranger_is_reached_with_the_token_of_another_account(named: RestHouse, tmp_path: Path) -> None:
    """A request that names one account and is signed by another is nobody's."""
    assert named.twilio is not None
    form = {"CallSid": next(_sids), "AccountSid": ACCOUNT_PAIR[0], "To": NUMBER, "From": "+19805551234", "Direction": "inbound"}
    signature = RequestValidator("of-somebody-else").compute_signature(f"{PUBLIC}/voice", form)
    starts = len(named.backend.of("start"))
    headers = {"X-Twilio-Signature": signature}
    async with from_address(PROXY) as http, http.post(f"{named.server.http_url}/voice", data=form, headers=headers) as reply:
        assert reply.status == 403
    assert len(named.backend.of("start")) == starts

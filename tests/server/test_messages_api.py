"""Text messages as a customer asks a running server for them, with a strict stand-in of Twilio behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.peers.twilio_messages import ACCOUNT_SID, AUTH_TOKEN, Texted, TwilioMessages
from tests.peers.vns_backend import VnsBackend
from tests.server.house import NUMBER, House, house_config, open_house

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLAIN = "secret-token"
"""The API token of the account that may send."""
OUTDATED = "token-of-outdated"
"""The same of one whose Twilio token is wrong."""
OUTDATED_NUMBER = "+17206999990"
RECIPIENT = "+17205551212"
OPTED_OUT = "+17205551213"
TEXT = "Your order is ready: 5 € – thanks & bye"


@dataclass(frozen=True)
class Desk:
    """A running server and its provider of messages."""

    house: House
    twilio: TwilioMessages

    async def ask(self, token: str | None = PLAIN, **fields: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """POST sms; gives status, body and headers."""
        return await post(self.house, token, **fields)

    async def refused(self, status: int, **fields: Any) -> str:
        """A request that must fail so, with nothing sent; gives the message for people."""
        got, told, _ = await self.ask(**fields)
        assert (got, told["status"]) == (status, status), told
        assert not self.twilio.taken
        return str(told["errorMessage"])


async def post(house: House, token: str | None, **fields: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    """As a customer's backend does."""
    body = {"from": "7206999999", "to": "(720) 555-1212", "message": TEXT} | fields
    headers = {} if token is None else {"Token": token}
    async with (
        aiohttp.ClientSession(house.server.http_url, headers=headers) as http,
        http.post("/api/customer/sms", json=body) as reply,
    ):
        return reply.status, await reply.json(), dict(reply.headers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One server for the tests of this module; no log of it may hold the provider's token."""
    async with TwilioMessages(owned=frozenset({NUMBER}), opted_out=frozenset({OPTED_OUT})) as twilio:

        def content(backend: VnsBackend) -> dict[str, Any]:
            given = house_config(backend)
            pair = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "rest_base_url": twilio.url}
            given["accounts"][0] |= {"twilio": pair, "dialling": {"calls_per_second": 1000}}
            tokens = [{"name": "main", "value": OUTDATED}]
            given["accounts"].append(
                {"name": "outdated", "tokens": tokens, "twilio": {**pair, "auth_token": "canary-of-last-year"}}
            )
            given["numbers"].append({**given["numbers"][0], "number": OUTDATED_NUMBER, "account": "outdated"})
            return given

        async with open_house(tmp_path_factory.mktemp("messages"), content, SWITCHHOOK_LOG_LEVEL="debug") as house:
            yield Desk(house, twilio)
        assert b"canary" not in house.server.log.read_bytes()


@pytest.fixture
def desk(shared_desk: Desk) -> Desk:
    """The shared desk, with the provider as new."""
    shared_desk.twilio.taken.clear()
    shared_desk.twilio.requests, shared_desk.twilio.overloaded = 0, None
    return shared_desk


async def test_a_message_is_sent_once_as_it_was_written(desk: Desk) -> None:
    """Numbers reach the provider in E.164, the text byte for byte; the reply has the provider's own name for the message."""
    status, told, _ = await desk.ask(customerCallId="order-7")
    sid = f"SM{1:032x}"
    assert (status, told) == (200, {"status": 0, "errorMessage": "Success", "messageId": sid, "customerCallId": "order-7"})
    assert desk.twilio.taken == [Texted(NUMBER, RECIPIENT, TEXT)]
    assert desk.twilio.requests == 1


@pytest.mark.parametrize(("answered", "status"), [(500, 503), (503, 503), (429, 429)])
async def test_a_provider_that_cannot_now(desk: Desk, answered: int, status: int) -> None:
    """The customer is told to come back, and the message was tried once."""
    desk.twilio.overloaded = answered
    got, told, headers = await desk.ask()
    assert (got, told["status"]) == (status, status)
    assert f"HTTP {answered}" in told["errorMessage"]
    assert int(headers["Retry-After"]) > 0
    assert desk.twilio.requests == 1
    desk.twilio.overloaded = None
    assert (await desk.ask())[0] == 200


async def test_a_recipient_who_wants_no_messages(desk: Desk) -> None:
    """The provider's refusal names the field, not the provider's text, which may repeat anything."""
    assert (await desk.refused(400, to=OPTED_OUT)).startswith("to: ")
    assert desk.twilio.requests == 1


async def test_a_provider_that_does_not_know_the_account(desk: Desk) -> None:
    """Its 401 is no 401 of ours: the customer's own token was right."""
    message = await desk.refused(502, token=OUTDATED, **{"from": OUTDATED_NUMBER})
    assert "credentials" in message
    assert desk.twilio.requests == 1


@pytest.mark.parametrize("token", [None, "", "wrong", AUTH_TOKEN])
async def test_a_token_that_is_wrong(desk: Desk, token: str | None) -> None:
    await desk.refused(401, token=token)
    assert desk.twilio.requests == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"to": "not a number"}, "to"),
        ({"to": "12"}, "to"),
        ({"to": None}, "to"),
        ({"to": "+442079460000"}, "to"),
        ({"to": "+19005550100"}, "to"),
        ({"from": "+12025550123"}, "from"),
        ({"from": OUTDATED_NUMBER}, "from"),
        ({"from": ""}, "from"),
        ({"message": " "}, "message"),
        ({"message": "x" * 1601}, "message"),
    ],
)
async def test_a_request_that_is_wrong_names_the_field(desk: Desk, fields: dict[str, Any], field: str) -> None:
    """No number, one that the dialling policy does not allow, a sender of somebody else, no text: nothing leaves the house."""
    assert (await desk.refused(400, **fields)).startswith(f"{field}: ")
    assert desk.twilio.requests == 0


async def test_an_account_without_a_provider_is_told_so(house: House) -> None:
    status, told, _ = await post(house, PLAIN)
    assert (status, told["status"]) == (501, 501)
    assert "twilio" in told["errorMessage"]
    async with (
        aiohttp.ClientSession(house.server.http_url, headers={"Token": PLAIN}) as http,
        http.get("/api/customer/sms") as reply,
    ):
        assert (reply.status, reply.headers["Allow"]) == (405, "POST")

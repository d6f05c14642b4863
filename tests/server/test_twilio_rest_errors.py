"""Every refusal of the REST surface has the shape that Twilio's clients read."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from twilio.base.exceptions import TwilioRestException

from tests.peers.party import Party
from tests.server.rest_house import (
    ACCOUNT_PAIR,
    CALL_PAIRS,
    CALLED,
    NUMBER,
    RestHouse,
    basic,
    do,
    open_house,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = "CA" + "0" * 32
NOTHING = "RE" + "0" * 32


def _rate(made: dict[str, Any]) -> None:
    made["accounts"][0]["dialling"]["calls_per_second"] = 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    async with open_house(tmp_path_factory.mktemp("errors"), None, _rate) as opened:
        yield opened


async def ask(house: RestHouse, method: str, path: str, pair: tuple[str, str] | None = ACCOUNT_PAIR, **options: Any) -> Any:
    """(status, body, headers) of a request below the account."""
    url = f"{house.server.http_url}/2010-04-01/Accounts/{ACCOUNT_PAIR[0]}{path}"
    headers = basic(*pair) if pair is not None else {}
    async with aiohttp.ClientSession(headers=headers) as http, http.request(method, url, **options) as reply:
        return reply.status, await reply.json(), reply.headers


def has_twilios_shape(status: int, body: Any, wanted: int, code: int) -> None:
    assert (status, body["status"], body["code"]) == (wanted, wanted, code), body
    assert set(body) == {"code", "message", "more_info", "status"}
    assert body["more_info"] == f"https://www.twilio.com/docs/errors/{code}"
    assert body["message"]


@pytest.mark.parametrize(
    ("method", "path", "wanted", "code"),
    [
        ("GET", "/Calls?PageToken=x", 400, 20001),
        ("GET", "/Calls.json?Status=lost", 400, 20001),
        ("GET", "/Calls.json?PageSize=many", 400, 20001),
        ("GET", "/Calls.json?StartTime%3E=yesterday", 400, 20001),
        ("GET", "/Recordings.json", 400, 20001),
        ("POST", "/Calls.json", 400, 21201),
        ("GET", "/Calls/CAxyz.json", 404, 20404),
        ("GET", f"/Calls/{NOBODY}.json", 404, 20404),
        ("POST", f"/Calls/{NOBODY}.json", 404, 20404),
        ("GET", f"/Calls/{NOBODY}/Recordings.json", 404, 20404),
        ("POST", f"/Calls/{NOBODY}/Recordings.json", 404, 20404),
        ("GET", f"/Recordings/{NOTHING}.json", 404, 20404),
        ("GET", f"/Recordings/{NOTHING}.wav", 404, 20404),
        ("DELETE", f"/Recordings/{NOTHING}.json", 404, 20404),
        ("GET", "/Conferences.json", 404, 20404),
        ("POST", ".json", 405, 20004),
        ("GET", "/Accounts.json", 404, 20404),
        ("DELETE", "/Calls.json", 405, 20004),
        ("PUT", f"/Calls/{NOBODY}.json", 405, 20004),
        ("POST", "/Recordings.json", 405, 20004),
    ],
)
async def test_what_cannot_be_done(house: RestHouse, method: str, path: str, wanted: int, code: int) -> None:
    status, body, headers = await ask(house, method, path)
    has_twilios_shape(status, body, wanted, code)
    assert ("Allow" in headers) == (wanted == 405)


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"From": NUMBER, "Twiml": "<Response/>"}, 21201, "To"),
        ({"To": CALLED, "Twiml": "<Response/>"}, 21213, "From"),
        ({"To": CALLED, "From": "+17200000000", "Twiml": "<Response/>"}, 21210, "From"),
        ({"To": "nobody", "From": NUMBER, "Twiml": "<Response/>"}, 21211, "To"),
        ({"To": CALLED, "From": NUMBER}, 21205, "Url"),
        ({"To": CALLED, "From": NUMBER, "Url": "ftp://acme.example/"}, 21205, "Url"),
        ({"To": CALLED, "From": NUMBER, "Twiml": "<Response><Gather/></Response>"}, 12200, "Gather"),
        ({"To": CALLED, "From": NUMBER, "Twiml": "<Response/>", "Timeout": "soon"}, 20001, "Timeout"),
        ({"To": CALLED, "From": NUMBER, "Twiml": "<Response/>", "MachineDetection": "Enable"}, 20001, "MachineDetection"),
        ({"To": CALLED, "From": NUMBER, "Twiml": "<Response/>", "SendDigits": "call me"}, 20001, "SendDigits"),
        ({"To": "+442071234567", "From": NUMBER, "Twiml": "<Response/>"}, 21215, "To"),
    ],
)
async def test_an_order_that_cannot_be_placed(house: RestHouse, fields: dict[str, str], code: int, named: str) -> None:
    """Nothing is dialled."""
    status, body, _ = await ask(house, "POST", "/Calls.json", data=fields)
    has_twilios_shape(status, body, 400, code)
    assert named in body["message"]


@pytest.mark.parametrize(
    "pair",
    [None, (ACCOUNT_PAIR[0], "wrong"), (ACCOUNT_PAIR[0], ""), CALL_PAIRS[0], ("AC" + "9" * 32, "of-somebody-else")],
)
async def test_who_proves_nothing_learns_nothing(house: RestHouse, pair: tuple[str, str] | None) -> None:
    """Also where nothing is, and with a pair that is good for another account."""
    for method, path in (
        ("GET", ".json"),
        ("GET", "/Calls.json"),
        ("POST", f"/Calls/{NOBODY}.json"),
        ("GET", "/Nothing"),
        ("PATCH", "/Calls"),
    ):
        status, body, headers = await ask(house, method, path, pair)
        has_twilios_shape(status, body, 401, 20003)
        assert headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_client_sees_whether_its_pair_is_good(house: RestHouse) -> None:
    """That of the account, and that of a call; the token is told to nobody."""
    async with house.talk(CALL_PAIRS[0]):
        for pair in (ACCOUNT_PAIR, CALL_PAIRS[0]):
            seen = await do(house.client(pair).api.accounts(pair[0]).fetch)
            assert (seen.sid, seen.status, seen.auth_token) == (pair[0], "active", None)
            seen = await do(house.client(pair).api.v2010.account.fetch)
            assert (seen.sid, seen.subresource_uris["calls"]) == (pair[0], f"/2010-04-01/Accounts/{pair[0]}/Calls.json")


async def test_a_request_that_is_too_large_or_no_form(house: RestHouse) -> None:
    status, body, _ = await ask(house, "POST", "/Calls.json", data=io.BytesIO(b"Twiml=" + b"x" * (2 << 20)))
    has_twilios_shape(status, body, 413, 20413)
    status, body, _ = await ask(house, "POST", "/Calls.json", data=b"\xff\xfe")
    has_twilios_shape(status, body, 400, 20001)


async def test_too_many_orders_at_once(house: RestHouse) -> None:
    """The account may place one call a second; the client raises what it knows, and nothing of a refused order goes out."""
    client = house.client()

    def place() -> Any:
        return client.calls.create(to=CALLED, from_=NUMBER, twiml="<Response><Hangup/></Response>")

    async with Party(user=CALLED, port=house.trunk_port, answers=True) as party:
        told = await asyncio.gather(*(do(place) for _ in range(6)), return_exceptions=True)
        made = [one for one in told if not isinstance(one, BaseException)]
        errors = [one for one in told if isinstance(one, TwilioRestException)]
        assert made
        assert errors
        assert len(made) + len(errors) == len(told)
        for error in errors:
            assert (error.status, error.code, error.method) == (429, 20429, "POST")
            assert error.msg
        for one in made:
            await house.over(one.sid)
        assert len(party.taken) == len(made)

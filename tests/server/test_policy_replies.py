"""makecall's refusals, byte for byte as the contract's shape wants them: 400, 401, 429 and 503 (contract §1.1, §1.9)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.server.exchange import CALLED, Exchange, token
from tests.server.house import NUMBER
from tests.server.model import Model
from tests.server.policies import ONE_CALL, PLAIN_TRUNK, SLOW, TRUNKLESS, open_policies
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD: dict[str, Any] = {"calledNumber": CALLED, "callerId": ONE_CALL.number}
OURS = {"Token": token(ONE_CALL.name)}


async def posted(exchange: Exchange, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of makecall's reply."""
    url = f"{exchange.server.http_url}/api/customer/makecall"
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as reply:
        return reply.status, dict(reply.headers), await reply.read()


def is_refusal(reply: tuple[int, dict[str, str], bytes], status: int, message: str) -> None:
    """The contract's two fields and nothing else, as JSON; Retry-After where waiting helps."""
    got, headers, body = reply
    assert (got, json.loads(body)) == (status, {"status": status, "errorMessage": message})
    assert headers["Content-Type"].partition(";")[0] == "application/json"
    assert ("Retry-After" in headers) == (status in (429, 503))
    assert status not in (429, 503) or int(headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"calledNumber": None}, "calledNumber: is missing; give a telephone number"),
        ({"calledNumber": "  "}, "calledNumber: is missing; give a telephone number"),
        ({"calledNumber": ["+17205550199"]}, "calledNumber: must be text"),
        ({"calledNumber": True}, "calledNumber: must be text"),
        ({"calledNumber": "1" * 257}, "calledNumber: must be at most 256 printable characters"),
        (
            {"calledNumber": "CALL-ME"},
            'calledNumber: CALL-ME is no telephone number; write digits with the country code: "+17205551212"',
        ),
        ({"calledNumber": "911"}, "calledNumber: 911 is an emergency number; those are never dialled from here"),
        ({"callerId": None}, "callerId: is missing; give a telephone number"),
        ({"callerId": {}}, "callerId: must be text"),
        (
            {"callerId": NUMBER},
            "callerId: is no number of this account; give one that is configured, since its webhooks run the call",
        ),
        ({"callerIdName": "Ann\r\nVia: x"}, "callerIdName: must be at most 256 printable characters"),
        ({"callerIdName": 1.5}, "callerIdName: must be text"),
        ({"customerCallId": "x" * 257}, "customerCallId: must be at most 256 printable characters"),
        ({"customerCallId": []}, "customerCallId: must be text"),
    ],
)
async def test_a_field_that_is_wrong(policies: Exchange, fields: dict[str, Any], message: str) -> None:
    is_refusal(await posted(policies, json.dumps(GOOD | fields).encode(), OURS), 400, message)
    assert not policies.backend.requests


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON; send an object with calledNumber and callerId"),
        (b"calledNumber=7205550199", "the body is not JSON; send an object with calledNumber and callerId"),
        (b"\xff\xfe\x00", "the body is not JSON; send an object with calledNumber and callerId"),
        (b"[" * 100_000, "the body is not JSON; send an object with calledNumber and callerId"),
        (b'["+17205550199"]', "the body is no object; send calledNumber and callerId"),
        (b"null", "the body is no object; send calledNumber and callerId"),
    ],
)
async def test_a_body_that_is_wrong(policies: Exchange, body: bytes, message: str) -> None:
    is_refusal(await posted(policies, body, OURS), 400, message)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Token": ""},
        {"Token": "token-of-nobody"},
        {"Token": f"Bearer {token(ONE_CALL.name)}"},
        {"Authorization": f"Bearer {token(ONE_CALL.name)}"},
        {"Token": token(ONE_CALL.name).upper()},
    ],
)
async def test_without_the_accounts_token(policies: Exchange, headers: dict[str, str]) -> None:
    """401 before anything of the request is looked at."""
    for body in (json.dumps(GOOD).encode(), b"nonsense"):
        is_refusal(await posted(policies, body, headers), 401, "Unauthorized")
    assert not policies.backend.requests


async def test_another_accounts_token(policies: Exchange) -> None:
    """Known, but the number is not its own: it learns no more than of a number that nobody has."""
    told = "callerId: is no number of this account; give one that is configured, since its webhooks run the call"
    is_refusal(await posted(policies, json.dumps(GOOD).encode(), {"token": token(SLOW.name)}), 400, told)


async def test_the_accounts_own_limit(policies: Exchange) -> None:
    """429 with Retry-After while a call is out."""
    async with Model() as model, policies.party() as party:
        policies.answer_with(model)
        guid = await policies.place(ONE_CALL.number)
        call = await party.call()
        told = "calledNumber: 1 calls are out, concurrent allows 1; wait for one to end, or raise it"
        is_refusal(await posted(policies, json.dumps(GOOD).encode(), OURS), 429, told)
        call.refuse(486)
        await policies.end_of(guid)


async def test_an_account_without_a_trunk(policies: Exchange) -> None:
    """503: nothing can be dialled with. The attempt is on record, and neither webhook is sent."""
    body = json.dumps({"calledNumber": CALLED, "callerId": TRUNKLESS.number, "customerCallId": "no-way"}).encode()
    reply = await posted(policies, body, {"Token": token(TRUNKLESS.name)})
    is_refusal(reply, 503, "The account has no trunk to dial with: add one to the apply file")
    assert await policies.row("reason", "customer_call_id = ?", "no-way") == "no-trunk"
    assert not policies.backend.requests


async def test_a_server_that_is_full_and_one_that_stops(tmp_path: Path) -> None:
    """503 while the only slot has a call, and while the server drains; the call that lives is unharmed."""
    full = "No call slot is free; try again in a few seconds"
    async with open_policies(tmp_path, SWITCHHOOK_MAX_CALLS="1") as policies, Model() as model, policies.party() as party:
        policies.answer_with(model)
        guid = await policies.place(SLOW.number)
        call = await party.call()
        call.answer()
        for order in ("full-1", "full-2"):
            body = json.dumps(GOOD | {"customerCallId": order}).encode()
            is_refusal(await posted(policies, body, OURS), 503, full)
            assert await policies.row("reason", "customer_call_id = ?", order) == "over-capacity"
        assert len(policies.backend.of("/callstart")) == 1
        await call.hang_up()
        assert (await policies.end_of(guid))["outboundCallResult"] == "Connected"
        # The refused calls gave their places in the account's own limit back.
        busy = await policies.place(ONE_CALL.number)
        (await party.call(2)).refuse(486)
        assert (await policies.end_of(busy))["outboundCallResult"] == "Busy"
        again = await policies.place(PLAIN_TRUNK.number)
        call = await party.call(3)
        call.answer()
        await asyncio.wait_for(call.acknowledged.wait(), 20)
        stopping = asyncio.ensure_future(policies.server.stop())

        async def drains() -> bool:
            return (await policies.get("/readyz"))[0] == 503

        await eventually(drains, "the server drains")
        is_refusal(await posted(policies, json.dumps(GOOD).encode(), OURS), 503, full)
        await call.hang_up()
        assert (await policies.end_of(again))["outboundCallResult"] == "Connected"
        assert await stopping == 0

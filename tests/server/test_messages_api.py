"""Text messages as a customer asks a running server for them."""

from __future__ import annotations

import aiohttp
import pytest

from tests.server.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_account_without_a_provider_is_told_so(house: House) -> None:
    body = {"from": "7206999999", "to": "+17205551212", "message": "Hello"}
    async with aiohttp.ClientSession(house.server.http_url, headers={"Token": "secret-token"}) as http:
        async with http.post("/api/customer/sms", json=body) as reply:
            told = await reply.json()
            assert (reply.status, told["status"]) == (501, 501)
            assert "twilio" in told["errorMessage"]
        async with http.get("/api/customer/sms") as reply:
            assert (reply.status, reply.headers["Allow"]) == (405, "POST")

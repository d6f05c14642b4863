"""The dialling policy of a server that runs: what it refuses, and what changes that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.server.house import NUMBER, House, house_config, open_house
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

TORONTO = "+14165551234"


async def ordered(house: House, called: str) -> tuple[int, str]:
    """Order a call; gives the status and the text of the reply."""
    order = {"calledNumber": called, "callerId": NUMBER}
    url = f"{house.server.http_url}/api/customer/makecall"
    async with aiohttp.ClientSession() as http, http.post(url, json=order, headers={"Token": "secret-token"}) as reply:
        return reply.status, await reply.text()


async def test_a_refused_call_is_answered_recorded_and_counted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for called, rule, words in (
            ("911", "number", "emergency number"),
            (TORONTO, "country", "add CA to countries"),
            ("+19005551234", "premium", "allow_premium"),
        ):
            before = (await house.metrics())[f'switchhook_dialling_refused_total{{rule="{rule}"}}']
            status, text = await ordered(house, called)
            assert status == 400
            assert words in text
            assert (await house.metrics())[f'switchhook_dialling_refused_total{{rule="{rule}"}}'] == before + 1

        async def recorded() -> bool:
            return len(await records(house)) == 3

        await eventually(recorded, "a record of each refusal")
        assert sorted(await records(house)) == ["policy-country", "policy-number", "policy-premium"]
        assert not house.backend.of("/callstart")


async def records(house: House) -> list[str]:
    return [str(reason) for (reason,) in house._asked("SELECT reason FROM calls WHERE direction = 'outbound'")]


async def test_new_rules_hold_without_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        content: dict[str, Any] = house_config(house.backend)
        content["accounts"][0]["dialling"] = {"countries": ["US", "CA"], "deny_prefixes": ["+1416"]}
        file = tmp_path / "wanted.yaml"
        file.write_text(yaml.safe_dump(content))
        code, told = await house.server.run("policy", "explain", TORONTO)
        assert code == 1
        assert "refused by the rule country" in told
        code, told = await house.server.run("apply", str(file))
        assert code == 0, told
        assert "dialling.countries: (none) → US, CA" in told

        async def denied() -> bool:
            return "deny_prefixes" in (await ordered(house, TORONTO))[1]

        await eventually(denied, "the running server knows the rules")
        code, told = await house.server.run("policy", "explain", TORONTO, "--account", content["accounts"][0]["name"])
        assert code == 1
        assert "refused by the rule deny-prefix" in told
        code, told = await house.server.run("policy", "explain", "(303) 555-1212")
        assert code == 0, told
        assert "number +13035551212, country US, type fixed-line-or-mobile" in told
        assert "local time: America/Denver" in told

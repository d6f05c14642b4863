"""The command line and the operator's pages, on a server that runs."""

from __future__ import annotations

import asyncio
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from switchhook_demo.phone import CallRefusedError, Phone
from tests.server.house import House, greeted, house_config, open_house
from tests.server.model import Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "wanted.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


async def test_apply_shows_what_changes_and_takes_effect_at_once(tmp_path: Path) -> None:
    """Twice the same file changes nothing the second time; a dry run changes nothing at all; no secret is shown."""
    async with open_house(tmp_path) as house, Model() as model:
        content = house_config(house.backend)
        code, told = await house.server.run("apply", _written(tmp_path, content))
        assert code == 0, told
        assert "0 added, 0 changed, 0 removed" in told
        content["numbers"].append({**deepcopy(content["numbers"][0]), "number": "+17206999997"})
        content["numbers"][0]["call_start"]["headers"]["Token"] = "a-fresh-secret"
        file = _written(tmp_path, content)
        for arguments in (("apply", "--dry-run", file), ("apply", "--dry-run", file), ("apply", file)):
            code, told = await house.server.run(*arguments)
            assert code == 0, told
            assert "+17206999997" in told
            assert "+17206999999" in told
            assert re.search(r"1 (would be )?added, 1 (would be )?changed, 0 (would be )?removed", told)
            for secret in ("a-fresh-secret", "abc", "secret-token"):
                assert secret not in told
        assert "0 added, 0 changed, 0 removed" in (await house.server.run("apply", file))[1]

        house.answer_with(model)

        async def reachable() -> bool:
            async with Phone(user=house.new_caller()) as phone:
                call = await phone.dial(house.uri("+17206999997"))
                try:
                    await call.answered()
                except CallRefusedError as refused:
                    assert refused.status == 404
                    return False
                await call.hang_up()
                return True

        await eventually(reachable, "the running server knows the number")
        assert house.backend.of("/callstart")[-1].headers["Token"] == "abc"
        async with house.talk(model):
            assert house.backend.of("/callstart")[-1].headers["Token"] == "a-fresh-secret"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"numbers": [{"number": "+1720"}]}, "numbers"),
        ({"trunks": [{"name": "t", "account": "nobody", "address": "sip:h"}]}, "nobody"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_a_bad_file_is_refused_with_a_sentence(house: House, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    code, output = await house.server.run("apply", _written(tmp_path, {**house_config(house.backend), **change}))
    assert code == 1
    assert told in output
    assert "Traceback" not in output


async def test_check_and_the_test_button(house: House) -> None:
    """`check` tells of a machine that works; `webhook test` shows what was understood and opens no AI session."""
    async with Model() as model:
        house.answer_with(model, ["vns_end_conversation"], surprise="x", maxSeconds="60")
        code, told = await house.server.run("webhook", "test", "+17206999999")
        assert code == 0, told
        assert "200" in told
        for name in ("aiUrl", "maxSeconds", "surprise", "vns_end_conversation"):
            assert name in told
        assert "secret-token" not in told
        [start] = house.backend.of("/callstart")
        assert start.headers["Token"] == "abc"
        assert (start.json["callerId"], start.json["callerIdName"]) == ("5550100000", "Webhook Test")
        code, told = await house.server.run("webhook", "test", "--end", "+17206999999")
        assert code == 0, told
        assert len(house.backend.of("/callend")) == 1
        assert model.handshakes == 0
    house.backend.start_status = 503
    code, told = await house.server.run("webhook", "test", "+17206999999")
    assert code == 1
    assert "503" in told
    code, told = await house.server.run("webhook", "test", "+17205551234")
    assert code == 1
    assert "Traceback" not in told


async def test_check_names_the_parts(house: House) -> None:
    """Beside a running server its ports are taken, which is told and is no crash."""
    _, told = await house.server.run("check")
    assert "Traceback" not in told
    for word in ("database", "flite"):
        assert word in told.lower()


async def test_health_readiness_and_figures(house: House) -> None:
    """The pages tell of a call that lives."""
    assert (await house.get("/healthz"))[0] == 200
    assert (await house.get("/readyz"))[0] == 200
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            await greeted(talk.session, talk.call)
            assert (await house.metrics())["switchhook_calls_live"] == 1
            await talk.call.hang_up()
        await house.end_of(talk.guid)
    await house.quiet()


async def test_a_second_server_says_which_port_is_taken(house: House, tmp_path: Path) -> None:
    """One sentence, and an exit code that is not 0."""
    environ = {**house.server.environ, "SWITCHHOOK_DATA_DIR": str(tmp_path / "other")}
    process = await asyncio.create_subprocess_exec(
        *house.server.command("serve"), env=environ, cwd=tmp_path, stdout=-1, stderr=-2
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"Traceback" not in output
    assert str(house.server.http_port).encode() in output or str(house.server.sip_port).encode() in output

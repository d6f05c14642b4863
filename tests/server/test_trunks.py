"""Who may call: by address, by password, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchhook_demo.phone import CallRefusedError, Phone
from tests.peers.vns_backend import VnsBackend
from tests.server.house import ear_has, house_config, open_house
from tests.server.listening import speech
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _with_password(backend: VnsBackend) -> dict[str, Any]:
    content = house_config(backend, allow_from=["10.0.0.0/8"])
    pbx = {"name": "pbx", "account": "acme", "address": "sip:127.0.0.1:5071", "username": "pbx", "password": "Wolke 7"}
    content["trunks"].append(pbx)
    return content


async def test_a_trunk_with_a_password(tmp_path: Path) -> None:
    """The right one gets a whole call, re-INVITE and BYE included; a wrong one gets the challenge again."""
    async with open_house(tmp_path, _with_password) as house, Model() as model:
        house.answer_with(model)
        async with house.talk(model, credentials=("pbx", "Wolke 7")) as talk:
            await talk.session.got("response.create")
            await talk.call.hold()
            await talk.call.resume()
            talk.session.speaks(speech(200), "Hello!")
            await ear_has(talk.call, 10)
            await talk.call.hang_up()
        assert (await house.end_of(talk.guid))["status"] == 0
        async with Phone(credentials=("pbx", "Wolke 8")) as phone:
            call = await phone.dial(house.uri())
            with pytest.raises(CallRefusedError) as refused:
                await call.answered()
        assert refused.value.status == 401
        assert len(house.backend.of("/callstart")) == 1


async def test_unknown_sources_can_be_told_403(tmp_path: Path) -> None:
    async with open_house(tmp_path, SWITCHHOOK_SIP_UNKNOWN_SOURCES="403") as house, Phone("127.0.0.2") as phone:
        call = await phone.dial(house.uri())
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 403
        assert not house.backend.requests

"""A customer registers numbers on a running server, and calls to them arrive at the callbacks that it gave."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from switchhook_demo.phone import CallRefusedError
from tests.peers.veevo_backend import VeevoBackend
from tests.server.veevo_house import CANARIES, MANAGEMENT_KEY, MOVED, NUMBER, OTHER_KEY, VeevoHouse, greeted, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEW = "+15551234599"


def _callbacks(backend: VeevoBackend) -> dict[str, str]:
    return {"onCallStartUrl": f"{backend.url}/calls/start", "onCallEndUrl": f"{backend.url}/calls/end"}


async def _refused(veevo: VeevoHouse, number: str) -> int:
    """Dial a number that is not answered; gives the status."""
    async with veevo.telephone() as telephone:
        call = await veevo.dial(telephone, number)
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
    return refused.value.status


async def test_a_number_gets_other_callbacks_and_its_next_call_runs_there(veevo: VeevoHouse) -> None:
    """All else that the number has stays, such as the address of its AI."""
    async with VeevoBackend(CANARIES["secret"], reply(metadata="moved")) as moved:
        status, told = await veevo.register(MANAGEMENT_KEY, phoneNumber=MOVED, **_callbacks(moved))
        assert status == 200
        assert json.loads(told) == {"id": MOVED, "phoneNumber": MOVED, **_callbacks(moved)}
        assert (await veevo.register(MANAGEMENT_KEY, phoneNumber=MOVED, **_callbacks(moved)))[0] == 200
        count = len(veevo.model.sessions) + 1
        async with veevo.telephone() as telephone:
            call = await veevo.dial(telephone, MOVED)
            await call.answered()
            session = await veevo.model.session(count)
            await greeted(session, call)
            session.calls_tool("call_1", "check_availability", {})
            assert await session.output_of("call_1") == "done"
            await call.hang_up()
        [end] = await moved.wait_for("end")
        [start], [tool] = moved.of("start"), moved.of("tool")
        assert (start.json["calledNumber"], start.json["callerNumber"]) == (MOVED, telephone.user)
        assert (tool.json["metadata"], end.json["metadata"]) == ("moved", "moved")
        assert end.json["callSid"] == start.json["callSid"]
        assert moved.unsigned == []
        await veevo.idle()  # it is there until it has acknowledged
    assert veevo.backend.callbacks == []


@pytest.mark.peer("flite")
async def test_a_new_number_takes_calls_at_once_and_after_a_restart(veevo: VeevoHouse) -> None:
    """Before it was registered nobody knew it."""
    assert await _refused(veevo, NEW) == 404
    async with VeevoBackend(CANARIES["secret"], {"reject": True, "message": "Hello from the new number."}) as backend:
        status, told = await veevo.register(MANAGEMENT_KEY, phoneNumber=NEW, **_callbacks(backend))
        assert (status, json.loads(told)["phoneNumber"]) == (201, NEW)
        async with veevo.telephone() as telephone:
            call = await veevo.dial(telephone, NEW)
            await call.answered()
            assert await call.ended(30) == "them"
        assert 20 * sum(packet.voiced for packet in call.ear.packets) > 500, "the message"
        await veevo.server.kill()
        await veevo.server.start()
        backend.start_reply = {"reject": True, "reason": "busy"}
        assert await _refused(veevo, NEW) == 486
        assert [got.json["calledNumber"] for got in backend.of("start")] == [NEW, NEW]
        assert backend.unsigned == []
        status, told = await veevo.register(OTHER_KEY, phoneNumber=NEW, **_callbacks(veevo.backend))
        assert status == 409
        assert "acme" not in told
        assert await _refused(veevo, NEW) == 486, "it stays whose it is"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer rtk_wrong", f"Basic {MANAGEMENT_KEY}", MANAGEMENT_KEY, "Bearer secret-token"],
)
async def test_without_the_key_nothing_is_done(veevo: VeevoHouse, authorization: str | None) -> None:
    """The token of another contract's API is none here."""
    headers = {} if authorization is None else {"Authorization": authorization}
    asked = {"phoneNumber": "+15551234598", **_callbacks(veevo.backend)}
    url = f"{veevo.server.http_url}/api/phone-numbers"
    async with aiohttp.ClientSession() as http, http.post(url, json=asked, headers=headers) as got:
        assert (got.status, list(await got.json())) == (401, ["error"])
    assert veevo.asked("SELECT 1 FROM numbers WHERE number = ?", "+15551234598") == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"phoneNumber": None}, "phoneNumber"),
        ({"phoneNumber": "5551234598"}, "phoneNumber"),
        ({"phoneNumber": "+442071838750"}, "phoneNumber"),
        ({"phoneNumber": 15551234598}, "phoneNumber"),
        ({"onCallStartUrl": None}, "onCallStartUrl"),
        ({"onCallStartUrl": "http://backend.example/start"}, "onCallStartUrl"),
        ({"onCallEndUrl": "ftp://backend.example/end"}, "onCallEndUrl"),
        ({"onCallEndUrl": "backend"}, "onCallEndUrl"),
    ],
)
async def test_what_cannot_be_registered_is_named(veevo: VeevoHouse, wrong: dict[str, Any], field: str) -> None:
    status, told = await veevo.register(MANAGEMENT_KEY, **{"phoneNumber": "+15551234598", **wrong})
    assert status == 400
    assert json.loads(told)["error"].startswith(f"{field}: ")


async def test_other_bodies_and_methods(veevo: VeevoHouse) -> None:
    """There is one thing to do at this address."""
    headers = {"Authorization": f"Bearer {MANAGEMENT_KEY}"}
    url = f"{veevo.server.http_url}/api/phone-numbers"
    async with aiohttp.ClientSession(headers=headers) as http:
        for body in (b"", b"[]", b"{", b"phoneNumber=%2B15551234598", b"\xff"):
            async with http.post(url, data=body) as got:
                assert (got.status, list(await got.json())) == (400, ["error"]), body
        for method in ("GET", "PUT", "DELETE"):
            async with http.request(method, url) as got:
                assert (got.status, got.headers["Allow"], list(await got.json())) == (405, "POST", ["error"])
        async with http.delete(f"{url}/{NUMBER}") as got:
            assert got.status == 404

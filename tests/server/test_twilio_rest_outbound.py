"""Calls that the official client places over our REST surface, by SIP and by Twilio, and what their orderer is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from twilio.twiml.voice_response import VoiceResponse

from tests.peers.party import Party
from tests.peers.twilio_service import Callee
from tests.server.exchange import hears
from tests.server.listening import heard_tone
from tests.server.rest_house import ACCOUNT_PAIR, CALLED, NUMBER, PLAY_HZ, RestHouse, do, open_house, refused
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERY = ["initiated", "ringing", "answered", "completed"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def by_sip(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    async with open_house(tmp_path_factory.mktemp("sip")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def by_twilio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestHouse]:
    async with open_house(tmp_path_factory.mktemp("twilio"), ACCOUNT_PAIR) as opened:
        yield opened


async def place(house: RestHouse, **order: Any) -> str:
    """Order a call by the account's pair; gives its name. All its callbacks go to one page, which is as new."""
    house.customer.got.clear()
    client = house.client()
    told = f"{house.customer.url}/told"
    order = {"to": CALLED, "from_": NUMBER, "status_callback": told, "status_callback_event": EVERY, **order}
    made = await do(lambda: client.calls.create(**order))
    assert (made.status, made.direction, made.to, made._from) == ("queued", "outbound-api", order["to"], NUMBER)
    return str(made.sid)


async def told_until_the_end(house: RestHouse, sid: str, statuses: list[str]) -> dict[str, str]:
    """Wait for these CallStatus, all signed; gives the last callback."""
    forms = await house.customer.asked("told", len(statuses))
    assert [form["CallStatus"] for form in forms] == statuses
    assert [form["SequenceNumber"] for form in forms] == [str(number) for number in range(len(statuses))]
    assert {(form["CallSid"], form["AccountSid"], form["Direction"]) for form in forms} == {
        (sid, ACCOUNT_PAIR[0], "outbound-api")
    }
    assert house.customer.all_signed_by(ACCOUNT_PAIR[1])
    return forms[-1]


async def read_as(house: RestHouse, sid: str, status: str) -> Any:
    """Wait until the client reads this status."""
    client = house.client()

    async def find() -> Any:
        found = await do(lambda: client.calls(sid).fetch())
        return found if found.status == status else None

    return await eventually(find, f"the call is {status}")


async def test_a_call_with_its_twiml_is_recorded_from_the_answer_on(by_sip: RestHouse) -> None:
    async with Party(user=CALLED, port=by_sip.trunk_port, answers=True) as party:
        sid = await place(by_sip, twiml=str(by_sip.play()), record=True)
        call = await party.call()
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
        last = await told_until_the_end(by_sip, sid, ["initiated", "ringing", "in-progress", "completed"])
        assert (int(last["CallDuration"]) >= 1, last["Duration"], last["SipResponseCode"]) == (True, "1", "200")
    client = by_sip.client()
    assert int((await by_sip.over(sid)).duration) >= 1

    async def made() -> Any:
        found = await do(lambda: client.calls(sid).recordings.list())
        return found if found and found[0].status == "completed" else None

    [recording] = await eventually(made, "the recording is made")
    assert recording.call_sid == sid
    assert by_sip.backend.of("start") == by_sip.backend.of("end") == [], "TwiML decides, not the number's webhooks"


@pytest.mark.parametrize(
    ("answer", "status"), [(486, "busy"), (603, "busy"), (480, "no-answer"), (404, "failed"), (500, "failed")]
)
async def test_a_call_that_nobody_takes(by_sip: RestHouse, answer: int, status: str) -> None:
    async with Party(user=CALLED, port=by_sip.trunk_port) as party:
        sid = await place(by_sip, twiml="<Response/>")
        (await party.call()).refuse(answer)
        last = await told_until_the_end(by_sip, sid, ["initiated", status])
        assert (last["CallDuration"], last["Duration"], last["SipResponseCode"]) == ("0", "0", str(answer))
        seen = await read_as(by_sip, sid, status)
        assert (seen.duration, seen.start_time) == ("0", None)


async def test_a_call_that_rings_too_long_and_one_that_is_given_up(by_sip: RestHouse) -> None:
    async with Party(user=CALLED, port=by_sip.trunk_port) as party:
        client = by_sip.client()
        sid = await place(by_sip, twiml="<Response/>", timeout=3)
        call = await party.call()
        call.ring()
        await call.cancelled.wait()
        await told_until_the_end(by_sip, sid, ["initiated", "ringing", "no-answer"])
        sid = await place(by_sip, twiml="<Response/>")
        call = await party.call(2)
        call.ring()
        await read_as(by_sip, sid, "ringing")
        assert await refused(lambda: client.calls(sid).update(twiml="<Response/>")) == (400, 21220)
        assert (await do(lambda: client.calls(sid).update(status="canceled"))).status == "canceled"
        await call.cancelled.wait()
        await told_until_the_end(by_sip, sid, ["initiated", "ringing", "canceled"])
        await read_as(by_sip, sid, "canceled")


async def test_callbacks_by_get_and_a_page_by_get(by_sip: RestHouse) -> None:
    """What is told stands in the address then, and is signed with it."""
    by_sip.customer.pages["hello"] = by_sip.play()
    async with Party(user=CALLED, port=by_sip.trunk_port, answers=True) as party:
        page = {"url": f"{by_sip.customer.url}/hello?order=7", "method": "GET"}
        sid = await place(by_sip, **page, status_callback_method="GET", status_callback_event=["answered"])
        call = await party.call()
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
        await by_sip.customer.asked("told")
    urls = [url for url, form, _ in by_sip.customer.got if not form]
    assert any(f"/hello?order=7&CallSid={sid}" in url for url in urls)
    assert any(f"/told?CallSid={sid}" in url and "CallStatus=in-progress" in url for url in urls)
    assert by_sip.customer.all_signed_by(ACCOUNT_PAIR[1])


async def test_a_call_over_twilio(by_twilio: RestHouse) -> None:
    """Our name of the call is the customer's; Twilio's stays between us and Twilio."""
    assert by_twilio.twilio is not None
    callee = by_twilio.twilio.callees[CALLED] = Callee()
    page = by_twilio.play()
    page.pause(length=600)
    by_twilio.customer.pages["hello"] = page
    client = by_twilio.client()
    sid = await place(by_twilio, url=f"{by_twilio.customer.url}/hello")
    await by_twilio.twilio.until(lambda: callee.parties, "the party answers")
    [party] = callee.parties
    await party.until(lambda: heard_tone(bytes(party.heard), PLAY_HZ, 1000), "the sound")
    goodbye = VoiceResponse()
    goodbye.hangup()
    await do(lambda: client.calls(sid).update(twiml=goodbye))
    await party.ended()
    await told_until_the_end(by_twilio, sid, ["initiated", "ringing", "in-progress", "completed"])
    assert sid not in by_twilio.twilio.calls
    assert (await by_twilio.over(sid)).sid == sid


@pytest.mark.parametrize(("does", "status"), [("busy", "busy"), ("no-answer", "no-answer"), ("failed", "failed")])
async def test_a_call_over_twilio_that_nobody_takes(by_twilio: RestHouse, does: str, status: str) -> None:
    assert by_twilio.twilio is not None
    by_twilio.twilio.callees[CALLED] = Callee(does)
    sid = await place(by_twilio, twiml="<Response/>")
    await told_until_the_end(by_twilio, sid, ["initiated", "ringing", status])

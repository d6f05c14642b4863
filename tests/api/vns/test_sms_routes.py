"""`POST /api/customer/sms`, from the customer's request to a strict stand-in of Twilio."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.twilio.messages import TwilioMessages as TwilioClient
from switchhook.api.twilio.messages import read_outcome
from switchhook.api.vns.endpoints import BadRequest
from switchhook.api.vns.sms_routes import endpoints, read_request
from switchhook.domain.addresses import networks
from switchhook.domain.contract import HttpReply
from switchhook.domain.dialling import DialPermit, DialPurpose, DialRefused
from switchhook.domain.messaging import MessageFailed, MessageSent, Unsent
from switchhook.domain.model import Number
from switchhook.domain.phone import e164
from switchhook.domain.records import TwilioCredentials
from switchhook.egress import Egress
from switchhook.usecases.messaging import Messages
from tests.api.vns.customer import OTHER, TOKEN, customer
from tests.peers.twilio_messages import ACCOUNT_SID, AUTH_TOKEN, Texted, TwilioMessages

URL = "/api/customer/sms"
GOOD = {"from": "7206999999", "to": "(303) 263-9999", "message": "Your order is ready: 5 € – thanks & bye"}


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return datetime(2026, 3, 12, tzinfo=UTC)


def credentials(url: str, token: str = AUTH_TOKEN) -> TwilioCredentials:
    return TwilioCredentials(ACCOUNT_SID, token, url)


class Gate:
    """Allows the NANP, and counts what was given back."""

    def __init__(self) -> None:
        self.open_now = 0
        self.refuse: DialRefused | None = None

    async def admit(self, account: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        assert purpose is DialPurpose.MESSAGE
        called = e164(number)
        if self.refuse is not None:
            return self.refuse
        if called is None:
            return DialRefused("number", "is no telephone number")
        self.open_now += 1
        return DialPermit(called, 60)

    def release(self, permit: DialPermit, seconds: float) -> None:
        self.open_now -= 1


class Numbers:
    async def find_number(self, number: str) -> Number | None:
        return Number(number, "acme", "vns", {}) if number in ("+17206999999", "+17206999998") else None


class Desk:
    """The whole way of a message, with its outside in the tests' hands."""

    def __init__(self, twilio: TwilioMessages, http: Egress) -> None:
        self.twilio = twilio
        self.gate = Gate()
        self.accounts = {"acme": credentials(twilio.url)}
        self.messages = Messages(Numbers(), self.gate, TwilioClient(http, self._of))
        self.client: aiohttp.ClientSession

    async def _of(self, account: str) -> TwilioCredentials | None:
        return self.accounts.get(account)

    async def ask(self, body: Any, headers: dict[str, str] = TOKEN) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.client.post(URL, data=data, headers=headers) as reply:
            assert reply.content_type == "application/json"
            return reply.status, await reply.json()

    async def refused(self, body: Any, status: int) -> str:
        """The message of a request that must fail with this status and send nothing."""
        got, told = await self.ask(body)
        assert (got, told["status"]) == (status, status)
        assert self.gate.open_now == 0
        return str(told["errorMessage"])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with TwilioMessages() as twilio, Egress(networks(["127.0.0.0/8"]), LoopClock()) as http:
        made = Desk(twilio, http)
        async with customer(endpoints(made.messages), max_body_bytes=100_000) as made.client:
            yield made


async def test_a_message_goes_out(desk: Desk) -> None:
    status, told = await desk.ask({**GOOD, "customerCallId": "order 7"})
    assert status == 200
    sid = f"SM{1:032x}"
    assert told == {"status": 0, "errorMessage": "Success", "messageId": sid, "customerCallId": "order 7"}
    assert desk.twilio.taken == [Texted("+17206999999", "+13032639999", GOOD["message"])]
    assert desk.gate.open_now == 0


@pytest.mark.parametrize(
    "names", [("callerId", "calledNumber", "text"), ("FROM", "To", "Body"), ("callerid", "to", "message"), ("from", "to", "body")]
)
async def test_the_usual_names_are_taken(desk: Desk, names: tuple[str, str, str]) -> None:
    status, told = await desk.ask(dict(zip(names, (7206999999, 13032639999, "Hello"), strict=True)))
    assert (status, told["customerCallId"]) == (200, None)
    assert desk.twilio.taken == [Texted("+17206999999", "+13032639999", "Hello")]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"from": None}, "from"),
        ({"from": "+12025550123"}, "from"),
        ({"from": "somebody"}, "from"),
        ({"from": True}, "from"),
        ({"to": None}, "to"),
        ({"to": ""}, "to"),
        ({"to": "not a number"}, "to"),
        ({"to": ["+13032639999"]}, "to"),
        ({"message": None}, "message"),
        ({"message": " \n"}, "message"),
        ({"message": "x" * 1601}, "message"),
        ({"message": "half \ud83d"}, "message"),
        ({"message": {}}, "message"),
        ({"customerCallId": "x" * 300}, "customerCallId"),
    ],
)
async def test_bad_input_is_told_by_its_field(desk: Desk, change: dict[str, Any], field: str) -> None:
    assert (await desk.refused({**GOOD, **change}, 400)).startswith(f"{field}: ")
    assert desk.twilio.requests == 0


@pytest.mark.parametrize("body", [b"", b"from=1&to=2", b"[]", b"\xff", b"[" * 50_000])
async def test_what_is_no_object_is_refused(desk: Desk, body: bytes) -> None:
    assert "send" in await desk.refused(body, 400)


async def test_a_body_that_is_too_large(desk: Desk) -> None:
    assert await desk.refused({**GOOD, "more": "x" * 200_000}, 413)


async def test_an_account_without_twilio_gets_the_reason(desk: Desk) -> None:
    status, told = await desk.ask(GOOD, OTHER)
    assert status == 501
    assert told["errorMessage"].startswith("Not implemented: ")


@pytest.mark.parametrize(("rule", "status"), [("country", 400), ("rate", 429), ("unavailable", 503)])
async def test_the_dialling_policy_holds_for_messages(desk: Desk, rule: str, status: int) -> None:
    desk.gate.refuse = DialRefused(rule, "not allowed by dialling.countries")
    assert "dialling.countries" in await desk.refused(GOOD, status)
    assert desk.twilio.requests == 0


async def test_what_twilio_refuses_names_the_field_and_its_code(desk: Desk) -> None:
    told = await desk.refused({**GOOD, "from": "+17206999998"}, 400)
    assert told.startswith("from: ")
    assert "21606" in told
    desk.twilio.opted_out = frozenset({"+13032639999"})
    assert "21610" in await desk.refused(GOOD, 400)


async def test_wrong_credentials_are_the_operators_matter(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    desk.accounts["acme"] = credentials(desk.twilio.url, "canary-wrong-token")
    told = await desk.refused(GOOD, 502)
    assert "20003" in told
    assert "canary" not in told + caplog.text


@pytest.mark.parametrize(("answered", "status"), [(429, 429), (503, 503), (500, 503)])
async def test_an_overloaded_twilio_is_tried_later(desk: Desk, answered: int, status: int) -> None:
    desk.twilio.overloaded = answered
    assert "later" in await desk.refused(GOOD, status)


async def test_no_answer_may_mean_that_it_was_sent_and_is_not_repeated(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchhook.api.twilio.messages.TIMEOUT_S", 0.3)
    desk.twilio.silent = True
    assert "may have been sent" in await desk.refused(GOOD, 504)
    assert desk.twilio.requests == 1


async def test_the_way_out_is_guarded(desk: Desk) -> None:
    desk.accounts["acme"] = credentials("http://169.254.169.254")
    assert "not allowed" in await desk.refused(GOOD, 501)


async def test_the_text_is_in_no_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await desk.ask({**GOOD, "message": "canary text"})
    await desk.ask({**GOOD, "message": "canary text", "from": "+17206999998"})
    assert "canary" not in caplog.text
    assert "message sent" in caplog.text


@given(
    st.binary()
    | st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_no_body_breaks_the_reader(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_request(body, "acme")


@given(
    st.dictionaries(st.sampled_from(["from", "to", "message", "text", "customerCallId"]), st.text() | st.integers() | st.none())
)
def test_whatever_is_read_is_text_that_can_be_sent(given_fields: dict[str, Any]) -> None:
    try:
        asked = read_request(json.dumps(given_fields).encode(), "acme")
    except BadRequest as error:
        assert ": " in str(error)
    else:
        assert asked.order.text.encode() is not None


@given(st.integers(100, 599), st.binary(max_size=200))
def test_every_answer_of_twilio_is_one_of_ours(status: int, body: bytes) -> None:
    result = read_outcome(HttpReply(status, body))
    assert isinstance(result, MessageSent | MessageFailed)
    if isinstance(result, MessageFailed):
        assert result.why is not Unsent.NOT_CONFIGURED

"""The doors for Twilio: what gets in, under which address it is checked, and what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from twilio.request_validator import RequestValidator

from switchhook.api.app import application
from switchhook.api.twilio.received import PublicPlace
from switchhook.api.twilio.voice_routes import UNPROVEN_BURST, UNPROVEN_PER_S, Owner, Prove, VoiceDoors
from switchhook.domain.errors import StoreUnavailable

TOKEN, OTHER = "canary-of-acme", "canary-of-another"
PUBLIC = "https://voice.example.com"
NUMBER, UNOWNED, BARE, LEARNING = "+17206999999", "+17205550001", "+17206999990", "+15551234567"
CALL = {"CallSid": "CA1", "AccountSid": "AC1", "From": "+14155550100", "To": NUMBER, "Direction": "inbound"}


@dataclass
class Line:
    """Takes what the doors let in."""

    taken: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    forged: bool = False
    tokens: dict[str, str] = field(default_factory=dict)
    """By leg or CallSid."""
    proved: list[bool] = field(default_factory=list)

    async def voice(self, form: Mapping[str, str], number: str, account: str | None, prove: Prove | None) -> str | None:
        self.taken.append((f"voice {number} {account}", form))
        if prove is not None:
            self.proved.append(prove(TOKEN))
        return None if self.forged else "<Response/>"

    def status(self, form: Mapping[str, str]) -> None:
        self.taken.append(("status", form))

    def dial_answered(self, form: Mapping[str, str]) -> None:
        self.taken.append(("answered", form))

    def dial_over(self, form: Mapping[str, str]) -> str:
        self.taken.append(("dial", form))
        return "<Response><Hangup/></Response>"

    def auth_token_of(self, leg: str, call_sid: str) -> str | None:
        return self.tokens.get(leg, self.tokens.get(call_sid))


@dataclass
class Owners:
    """One number of each kind."""

    down: bool = False

    async def of_number(self, number: str) -> Owner | None:
        if self.down:
            raise StoreUnavailable("down")
        return {
            NUMBER: Owner(NUMBER, "acme", TOKEN, account_sid="AC1"),
            BARE: Owner(BARE, "bare", None),
            LEARNING: Owner(LEARNING, "veevo", None, learns_token=True),
        }.get(number)

    def token_of_sid(self, account_sid: str) -> str | None:
        return {"AC1": TOKEN, "AC2": OTHER}.get(account_sid)


class Doors:
    """A client of the doors that signs for the public address."""

    def __init__(self, client: TestClient[Any, Any], line: Line, owners: Owners) -> None:
        self.client, self.line, self.owners = client, line, owners
        self.now = 0.0

    async def post(
        self,
        path: str,
        form: Mapping[str, str],
        token: str = TOKEN,
        base: str = PUBLIC,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, str]:
        signed = {"X-Twilio-Signature": RequestValidator(token).compute_signature(base + path, form), **headers}
        async with self.client.post(path, data=form, headers=signed) as reply:
            return reply.status, await reply.text()


@asynccontextmanager
async def doors(public_url: str | None = PUBLIC, trusted: str = "10.0.0.0/8") -> AsyncIterator[Doors]:
    line, owners = Line(), Owners()
    made: list[Doors] = []
    place = PublicPlace(public_url, [ip_network(trusted)])
    routes = VoiceDoors(line, owners, place, lambda: made[0].now).routes()
    async with TestClient(TestServer(application([routes]))) as client:
        made.append(Doors(client, line, owners))
        yield made[0]


async def test_a_signed_call_is_answered_with_twiml() -> None:
    async with doors() as there:
        assert await there.post("/twilio/voice", CALL) == (200, "<Response/>")
        assert await there.post("/voice?a=%20b", CALL) == (200, "<Response/>")
        assert there.line.taken == [(f"voice {NUMBER} acme", CALL), (f"voice {NUMBER} acme", {**CALL, "a": " b"})]


async def test_a_get_is_signed_over_its_query() -> None:
    async with doors() as there:
        path = "/voice?CallSid=CA1&AccountSid=AC1&To=%2B17206999999&From=%2B14155550100"
        signature = RequestValidator(TOKEN).compute_signature(PUBLIC + path, {})
        async with there.client.get(path, headers={"X-Twilio-Signature": signature}) as reply:
            assert (reply.status, reply.content_type) == (200, "text/xml")
        assert there.line.taken[0][1]["To"] == NUMBER


async def test_a_call_that_a_customer_placed_is_found_by_its_caller() -> None:
    async with doors() as there:
        form = {**CALL, "Direction": "outbound-api", "From": NUMBER, "To": "+14155550100"}
        assert (await there.post("/voice", form))[0] == 200
        assert there.line.taken[0][0] == f"voice {NUMBER} acme"


@pytest.mark.parametrize("path", ["/twilio/voice", "/voice", "/twilio/status", "/twilio/dial", "/twilio/dial/answered"])
async def test_nothing_else_gets_in(path: str) -> None:
    async with doors() as there:
        assert (await there.post(path, CALL, token="wrong"))[0] == 403
        assert (await there.post(path, CALL, base="https://elsewhere.example.com"))[0] == 403
        assert (await there.client.post(path, data=CALL)).status == 403
        assert (await there.client.post(path, json=CALL)).status == 403
        assert (await there.client.get(path)).status == 403
        assert there.line.taken == []


async def test_one_accounts_token_opens_nothing_of_another_account() -> None:
    """Neither a number whose account has no token, nor a call that nothing has proven yet."""
    async with doors() as there:
        other = {**CALL, "AccountSid": "AC2"}
        assert (await there.post("/voice", other, token=OTHER))[0] == 403
        assert (await there.post("/voice", {**other, "To": BARE}, token=OTHER))[0] == 403
        there.line.tokens = {"CA1": "", "leg-1": TOKEN}
        assert (await there.post("/twilio/status", other, token=OTHER))[0] == 403
        assert (await there.post("/twilio/dial?leg=leg-1", {**other, "CallSid": "CA2"}, token=OTHER))[0] == 403
        assert (await there.post("/voice", {**other, "To": UNOWNED}, token=OTHER))[0] == 200
        assert [what for what, _ in there.line.taken] == [f"voice {UNOWNED} None"]


async def test_callbacks_are_checked_with_the_token_of_their_call() -> None:
    async with doors() as there:
        there.line.tokens = {"leg-1": "of this call"}
        for path, status in (("/twilio/status", 204), ("/twilio/dial", 200), ("/twilio/dial/answered", 204)):
            assert (await there.post(f"{path}?leg=leg-1", CALL, token="of this call"))[0] == status
            assert (await there.post(f"{path}?leg=leg-1", CALL))[0] == 403
        assert [what for what, _ in there.line.taken] == ["status", "dial", "answered"]


async def test_what_the_line_finds_forged_is_forbidden() -> None:
    async with doors() as there:
        there.line.forged = True
        assert (await there.post("/voice", {**CALL, "To": LEARNING}))[0] == 403
        assert there.line.proved == [True]
        assert (await there.post("/voice", {**CALL, "To": LEARNING}, token="wrong"))[0] == 403
        assert there.line.proved == [True, False]


async def test_unproven_calls_come_at_a_bounded_rate() -> None:
    async with doors() as there:
        form = {**CALL, "To": LEARNING}
        statuses = [(await there.post("/voice", form))[0] for _ in range(int(UNPROVEN_BURST) + 2)]
        assert statuses == [200] * int(UNPROVEN_BURST) + [429] * 2
        there.now += 1 / UNPROVEN_PER_S
        assert [(await there.post("/voice", form))[0] for _ in range(2)] == [200, 429]
        assert (await there.post("/voice", CALL))[0] == 200


@pytest.mark.parametrize(
    ("trusted", "headers", "base"),
    [
        ("127.0.0.0/8", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "voice.example.com"}, PUBLIC),
        ("10.0.0.0/8", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "voice.example.com"}, None),
        ("127.0.0.0/8", {}, None),
    ],
)
async def test_forwarded_headers_count_from_trusted_proxies_alone(
    trusted: str, headers: dict[str, str], base: str | None
) -> None:
    async with doors(public_url=None, trusted=trusted) as there:
        own = str(there.client.make_url("/")).rstrip("/")
        assert (await there.post("/voice", CALL, base=base or own, headers=headers))[0] == 200
        assert (await there.post("/voice", CALL, base=own if base else PUBLIC, headers=headers))[0] == 403


async def test_what_cannot_be_read_is_a_bad_request() -> None:
    async with doors() as there:
        assert (await there.post("/voice", {name: value for name, value in CALL.items() if name != "CallSid"}))[0] == 400
        assert (await there.post("/voice", {**CALL, "CallSid": f"CA{'1' * 63}"}))[0] == 400
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await there.client.post("/voice", data=b"a=\xff", headers=form)).status == 400
        assert (await there.client.post("/voice", data=b"a=1&" * 600, headers=form)).status == 400


async def test_a_database_that_is_down_is_told() -> None:
    async with doors() as there:
        there.owners.down = True
        assert (await there.post("/voice", CALL))[0] == 503

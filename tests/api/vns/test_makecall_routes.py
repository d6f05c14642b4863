"""`POST /api/customer/makecall`: what a customer may send, and every answer it can get (contract §1.9)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.vns.endpoints import BadRequest
from switchhook.api.vns.makecall_routes import endpoints, read_order
from switchhook.domain.model import CallId
from switchhook.usecases.outgoing import CallOrder, NotPlaced, Placed, Unplaced
from tests.api.vns.customer import TOKEN, customer

URL = "/api/customer/makecall"
GOOD = {"customerCallId": "abc123", "calledNumber": "7202555511", "callerId": "+17206999999", "callerIdName": "Acme"}
GUID = "9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1"


class Desk:
    """Places every call, or refuses it as it was told."""

    def __init__(self, answer: Placed | NotPlaced = Placed(CallId(GUID))) -> None:  # noqa: B008 - a value
        self.answer = answer
        self.orders: list[CallOrder] = []

    async def place(self, order: CallOrder) -> Placed | NotPlaced:
        self.orders.append(order)
        return self.answer


async def ask(desk: Desk, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with customer(endpoints(desk.place)) as http:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with http.post(URL, data=data, headers=TOKEN if headers is None else headers) as reply:
            return reply.status, await reply.json()


async def test_a_call_is_begun_and_answered_with_its_session() -> None:
    desk = Desk()
    status, body = await ask(desk, GOOD)
    assert (status, body) == (200, {"status": 0, "errorMessage": "Success", "sessionGuid": GUID, "customerCallId": "abc123"})
    assert desk.orders == [CallOrder("acme", "7202555511", "+17206999999", "Acme", "abc123")]


async def test_without_a_token_nobody_is_called() -> None:
    desk = Desk()
    assert await ask(desk, GOOD, {}) == (401, {"status": 401, "errorMessage": "Unauthorized"})
    assert desk.orders == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"nonsense", "JSON"),
        ([], "object"),
        ({"callerId": "+17206999999"}, "calledNumber"),
        ({"calledNumber": "7202555511"}, "callerId"),
        (GOOD | {"calledNumber": ""}, "calledNumber"),
        (GOOD | {"calledNumber": ["7202555511"]}, "calledNumber"),
        (GOOD | {"callerIdName": "a\nb"}, "callerIdName"),
        (GOOD | {"customerCallId": "x" * 300}, "customerCallId"),
    ],
)
async def test_a_bad_request_names_its_field(body: Any, named: str) -> None:
    desk = Desk()
    status, answer = await ask(desk, body)
    assert (status, answer["status"]) == (400, 400)
    assert named in answer["errorMessage"]
    assert desk.orders == []


@pytest.mark.parametrize(("why", "status"), [(Unplaced.BAD_REQUEST, 400), (Unplaced.TOO_MANY, 429), (Unplaced.UNAVAILABLE, 503)])
async def test_a_call_that_is_not_placed_says_why(why: Unplaced, status: int) -> None:
    desk = Desk(NotPlaced(why, "calledNumber: GB is not among the countries"))
    assert await ask(desk, GOOD) == (status, {"status": status, "errorMessage": "calledNumber: GB is not among the countries"})


def test_numbers_may_be_json_numbers_and_names_in_any_case() -> None:
    order = read_order(b'{"CalledNumber": 7202555511, "CALLERID": "7206999999"}', "acme")
    assert order == CallOrder("acme", "7202555511", "7206999999")


@given(st.binary(max_size=200))
def test_any_body_is_taken_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read_order(body, "acme"), CallOrder)
    except BadRequest as error:
        assert str(error)

"""Orders to Twilio over REST: what goes out, and what each answer is taken for."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.records import TwilioCredentials
from switchhook.telephony.twilio_rest import Accepted, Gone, NewCall, Refused, TwilioRest, Unreached, read_outcome

CREDENTIALS = TwilioCredentials("AC1", "canary", "https://api.example.com/")
CALL = NewCall("+12025550147", "+17206999999", "<Response/>", "https://h/twilio/status?leg=1", 30, 14400)


class Twilio:
    """Gives the answers that it was told, in order."""

    def __init__(self, *outcomes: HttpOutcome) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[HttpRequest] = []
        self.slept: list[float] = []

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.requests.append(request)
        return self.outcomes.pop(0)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def rest(self) -> TwilioRest:
        return TwilioRest(self, self.sleep)

    def forms(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(request.body.decode(), strict_parsing=True)) for request in self.requests]


def reply(status: int, /, **body: Any) -> HttpReply:
    return HttpReply(status, json.dumps(body).encode())


def test_a_new_call() -> None:
    twilio = Twilio(reply(201, sid="CA1", status="queued"))
    assert asyncio.run(twilio.rest.create_call(CREDENTIALS, CALL)) == Accepted("CA1", "queued")
    [request] = twilio.requests
    assert request.url == "https://api.example.com/2010-04-01/Accounts/AC1/Calls.json"
    assert b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"AC1:canary"
    events = [value for name, value in parse_qsl(request.body.decode()) if name == "StatusCallbackEvent"]
    assert events == ["initiated", "ringing", "answered", "completed"]
    expected = {"To": "+12025550147", "From": "+17206999999", "Twiml": "<Response/>", "Timeout": "30", "TimeLimit": "14400"}
    assert expected.items() <= twilio.forms()[0].items()
    assert "canary" not in repr(request)
    assert "canary" not in repr(CREDENTIALS)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (reply(404, code=20404, message="no such call"), Gone()),
        (reply(400, code=21220, message="not in progress"), Gone()),
        (reply(400, code=21211, message="bad +1"), Refused(400, 21211)),
        (reply(401, code=20003, message="Authenticate"), Refused(401, 20003)),
        (reply(500), Refused(500, 0)),
        (HttpReply(503, b"<html>"), Refused(503, 0)),
        (HttpReply(200, b"[]"), Unreached("Twilio's API answered what cannot be read")),
        (HttpFailure("timeout", "h:443 did not answer in 10 s"), Unreached("Twilio's API: h:443 did not answer in 10 s")),
    ],
)
def test_what_answers_mean(outcome: HttpOutcome, expected: object) -> None:
    assert read_outcome(outcome) == expected


def test_a_refused_pair_names_the_cure() -> None:
    assert "apply file" in str(Refused(401, 20003))


@pytest.mark.parametrize(("asked", "slept"), [("3", 3.0), ("900", 5.0), ("soon", 1.0)])
def test_too_many_requests_are_tried_once_more(asked: str, slept: float) -> None:
    busy = HttpReply(429, b"{}", {"Retry-After": asked})
    twilio = Twilio(busy, reply(201, sid="CA1"))
    assert isinstance(asyncio.run(twilio.rest.create_call(CREDENTIALS, CALL)), Accepted)
    assert twilio.slept == [slept]
    twilio = Twilio(busy, busy)
    assert asyncio.run(twilio.rest.create_call(CREDENTIALS, CALL)) == Refused(429, 0)


@pytest.mark.parametrize(
    ("answered", "outcomes", "statuses"),
    [
        (True, [reply(200, sid="CA1", status="completed")], ["completed"]),
        (False, [reply(200, sid="CA1", status="canceled")], ["canceled"]),
        (False, [reply(200, sid="CA1", status="in-progress"), reply(200, sid="CA1")], ["canceled", "completed"]),
        (False, [reply(400, code=21220), reply(404, code=20404)], ["canceled", "completed"]),
        (False, [reply(401, code=20003)], ["canceled"]),
        (False, [HttpFailure("timeout", "late")], ["canceled"]),
    ],
)
def test_a_call_that_is_answered_just_then_is_hung_up(answered: bool, outcomes: list[HttpOutcome], statuses: list[str]) -> None:
    twilio = Twilio(*outcomes)
    asyncio.run(twilio.rest.end_call(CREDENTIALS, "CA1", answered))
    assert [form["Status"] for form in twilio.forms()] == statuses
    assert twilio.requests[0].url.endswith("/Calls/CA1.json")


@given(
    st.integers(100, 599),
    st.binary()
    | st.builds(
        lambda value: json.dumps(value).encode(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sid", "code", "status", "x"]), inner, max_size=4)
            ),
            max_leaves=8,
        ),
    ),
)
def test_any_answer_is_taken_for_something(status: int, body: bytes) -> None:
    assert isinstance(read_outcome(HttpReply(status, body)), Accepted | Gone | Refused | Unreached)

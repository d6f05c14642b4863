"""A number, a call and replies for the tests of the Veevo contract."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from switchhook.api.veevo.contract import VeevoContract
from switchhook.domain.contract import Contract, HttpReply
from switchhook.domain.model import CallAttempt, CallId, Direction, Number, Speaker, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import CallPlan, Converse
from switchhook.domain.report import CallReport

DATA = Path(__file__).resolve().parents[2] / "data" / "webhooks" / "veevo"
CALL = CallId("9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1")
SID = "CA9e6a9d8e6a924b3f9a2c1c63c1f3a8f1"
STARTED = datetime(2026, 4, 3, 10, tzinfo=UTC)
ANSWERED = STARTED + timedelta(milliseconds=750)
ENDED = ANSWERED + timedelta(seconds=46.92)
VEEVO: Contract = VeevoContract()
CALLBACKS = {
    "on_call_start": {"url": "https://backend.example/calls/start"},
    "on_call_end": {"url": "https://backend.example/calls/end"},
}
USAGE = {"input_text": 365, "input_audio": 90, "output_text": 45, "output_audio": 109}
"""Of the documented onCallEnd."""
SAID = (
    Utterance(Speaker.AGENT, "Hi, how can I help?", 1, datetime.fromtimestamp(1711900000.9, UTC)),
    Utterance(Speaker.CALLER, "I need two units delivered Friday.", 2, datetime.fromtimestamp(1711900005, UTC)),
)


def number(**settings: Any) -> Number:
    return Number("+15551234567", "acme", "veevo", VEEVO.read_number_settings({**CALLBACKS, **settings}))


def attempt(**fields: Any) -> CallAttempt:
    given: dict[str, Any] = {
        "call_id": CALL,
        "direction": Direction.INBOUND,
        "called": "+15551234567",
        "caller": "+19805551234",
        "caller_name": None,
        "account": "acme",
        "line": "sip",
        "started_at": STARTED,
        **fields,
    }
    return CallAttempt(**given)


def report(**fields: Any) -> CallReport:
    given: dict[str, Any] = {
        "attempt": attempt(),
        "number": number(),
        "verdict": Verdict(Ending.COMPLETED, "caller-hung-up"),
        "connected_at": ANSWERED,
        "ended_at": ENDED,
        "customer_call_id": '{"customerId":"cust_123"}',
        "end_webhook_owed": True,
        "usage": USAGE,
        **fields,
    }
    return CallReport(**given)


def recorded(name: str) -> bytes:
    """A documented body, without the white space between its tokens."""
    text = (DATA / name).read_text()
    pieces = re.findall(r'"(?:[^"\\]|\\.)*"|[^\s"]+', text)
    return "".join(pieces).encode()


def configuration(**fields: Any) -> bytes:
    """The documented reply with some fields replaced; a value of `...` takes the field out."""
    body = {**json.loads((DATA / "on_call_start_reply.json").read_text()), **fields}
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def plan_of(body: bytes, at: Number | None = None, call: CallAttempt | None = None) -> CallPlan:
    plan = VEEVO.read_start_outcome(at or number(), call or attempt(), HttpReply(200, body))
    assert isinstance(plan, CallPlan), plan
    return plan


def conversation(plan: CallPlan) -> Converse:
    (found,) = (action for action in plan.flow if isinstance(action, Converse))
    return found

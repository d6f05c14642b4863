"""A number, a call and replies for the tests of the VNS contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from switchhook.api.vns.contract import VnsContract
from switchhook.domain.contract import Contract, HttpReply
from switchhook.domain.model import CallAttempt, CallId, Direction, Number
from switchhook.domain.plan import CallPlan, Converse

DATA = Path(__file__).resolve().parents[2] / "data" / "webhooks" / "vns"
GUID = CallId("9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1")
STARTED = datetime(2026, 3, 12, 10, 42, 15, tzinfo=UTC)
VNS: Contract = VnsContract()
WEBHOOKS = {
    "call_start": {"url": "https://backend.example/callstart", "headers": {"Token": "canary-start"}},
    "call_end": {"url": "https://backend.example/callend", "headers": {"Token": "canary-end"}},
}


def number(**settings: Any) -> Number:
    return Number("+17206999999", "acme", "vns", VNS.read_number_settings({**WEBHOOKS, **settings}))


def attempt(**fields: Any) -> CallAttempt:
    given: dict[str, Any] = {
        "call_id": GUID,
        "direction": Direction.INBOUND,
        "called": "+17206999999",
        "caller": "+13032639999",
        "caller_name": "Ada Caller",
        "account": "acme",
        "line": "sip",
        "started_at": STARTED,
        **fields,
    }
    return CallAttempt(**given)


def recorded(name: str) -> Any:
    return json.loads((DATA / name).read_bytes())


def reply_with(instructions: Mapping[str, Any] | None = None, session: Mapping[str, Any] | None = None, **top: Any) -> bytes:
    """A small usable reply with some fields replaced; a value of `...` takes the field out."""
    inner = {
        "aiUrl": {"url": "wss://ai.example/v1/realtime?model=m", "headers": {"Authorization": "Bearer canary-ai"}},
        **(instructions or {}),
    }
    body = {
        "VoiceElements_Instructions": {k: v for k, v in inner.items() if v is not ...},
        "type": "session.update",
        "session": {"type": "realtime", **(session or {})},
        **top,
    }
    return json.dumps({k: v for k, v in body.items() if v is not ...}).encode()


def plan_of(body: bytes, at: Number | None = None, call: CallAttempt | None = None) -> CallPlan:
    plan = VNS.read_start_outcome(at or number(), call or attempt(), HttpReply(200, body))
    assert isinstance(plan, CallPlan), plan
    return plan


def conversation(plan: CallPlan) -> Converse:
    found = [action for action in plan.flow if isinstance(action, Converse)]
    assert len(found) == 1
    return found[0]

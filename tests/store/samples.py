"""Records to write down."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from switchhook.domain.model import CallAttempt, CallId, Direction, Number, TransferRecord, Trunk
from switchhook.domain.outcome import Ending, Outcome
from switchhook.domain.plan import JournalSpec
from switchhook.domain.records import CallRecord, OutboxEvent

START = datetime(2026, 4, 17, 16, 26, 12, 560_000, tzinfo=UTC)
CANARY = "canary-4f1c9a"
"""Begins every secret of these samples."""

NUMBER = Number(
    "+17206999999",
    "acme",
    "vns",
    {"call_start": {"url": "https://b.example/start", "headers": {"Token": f"{CANARY}-start"}}, "fallback": {"number": None}},
)
TRUNK = Trunk("local", "acme", "sip:127.0.0.1:5070", ("127.0.0.0/8",), "alice", f"{CANARY}-sip", False)


def attempt(call_id: str | None = None, at: datetime = START) -> CallAttempt:
    return CallAttempt(
        CallId(call_id or str(uuid.uuid4())),
        Direction.INBOUND,
        "+17206999999",
        "+13035550123",
        "ACME WEST",
        "acme",
        "sip",
        at,
        "abc@host",
        "local",
        "their-7",
    )


def begun(call_id: str | None = None) -> CallRecord:
    made = attempt(call_id)
    return CallRecord(
        made, "acme", NUMBER.number, "vns", START + timedelta(milliseconds=1), made.customer_call_id, end_webhook_owed=True
    )


def ended(record: CallRecord) -> CallRecord:
    return replace(
        record,
        journal=JournalSpec(tool_requests=True, transcript=True),
        connected_at=START + timedelta(seconds=1),
        ended_at=START + timedelta(seconds=9),
        ending=Ending.COMPLETED,
        outcome=Outcome.SUCCESS,
        reason="caller-hung-up",
        message="bye",
        transfers=(TransferRecord("+13035550199", "+13035550123", None, START, START + timedelta(seconds=3), "Connected"),),
        usage={"input_audio": 71, "output_audio": 12},
        figures={"first_audio_ms": 211.5},
    )


def event(record: CallRecord, account: str = "acme", due: datetime = START, body: bytes = b'{"sessionGuid":"x"}') -> OutboxEvent:
    return OutboxEvent(record.attempt.call_id, "call-end", account, NUMBER.number, "vns", body, START, due)

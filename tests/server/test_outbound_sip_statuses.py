"""Final answers of a carrier, from sipp to outboundCallResult and the call's record (contract §1.8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.outgoing_call import content
from tests.peers.sipp import SCENARIOS
from tests.server.exchange import Exchange
from tests.server.model import Model

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("sipp")]


@pytest.mark.parametrize(
    ("answer", "result", "status", "reason"),
    [
        ("401 Unauthorized", "Failed", 0, "failed"),
        ("403 Forbidden", "Failed", 0, "failed"),
        ("404 Not Found", "OperatorIntercept", 0, "unreachable"),
        ("408 Request Timeout", "NoAnswer", 0, "no-answer"),
        ("410 Gone", "OperatorIntercept", 0, "unreachable"),
        ("480 Temporarily Unavailable", "NoAnswer", 0, "no-answer"),
        ("484 Address Incomplete", "OperatorIntercept", 0, "unreachable"),
        ("486 Busy Here", "Busy", 0, "busy"),
        ("487 Request Terminated", "NoAnswer", 0, "no-answer"),
        ("488 Not Acceptable Here", "Failed", 0, "failed"),
        ("500 Server Internal Error", "Failed", 4, "trunk-error"),
        ("503 Service Unavailable", "Failed", 4, "trunk-error"),
        ("600 Busy Everywhere", "Busy", 0, "busy"),
        ("603 Decline", "Failed", 0, "declined"),
        ("604 Does Not Exist Anywhere", "OperatorIntercept", 0, "unreachable"),
        ("606 Not Acceptable", "Failed", 0, "failed"),
    ],
)
async def test_a_final_answer(exchange: Exchange, tmp_path: Path, answer: str, result: str, status: int, reason: str) -> None:
    """CallEnd has the contract's word, and its error text for 5xx alone; the record has the outcome and the SIP code."""
    said = f"The far side answered {answer}"
    async with Model() as model, exchange.sipp(_refusing(tmp_path, answer), tmp_path) as process:
        exchange.answer_with(model)
        guid = await exchange.place()
        await content(process, tmp_path)
        end = await exchange.end_of(guid)
    told = (end["outboundCallResult"], end["status"], end["errorMessage"], end["callConnected"], end["transcription"])
    assert told == (result, status, said if status else "No Errors", None, [])
    assert await exchange.row("reason", "call_id = ?", guid) == reason
    assert await exchange.row("message", "call_id = ?", guid) == said


def _refusing(folder: Path, answer: str) -> str:
    """The scenario of a busy carrier with another answer."""
    path = folder / "uas_refuses"
    path.with_suffix(".xml").write_text((SCENARIOS / "uas_busy.xml").read_text().replace("486 Busy Here", answer))
    return str(path)

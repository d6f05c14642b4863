"""`switchhook webhook test` on a Veevo number, beside a server that runs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.server.veevo_house import CANARIES, NUMBER, VeevoHouse, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _tried(veevo: VeevoHouse, *options: str) -> tuple[int, list[str]]:
    code, told = await veevo.server.run("webhook", "test", NUMBER, *options)
    assert not any(canary in told for canary in CANARIES.values())
    assert "Traceback" not in told
    return code, told.splitlines()


async def test_a_reply_that_would_do(veevo: VeevoHouse) -> None:
    """Every field is listed with what became of it; the made-up call is signed and is no call."""
    veevo.backend.start_reply |= {"vadEagerness": "eager", "inactivityTimeoutMs": "5000", "surprise": 1, "voice": "cedar"}
    code, lines = await _tried(veevo)
    assert code == 0
    assert re.fullmatch(r"onCallStart: passed, HTTP 200, \d+ ms: a call would be answered", lines[0])
    fields = {line.strip() for line in lines[1:]}
    assert {"voice: understood", "openaiApiKey: understood", "metadata: understood", "surprise: ignored (unknown key)"} <= fields
    assert {line.partition(" (")[0] for line in fields} >= {"vadEagerness: ignored", "inactivityTimeoutMs: coerced"}
    [start] = veevo.backend.of("start")
    assert (start.json["calledNumber"], start.json["callSid"][:2]) == (NUMBER, "CA")
    assert veevo.backend.unsigned == []
    assert veevo.asked("SELECT 1 FROM calls WHERE caller = ?", start.json["callerPhone"]) == []


@pytest.mark.parametrize(
    ("status", "answer", "code", "text"),
    [
        (200, {"reject": True}, 0, "onCallStart: passed, HTTP 200, .* a call would be refused, as the reply says"),
        (
            200,
            {**reply(onToolCallUrl="http://b.example/"), "systemPrompt": None},
            1,
            "onCallStart: FAILED, HTTP 200, .*systemPrompt",
        ),
        (200, b"<html>", 1, "onCallStart: FAILED, HTTP 200, .* it is no JSON object"),
        (500, {}, 1, "onCallStart: FAILED, HTTP 500, .* onCallStart answered HTTP 500"),
    ],
)
async def test_other_replies(veevo: VeevoHouse, status: int, answer: Any, code: int, text: str) -> None:
    veevo.backend.start_status, veevo.backend.start_reply = status, answer
    got, lines = await _tried(veevo)
    assert (got, len(lines)) == (code, 1)
    assert re.search(text, lines[0]), lines


async def test_the_end_and_a_backend_that_is_not_there(veevo: VeevoHouse) -> None:
    code, lines = await _tried(veevo, "--end")
    assert (code, len(lines)) == (0, 1)
    assert re.fullmatch(r"onCallEnd: passed, HTTP 200, \d+ ms: acknowledged", lines[0])
    [end] = veevo.backend.of("end")
    assert end.json["transcript"] == []
    veevo.backend.end_statuses = [503]
    code, lines = await _tried(veevo, "--end")
    assert code == 1
    assert "FAILED, HTTP 503" in lines[0]
    assert veevo.backend.unsigned == []
    await veevo.backend.go_down()
    try:
        for options, name in (((), "onCallStart"), (("--end",), "onCallEnd")):
            code, lines = await _tried(veevo, *options)
            assert code == 1
            assert re.fullmatch(rf"{name}: FAILED, no reply, \d+ ms: unreachable: .+", lines[0]), lines
    finally:
        await veevo.backend.come_up()
    code, told = await veevo.server.run("webhook", "test", "+15550009999")
    assert code == 1
    assert "+15550009999 is not configured" in told

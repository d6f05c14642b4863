"""The callbacks as each generation of Veevo's documents has them, and every form in which a backend may reply, over SIP."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.server.house import ear_has
from tests.server.listening import speech
from tests.server.veevo_house import CANARIES, NEWER, NUMBER, OLDER, VeevoHouse, VeevoTalk, greeted, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENTED = Path(__file__).resolve().parents[1] / "data" / "webhooks" / "veevo"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
COSTS = [
    *("inputTextTokens", "inputAudioTokens", "outputTextTokens", "outputAudioTokens"),
    *("costInputText", "costInputAudio", "costOutputText", "costOutputAudio", "costTwilio", "totalCost"),
]
CACHED = ["cachedInputTextTokens", "cachedInputAudioTokens"]


def _documented(name: str) -> Any:
    return json.loads((DOCUMENTED / f"{name}.json").read_text())


async def _tool(talk: VeevoTalk, call_id: str, arguments: Any = None) -> str:
    """The model calls the customer's tool; gives what it gets."""
    talk.session.calls_tool(call_id, "check_availability", {} if arguments is None else arguments)
    return await talk.session.output_of(call_id)


@pytest.mark.parametrize(
    ("number", "caller", "added"),
    [
        (OLDER, ["callerPhone"], []),
        (NEWER, ["callerNumber"], ["callerNumber", "calledNumber"]),
        (NUMBER, ["callerPhone", "callerNumber"], ["callerNumber", "callerPhone", "calledNumber"]),
    ],
)
async def test_a_call_by_the_documents_of_its_generation(
    veevo: VeevoHouse, number: str, caller: list[str], added: list[str]
) -> None:
    """Every callback has the documented fields and no other, and a signature over its raw body."""
    asked = _documented("on_tool_call_request")
    veevo.backend.start_reply = {
        **_documented("on_call_start_reply"),
        "onToolCallUrl": f"{veevo.backend.url}/calls/tool",
        "tools": reply()["tools"],
        "metadata": asked["metadata"],
    }
    veevo.backend.tool_reply = _documented("on_tool_call_reply")
    async with veevo.talk(number) as talk:
        assert talk.session.headers["Authorization"] == "Bearer sk-canary-openai-key"
        await greeted(talk.session, talk.call)
        talk.session.caller_spoke("I need two units delivered Friday.")
        assert await _tool(talk, "call_1", asked["arguments"]) == "We have 3 standard units available for April 15."
        await talk.call.hang_up()
    end, start = (await veevo.end_of(talk.sid)).json, talk.start.json
    [tool] = veevo.backend.of("tool")
    assert list(start) == ["callSid", *caller, "calledNumber", "timestamp"]
    assert {start[name] for name in caller} == {talk.caller}
    assert start["calledNumber"] == number
    assert list(tool.json) == ["toolName", "arguments", "metadata", "timestamp"]
    assert {**tool.json, "timestamp": ""} == {**asked, "timestamp": ""}
    documented = ["callSid", "transcript", "costBreakdown", "durationSeconds", "metadata", "timestamp"]
    assert list(end) == [*documented, *added]
    assert (end["callSid"], end["metadata"]) == (start["callSid"], asked["metadata"])
    assert {end[name] for name in added} <= {talk.caller, number}
    assert list(end["costBreakdown"]) == COSTS[:4] + (CACHED if number == NUMBER else []) + COSTS[4:]
    assert [list(line) for line in end["transcript"]] == [["role", "content", "timestamp"]] * 2
    assert all(isinstance(line["timestamp"], int) and line["timestamp"] > 1_700_000_000 for line in end["transcript"])
    assert isinstance(end["durationSeconds"], int)
    assert all(ISO.fullmatch(told["timestamp"]) for told in (start, tool.json, end))
    for got in (talk.start, tool, await veevo.end_of(talk.sid)):
        assert got.headers["Content-Type"] == "application/json"
        expected = hmac.new(CANARIES["secret"].encode(), got.body, hashlib.sha256)
        assert got.headers["X-Veevo-Signature"] == expected.hexdigest()


async def test_every_form_of_a_tools_reply_reaches_the_model(veevo: VeevoHouse) -> None:
    """Whatever the backend does, the model gets one output for each call, and the talk goes on."""
    forms: list[tuple[int, Any, str]] = [
        (200, {"result": "We have three."}, "We have three."),
        (201, {"result": {"units": 3}}, '{"units": 3}'),
        (200, {"result": None}, "null"),
        (200, {"units": 3}, '{"units": 3}'),
        (200, b"", '{"status":"ok"}'),
        (204, b"", '{"status":"ok"}'),
        (200, b"three", '{"result":"three"}'),
        (200, [1, 2], "[1, 2]"),
        (500, {"why": "no"}, '{"error":"The tool returned HTTP 500.","details":{"why": "no"}}'),
        (404, b"nothing here", '{"error":"The tool returned HTTP 404.","details":"nothing here"}'),
    ]
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        for at, (status, content, output) in enumerate(forms):
            veevo.backend.tool_status, veevo.backend.tool_reply = status, content
            assert await _tool(talk, f"call_{at}") == output
        assert await _tool(talk, "no_object", [1]) == '{"error":"Invalid arguments"}'
        await veevo.backend.go_down()
        try:
            assert await _tool(talk, "nobody") == '{"error":"The tool could not be reached."}'
        finally:
            await veevo.backend.come_up()
        talk.session.speaks(speech(400, turn=1), "Never mind.")
        await ear_has(talk.call, 20, turn=1)
        await talk.call.hang_up()
    assert len(veevo.backend.of("tool")) == len(forms), "arguments that are no object are not sent"
    end = (await veevo.end_of(talk.sid)).json
    assert end["transcript"][-1]["content"] == "Never mind."
    assert veevo.backend.unsigned == []

"""Tools on a live call (contract §1.4, §1.5): every kind of reply, every address, and what of it the customer's log tells."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.peers.vns_backend import VnsBackend
from tests.server.call_end import log_texts
from tests.server.desk import Desk, breaks, never, redirects, replies
from tests.server.house import NUMBER, House, ear_has, house_config, open_house
from tests.server.listening import speech
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMPATIENT = "+17206999807"
"""Waits four seconds for a tool."""
DASHES = "+17206999806"
"""Puts a dash where the customer gave no id."""
MEBIBYTE = b'{"a":"' + b"x" * (1 << 20) + b'"}'
ADAPTERS = (
    "/<<sessionguid>>/<<toolname>>/<<customerCallId>>",
    "/<<toolname>>/<<sessionguid>>/<<customerCallId>>",
    "/<<toolname>>",
    "/<<toolname>>/<<customerCallId>>",
    "?toolname=<<toolname>>&sessionguid=<<sessionguid>>&customerCallId=<<customerCallId>>",
    "?toolname=<<toolname>>&sessionguid=<<sessionguid>>",
)


def _content(backend: VnsBackend) -> dict[str, Any]:
    content = house_config(backend)
    number = content["numbers"][0]
    content["numbers"].append({**deepcopy(number), "number": IMPATIENT, "tool_timeout_s": 4})
    content["numbers"].append({**deepcopy(number), "number": DASHES, "null_placeholder": "-"})
    return content


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A server of this file."""
    async with open_house(tmp_path_factory.mktemp("office"), _content, SWITCHHOOK_DRAIN_S="1") as house:
        yield house


def _serve_tools(house: House, model: Model, desk: Desk, tools: list[str], **instructions: Any) -> dict[str, Any]:
    base = {"url": f"{desk.url}/v1/aitool", "headers": {"Token": "tool-token", "X-Own": "yes"}}
    return house.answer_with(model, tools, **({"defaultToolsUrlBase": base} | instructions))


async def _output(session: LiveSession, name: str, arguments: Any, asked: int) -> str:
    """The model calls a tool; gives what it is told, once it is also asked to go on."""
    session.calls_tool(f"call_{name}", name, arguments)
    told = await session.output_of(f"call_{name}")
    await session.got("response.create", asked)
    return told


async def test_every_kind_of_reply_reaches_the_model_and_the_call_goes_on(office: House) -> None:
    """The whole error matrix on one call: one output each, and the caller still hears the agent."""
    async with Model() as model, Desk() as desk:
        matrix = {
            "object": (replies(200, '{ "a": 1.50 }'), '{ "a": 1.50 }'),
            "created": (replies(201, '{"id": 7}'), '{"id": 7}'),
            "array": (replies(200, "[1, 2]"), "[1, 2]"),
            "empty": (replies(204), '{"status":"ok"}'),
            "words": (replies(200, "all good", "text/plain"), '{"result":"all good"}'),
            "missing": (
                replies(404, "nobody here", "text/html"),
                '{"error":"The tool returned HTTP 404.","details":"nobody here"}',
            ),
            "broken": (replies(500, '{"why": "x"}'), '{"error":"The tool returned HTTP 500.","details":{"why": "x"}}'),
            "moved": (redirects(f"{desk.url}/elsewhere"), None),
            "reset": (breaks, '{"error":"The tool could not be reached."}'),
            "late": (never, '{"error":"The tool did not answer in time."}'),
            "mebibyte": (replies(200, MEBIBYTE), None),
        }
        desk.answers = {f"/v1/aitool/{name}": answer for name, (answer, _) in matrix.items()}
        _serve_tools(office, model, desk, list(matrix), defaultToolsUrlAdapter="/<<toolname>>")
        told: dict[str, str] = {}
        async with office.talk(model, number=IMPATIENT) as talk:
            await talk.session.got("response.create")
            for count, name in enumerate(matrix, start=2):
                told[name] = await _output(talk.session, name, {}, count)
            talk.session.speaks(speech(200), "All done.")
            await ear_has(talk.call, 10)
            await talk.call.hang_up()
        end = await office.end_of(talk.guid)
    for name, (_, output) in matrix.items():
        assert output is None or told[name] == output, name
        assert len(desk.of(f"/v1/aitool/{name}")) == 1, f"{name}: no tool is tried twice"
    assert json.loads(told["moved"])["error"] == "The tool returned HTTP 302."
    assert not desk.of("/elsewhere")
    assert json.loads(told["mebibyte"])["truncated"] is True
    assert len(told["mebibyte"]) < 600_000
    assert end["status"] == 0
    answered = [line.split()[2] for line in log_texts(end) if line.startswith("Tool Reply:")]
    assert answered == list(matrix)


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_every_adapter_leads_where_the_contract_says(office: House, adapter: str) -> None:
    """With an id that has to be encoded: the arguments alone are the body."""
    async with Model() as model, Desk() as desk:
        _serve_tools(office, model, desk, ["find"], defaultToolsUrlAdapter=adapter, customerCallId="Call 1/a")
        async with office.talk(model) as talk:
            await talk.session.got("response.create")
            await _output(talk.session, "find", {"who": "Ron"}, 2)
            await talk.call.hang_up()
        await office.end_of(talk.guid)
    [got] = desk.requests
    filled = adapter.replace("<<sessionguid>>", talk.guid).replace("<<toolname>>", "find")
    assert got.path == "/v1/aitool" + filled.replace("<<customerCallId>>", "Call%201%2Fa")
    assert got.json == {"who": "Ron"}
    assert (got.headers["Token"], got.headers["X-Own"]) == ("tool-token", "yes")
    assert got.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("number", "path"), [(NUMBER, "/v1/aitool/find/"), (DASHES, "/v1/aitool/find/-")])
async def test_a_call_without_an_id_of_the_customer(office: House, number: str, path: str) -> None:
    async with Model() as model, Desk() as desk:
        adapter = "/<<toolname>>/<<customerCallId>>"
        _serve_tools(office, model, desk, ["find"], defaultToolsUrlAdapter=adapter, customerCallId=None)
        async with office.talk(model, number=number) as talk:
            await talk.session.got("response.create")
            await _output(talk.session, "find", {}, 2)
            await talk.call.hang_up()
        assert (await office.end_of(talk.guid))["customerCallId"] is None
    assert [got.path for got in desk.requests] == [path]


async def test_arguments_that_are_no_object(office: House) -> None:
    """What the model wrote reaches the customer as text; a forged metadata key does not."""
    async with Model() as model, Desk() as desk:
        _serve_tools(office, model, desk, ["find"])
        async with office.talk(model) as talk:
            await talk.session.got("response.create")
            for count, arguments in enumerate(('{"half', "[1]", "", '{"VoiceElements_InvokeTool": "x", "b": 2}'), start=2):
                talk.session.respond()
                talk.session.call("find", arguments, f"call_{count}")
                talk.session.finish()
                await talk.session.output_of(f"call_{count}")
                await talk.session.got("response.create", count)
            await talk.call.hang_up()
        await office.end_of(talk.guid)
    metadata = {"toolName": "find", "sessionGuid": talk.guid, "customerCallId": "CallId-001"}
    assert [got.json.pop("VoiceElements_InvokeTool") for got in desk.requests] == [metadata] * 4
    rest = [{name: value for name, value in got.json.items() if name != "VoiceElements_InvokeTool"} for got in desk.requests]
    assert rest == [{"arguments": '{"half'}, {"arguments": "[1]"}, {}, {"b": 2}]


@pytest.mark.parametrize(("requests", "answers"), [(True, False), (False, True), (False, False)])
async def test_the_log_tells_what_was_asked_for(office: House, requests: bool, answers: bool) -> None:
    """`logToolCallRequests` and `logToolCallReplies`, each for itself; without any log flag there is no log."""
    flags = {"logToolCallRequests": requests, "logToolCallReplies": answers, "logTranscription": False}
    async with Model() as model, Desk() as desk:
        _serve_tools(office, model, desk, ["find"], **flags)
        async with office.talk(model) as talk:
            await talk.session.got("response.create")
            await _output(talk.session, "find", {"who": "Ron"}, 2)
            await talk.call.hang_up()
        end = await office.end_of(talk.guid)
    if not requests and not answers:
        assert end["logInformation"] is None
        return
    texts = log_texts(end)
    assert texts[0] == "Logging Started."
    assert ('Tool Request: find {"who": "Ron"}' in texts) is requests
    assert any(re.fullmatch(r'Tool Reply: find 200 \d+ms \{"ok": ?true\}', text) for text in texts) is answers


async def test_tools_of_one_response_run_at_the_same_time(office: House) -> None:
    """Neither waits for the other, and the model is asked to go on once, when both are answered."""
    async with Model() as model, Desk() as desk:
        gate = asyncio.Event()

        async def together(request: Any) -> Any:
            await gate.wait()
            return await replies(200, '{"ok":true}')(request)

        desk.answers = {"/v1/aitool": together}
        _serve_tools(office, model, desk, ["one", "two"], defaultToolsUrlAdapter="/<<toolname>>")
        async with office.talk(model) as talk:
            session = talk.session
            await session.got("response.create")
            session.respond()
            session.call("one", "{}", "call_1")
            session.call("two", "{}", "call_2")
            session.finish()
            await asyncio.gather(desk.got("/v1/aitool/one"), desk.got("/v1/aitool/two"))
            gate.set()
            await asyncio.gather(session.output_of("call_1"), session.output_of("call_2"))
            await session.got("response.create", 2)
            session.speaks(speech(200), "Both are done.")
            await ear_has(talk.call, 10)
            assert len(session.sent("response.create")) == 2
            await talk.call.hang_up()
        await office.end_of(talk.guid)


async def test_only_a_finished_call_of_a_tool_runs_and_it_runs_once(office: House) -> None:
    """A call cut off in the midst does not; one that was finished does, although its response is cancelled afterwards."""
    async with Model() as model, Desk() as desk:
        _serve_tools(office, model, desk, ["half", "whole"], defaultToolsUrlAdapter="/<<toolname>>")
        async with office.talk(model) as talk:
            session = talk.session
            await session.got("response.create")
            session.respond()
            half = {"type": "function_call", "call_id": "call_h", "name": "half", "arguments": '{"a', "id": "item_half"}
            done = {"response_id": session.active, "item_id": "item_half", "output_index": 0, "call_id": "call_h", "name": "half"}
            session.emit("response.function_call_arguments.done", **done, arguments='{"a')
            session.emit(
                "response.output_item.done", response_id=session.active, output_index=0, item=half | {"status": "incomplete"}
            )
            session.call("whole", "{}", "call_w")
            session.emit("input_audio_buffer.speech_started", item_id="caller_1", audio_start_ms=0)
            session.finish("cancelled", "turn_detected")
            assert json.loads(await session.output_of("call_w")) == {"ok": True}
            session.speech_stopped("caller_1")
            session.transcribed("caller_1", "Wait!")
            session.speaks(speech(200), "Yes?")
            await ear_has(talk.call, 10)
            await talk.call.hang_up()
        await office.end_of(talk.guid)
    assert [got.path for got in desk.requests] == ["/v1/aitool/whole"]


async def test_tools_of_an_mcp_server_are_the_models_business(office: House) -> None:
    """The entry goes on as it is, its key too; an approval is denied, told in the log, and nobody is called."""
    entry = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": "https://mcp.example/sse",
        "headers": {"Authorization": "Bearer mcp-key"},
        "require_approval": "always",
    }
    async with Model() as model, Desk() as desk:
        reply = _serve_tools(office, model, desk, ["find"])
        reply["session"]["tools"].append(entry)
        async with office.talk(model) as talk:
            session = talk.session
            [update] = session.sent("session.update")
            assert update["session"]["tools"] == reply["session"]["tools"]
            await session.got("response.create")
            session.respond()
            request = {"type": "mcp_approval_request", "name": "delete_all", "server_label": "crm", "arguments": "{}"}
            item_id = session.add_item(request)
            session.emit("response.output_item.done", response_id=session.active, output_index=0, item=request | {"id": item_id})
            session.finish()

            def denied() -> list[Any]:
                made = [event["item"] for event in session.sent("conversation.item.create")]
                return [item for item in made if item["type"] == "mcp_approval_response"]

            [answer] = await session.until(denied, "an answer to the approval")
            assert (answer["approval_request_id"], answer["approve"]) == (item_id, False)
            await talk.call.hang_up()
        end = await office.end_of(talk.guid)
    assert any("delete_all" in text for text in log_texts(end))
    assert "mcp-key" not in json.dumps(end)
    assert not desk.requests


async def test_a_tool_on_a_private_network_is_not_called(tmp_path: Path) -> None:
    """Without the allow-list neither a tool nor the model at a loopback address is reached; the customer is told."""
    async with open_house(tmp_path) as house, Model() as model, Desk() as desk:
        reply = _serve_tools(house, model, desk, ["find"])
        base = reply["VoiceElements_Instructions"]["defaultToolsUrlBase"]
        base["url"] = base["url"].replace("127.0.0.1", "10.255.255.1")
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            assert json.loads(await _output(talk.session, "find", {}, 2)) == {"error": "The tool could not be reached."}
            await talk.call.hang_up()
        assert (await house.end_of(talk.guid))["status"] == 0
        reply["VoiceElements_Instructions"]["aiUrl"]["url"] = "ws://169.254.169.254/latest"
        end = await house.dropped_call()
        assert end["status"] == 2

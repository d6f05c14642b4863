"""The sample backend as the server meets it: over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from switchhook_demo.backend import TOKEN, Agent, Backend, Event, agent_for, book_appointment

CALL = {"sessionGuid": "0b7c1c5e-6a55-4a43-8f0a-0f3a1c1f7d11", "calledNumber": "7206999999", "callerId": "7205550142"}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    seen: list[Event] = []
    made = Backend(Agent("ws://127.0.0.1:1/v1/realtime", {"Authorization": "Bearer t"}, "Be kind.", [], "test"), seen.append)
    await made.serve()
    yield made
    assert seen == made.events
    await made.close()


async def post(backend: Backend, path: str, body: Any, token: str = TOKEN) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{backend.address}/{path}", json=body, headers={"Token": token}) as response,
    ):
        return response.status, await response.json()


def tool(name: str, **arguments: str) -> dict[str, Any]:
    return {
        "VoiceElements_InvokeTool": {"toolName": name, "sessionGuid": CALL["sessionGuid"], "customerCallId": None},
        **arguments,
    }


async def test_call_start_gives_a_session_and_instructions(backend: Backend) -> None:
    status, reply = await post(backend, "callstart", CALL)
    assert status == 200
    assert reply["type"] == "session.update"
    assert reply["session"]["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    told = reply["VoiceElements_Instructions"]
    assert told["aiUrl"] == {"url": "ws://127.0.0.1:1/v1/realtime", "headers": {"Authorization": "Bearer t"}}
    assert told["defaultToolsUrlBase"]["url"] == f"{backend.address}/tools"
    assert (told["recordCall"], told["recordCallFormat"], told["logTranscription"]) == (True, "wav", True)


async def test_tools_answer_for_the_day_that_was_asked(backend: Backend) -> None:
    _, friday = await post(backend, "tools", tool("check_availability", day="Friday"))
    _, sunday = await post(backend, "tools", tool("check_availability", day="Sunday"))
    assert friday["available"] is True and len(friday["times"]) == 2
    assert sunday["available"] is False
    assert [event.kind for event in backend.events] == ["tool", "tool"]


async def test_booking_has_a_reference_that_depends_on_day_and_time() -> None:
    assert book_appointment("friday", "14:30")["reference"] != book_appointment("friday", "10:00")["reference"]
    assert book_appointment("friday", "")["booked"] is False


async def test_transcript_lines_and_call_end_are_kept(backend: Backend) -> None:
    await post(backend, "tools", tool("live_transcript", speaker="AI", text="Hello", timestamp="2026-01-01T00:00:00.000Z"))
    assert not backend.ended.is_set()
    status, reply = await post(backend, "callend", CALL | {"status": 0})
    assert (status, reply) == (200, {"status": 0, "errorMessage": "Success"})
    assert backend.ended.is_set()
    assert backend.of("line")[0].body["text"] == "Hello"
    assert backend.of("end")[0].body["status"] == 0


async def test_unknown_tool_wrong_token_and_wrong_body_are_told(backend: Backend) -> None:
    assert "error" in (await post(backend, "tools", tool("dance")))[1]
    assert (await post(backend, "tools", tool("dance"), token="x"))[0] == 401
    assert (await post(backend, "callstart", [1]))[0] == 400


def test_a_key_switches_to_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    agent = agent_for("ws://127.0.0.1:1/v1/realtime", "t")
    assert agent.url.startswith("wss://api.openai.com/v1/realtime?model=")
    assert agent.headers == {"Authorization": "Bearer sk-test"}
    assert {tool["name"] for tool in agent.tools} >= {"check_availability", "book_appointment", "vns_end_conversation"}

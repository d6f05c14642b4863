"""The endpoint on a real port: who gets in, a whole conversation by voice, interruption, and how connections end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import picows
import pytest
import pytest_asyncio
import yaml

from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook_demo.backend import RECEPTION, book_appointment, check_availability
from tests.agents.realtime.endpoint_server import WAIT_S, Client, Endpoint, endpoint
from tests.peers.flite import spoken

PCMU = {"type": "audio/pcmu"}
AUDIO: dict[str, Any] = {
    "input": {"format": PCMU, "transcription": {"model": "any"}, "turn_detection": {"type": "server_vad"}},
    "output": {"format": PCMU},
}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Endpoint]:
    async with endpoint() as running:
        yield running


async def refused_with(url: str, token: str) -> int:
    with pytest.raises(picows.WSInvalidStatusError) as refused:
        await Client.connect(url, token)
    assert refused.value.response is not None
    assert json.loads(refused.value.raw_body or b"{}")["error"]["message"]
    return int(refused.value.response.status)


async def test_only_a_known_token_gets_in(server: Endpoint) -> None:
    assert await refused_with(server.url, "wrong") == 401
    assert await refused_with(server.url, "") == 401
    assert await refused_with(server.url.replace("/v1/realtime", "/v1/other"), "secret-token") == 404
    assert server.door.sessions == 0


async def test_sessions_are_bounded_and_their_places_come_back(server: Endpoint) -> None:
    clients = [await Client.connect(server.url) for _ in range(4)]
    for client in clients:
        assert (await client.until("session.created"))["session"]["model"] == "embedded"
    assert await refused_with(server.url, "secret-token") == 503
    clients[0].close()
    await clients[0].closed()
    again: Client | None = None
    async with asyncio.timeout(WAIT_S):
        while again is None:
            with contextlib.suppress(picows.WSInvalidStatusError):
                again = await Client.connect(server.url)
    await again.until("session.created")


async def test_without_the_extra_the_refusal_names_the_cure(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.door.engine.ear, "missing", "install the extra `switchhook[embedded]`")
    assert await refused_with(server.url, "secret-token") == 503


async def test_closing_the_door_closes_every_session() -> None:
    async with endpoint() as running:
        client = await Client.connect(running.url)
        await client.until("session.created")
    await client.closed()


async def test_binary_fragments_and_garbage(server: Endpoint) -> None:
    client = await Client.connect(server.url)
    client.send_raw(picows.WSMsgType.BINARY, b"\x00\x01")
    assert (await client.until("error"))["error"]["code"] == "invalid_json"
    client.send_raw(picows.WSMsgType.TEXT, b'{"type": "session.upd', fin=False)
    client.send_raw(picows.WSMsgType.CONTINUATION, b'ate", "session": {}}')
    await client.until("session.updated")
    client.send_raw(picows.WSMsgType.TEXT, b"[" * 5000)
    await client.until("error")


async def reception(server: Endpoint) -> Client:
    client = await Client.connect(server.url)
    text = RECEPTION.read_text()
    tools = yaml.safe_load(text)["tools"]
    client.send("session.update", session={"type": "realtime", "instructions": text, "tools": tools, "audio": AUDIO})
    await client.until("session.updated")
    client.send("response.create")
    greeting = await client.until("response.output_audio_transcript.done")
    assert greeting["transcript"].startswith("Welcome to the practice.")
    await client.until("response.done")
    return client


async def says(client: Client, line: str) -> dict[str, Any]:
    """The caller says a line; gives the agent's response."""
    client.speak(spoken(line))
    heard = await client.until("conversation.item.input_audio_transcription.completed")
    assert heard["transcript"] == line
    response: dict[str, Any] = (await client.until("response.done"))["response"]
    assert response["status"] == "completed"
    return response


async def returns(client: Client, response: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The client answers a response's tool call; gives the agent's next response."""
    (call,) = [item for item in response["output"] if item["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": json.dumps(result)}
    client.send("conversation.item.create", item=output)
    client.send("response.create")
    following: dict[str, Any] = (await client.until("response.done"))["response"]
    return following


def arguments(response: dict[str, Any]) -> dict[str, Any]:
    (call,) = [item for item in response["output"] if item["type"] == "function_call"]
    return {"name": call["name"], **json.loads(call["arguments"])}


def words(response: dict[str, Any]) -> str:
    return " ".join(part["transcript"] for item in response["output"] for part in item.get("content", ()))


@pytest.mark.peer("flite")
async def test_an_appointment_is_booked_by_voice_and_key(server: Endpoint) -> None:
    client = await reception(server)
    assert "For which day" in words(await says(client, "i would like to book an appointment"))
    response = await says(client, "tuesday please")
    assert arguments(response) == {"name": "check_availability", "day": "Tuesday"}
    response = await returns(client, response, check_availability("Tuesday"))
    assert "On Tuesday I have 10:00 and 14:30" in words(response)
    keys = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "DTMF: 2"}]}
    client.send("conversation.item.create", item=keys)
    client.send("response.create")
    assert "Tuesday at 14:30, is that right?" in words((await client.until("response.done"))["response"])
    response = await says(client, "yes please")
    assert arguments(response) == {"name": "book_appointment", "day": "Tuesday", "time": "14:30"}
    response = await returns(client, response, book_appointment("Tuesday", "14:30"))
    assert "The reference is 21430." in words(response)
    response = await says(client, "goodbye")
    assert arguments(response)["name"] == "vns_end_conversation"
    (call,) = [item for item in response["output"] if item["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"status": "ending"}'}
    client.send("conversation.item.create", item=output)
    instructions = 'Say exactly this to the caller and nothing else: "Thank you, see you on Tuesday."'
    client.send("response.create", response={"instructions": instructions, "tools": []})
    assert words((await client.until("response.done"))["response"]) == "Thank you, see you on Tuesday."


@pytest.mark.peer("flite")
async def test_the_caller_interrupts_and_other_speech_is_refused(server: Endpoint) -> None:
    client = await reception(server)
    client.send("response.create", response={"instructions": 'Say: "' + "This is a very long sentence. " * 20 + '"'})
    delta = await client.until("response.output_audio.delta")
    client.speak(spoken("what are your opening hours"))
    await client.until("input_audio_buffer.speech_started")
    cut = (await client.until("response.done"))["response"]
    assert cut["status"] == "cancelled" and cut["status_details"]["reason"] == "turn_detected"
    client.send("conversation.item.truncate", item_id=delta["item_id"], content_index=0, audio_end_ms=200)
    answered = await client.until_each("conversation.item.truncated", "response.done")
    assert "We are open from 8:00" in words(answered["response.done"]["response"])
    client.speak(spoken("how much does a new car cost these days"))
    heard = await client.until("conversation.item.input_audio_transcription.completed")
    assert heard["transcript"] == "[unclear]"
    assert "Sorry, I did not understand." in words((await client.until("response.done"))["response"])


@pytest.mark.peer("flite")
async def test_what_the_agent_says_is_sound(server: Endpoint) -> None:
    client = await reception(server)
    client.send("response.create")
    sound = b""
    while (event := await client.events.get()) is not None and event["type"] != "response.done":
        if event["type"] == "response.output_audio.delta":
            sound += base64.b64decode(event["delta"])
    assert len(sound) > 8 * 1500
    assert g711.level(sound, Encoding.PCMU) > 500

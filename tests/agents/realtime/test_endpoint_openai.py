"""The openai package's typed client completes a conversation with our endpoint."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tests.agents.realtime.endpoint_server import TOKEN, endpoint
from tests.peers.flite import spoken

pytest.importorskip("websockets", reason="openai's realtime client needs the requirement openai[realtime]")

INSTRUCTIONS = """
```switchhook-dialogue
start: menu
states:
  menu:
    say: Which day?
    listen:
      - {phrases: "[on] {day} [please]", goto: look}
  look:
    tool: free_times
    arguments: {day: "{day}"}
    goto: tell
  tell: {say: "{result.text}", goto: menu}
```
"""


async def converse(base: str, token: str) -> None:
    """A whole conversation with the endpoint at `base` (host, port and `/v1`). Raises AssertionError on any `error` event."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key=token, base_url=f"http://{base}", websocket_base_url=f"ws://{base}")
    async with asyncio.timeout(40), client.realtime.connect(model="embedded") as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": INSTRUCTIONS,
                "tools": [{"type": "function", "name": "free_times", "parameters": {"type": "object"}}],
                "audio": {
                    "input": {"format": {"type": "audio/pcmu"}, "turn_detection": {"type": "server_vad"}},
                    "output": {"format": {"type": "audio/pcmu"}},
                },
            }
        )
        await connection.response.create()
        spoken_item = ""
        said: list[str] = []
        called = False
        async for event in connection:
            if event.type == "response.output_audio_transcript.done":
                said.append(event.transcript)
                spoken_item = event.item_id
            if event.type == "response.done" and len(said) == 1 and not called:
                called = True
                line = spoken("on friday please") + b"\xff" * 8000
                await connection.input_audio_buffer.append(audio=base64.b64encode(line).decode())
            if event.type == "response.function_call_arguments.done":
                assert json.loads(event.arguments) == {"day": "Friday"}
                await connection.conversation.item.create(
                    item={"type": "function_call_output", "call_id": event.call_id, "output": "Ten and eleven are free."}
                )
            if event.type == "response.done" and any(item.type == "function_call" for item in event.response.output or ()):
                await connection.response.create()
            if event.type == "response.done" and len(said) == 2:
                await connection.conversation.item.truncate(item_id=spoken_item, content_index=0, audio_end_ms=100)
            if event.type == "conversation.item.truncated":
                await connection.response.create()
                await connection.response.cancel()
            if event.type == "response.done" and event.response.status == "cancelled":
                break
            assert event.type != "error", event
        assert said[:2] == ["Which day?", "Ten and eleven are free. Which day?"]  # then perhaps a word of what was cancelled


@pytest.mark.peer("flite")
async def test_a_typed_client_speaks_calls_a_tool_truncates_and_cancels() -> None:
    async with endpoint() as server:
        await converse(f"127.0.0.1:{server.port}/v1", TOKEN)

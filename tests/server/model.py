"""A Realtime server on loopback that says what a test tells it to, and notes whatever its client does against the protocol."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any

from aiohttp import WSMsgType, web

from tests.server.waiting import DEADLINE_S, Watched

BYTES_PER_MS = 8
DELTA_BYTES = 1600
Event = dict[str, Any]


class Reply:
    """One response with one spoken item; `audio` may be called as often as wanted, `done` or `cancelled` ends it."""

    def __init__(self, session: ModelSession, number: int) -> None:
        self.response_id = f"resp_{number}"
        self.item_id = f"item_{number}"
        self._session = session
        self._at = {"response_id": self.response_id, "item_id": self.item_id, "output_index": 0, "content_index": 0}

    async def audio(self, ulaw: bytes) -> None:
        """Send sound faster than it can be played, as models do."""
        self._session.spoken_bytes[self.item_id] = self._session.spoken_bytes.get(self.item_id, 0) + len(ulaw)
        for start in range(0, len(ulaw), DELTA_BYTES):
            delta = base64.b64encode(ulaw[start : start + DELTA_BYTES]).decode()
            await self._session.send("response.output_audio.delta", **self._at, delta=delta)

    async def done(self, transcript: str = "") -> None:
        """Everything was generated."""
        await self._end(transcript, "completed", "completed", None)

    async def cancelled(self, transcript: str = "") -> None:
        """The caller interrupted while it was being generated."""
        await self._end(transcript, "cancelled", "incomplete", {"type": "cancelled", "reason": "turn_detected"})

    async def _end(self, transcript: str, status: str, item_status: str, details: Event | None) -> None:
        send, session = self._session.send, self._session
        content = [{"type": "output_audio", "transcript": transcript}]
        item = {"id": self.item_id, "type": "message", "role": "assistant", "status": item_status, "content": content}
        await send("response.output_audio.done", **self._at)
        await send("response.output_audio_transcript.done", **self._at, transcript=transcript)
        await send("response.content_part.done", **self._at, part=content[0])
        await send("response.output_item.done", response_id=self.response_id, output_index=0, item=item)
        await send("conversation.item.done", previous_item_id=None, item=item)
        await session.end_response(self.response_id, status, details, [item])


class ModelSession(Watched):
    """One connection. `events` holds what the client sent but audio, which is gathered in `heard`."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, update_gate: asyncio.Event) -> None:
        super().__init__()
        self.headers = dict(request.headers)
        self.query = dict(request.query)
        self.events: list[Event] = []
        self.heard = bytearray()
        """The caller's sound as it came."""
        self.faults: list[str] = []
        """What the client did against the protocol."""
        self.spoken_bytes: dict[str, int] = {}
        self.closed = False
        self._socket = socket
        self._request = request
        self._update_gate = update_gate
        self._numbers = 0
        self._ready = False
        self._active: str | None = None
        self._open_calls: set[str] = set()

    # -- what the client does ---------------------------------------------------------------------

    def of(self, kind: str) -> list[Event]:
        """Events of a type, in order."""
        return [event for event in self.events if event["type"] == kind]

    async def got(self, kind: str, count: int = 1, deadline_s: float = DEADLINE_S) -> list[Event]:
        """Wait for so many events of a type."""
        return await self.until(lambda: self.of(kind) if len(self.of(kind)) >= count else None, f"{count} {kind}", deadline_s)

    async def item(self, wanted: Callable[[Event], bool], what: str, deadline_s: float = DEADLINE_S) -> Event:
        """Wait for a created conversation item."""

        def find() -> Event | None:
            return next((e["item"] for e in self.of("conversation.item.create") if wanted(e["item"])), None)

        return await self.until(find, what, deadline_s)

    async def output_of(self, call_id: str) -> str:
        """Wait for the output of a function call."""
        item = await self.item(lambda item: item.get("call_id") == call_id, f"the output of {call_id}")
        return str(item["output"])

    async def hears(self, found: Callable[[bytes], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the caller's sound so far satisfies a condition."""
        await self.until(lambda: found(bytes(self.heard)), what, deadline_s)

    async def take(self, text: str) -> None:
        """Receive one frame."""
        event = json.loads(text)
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            self._take_audio(event)
        else:
            self.events.append(event)
            self.changed()
            self._judge(kind, event)
            if kind == "session.update":
                await self._update_gate.wait()
                self._ready = True
                await self.send("session.updated", session=event["session"])
            elif kind == "conversation.item.truncate":
                at = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
                await self.send("conversation.item.truncated", **at)
            elif kind == "response.cancel" and self._active is None:
                await self.send("error", error={"type": "invalid_request_error", "code": "response_cancel_not_active"})
        self.changed()

    def _take_audio(self, event: Event) -> None:
        if not self._ready:
            self.faults.append("audio before session.updated")
        try:
            self.heard += base64.b64decode(event["audio"], validate=True)
        except binascii.Error:
            self.faults.append("audio is no base64")

    def _judge(self, kind: str, event: Event) -> None:
        if kind != "session.update" and not self._ready:
            self.faults.append(f"{kind} before session.update")
        if kind == "response.create":
            if self._active is not None:
                self.faults.append("response.create while a response is active")
        elif kind == "conversation.item.truncate":
            spoken_ms = self.spoken_bytes.get(event["item_id"], -1) / BYTES_PER_MS
            if not 0 <= event["audio_end_ms"] <= spoken_ms:
                self.faults.append(f"truncate at {event['audio_end_ms']} of {spoken_ms:g} ms")
        elif kind == "conversation.item.create" and event["item"]["type"] == "function_call_output":
            if event["item"]["call_id"] not in self._open_calls:
                self.faults.append(f"output for no open call: {event['item']['call_id']}")
            self._open_calls.discard(event["item"]["call_id"])

    # -- what the model does ----------------------------------------------------------------------

    async def send(self, kind: str, **fields: Any) -> None:
        """Send one event; nothing on a closed socket."""
        self._numbers += 1
        if not self._socket.closed:
            await self._socket.send_json({"type": kind, "event_id": f"event_{self._numbers}", **fields})

    async def reply(self) -> Reply:
        """Begin a response."""
        self._numbers += 1
        reply = Reply(self, self._numbers)
        item = {"id": reply.item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        await self._begin_response(reply.response_id)
        await self.send("response.output_item.added", response_id=reply.response_id, output_index=0, item=item)
        await self.send("conversation.item.added", previous_item_id=None, item=item)
        return reply

    async def say(self, ulaw: bytes, transcript: str = "") -> Reply:
        """Speak a whole response."""
        reply = await self.reply()
        await reply.audio(ulaw)
        await reply.done(transcript)
        return reply

    async def call_tool(self, call_id: str, name: str, arguments: Any) -> None:
        """A response that is one function call."""
        self._numbers += 1
        response_id, text = f"resp_{self._numbers}", json.dumps(arguments)
        item = {"id": f"item_{self._numbers}", "type": "function_call", "call_id": call_id, "name": name}
        await self._begin_response(response_id)
        added = {**item, "status": "in_progress", "arguments": ""}
        await self.send("response.output_item.added", response_id=response_id, output_index=0, item=added)
        at = {"response_id": response_id, "item_id": item["id"], "output_index": 0, "call_id": call_id}
        await self.send("response.function_call_arguments.done", **at, name=name, arguments=text)
        self._open_calls.add(call_id)
        done = {**item, "status": "completed", "arguments": text}
        await self.send("response.output_item.done", response_id=response_id, output_index=0, item=done)
        await self.end_response(response_id, "completed", None, [done])

    async def caller_starts(self) -> str:
        """The turn detection hears the caller; gives the item's id."""
        self._numbers += 1
        item_id = f"item_{self._numbers}"
        await self.send("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=0)
        return item_id

    async def caller_stops(self, item_id: str, transcript: str | None) -> None:
        """The caller's turn is over, with its transcription."""
        await self.send("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=1)
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": content}
        await self.send("conversation.item.added", previous_item_id=None, item=item)
        if transcript is not None:
            at = {"item_id": item_id, "content_index": 0}
            kind = "conversation.item.input_audio_transcription.completed"
            await self.send(kind, **at, transcript=transcript, usage={"type": "duration", "seconds": 1})

    async def caller_spoke(self, transcript: str) -> None:
        """A whole turn of the caller."""
        await self.caller_stops(await self.caller_starts(), transcript)

    def die(self) -> None:
        """The connection breaks without a word."""
        if isinstance(self._request.transport, asyncio.WriteTransport):
            self._request.transport.abort()

    async def _begin_response(self, response_id: str) -> None:
        self._active = response_id
        await self.send("response.created", response={"id": response_id, "status": "in_progress", "output": []})

    async def end_response(self, response_id: str, status: str, details: Event | None, output: Sequence[Event]) -> None:
        """Close the active response."""
        self._active = None
        usage = {
            "total_tokens": 30,
            "input_tokens": 20,
            "output_tokens": 10,
            "input_token_details": {"text_tokens": 15, "audio_tokens": 5, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 4, "audio_tokens": 6},
        }
        response = {"id": response_id, "status": status, "status_details": details, "output": output, "usage": usage}
        await self.send("response.done", response=response)


Script = Callable[[ModelSession], Coroutine[Any, Any, None]]


class Model(Watched):
    """`async with Model() as model`: a server on a port of its own; `script` runs for each session until the socket closes."""

    def __init__(self, script: Script | None = None, refuse_with: int | None = None) -> None:
        super().__init__()
        self.script = script
        self.refuse_with = refuse_with
        """HTTP status for handshakes instead of a session."""
        self.update_gate = asyncio.Event()
        """session.update is answered only while this is set, as it is at first."""
        self.update_gate.set()
        self.handshakes = 0
        self.sessions: list[ModelSession] = []
        self.url = ""

    async def __aenter__(self) -> Model:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"ws://127.0.0.1:{self._runner.addresses[0][1]}/v1/realtime?model=stub"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()
        if error is None:
            assert [fault for session in self.sessions for fault in session.faults] == []

    async def session(self, count: int = 1, deadline_s: float = DEADLINE_S) -> ModelSession:
        """Wait for the session of this number, the first being 1."""
        what = f"model session {count}"
        return await self.until(lambda: self.sessions[count - 1] if len(self.sessions) >= count else None, what, deadline_s)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        self.changed()
        if self.refuse_with is not None:
            return web.json_response({"error": {"message": "no"}}, status=self.refuse_with)
        socket = web.WebSocketResponse(max_msg_size=16 << 20)
        await socket.prepare(request)
        session = ModelSession(socket, request, self.update_gate)
        await session.send("session.created", session={"type": "realtime", "id": f"sess_{self.handshakes}"})
        self.sessions.append(session)
        self.changed()
        async with asyncio.TaskGroup() as tasks:
            playing = tasks.create_task(self.script(session)) if self.script is not None else None
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await session.take(message.data)
            session.closed = True
            session.changed()
            if playing is not None:
                playing.cancel()
        return socket

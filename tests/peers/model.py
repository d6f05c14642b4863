"""A strict OpenAI Realtime server. `ModelSession` is the protocol without a socket; `ModelServer` serves it over WebSocket.

It refuses what the real one refuses, with an `error` event that is also kept in `errors`, so that a test can say that there were
none. What the model does is told by the test: `respond`, `say`, `call`, `finish`, `speech_started`…
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import json
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

Event = dict[str, Any]

BYTES_PER_MS = {"audio/pcmu": 8, "audio/pcma": 8, "audio/pcm": 48}
_BETA_FORMATS = {"g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma", "pcm16": "audio/pcm"}
_FIELDS = {
    "session.update": {"session"},
    "input_audio_buffer.append": {"audio"},
    "input_audio_buffer.commit": set(),
    "input_audio_buffer.clear": set(),
    "conversation.item.create": {"item", "previous_item_id"},
    "conversation.item.retrieve": {"item_id"},
    "conversation.item.delete": {"item_id"},
    "conversation.item.truncate": {"item_id", "content_index", "audio_end_ms"},
    "response.create": {"response"},
    "response.cancel": {"response_id"},
}
_ROLE_PARTS = {
    "user": {"input_text", "input_audio"},
    "system": {"input_text"},
    "assistant": {"output_text", "output_audio", "text"},
}


class Refused(Exception):
    """The client broke the protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ModelSession:
    """One session. `send` takes each server event; `events` are the client's, but for appends, which are gathered in `audio`."""

    def __init__(self, send: Callable[[Event], None], beta: bool = False) -> None:
        self._send = send
        self._beta = beta
        self._numbers = itertools.count(1)
        self.events: list[Event] = []
        self.errors: list[Refused] = []
        self.audio = bytearray()
        self.speaking = ""
        """The item that the caller's speech will be, while turn detection hears it."""
        self.names_items = True
        """Whether `conversation.item.added` is sent; not every server of this protocol does."""
        self.appends = 0
        self.items: dict[str, Event] = {}
        self.order: list[str] = []
        self.sound_ms: dict[str, int] = {}
        self.calls: dict[str, str | None] = {}
        self.active: str | None = None
        self.requests = 0
        """`response.create` that were taken."""
        self.session: Event = {}
        self.on_event: Callable[[ModelSession, Event], None] | None = None
        """Called after each event that was taken; appends left out."""
        self.silent = False
        """Take everything, say nothing."""
        self._output: list[Event] = []

    # -- the client ------------------------------------------------------------------------------

    def receive(self, text: str | bytes) -> None:
        """One frame of the client."""
        event: Event = {}
        try:
            event = self._parse(text)
            handle = getattr(self, "_take_" + event["type"].replace(".", "_"), None)
            if handle is not None:
                handle(event)
        except Refused as refusal:
            self.errors.append(refusal)
            error = {"type": "invalid_request_error", "code": refusal.code, "message": str(refusal)}
            self.emit("error", error=error | {"param": None, "event_id": event.get("event_id")})
            return
        if event["type"] != "input_audio_buffer.append" and self.on_event is not None:
            self.on_event(self, event)

    def sent(self, kind: str) -> list[Event]:
        """The client's events of this type."""
        return [event for event in self.events if event["type"] == kind]

    def texts(self) -> list[tuple[str, str]]:
        """(role, text) of the text messages that the client put into the conversation."""
        created = [event["item"] for event in self.sent("conversation.item.create")]
        return [(item["role"], item["content"][0]["text"]) for item in created if item["type"] == "message"]

    def _parse(self, text: str | bytes) -> Event:
        try:
            event = json.loads(text)
        except ValueError:
            raise Refused("invalid_json", "the frame is no JSON") from None
        if not isinstance(event, dict) or event.get("type") not in _FIELDS:
            raise Refused("invalid_value", f"unknown event {str(event)[:80]}")
        unknown = event.keys() - _FIELDS[event["type"]] - {"type", "event_id"}
        if unknown:
            raise Refused("unknown_parameter", f"{event['type']} has no {sorted(unknown)}")
        if event["type"] != "input_audio_buffer.append":
            self.events.append(event)
        return event

    def _take_session_update(self, event: Event) -> None:
        session = event.get("session")
        if not isinstance(session, dict):
            raise Refused("missing_required_parameter", "session")
        if not self._beta and session.get("type") != "realtime":
            raise Refused("missing_required_parameter", "session.type")
        # Only what is named changes.
        merged = {**self.session, **session}
        for side in ("input", "output"):
            self.format_of(merged, side)
        self.session = merged
        self.emit("session.updated", session=merged)

    def format_of(self, session: Mapping[str, Any], side: str) -> str:
        """The media type of one direction."""
        if self._beta:
            name = _BETA_FORMATS.get(session.get(f"{side}_audio_format", "pcm16"))
        else:
            told = session.get("audio", {}).get(side, {}).get("format", {"type": "audio/pcm", "rate": 24_000})
            name = told["type"] if told.get("rate", 24_000) == 24_000 else None
        if name not in BYTES_PER_MS:
            raise Refused("invalid_value", f"{side} format")
        return name

    def _take_input_audio_buffer_append(self, event: Event) -> None:
        try:
            sound = base64.b64decode(event["audio"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise Refused("invalid_value", "audio is no base64") from None
        if not sound or len(sound) > 15 << 20:
            raise Refused("invalid_value", "audio is empty or too long")
        if self.format_of(self.session, "input") == "audio/pcm" and len(sound) % 2:
            raise Refused("invalid_value", "half a sample")
        self.appends += 1
        self.audio += sound

    def _take_input_audio_buffer_commit(self, event: Event) -> None:
        if not self.audio and not self.speaking:
            raise Refused("input_audio_buffer_commit_empty", "nothing to commit")
        self._commit(self.speaking or f"item_{next(self._numbers)}")

    def _take_conversation_item_create(self, event: Event) -> None:
        item = event.get("item")
        if not isinstance(item, dict):
            raise Refused("missing_required_parameter", "item")
        if event.get("previous_item_id", "root") not in ("root", None, *self.items):
            raise Refused("item_not_found", "previous_item_id")
        if len(item.get("id", "")) > 32 or item.get("id") in self.items:
            raise Refused("invalid_value", "item.id is too long or taken")
        check = {
            "message": self._check_message,
            "function_call_output": self._check_output,
            "mcp_approval_response": self._check_approval,
        }.get(item.get("type", ""))
        if check is None:
            raise Refused("invalid_value", f"item.type {item.get('type')}")
        check(item)
        self.add_item(dict(item))

    def _check_message(self, item: Event) -> None:
        parts = _ROLE_PARTS.get(item.get("role", ""))
        if parts is None or not item.get("content") or any(part.get("type") not in parts for part in item["content"]):
            raise Refused("invalid_value", "role or content")

    def _check_output(self, item: Event) -> None:
        call_id = item.get("call_id")
        if call_id not in self.calls:
            raise Refused("invalid_tool_call_id", f"no call {call_id}")
        if self.calls[call_id] is not None:
            raise Refused("invalid_value", f"call {call_id} was answered before")
        if not isinstance(item.get("output"), str):
            raise Refused("invalid_type", "output")
        self.calls[call_id] = item["output"]

    def _check_approval(self, item: Event) -> None:
        asked = self.items.get(item.get("approval_request_id", ""), {})
        if asked.get("type") != "mcp_approval_request" or asked.get("answered") or not item.get("id"):
            raise Refused("invalid_value", "approval_request_id")
        asked["answered"] = True

    def _take_conversation_item_truncate(self, event: Event) -> None:
        length = self.sound_ms.get(event.get("item_id", ""))
        end = event.get("audio_end_ms")
        if length is None or event.get("content_index") != 0:
            raise Refused("item_not_found", f"no sound in {event.get('item_id')}")
        if not isinstance(end, int) or not 0 <= end <= length:
            raise Refused("invalid_value", f"audio_end_ms {end} of {length}")
        self.sound_ms[event["item_id"]] = end
        self.emit("conversation.item.truncated", item_id=event["item_id"], content_index=0, audio_end_ms=end)

    def _take_response_create(self, event: Event) -> None:
        if self.active is not None:
            raise Refused("conversation_already_has_active_response", f"{self.active} is active")
        self.requests += 1

    def _take_response_cancel(self, event: Event) -> None:
        if self.active is None or event.get("response_id", self.active) != self.active:
            raise Refused("response_cancel_not_active", "no such response is active")
        if not self.silent:
            self.finish("cancelled", "client_cancelled")

    # -- the model -------------------------------------------------------------------------------

    def emit(self, kind: str, **fields: Any) -> None:
        """Send a server event; the beta dialect's names are made of GA's."""
        if self.silent:
            return
        if self._beta:
            kind = kind.replace("response.output_audio", "response.audio")
            kind = "conversation.item.created" if kind == "conversation.item.added" else kind
        self._send({"type": kind, "event_id": f"event_{next(self._numbers)}"} | fields)

    def open(self) -> None:
        """Greet."""
        self.emit("session.created", session={"type": "realtime"})

    def add_item(self, item: Event) -> str:
        """Put an item at the end of the conversation."""
        item_id: str = item.setdefault("id", f"item_{next(self._numbers)}")
        previous = self.order[-1] if self.order else None
        self.items[item_id] = item
        self.order.append(item_id)
        if self.names_items:
            self.emit("conversation.item.added", previous_item_id=previous, item=item)
        return item_id

    def respond(self) -> str:
        """Begin a response, asked for or not."""
        assert self.active is None, "the script starts a second response"
        self.active = f"resp_{next(self._numbers)}"
        self._output = []
        self.emit("response.created", response={"id": self.active, "status": "in_progress"})
        return self.active

    def say(self, text: str, ms: int = 400, sound: bytes | None = None, done: bool = True) -> str:
        """Speak within the active response, faster than real time; gives the item's id."""
        item: Event = {"type": "message", "role": "assistant", "content": []}
        item_id = self.add_item(item)
        self.sound_ms[item_id] = 0
        self.speak(item_id, text, ms, sound)
        if done:
            self.end_speech(item_id, text)
        return item_id

    def speak(self, item_id: str, text: str, ms: int = 400, sound: bytes | None = None) -> None:
        """More words and sound of an item."""
        rate = BYTES_PER_MS[self.format_of(self.session, "output")]
        sound = bytes([0x55]) * (ms * rate) if sound is None else sound
        at = {"response_id": self.active, "item_id": item_id, "output_index": 0, "content_index": 0}
        self.emit("response.output_audio_transcript.delta", **at, delta=text)
        for start in range(0, len(sound), 200 * rate):
            self.emit("response.output_audio.delta", **at, delta=base64.b64encode(sound[start : start + 200 * rate]).decode())
        self.sound_ms[item_id] += len(sound) // rate

    def end_speech(self, item_id: str, text: str) -> None:
        """All of an item was generated."""
        at = {"response_id": self.active, "item_id": item_id, "output_index": 0, "content_index": 0}
        item = self.items[item_id] | {"id": item_id, "status": "completed"}
        self.emit("response.output_audio.done", **at)
        self.emit("response.output_audio_transcript.done", **at, transcript=text)
        self.emit("response.output_item.done", response_id=self.active, output_index=0, item=item)
        self._output.append(item)

    def call(self, name: str, arguments: str = "{}", call_id: str = "", tell: bool = True) -> str:
        """Call a tool within the active response. `tell` False: it shows only in `response.done`."""
        call_id = call_id or f"call_{next(self._numbers)}"
        self.calls[call_id] = None
        item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, "status": "completed"}
        self.add_item(item)
        self._output.append(item)
        if tell:
            self.emit("response.output_item.done", response_id=self.active, output_index=0, item=item)
        return call_id

    def finish(self, status: str = "completed", reason: str | None = None, usage: Event | None = None) -> str | None:
        """End the active response; gives its id."""
        response = {"id": self.active, "status": status, "output": self._output, "usage": usage}
        response["status_details"] = {"type": status, "reason": reason} if reason else None
        ended, self.active, self._output = self.active, None, []
        self.emit("response.done", response=response)
        return ended

    def speech_started(self) -> str:
        """The caller begins to speak; turn detection cancels what is being said unless the session forbids it."""
        item_id = f"item_{next(self._numbers)}"
        self.speaking = item_id
        self.emit("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=0)
        detection = self.session.get("audio", {}).get("input", {}).get("turn_detection", {}) or {}
        if self.active is not None and detection.get("interrupt_response", True):
            self.finish("cancelled", "turn_detected")
        return item_id

    def speech_stopped(self, item_id: str) -> None:
        """The caller's turn is over."""
        self.emit("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=0)
        self._commit(item_id)

    def _commit(self, item_id: str) -> None:
        previous = self.order[-1] if self.order else None
        self.speaking = ""
        self.emit("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        self.add_item({"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]})

    def transcribed(self, item_id: str, text: str) -> None:
        """The caller's words are known."""
        kind = "conversation.item.input_audio_transcription.completed"
        self.emit(kind, item_id=item_id, content_index=0, transcript=text, usage={"type": "duration", "seconds": 2})


class ModelServer:
    """Serves sessions on loopback; `sessions` are all so far, in order.

    `statuses` answers the next handshakes (101: take it). `script` is called for every event of a client.
    """

    def __init__(self, script: Callable[[ModelSession, Event], None] | None = None, beta: bool = False) -> None:
        self.sessions: list[ModelSession] = []
        self.headers: list[Mapping[str, str]] = []
        self.statuses: list[int] = []
        self.silent = False
        self.url = ""
        self._script = script
        self._beta = beta
        self._sockets: list[web.WebSocketResponse] = []
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> ModelServer:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"ws://{host}:{port}/v1/realtime?model=stub"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def drop(self, code: int = WSCloseCode.GOING_AWAY) -> None:
        """Close every connection."""
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            await socket.close(code=code)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until the condition holds; it is looked at after every frame of a client."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        status = self.statuses.pop(0) if self.statuses else 101
        if status != 101:
            self._changed.set()
            return web.json_response({"error": {"message": "refused"}}, status=status)
        socket = web.WebSocketResponse(max_msg_size=16 << 20, compress=False)
        await socket.prepare(request)
        out: asyncio.Queue[Event] = asyncio.Queue()
        session = ModelSession(out.put_nowait, self._beta)
        session.silent, session.on_event = self.silent, self._script
        self.sessions.append(session)
        self._sockets.append(socket)
        session.open()
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(_write(socket, out))
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    session.receive(message.data)
                    self._changed.set()
            writer.cancel()
        return socket


async def _write(socket: web.WebSocketResponse, out: asyncio.Queue[Event]) -> None:
    while True:
        event = await out.get()
        if socket.closed:
            return
        await socket.send_str(json.dumps(event))

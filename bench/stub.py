"""The far sides: a model that speaks the Realtime protocol with numbered sound, and a backend that answers the VNS webhooks.

Both run in one process apart from the load and the server. The model listens to the numbers in the caller's frames: it knows
a voice from silence by them, answers as `bench.cycle` says, is interrupted by the caller, and notes every event with its time.
"""

from __future__ import annotations

import asyncio
import binascii
import gc
import json
import os
import re
import time
from array import array
from multiprocessing.connection import Connection
from typing import Any, cast

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench import numbered
from bench.cycle import DELTA_INTERVAL_S, END_FRAMES, GREETING_PIECES, ONSET_FRAMES, REPLY_PIECES, THINK_S

PIECE_MS = 200
CALLER = re.compile(rb"caller=\D*1?720555(\d{4})")
WORDS = "Certainly, I have looked that up for you and the answer is that we are open until six on every weekday"


class ClientEvent(msgspec.Struct):
    """What the model reads of an event; the rest is skipped."""

    type: str = ""
    audio: str = ""
    item_id: str = ""
    audio_end_ms: int = 0
    session: msgspec.Raw = msgspec.Raw(b"{}")


READ = msgspec.json.Decoder(ClientEvent).decode


class Notes:
    """Everything measured at the model, over all calls. Times are CLOCK_MONOTONIC seconds."""

    def __init__(self) -> None:
        self.arrived_call: array[int] = array("i")
        self.arrived_frame: array[int] = array("q")
        self.arrived_at: array[float] = array("d")
        self.replies: list[dict[str, Any]] = []
        self.speech_started: list[tuple[int, float]] = []
        self.truncated: list[tuple[str, int]] = []
        self.damaged = 0
        self.misrouted = 0
        self.appended_bytes = 0
        self.sessions = 0
        self.cancelled = 0
        self.ends: list[dict[str, Any]] = []
        self.backend_calls = 0

    def record(self) -> dict[str, Any]:
        """As plain values for the evaluation."""
        return dict(vars(self))


class ModelSession(WSListener):
    """One connection: a caller's conversation with the model."""

    def __init__(self, caller: int, notes: Notes) -> None:
        self._caller = caller
        self._notes = notes
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._speaking = False
        self._run = 0
        self._next_frame = 0
        self._turn = 0
        self._replies = 0
        self._greeted = False
        self._reply: dict[str, Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The server dialled in."""
        self._transport = transport
        self._notes.sessions += 1
        self._send({"type": "session.created", "event_id": "e0", "session": {"type": "realtime", "id": f"sess_{self._caller}"}})

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The call is over."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One event of the server under test."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
            return
        if frame.msg_type is not WSMsgType.TEXT:
            return
        now = time.monotonic()
        event = READ(frame.get_payload_as_bytes())
        if event.type == "input_audio_buffer.append":
            self._hear(binascii.a2b_base64(event.audio), now)
        else:
            self._on_event(event)

    def _on_event(self, event: ClientEvent) -> None:
        if event.type == "session.update":
            self._send({"type": "session.updated", "event_id": "e1", "session": msgspec.json.decode(event.session)})
        elif event.type == "response.create" and not self._greeted:
            self._greeted = True
            self._respond(GREETING_PIECES, counted=False)
        elif event.type == "response.cancel" and self._reply is not None:
            self._notes.cancelled += 1
            self._finish_reply("cancelled")
        elif event.type == "conversation.item.truncate":
            self._notes.truncated.append((event.item_id, event.audio_end_ms))
            truncated = {"item_id": event.item_id, "content_index": 0, "audio_end_ms": event.audio_end_ms}
            self._send({"type": "conversation.item.truncated", "event_id": "e2", **truncated})

    # Listening ----------------------------------------------------------------------------------------------------------

    def _hear(self, audio: bytes, now: float) -> None:
        self._notes.appended_bytes += len(audio)
        for start in range(0, len(audio), numbered.FRAME_BYTES):
            frame = audio[start : start + numbered.FRAME_BYTES]
            voiced = False
            if len(frame) < numbered.FRAME_BYTES:
                self._notes.damaged += 1
            elif not numbered.is_silence(frame):
                voiced = self._note(frame, now)
            self._detect(voiced)

    def _note(self, frame: bytes, now: float) -> bool:
        found = numbered.decode(frame)
        if found is None:
            self._notes.damaged += 1
            return False
        if found[0] != numbered.UP or found[1] != self._caller:
            self._notes.misrouted += 1
        self._notes.arrived_call.append(found[1])
        self._notes.arrived_frame.append(found[2])
        self._notes.arrived_at.append(now)
        return True

    def _detect(self, voiced: bool) -> None:
        """Turn detection by counting frames, as server_vad does it with energy."""
        if voiced == self._speaking:
            self._run = 0
            return
        self._run += 1
        if voiced and self._run >= ONSET_FRAMES:
            self._speaking, self._run = True, 0
            self._turn += 1
            self._notes.speech_started.append((self._caller, time.monotonic()))
            started = {"item_id": f"user_{self._caller}_{self._turn}", "audio_start_ms": 0}
            self._send({"type": "input_audio_buffer.speech_started", "event_id": "e3", **started})
            if self._reply is not None:
                self._finish_reply("cancelled")
        elif not voiced and self._run >= END_FRAMES:
            self._speaking, self._run = False, 0
            self._end_turn()

    def _end_turn(self) -> None:
        item = f"user_{self._caller}_{self._turn}"
        self._send({"type": "input_audio_buffer.speech_stopped", "event_id": "e4", "item_id": item, "audio_end_ms": 0})
        self._send({"type": "input_audio_buffer.committed", "event_id": "e5", "item_id": item, "previous_item_id": None})
        message = {"id": item, "type": "message", "role": "user", "status": "completed", "content": [{"type": "input_audio"}]}
        self._send({"type": "conversation.item.added", "event_id": "e6", "previous_item_id": None, "item": message})
        self._send({"type": "conversation.item.done", "event_id": "e6b", "previous_item_id": None, "item": message})
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(THINK_S, self._respond, REPLY_PIECES[(self._turn - 1) % 2])

    # Speaking -----------------------------------------------------------------------------------------------------------

    def _respond(self, pieces: int, counted: bool = True) -> None:
        if counted:
            said = {"item_id": f"user_{self._caller}_{self._turn}", "content_index": 0, "transcript": "When are you open?"}
            self._send({"type": "conversation.item.input_audio_transcription.completed", "event_id": "e7", **said})
        self._replies += 1
        item = f"item_{self._caller}_{self._replies}"
        response = f"resp_{self._caller}_{self._replies}"
        self._reply = {"call": self._caller, "item": item, "response": response, "first_frame": self._next_frame}
        self._reply |= {"frames": 0, "pieces": pieces, "sent_at": 0.0}
        self._notes.replies.append(self._reply)
        message = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0, "part": {"type": "audio"}}
        self._send({"type": "response.created", "event_id": "e8", "response": {"id": response, "status": "in_progress"}})
        self._send({"type": "response.output_item.added", "event_id": "e9", "response_id": response, "item": message})
        self._send({"type": "conversation.item.added", "event_id": "e10", "item": message})
        self._send({"type": "response.content_part.added", "event_id": "e11", **part})
        self._send_delta()

    def _send_delta(self) -> None:
        reply = self._reply
        if reply is None or self._transport is None:
            return
        first = self._next_frame
        self._next_frame += numbered.FRAMES_PER_PIECE
        frames = range(first, self._next_frame)
        audio = binascii.b2a_base64(b"".join(numbered.encode(numbered.DOWN, self._caller, n) for n in frames), newline=False)
        head = b'{"type":"response.output_audio.delta","event_id":"e12","response_id":"%s","item_id":"%s","output_index":0,'
        event = head % (reply["response"].encode(), reply["item"].encode()) + b'"content_index":0,"delta":"%s"}' % audio
        if not reply["frames"]:
            reply["sent_at"] = time.monotonic()
        self._transport.send(WSMsgType.TEXT, event)
        reply["frames"] += numbered.FRAMES_PER_PIECE
        at = {"response_id": reply["response"], "item_id": reply["item"], "output_index": 0, "content_index": 0}
        self._send({"type": "response.output_audio_transcript.delta", "event_id": "e13", **at, "delta": "and so "})
        if reply["frames"] < reply["pieces"] * numbered.FRAMES_PER_PIECE:
            self._timer = self._loop.call_later(DELTA_INTERVAL_S, self._send_delta)
        else:
            self._finish_reply("completed")

    def _finish_reply(self, status: str) -> None:
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        item, response = reply["item"], reply["response"]
        at = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        text = WORDS[: 4 * reply["frames"] // numbered.FRAMES_PER_PIECE]
        content = [{"type": "output_audio", "transcript": text}]
        ended = "completed" if status == "completed" else "incomplete"
        message = {"id": item, "type": "message", "role": "assistant", "status": ended, "content": content}
        self._send({"type": "response.output_audio.done", "event_id": "e14", **at})
        self._send({"type": "response.output_audio_transcript.done", "event_id": "e15", **at, "transcript": text})
        self._send({"type": "response.content_part.done", "event_id": "e16", **at, "part": content[0]})
        self._send({"type": "response.output_item.done", "event_id": "e17", "response_id": response, "item": message})
        self._send({"type": "conversation.item.done", "event_id": "e18", "item": message})
        tokens = {"total_tokens": 230, "input_tokens": 150, "output_tokens": 80, "input_token_details": {"audio_tokens": 100}}
        details = {"type": "cancelled", "reason": "turn_detected"} if status == "cancelled" else None
        done = {"id": response, "status": status, "status_details": details, "output": [message], "usage": tokens}
        self._send({"type": "response.done", "event_id": "e19", "response": done})

    def _send(self, event: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode(event))


class Backend(asyncio.Protocol):
    """A VNS backend on a bare HTTP/1.1 connection: CallStart, CallEnd and live transcript lines."""

    def __init__(self, notes: Notes, options: dict[str, Any]) -> None:
        self._notes = notes
        self._options = options
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection of the server under test."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Gather whole requests and answer each."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = re.search(rb"\r\nContent-Length: *(\d+)", head, re.IGNORECASE)
            total = end + 4 + (int(length.group(1)) if length else 0)
            if len(self._data) < total:
                return
            body, self._data = self._data[end + 4 : total], self._data[total:]
            answer = json.dumps(self._answer(head.split(b" ", 2)[1], json.loads(body or b"{}"))).encode()
            if self._transport is not None:
                kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                self._transport.write(kind % len(answer) + answer)

    def _answer(self, path: bytes, body: dict[str, Any]) -> dict[str, Any]:
        self._notes.backend_calls += 1
        if path == b"/callstart":
            return call_start_reply(str(body.get("callerId", "")), self._options)
        if path == b"/callend":
            self._notes.ends.append({"status": body.get("status"), "errorMessage": body.get("errorMessage")})
        return {"status": 0, "errorMessage": "Success"}


def call_start_reply(caller: str, options: dict[str, Any]) -> dict[str, Any]:
    """The session and the instructions of a usual customer; `record` adds a sealed two-channel recording."""
    vad = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}
    vad |= {"create_response": True, "interrupt_response": True}
    hears = {"format": {"type": "audio/pcmu"}, "transcription": {"model": "whisper-1"}, "turn_detection": vad}
    audio = {"input": hears, "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"}}
    lookup = {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}
    tools = [{"type": "function", "name": "opening_hours", "description": "When the shop is open", "parameters": lookup}]
    session = {"type": "realtime", "instructions": "You are the voice of a shop. " * 40, "audio": audio, "tools": tools}
    url = f"ws://127.0.0.1:{options['model_port']}/v1/realtime?model=stub&caller={caller.lstrip('+')}"
    instructions: dict[str, Any] = {
        "aiUrl": {"url": url, "headers": {"Authorization": "Bearer bench"}},
        "maxSeconds": 3600,
        "defaultToolsUrlBase": {"url": f"http://127.0.0.1:{options['http_port']}/tool", "headers": {}},
        "logTranscription": True,
    }
    if options.get("record"):
        instructions |= {"recordCall": True, "recordCallFormat": "wav", "recordCallPassword": "bench"}
    return {"type": "session.update", "session": session, "VoiceElements_Instructions": instructions}


async def _serve(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    notes = Notes()
    options: dict[str, Any] = {}
    finished = asyncio.Event()

    def session_for(request: WSUpgradeRequest) -> WSListener | None:
        caller = CALLER.search(request.path)
        return ModelSession(int(caller.group(1)), notes) if caller else None

    models = await ws_create_server(session_for, "127.0.0.1", 0)
    backend = await loop.create_server(lambda: Backend(notes, options), "127.0.0.1", 0)
    options["model_port"] = models.sockets[0].getsockname()[1]
    options["http_port"] = backend.sockets[0].getsockname()[1]

    def command() -> None:
        message = pipe.recv()
        if message["do"] == "set":
            options.update(message["options"])
            pipe.send({})
        elif message["do"] == "state":
            pipe.send({"sessions": notes.sessions, "ends": len(notes.ends)})
        else:
            os.set_blocking(pipe.fileno(), True)  # the loop made it non-blocking, and this message is long
            pipe.send(notes.record())
            finished.set()

    loop.add_reader(pipe.fileno(), command)
    gc.collect()
    gc.freeze()
    gc.disable()
    pipe.send(options)
    await finished.wait()
    loop.remove_reader(pipe.fileno())
    models.close()
    backend.close()


def main(pipe: Connection, cores: list[int]) -> None:
    """The process's entry; the first message on the pipe tells the ports."""
    os.sched_setaffinity(0, cores)
    uvloop.run(_serve(pipe))

"""A sample customer backend in the VNS contract: the reception desk of a dentist with two tools.

It answers CallStart with the agent's session, runs `check_availability` and `book_appointment`, receives the live transcript and
keeps each CallEnd. A real backend looks just like this; point `call_start` and `call_end` of a number at it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

RECEPTION = Path(__file__).with_name("reception.yaml")
OPENAI_URL = "wss://api.openai.com/v1/realtime?model=gpt-realtime-2.1-mini"
OPENAI_INSTRUCTIONS = """\
You are the receptionist of a small dental practice and you are on the telephone. Speak English, one or two short sentences at a
time. Greet the caller first and ask how you can help. For an appointment ask for the day, call check_availability, and let the
caller choose one of the free times by saying it or by pressing 1 or 2 (keys arrive as a text such as "DTMF: 2"). Repeat the
choice, and when the caller agrees call book_appointment and read out the reference. The practice is open from eight to five,
Monday to Friday. When the caller says goodbye, call vns_end_conversation with a short farewell.
"""
TOKEN = "demo-backend-token"
FREE_TIMES = ("10:00", "14:30")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the server told the backend: `start`, `line`, `tool` or `end`."""

    kind: str
    body: dict[str, Any]
    answer: dict[str, Any]


@dataclass(slots=True)
class Agent:
    """Which engine talks, and what it is told."""

    url: str
    headers: dict[str, str]
    instructions: str
    tools: list[dict[str, Any]]
    name: str


def agent_for(media_url: str, token: str) -> Agent:
    """OpenAI when OPENAI_API_KEY is set, else the server's own embedded engine behind its Realtime endpoint."""
    desk = yaml.safe_load(RECEPTION.read_text(encoding="utf-8"))
    tools: list[dict[str, Any]] = desk["tools"]
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        return Agent(OPENAI_URL, {"Authorization": f"Bearer {key}"}, OPENAI_INSTRUCTIONS, tools, "OpenAI")
    return Agent(media_url, {"Authorization": f"Bearer {token}"}, str(desk["instructions"]), tools, "the embedded engine")


@dataclass(slots=True)
class Backend:
    """The webhooks, and what they have seen. Serve `application` anywhere; `address` is filled in by `serve`."""

    agent: Agent
    on_event: Callable[[Event], None] = lambda event: None
    events: list[Event] = field(default_factory=list)
    address: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """The routes: CallStart, CallEnd, and one address for every tool."""
        app = web.Application()
        app.router.add_post("/callstart", self._start)
        app.router.add_post("/callend", self._end)
        app.router.add_post("/tools", self._tool)
        return app

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; returns the base address."""
        self._runner = web.AppRunner(self.application(), access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.address = "http://{}:{}".format(*self._runner.addresses[0][:2])
        return self.address

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def of(self, kind: str) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if event.kind == kind]

    def call_start_reply(self) -> dict[str, Any]:
        """A session.update for the agent, and the instructions for the server (contract §1.3)."""
        vad = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
        vad |= {"create_response": True, "interrupt_response": True}
        line = {"type": "audio/pcmu"}
        transcription = {"model": "gpt-4o-mini-transcribe", "language": "en"}
        session = {
            "type": "realtime",
            "instructions": self.agent.instructions,
            "audio": {
                "input": {"format": line, "transcription": transcription, "turn_detection": vad},
                "output": {"format": line, "voice": "marin"},
            },
            "tools": self.agent.tools,
        }
        instructions = {
            "aiUrl": {"url": self.agent.url, "headers": self.agent.headers},
            "maxSeconds": 300,
            "defaultToolsUrlBase": {"url": f"{self.address}/tools", "headers": {"Token": TOKEN}},
            "defaultToolsUrlAdapter": None,
            "messageToPlayOnFailure": "We are sorry, our assistant cannot be reached. Please call again later.",
            "logToolCallRequests": True,
            "logToolCallReplies": True,
            "logTranscription": True,
            "transcriptionToolName": "live_transcript",
            "recordCall": True,
            "recordCallFormat": "wav",
        }
        return {"type": "session.update", "session": session, "VoiceElements_Instructions": instructions}

    async def _start(self, request: web.Request) -> web.Response:
        return await self._answered(request, "start", lambda body: self.call_start_reply())

    async def _end(self, request: web.Request) -> web.Response:
        response = await self._answered(request, "end", lambda body: {"status": 0, "errorMessage": "Success"})
        self.ended.set()
        return response

    async def _tool(self, request: web.Request) -> web.Response:
        return await self._answered(request, None, run_tool)

    async def _answered(
        self, request: web.Request, kind: str | None, answer: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> web.Response:
        """Check the token, read the body, answer, and tell whoever watches."""
        if request.headers.get("Token") != TOKEN:
            return web.json_response({"status": 401, "errorMessage": "Unauthorized"}, status=401)
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            return web.json_response({"status": 400, "errorMessage": "The body must be a JSON object."}, status=400)
        reply = answer(body)
        event = Event(kind or ("line" if tool_name(body) == "live_transcript" else "tool"), body, reply)
        self.events.append(event)
        self.on_event(event)
        return web.json_response(reply)


def tool_name(body: dict[str, Any]) -> str:
    """Which tool a request is for: without an adapter the server says it in the body (contract §1.4)."""
    invoked = body.get("VoiceElements_InvokeTool")
    return str(invoked.get("toolName", "")) if isinstance(invoked, dict) else ""


def run_tool(body: dict[str, Any]) -> dict[str, Any]:
    """What the practice's calendar would answer."""
    name = tool_name(body)
    if name == "check_availability":
        return check_availability(str(body.get("day", "")))
    if name == "book_appointment":
        return book_appointment(str(body.get("day", "")), str(body.get("time", "")))
    if name == "live_transcript":
        return {"status": "ok"}
    return {"error": f"There is no tool {name!r}."}


def check_availability(day: str) -> dict[str, Any]:
    """The free times of a weekday; the keys 1 and 2 stand for them in order."""
    if day.lower() not in WEEKDAYS:
        return {"available": False, "reason": "The practice is open from Monday to Friday."}
    return {"available": True, "day": day, "times": list(FREE_TIMES)}


def book_appointment(day: str, time: str) -> dict[str, Any]:
    """Book a time; the reference is made of it, so that the same booking has the same one."""
    if day.lower() not in WEEKDAYS or not time:
        return {"booked": False, "reason": "A weekday and a time are needed."}
    digits = "".join(character for character in time if character.isdigit())
    return {"booked": True, "day": day, "time": time, "reference": f"{WEEKDAYS.index(day.lower()) + 1}{digits:0>4}"}

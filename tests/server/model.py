"""The strict model of `tests.peers.model` on a server of its own, for a whole product: everything can be waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from aiohttp import WSMsgType, web

from tests.peers.loopback import serve
from tests.peers.model import Event, ModelSession
from tests.server.waiting import DEADLINE_S, Watched


class LiveSession(ModelSession, Watched):
    """One connection. `audio` is what came of the caller's sound so far."""

    def __init__(self, request: web.Request, update_gate: asyncio.Event, beta: bool = False) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        ModelSession.__init__(self, self._queue.put_nowait, beta)
        Watched.__init__(self)
        self.headers = dict(request.headers)
        self.model_name = request.query.get("model")
        """As the address names it."""
        self.closed = False
        self._request = request
        self._update_gate = update_gate

    # -- what the client does ---------------------------------------------------------------------

    async def got(self, kind: str, count: int = 1, deadline_s: float = DEADLINE_S) -> list[Event]:
        """Wait for so many events of a type."""
        return await self.until(lambda: self.sent(kind) if len(self.sent(kind)) >= count else None, f"{count} {kind}", deadline_s)

    async def output_of(self, call_id: str) -> str:
        """Wait for the output of a function call."""
        return await self.until(lambda: self.calls.get(call_id), f"the output of {call_id}")

    async def hears(self, found: Callable[[bytes], bool], what: str) -> None:
        """Wait until the caller's sound so far satisfies a condition."""
        await self.until(lambda: found(bytes(self.audio)), what)

    # -- what the model does ----------------------------------------------------------------------

    def begins(self, sound: bytes, text: str = "") -> str:
        """Begin a response and speak in it; gives the item's id."""
        self.respond()
        return self.say(text, sound=sound, done=False)

    def ends(self, item_id: str, text: str) -> None:
        """All of a response was generated."""
        self.end_speech(item_id, text)
        self.finish()

    def speaks(self, sound: bytes, text: str) -> str:
        """A whole response; gives the item's id."""
        item_id = self.begins(sound)
        self.ends(item_id, text)
        return item_id

    def calls_tool(self, call_id: str, name: str, arguments: Any) -> None:
        """A response that is one function call."""
        self.respond()
        self.call(name, json.dumps(arguments), call_id)
        self.finish()

    def caller_spoke(self, text: str) -> None:
        """A whole turn of the caller."""
        item_id = self.speech_started()
        self.speech_stopped(item_id)
        self.transcribed(item_id, text)

    def die(self) -> None:
        """The connection breaks without a word."""
        if isinstance(self._request.transport, asyncio.WriteTransport):
            self._request.transport.abort()

    def freeze(self) -> None:
        """The host hangs: it reads nothing more, not even pings, and says nothing; TCP stays open."""
        self.silent = True
        if isinstance(self._request.transport, asyncio.ReadTransport):
            self._request.transport.pause_reading()

    # -- the socket -------------------------------------------------------------------------------

    async def read(self, socket: web.WebSocketResponse) -> None:
        """Take frames until the client is gone."""
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.receive(message.data)
                self.changed()
        self.closed = True
        self.changed()

    async def write(self, socket: web.WebSocketResponse) -> None:
        """Send what the model says."""
        while True:
            event = await self._queue.get()
            if event["type"] == "session.updated":
                await self._update_gate.wait()
            if socket.closed:
                continue
            with contextlib.suppress(ConnectionResetError):  # it broke; the reader sees the end
                await socket.send_str(json.dumps(event))


Script = Callable[[LiveSession], Coroutine[Any, Any, None]]


class Model(Watched):
    """`async with Model() as model`: a server on a port of its own; `script` plays each session until its socket closes."""

    def __init__(self, script: Script | None = None, refuse_with: int | None = None, beta: bool = False) -> None:
        """`beta`: it speaks with the retired names and takes a flat session."""
        super().__init__()
        self._beta = beta
        self.script = script
        self.refuse_with = refuse_with
        """HTTP status for handshakes instead of a session."""
        self.update_gate = asyncio.Event()
        """`session.updated` goes out only while this is set, as it is at first."""
        self.update_gate.set()
        self.handshakes = 0
        self.sessions: list[LiveSession] = []
        self.url = ""

    async def __aenter__(self) -> Model:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._serve)
        self._runner, port = await serve(app)
        self.url = f"ws://127.0.0.1:{port}/v1/realtime?model=stub"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()
        if error is None:
            # A response may end here while it is being cancelled there: the two cross on the wire, and the model says so.
            refused = [str(refusal) for session in self.sessions for refusal in session.errors]
            assert [refusal for refusal in refused if refusal != "no such response is active"] == []

    async def session(self, count: int = 1) -> LiveSession:
        """Wait for the session of this number, the first being 1."""
        return await self.until(
            lambda: self.sessions[count - 1] if len(self.sessions) >= count else None, f"model session {count}"
        )

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        self.changed()
        if self.refuse_with is not None:
            message = f"Incorrect key: {request.headers.get('Authorization')}"  # as unwise as a vendor may be
            return web.json_response({"error": {"message": message}}, status=self.refuse_with)
        socket = web.WebSocketResponse(max_msg_size=16 << 20)
        await socket.prepare(request)
        session = LiveSession(request, self.update_gate, self._beta)
        session.open()
        self.sessions.append(session)
        self.changed()
        async with asyncio.TaskGroup() as tasks:
            playing = [tasks.create_task(session.write(socket))]
            if self.script is not None:
                playing.append(tasks.create_task(self.script(session)))
            await session.read(socket)
            for task in playing:
                task.cancel()
        return socket

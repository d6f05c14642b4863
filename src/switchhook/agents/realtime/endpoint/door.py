"""The way in to our Realtime endpoint: authorisation, the limit of sessions, and one connection with its jobs each."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Protocol
from urllib.parse import parse_qs

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from switchhook.agents.brain import Brain
from switchhook.agents.providers.grammar import Grammar, GrammarInvalid
from switchhook.agents.providers.grammar_decoder import Recognition
from switchhook.agents.realtime.endpoint.listener import MAX_FRAME_BYTES, Upgrade, refusal
from switchhook.agents.realtime.endpoint.session import Close, Effect, RealtimeServerSession, Recognize, Send, Synthesize
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Voice
from switchhook.driver import Driver

_log = logging.getLogger(__name__)

_MOST_UNSENT_BYTES = 8 * 1024 * 1024
"""A client that lets so much lie unread is disconnected."""
_DEFAULT_MODEL = "embedded"


class Ear(Protocol):
    """Understands an utterance against a grammar."""

    @property
    def missing(self) -> str | None:
        """Why nothing can be understood, with the cure; None when all is there."""

    async def warm_up(self) -> None:
        """Load what recognition needs."""

    async def recognize(self, payload: bytes, encoding: Encoding, grammar: Grammar) -> Recognition:
        """The text is empty when nothing of the grammar was said. Raises GrammarInvalid."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What stands behind the endpoint."""

    brain: Callable[[], Brain]
    """A fresh brain for a session."""
    ear: Ear
    voice: Voice


class RealtimeDoor:
    """Serves `GET /v1/realtime`. Use it as an async context manager: connections and their jobs live inside it.

    `authorize` takes the bearer token and gives the account's name, or None.
    """

    def __init__(self, engine: Engine, authorize: Callable[[str], str | None], max_sessions: int) -> None:
        self.engine = engine
        self._authorize = authorize
        self._max_sessions = max_sessions
        self._connections: set[Connection] = set()
        self._tasks = asyncio.TaskGroup()
        self._warm = False

    async def __aenter__(self) -> RealtimeDoor:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in list(self._connections):
            connection.close(WSCloseCode.GOING_AWAY)
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        return len(self._connections)

    def accept(self, request: WSUpgradeRequest) -> Upgrade:
        """The route: check a handshake and give the connection that serves it."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        account = self._authorize(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
        if account is None:
            challenge = {"WWW-Authenticate": "Bearer"}
            return refusal(HTTPStatus.UNAUTHORIZED, "Send an account's token: `Authorization: Bearer <token>`.", challenge)
        if self.engine.ear.missing is not None:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"This server cannot run sessions: {self.engine.ear.missing}.")
        if len(self._connections) >= self._max_sessions:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "All sessions are in use.", {"Retry-After": "5"})
        query = parse_qs(request.path.partition(b"?")[2].decode("latin-1"))
        connection = Connection(self, query.get("model", [_DEFAULT_MODEL])[0][:100])
        self._connections.add(connection)
        self._tasks.create_task(connection.run())
        return connection

    async def warm_up(self) -> None:
        """While the first caller hears the first words: load what is needed to understand the answer."""
        if self._warm:
            return
        self._warm = True
        try:
            await self.engine.ear.warm_up()
        except Exception:  # noqa: BLE001  # the task's edge: the first recognition will meet the same and tell
            _log.exception("the recogniser does not start")

    def gone(self, connection: Connection) -> None:
        """A connection is over."""
        self._connections.discard(connection)


class Connection(WSListener):
    """One client: feeds its frames to the session and performs what the session asks for."""

    HANDSHAKE_S = 10.0
    """A handshake that is accepted but never completed gives its place back."""

    def __init__(self, door: RealtimeDoor, model: str) -> None:
        self._door = door
        self._engine = door.engine
        self._model = model
        self._transport: WSTransport | None = None
        self._live: tuple[RealtimeServerSession, Driver] | None = None
        self._connected = asyncio.Event()
        self._over = asyncio.Event()
        self._jobs = asyncio.TaskGroup()
        self._parts: list[bytes] = []
        self._waiting: list[bytes | None] = []
        """Messages that came before the session began; a moment's worth."""
        self._choked = False
        self._unsent_bytes = 0

    async def run(self) -> None:
        """Live until the socket is gone; jobs under way are cancelled then."""
        try:
            async with asyncio.timeout(self.HANDSHAKE_S):
                await self._connected.wait()
            async with self._jobs:
                self._begin()
                await self._over.wait()
                raise _Over
        except* (_Over, TimeoutError):
            pass
        finally:
            if self._live is not None:
                self._live[1].close()
            self.close(WSCloseCode.GOING_AWAY)
            self._door.gone(self)

    def close(self, code: WSCloseCode) -> None:
        """End the connection from this side; idempotent."""
        self._connected.set()
        self._over.set()
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(code)
            self._transport.disconnect()

    # -- picows ------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self._connected.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; messages in fragments are put together, as large as one frame may be."""
        if frame.msg_type is WSMsgType.CLOSE:
            self.close(WSCloseCode.OK)
            return
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            return
        if frame.msg_type is WSMsgType.BINARY:
            self._receive(None)
            return
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > MAX_FRAME_BYTES:
            self.close(WSCloseCode.MESSAGE_TOO_BIG)
        elif frame.fin:
            message, self._parts = b"".join(self._parts), []
            self._receive(message)

    def pause_writing(self) -> None:
        """The client does not read as fast as we send."""
        self._choked = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._choked = False
        self._unsent_bytes = 0

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        self._connected.set()
        self._over.set()

    # -- the session -------------------------------------------------------------------------------

    def _begin(self) -> None:
        now = asyncio.get_running_loop().time()
        session = RealtimeServerSession(self._engine.brain(), self._model, _fresh_id, now)
        self._live = session, Driver(session, self._perform)
        self._live[1].drain()
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._receive(message)

    def _receive(self, message: bytes | None) -> None:
        """One text message; None stands for one that is no text."""
        if self._live is None:
            self._waiting.append(message)
            return
        session, driver = self._live
        driver.feed(lambda now: session.refuse_frame() if message is None else session.receive(message, now))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(text):
                self._send(text)
            case Recognize():
                self._jobs.create_task(self._hear(effect))
            case Synthesize():
                self._jobs.create_task(self._speak(effect))
            case Close(code):
                self.close(WSCloseCode(code))

    def _send(self, text: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_disconnected or self._over.is_set():
            return
        if self._choked:
            self._unsent_bytes += len(text)
            if self._unsent_bytes > _MOST_UNSENT_BYTES:
                _log.warning("a realtime client does not read; disconnected")
                transport.disconnect(graceful=False)
                return
        transport.send(WSMsgType.TEXT, text)

    async def _hear(self, job: Recognize) -> None:
        text, failed = "", False
        try:
            if job.grammar is not None:
                text = (await self._engine.ear.recognize(job.sound, job.encoding, job.grammar)).text
        except GrammarInvalid as error:
            _log.warning("a dialogue's phrases cannot be recognised: %s", error)
        except Exception:  # noqa: BLE001  # the task's edge: a recogniser that fails costs one utterance, not the session
            _log.exception("recognition failed")
            failed = True
        if self._live is not None:
            session, driver = self._live
            driver.feed(lambda now: session.recognized(job.job, text, now, failed))

    async def _speak(self, job: Synthesize) -> None:
        sound: bytes | None = None
        try:
            sound = await self._engine.voice.synthesize(job.text, job.encoding)
        except SwitchhookError as error:
            _log.warning("no speech: %s", error)
        except Exception:  # noqa: BLE001  # the task's edge: a voice that fails costs one response, not the session
            _log.exception("speech failed")
        if self._live is not None:
            session, driver = self._live
            driver.feed(lambda now: session.synthesized(job.job, sound, now))
        await self._door.warm_up()


class _Over(Exception):
    """The socket is gone."""


def _fresh_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(10)}"

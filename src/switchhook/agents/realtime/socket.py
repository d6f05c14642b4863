"""The WebSocket to a model: connects to the address that egress checked, notices a dead peer, never lags behind the caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import picows

from switchhook.agents.conversation import ModelLoss
from switchhook.agents.realtime.dialect import APPEND_HEAD
from switchhook.domain.errors import EgressRefused

HANDSHAKE_S = 5.0
PING_IDLE_S = 10.0
PING_REPLY_S = 10.0
MOST_FRAME_BYTES = 16 << 20
STREAM_HEAD = b'{"event":"media"'
"""A frame of sound on a Media Stream begins so."""
LATE_S = 2.0
"""How long the caller's sound waits while the socket is choked; what is older is dropped, because a model must not lag."""
CHOKE_BYTES = 32 << 10
"""Unsent bytes at which the socket counts as choked: three seconds of G.711."""
SEND_BUFFER_BYTES = 64 << 10
EARLY_FRAMES = 100
LINGER_S = 2.0
"""How long a link that was left may take to say goodbye; a dead peer would keep it for minutes."""

_TEXT = picows.WSMsgType.TEXT
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# The handshake's own; a customer's copy of them would break it.
_OUR_HEADERS = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding"}
    | {f"sec-websocket-{name}" for name in ("key", "version", "extensions", "accept")}
)

_log = logging.getLogger(__name__)
_picows_log = logging.getLogger("picows.model")
_picows_log.setLevel(logging.CRITICAL)  # it logs what we report ourselves, with URLs


class PinnedTarget(Protocol):
    """Where to connect: one of `addresses`, with `host` for SNI and the Host header."""

    @property
    def host(self) -> str:
        """Name or address of the URL."""

    @property
    def port(self) -> int:
        """TCP port."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Checked IP addresses."""


class Connector(Protocol):
    """The guarded way out."""

    async def pin(self, url: str) -> PinnedTarget:
        """Resolve and check. Raises EgressRefused or OSError."""


class ModelSockets:
    """Makes sockets to models; holds the TLS context, which is costly to make."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._tls: ssl.SSLContext | None = None

    def link(
        self, on_open: Callable[[], None], on_frame: Callable[[bytes], None], on_lost: Callable[[ModelLoss], None]
    ) -> ModelSocket:
        """A socket that is not open."""
        return ModelSocket(self._connector, self.tls, on_open, on_frame, on_lost)

    def tls(self) -> ssl.SSLContext:
        """The context for `wss`."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class ModelSocket:
    """One link at a time; `open` after `close` makes a fresh one. After `close` nothing of the old link is told."""

    def __init__(
        self,
        connector: Connector,
        tls: Callable[[], ssl.SSLContext],
        on_open: Callable[[], None],
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[ModelLoss], None],
    ) -> None:
        self._connector = connector
        self._tls = tls
        self._on_open = on_open
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Task[None] | None = None
        self._wire: _Wire | None = None

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        """Connect in the background; `on_open` or `on_lost` follows."""
        self.close()
        # The link owns this task and `close` cancels it: the call's task group must not wait for a slow handshake.
        self._connecting = self._loop.create_task(self._connect(url, headers))

    def send(self, text: bytes) -> None:
        """Send one text frame; without a link it is dropped."""
        if self._wire is not None:
            self._wire.send(text)

    def close(self) -> None:
        """Close for good, without waiting; idempotent."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.leave()

    async def _connect(self, url: str, headers: Mapping[str, str]) -> None:
        try:
            wire = await self._handshake(url, headers)
        except picows.WSHandshakeError as error:
            status = int(error.response.status) if error.response is not None else None
            what = f"the handshake was answered {status}" if status else "the handshake failed"
            self._lost(ModelLoss(what, retryable=status is None or status >= 500))
        except EgressRefused as error:
            self._lost(ModelLoss(str(error), retryable=False))
        except ValueError:
            self._lost(ModelLoss("the model's address or its headers cannot be used", retryable=False))
        except (OSError, TimeoutError, picows.WSError) as error:
            self._lost(ModelLoss(f"no connection: {type(error).__name__}"))
        else:
            self._wire = wire
            self._connecting = None
            self._on_open()
            if self._wire is wire:
                wire.hand_over(self)

    async def _handshake(self, url: str, headers: Mapping[str, str]) -> _Wire:
        usable = _usable(headers)
        plugs: list[socket.socket] = []
        async with asyncio.timeout(HANDSHAKE_S):
            target = await self._connector.pin(url)

            async def plug(parsed: object) -> socket.socket:
                plugs.append(await self._plug(target))
                return plugs[0]

            try:
                _, wire = await picows.ws_connect(
                    _Wire,
                    url,
                    ssl_context=self._tls() if url.lower().startswith("wss:") else None,
                    socket_factory=plug,
                    extra_headers=usable,
                    websocket_handshake_timeout=HANDSHAKE_S,
                    max_redirects=0,
                    max_frame_size=MOST_FRAME_BYTES,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=PING_IDLE_S,
                    auto_ping_reply_timeout=PING_REPLY_S,
                    logger_name=_picows_log,
                )
            except BaseException:
                # The transport owns the socket by now, and may be waiting for an answer that takes long: it sees the end and
                # closes. To close the descriptor under it would let it act on a descriptor that is somebody else's next.
                for owned in plugs:
                    with contextlib.suppress(OSError):
                        owned.shutdown(socket.SHUT_RDWR)
                raise
        assert isinstance(wire, _Wire)
        return wire

    async def _plug(self, target: PinnedTarget) -> socket.socket:
        """A connected socket to the first checked address that answers."""
        problem: OSError | None = None
        for address in target.addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            plug = socket.socket(family, socket.SOCK_STREAM)
            plug.setblocking(False)
            try:
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
                await self._loop.sock_connect(plug, (address, target.port))
            except OSError as error:
                plug.close()
                problem = error
            except BaseException:
                plug.close()
                raise
            else:
                return plug
        raise problem or OSError("the host has no address")

    def received(self, wire: _Wire, data: bytes) -> None:
        """A whole message came."""
        if wire is self._wire:
            self._on_frame(data)

    def disconnected(self, wire: _Wire, detail: str) -> None:
        """The link is gone."""
        if wire is self._wire:
            self._wire = None
            self._on_lost(ModelLoss(detail))

    def _lost(self, loss: ModelLoss) -> None:
        self._connecting = None
        self._on_lost(loss)


def _usable(headers: Mapping[str, str]) -> dict[str, str]:
    """The customer's headers without the handshake's own. Raises ValueError for a character that would end a header early."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError("a header's name or value has a character that HTTP does not allow (RFC 9110 §5)")
    return {name: value for name, value in headers.items() if name.lower() not in _OUR_HEADERS}


class _Wire(picows.WSListener):
    """One connection's protocol side."""

    def __init__(self) -> None:
        self.owner: ModelSocket | None = None
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._early: list[bytes] = []
        self._choked = False
        self._late: deque[tuple[float, bytes]] = deque()
        self.dropped = 0
        """Frames of the caller's sound that came too late to be sent."""
        self._loop = asyncio.get_running_loop()
        self._detail = "the connection was closed"

    def send(self, text: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._choked and text.startswith((APPEND_HEAD, STREAM_HEAD)):
            self._wait(text)
            return
        try:
            transport.send(_TEXT, text)
        except (OSError, picows.WSError) as error:
            self._detail = f"sending failed: {type(error).__name__}"
            transport.disconnect()

    def hand_over(self, owner: ModelSocket) -> None:
        """The handshake is over: what came before is told, and from here on everything at once."""
        self.owner = owner
        early, self._early = self._early, []
        for data in early:
            owner.received(self, data)
        if self._transport is None:
            owner.disconnected(self, self._detail)

    def _wait(self, text: bytes) -> None:
        now = self._loop.time()
        self._late.append((now, text))
        while self._late and self._late[0][0] < now - LATE_S:
            self._late.popleft()
            self.dropped += 1

    def leave(self) -> None:
        self.owner = None
        transport, self._transport = self._transport, None
        if transport is not None:
            self._part(transport)

    def _part(self, transport: picows.WSTransport) -> None:
        if self.dropped:
            _log.warning("the model's socket was too slow for the caller's sound", extra={"frames_dropped": self.dropped})
        transport.send_close(picows.WSCloseCode.OK)
        transport.disconnect()
        self._loop.call_later(LINGER_S, transport.disconnect, False)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=CHOKE_BYTES)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if kind == _TEXT and frame.fin:
            self._deliver(frame.get_payload_as_bytes())
        elif kind in (_TEXT, picows.WSMsgType.CONTINUATION):
            self._collect(frame)
        elif kind == picows.WSMsgType.CLOSE:
            self._detail = f"the model closed the connection with code {frame.get_close_code().value}"
            self._part(transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._transport = None
        if self.owner is not None:
            self.owner.disconnected(self, self._detail)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        while self._late and not self._choked:
            self.send(self._late.popleft()[1])

    def _collect(self, frame: picows.WSFrame) -> None:
        if frame.msg_type == _TEXT:
            self._parts.clear()
            self._size = 0
        self._size += frame.payload_size
        if self._size > MOST_FRAME_BYTES:
            self._detail = "the model sent a message that is too long"
            if self._transport is not None:
                self._transport.disconnect()
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            data = b"".join(self._parts)
            self._parts.clear()
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.received(self, data)
        elif len(self._early) < EARLY_FRAMES:
            # It came with the handshake's answer, before the link was handed over.
            self._early.append(data)

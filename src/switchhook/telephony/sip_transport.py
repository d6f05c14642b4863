"""SIP over UDP, TCP and TLS: sockets and nothing else (RFC 3261 §18, RFC 3581, RFC 5626 keepalives).

UDP reads until empty, with a bound for each wake-up. Streams are asyncio protocols with bounds on their number, their idleness
and what may wait to be written. What arrives is called back at once; `end_of_batch` follows each wake-up.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

from switchhook.telephony.returned_datagrams import ask_for_returns, returned, watch_again
from switchhook.telephony.sip_tls import TlsContexts, TlsFault, TlsPeer, cure, wrong_name
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.framing import PONG, Frame, Keepalive, StreamFramer

logger = logging.getLogger(__name__)

DATAGRAMS_PER_WAKE = 16
"""Few enough that a burst of calls does not hold the pacing of those that talk."""
_RETURNS_PER_SEND = 3
"""So many errors may meet a send as earlier datagrams' before one counts as its own: forged ICMP must not end requests."""
_DATAGRAM_BYTES = 65_536
_RECEIVE_BUFFER_BYTES = 1 << 20
MAX_CONNECTIONS = 1024
MAX_STRANGERS = 128
"""Connections of addresses that no trunk allows."""
MAX_STRANGER_CONNECTIONS = 4
"""Of one of them."""
STRANGER_IDLE_S = 30.0
IDLE_S = 7200.0
_MAX_UNSENT_BYTES = 1 << 18
_MAX_WAITING_MESSAGES = 16
_CONNECT_TIMEOUT_S = 10.0
_HANDSHAKE_TIMEOUT_S = 10.0
_MAX_LOCAL_ADDRESSES = 1024
PING_S = 100.0
"""Each outgoing connection is shown to be in use this often, for the address translators on its way (RFC 5626 §3.5.1, §4.4.1)."""

_PING = 2 * PONG

Address: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket to listen on."""

    transport: str
    host: str
    port: int


class Receiver(Protocol):
    """What the transport calls back."""

    def reads(self, host: str) -> bool:
        """Whether a message from this address is looked at."""

    def knows(self, host: str) -> bool:
        """Whether a trunk allows this address."""

    @property
    def answers_strangers(self) -> bool:
        """Whether others may connect at all."""

    def datagram(self, data: bytes, flow: Flow) -> None:
        """A datagram came."""

    def frame(self, frame: Frame, flow: Flow) -> None:
        """A message, or something that is none, came over a stream."""

    def flow_failed(self, flow: Flow) -> None:
        """Nothing more can be sent there."""

    def datagram_returned(self, data: bytes) -> None:
        """The network says that a datagram of ours, which begins so, reached nobody."""

    def end_of_batch(self) -> None:
        """All that had arrived was called back."""


class _Connection(asyncio.Protocol):
    """One stream connection."""

    def __init__(self, owner: SipTransport, transport: str, flow: Flow | None = None, tls: TlsPeer | None = None) -> None:
        """`flow`: we connect, and to this; `tls`: whose certificate is expected there."""
        self._owner = owner
        self._tls = tls
        self._heard = False
        self._ping: asyncio.TimerHandle | None = None
        self._framer = StreamFramer()
        self._kind = transport
        self._known = self._connected = flow is not None
        self.kept = False
        """Whether a call was admitted over it: it may be idle for as long as a trunk's, and all that it sends is read."""
        self._seen_at = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self.flow = flow
        self.pipe: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface and not the class.
        pipe = self.pipe = cast(asyncio.Transport, transport)
        peer = pipe.get_extra_info("peername")
        if not peer or not self._is_whom_we_meant(pipe):
            self.flow = None
            pipe.abort()
            return
        self._known = self._known or self._owner.receiver.knows(peer[0])
        flow = self._owner.register(self, self._kind, (peer[0], peer[1]), self._known)
        if flow is None:
            pipe.abort()
            return
        self.flow = flow
        raw = pipe.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._seen_at = self._owner.loop.time()
        self._watch()
        if self._connected:
            self._ping = self._owner.loop.call_later(PING_S, self._show_use)

    def data_received(self, data: bytes) -> None:
        if self.flow is None or self.pipe is None:
            return
        self._heard = True
        self._seen_at = self._owner.loop.time()
        receiver = self._owner.receiver
        for frame in self._framer.feed(data):
            if isinstance(frame, Keepalive):
                self.write(PONG)
            elif self.kept or receiver.reads(self.flow.host):
                receiver.frame(frame, self.flow)
        receiver.end_of_batch()
        if self._framer.broken:
            self.pipe.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._ping is not None:
            self._ping.cancel()
        if self.flow is not None:
            if self._tls is not None and not self._heard and not self._owner.closed:
                # With TLS 1.3 a peer that does not like our certificate says so after the handshake (RFC 8446 §4.4.2.4).
                log_failure(self._tls, self.flow, exc or ConnectionResetError())
            self._owner.unregister(self, self._known)

    def write(self, data: bytes) -> None:
        """Send; a peer that does not read is cut off."""
        if self.pipe is None or self.pipe.is_closing():
            return
        if self.pipe.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.pipe.abort()
            return
        self.pipe.write(data)

    def _is_whom_we_meant(self, pipe: asyncio.Transport) -> bool:
        certificate = pipe.get_extra_info("peercert")
        if self._tls is None or self._tls.accepts(certificate):
            return True
        log_failure(self._tls, self.flow, wrong_name(certificate, self._tls))
        return False

    def _show_use(self) -> None:
        self.write(_PING)
        self._ping = self._owner.loop.call_later(PING_S, self._show_use)

    def _watch(self) -> None:
        limit = IDLE_S if self._known or self.kept else STRANGER_IDLE_S
        left = self._seen_at + limit - self._owner.loop.time()
        if left <= 0:
            if self.pipe is not None:
                self.pipe.close()
            return
        self._idle = self._owner.loop.call_later(left, self._watch)


class SipTransport:
    """All sockets of one SIP server."""

    def __init__(
        self,
        receiver: Receiver,
        tls: ssl.SSLContext | None = None,
        tls_peer: Callable[[Flow], TlsPeer] = lambda flow: TlsPeer(flow.host, flow.host),
    ) -> None:
        """`tls`: what we show to those who connect to us; `tls_peer`: what is expected where we connect."""
        self.receiver = receiver
        self._tls_peer = tls_peer
        self._tls_contexts = TlsContexts()
        self.loop = asyncio.get_running_loop()
        self._tls = tls
        self._udp: socket.socket | None = None
        self._servers: list[asyncio.Server] = []
        self._ports: dict[str, Address] = {}
        self._connections: dict[int, _Connection] = {}
        self._by_address: dict[tuple[str, str, int, str], _Connection] = {}
        self._strangers: dict[str, int] = {}
        self._next_number = 0
        self._waiting: dict[Flow, list[tuple[bytes, Flow]]] = {}
        # Connecting and name lookups happen inside synchronous sends; the transport owns their tasks until `close`.
        self._tasks: set[asyncio.Task[None]] = set()
        self._local: dict[str, str] = {}
        self._buffer = bytearray(_DATAGRAM_BYTES)
        self.closed = False
        self.unsent = 0
        """Messages that could not be sent."""

    async def open(self, listener: Listener) -> Address:
        """Listen; returns the bound address. Raises OSError."""
        if listener.transport == "udp":
            bound = self._open_udp(listener)
        else:
            context = self._tls if listener.transport == "tls" else None
            server = await self.loop.create_server(
                lambda: _Connection(self, listener.transport),
                listener.host,
                listener.port,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if context else None,
                backlog=256,
            )
            self._servers.append(server)
            name = server.sockets[0].getsockname()
            bound = (str(name[0]), int(name[1]))
        self._ports[listener.transport] = bound
        return bound

    def bound(self, transport: str) -> Address | None:
        """Where we listen."""
        return self._ports.get(transport)

    @property
    def connections(self) -> int:
        """Stream connections that are open."""
        return len(self._connections)

    async def close(self) -> None:
        """Close every socket; idempotent."""
        self.closed = True
        if self._udp is not None:
            self.loop.remove_reader(self._udp.fileno())
            self._udp.close()
            self._udp = None
        for server in self._servers:
            server.close()
        for connection in list(self._connections.values()):
            if connection.pipe is not None:
                connection.pipe.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def send(self, data: bytes, flow: Flow) -> None:
        """Send now or, where a name must be looked up or a connection made first, soon."""
        if self.closed:
            return
        if flow.transport == "udp":
            self._send_udp(data, flow)
            return
        connection = self._connections.get(flow.connection) if flow.connection else None
        connection = connection or self._by_address.get(_far_end(flow))
        target = flow
        if connection is None and flow.alternative is not None:
            target = flow.to(*flow.alternative)
            connection = self._by_address.get(_far_end(target))
        if connection is not None:
            connection.write(data)
        else:
            self._queue(data, flow, target)

    def keep(self, flow: Flow) -> None:
        """A call was admitted over this flow: its connection is no stranger's any more."""
        connection = self._connections.get(flow.connection)
        if connection is not None:
            connection.kept = True

    def local_host(self, remote: str) -> str:
        """Our own address as the routing table chooses it towards `remote`; no packet is sent."""
        if remote in self._local:
            return self._local[remote]
        family = socket.AF_INET6 if ":" in remote else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((remote, 9))
                found = str(probe.getsockname()[0])
            except OSError:
                found = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        if len(self._local) >= _MAX_LOCAL_ADDRESSES:
            self._local.clear()
        self._local[remote] = found
        return found

    # -- UDP

    def _open_udp(self, listener: Listener) -> Address:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            ask_for_returns(bound)
            bound.bind((listener.host, listener.port))
        except OSError:
            bound.close()
            raise
        self._udp = bound
        self.loop.add_reader(bound.fileno(), self._read_udp, bound)
        name = bound.getsockname()
        return str(name[0]), int(name[1])

    def _read_udp(self, bound: socket.socket) -> None:
        receiver = self.receiver
        # Asked for at every wake: the kernel queues what came back before the socket has the error (`__udp4_lib_err`), and a send
        # may have taken the error. Then nothing below fails, and a loop that has ceased to watch would not begin again.
        errors = returned(bound)
        if errors is not None:
            self._watch_again(bound)
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                length, source = bound.recvfrom_into(self._buffer)
            except BlockingIOError:
                break
            except OSError:  # an ICMP error of something sent earlier
                self._watch_again(bound)
                continue
            host = str(source[0])
            # Four bytes or fewer are the keepalives of phones behind NAT.
            if length > 4 and receiver.reads(host):
                receiver.datagram(bytes(self._buffer[:length]), Flow("udp", host, int(source[1])))
        for data in errors or ():
            receiver.datagram_returned(data)
        receiver.end_of_batch()

    def _watch_again(self, bound: socket.socket) -> None:
        watch_again(self.loop, bound.fileno(), partial(self._read_udp, bound))

    def _send_udp(self, data: bytes, flow: Flow) -> None:
        if self._udp is None:
            return
        if not _is_address(flow.host):
            self._spawn(self._send_udp_by_name(data, flow))
            return
        try:
            self._send_to(self._udp, data, (flow.host, flow.port))
        except BlockingIOError:
            self.unsent += 1  # the socket buffer is full; SIP repeats what is not answered
        except OSError:
            self.unsent += 1
            self.loop.call_soon(self._failed, flow)

    def _send_to(self, bound: socket.socket, data: bytes, address: Address) -> None:
        """Send a datagram. Raises OSError when this one cannot be sent."""
        for _ in range(_RETURNS_PER_SEND):
            try:
                bound.sendto(data, address)
                return
            except BlockingIOError:
                raise
            except OSError:  # an earlier one's, which is told once; this one's own comes again
                self._watch_again(bound)
        bound.sendto(data, address)

    async def _send_udp_by_name(self, data: bytes, flow: Flow) -> None:
        address = await self._resolve(flow)
        if address is None:
            self._failed(flow)
        elif self._udp is not None:
            try:
                self._send_to(self._udp, data, address)
            except BlockingIOError:  # a full buffer: SIP repeats what is not answered
                self.unsent += 1
            except OSError:
                self.unsent += 1
                self._failed(flow)

    async def _resolve(self, flow: Flow) -> Address | None:
        family = self._udp.family if self._udp is not None else socket.AF_UNSPEC
        try:
            found = await self.loop.getaddrinfo(flow.host, flow.port, family=family, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            return None
        return (str(found[0][4][0]), int(found[0][4][1])) if found else None

    # -- streams

    def register(self, connection: _Connection, transport: str, peer: Address, known: bool) -> Flow | None:
        """Number a connection; None when there is no room for it."""
        if self.closed or len(self._connections) >= MAX_CONNECTIONS:
            return None
        if not known:
            mine = self._strangers.get(peer[0], 0)
            all_strangers = sum(self._strangers.values())
            if not self.receiver.answers_strangers or mine >= MAX_STRANGER_CONNECTIONS or all_strangers >= MAX_STRANGERS:
                return None
            self._strangers[peer[0]] = mine + 1
        self._next_number += 1
        flow = connection.flow or Flow(transport, peer[0], peer[1], self._next_number)
        self._connections[self._next_number] = connection
        self._by_address[_far_end(flow)] = connection
        return flow

    def unregister(self, connection: _Connection, known: bool) -> None:
        """A connection is gone: what waits for answers over it will wait in vain."""
        flow = connection.flow
        assert flow is not None
        for number in [number for number, other in self._connections.items() if other is connection]:
            del self._connections[number]
        if self._by_address.get(_far_end(flow)) is connection:
            del self._by_address[_far_end(flow)]
        if not known and flow.host in self._strangers:
            self._strangers[flow.host] -= 1
            if not self._strangers[flow.host]:
                del self._strangers[flow.host]
        self._failed(flow)

    def _queue(self, data: bytes, flow: Flow, target: Flow) -> None:
        """Keep a message until there is a connection to `target`; `flow` is told when there will be none."""
        waiting = self._waiting.get(target)
        if waiting is not None:
            if len(waiting) < _MAX_WAITING_MESSAGES:
                waiting.append((data, flow))
            return
        self._waiting[target] = [(data, flow)]
        self._spawn(self._connect(target))

    async def _connect(self, target: Flow) -> None:
        peer = self._tls_peer(target) if target.transport == "tls" else None
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(self, target.transport, target, peer),
                    target.host,
                    target.port,
                    ssl=await self._tls_contexts.of(peer) if peer else None,
                    server_hostname=peer.domain if peer else None,
                )
        except (OSError, TimeoutError, UnicodeError, TlsFault) as error:
            if peer is not None:
                log_failure(peer, target, error)
        if connection is None or connection.flow is None:
            self.unsent += 1
            for flow in {flow for _, flow in self._waiting.pop(target, [])}:
                self._failed(flow)
            return
        for data, _ in self._waiting.pop(target, []):
            connection.write(data)

    def _failed(self, flow: Flow) -> None:
        if not self.closed:
            self.receiver.flow_failed(flow)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def log_failure(peer: TlsPeer, target: Flow | None, error: BaseException) -> None:
    """One line that names the trunk, what went wrong and the cure."""
    where = f"{target.host}:{target.port}" if target else peer.domain
    logger.warning("sip.tls: no connection to trunk %s at %s: %s", peer.name, where, cure(error, peer))


def _far_end(flow: Flow) -> tuple[str, str, int, str]:
    """What flows must have in common to share a connection: the trunk too, for it says who we are there."""
    return flow.transport, flow.host, flow.port, flow.trunk


def _is_address(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host.partition("%")[0])
    except OSError:
        return False
    return True

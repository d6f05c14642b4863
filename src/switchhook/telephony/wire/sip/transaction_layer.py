"""The transaction layer: which transaction a message belongs to, one deadline for them all, and bounds (RFC 3261 §17)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from switchhook.telephony.wire.sip.client_tx import ClientTransaction, cancel_of
from switchhook.telephony.wire.sip.flow import Flow, Send
from switchhook.telephony.wire.sip.grammar import format_host_port
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.server_tx import ServerTransaction
from switchhook.telephony.wire.sip.timers import Timer, TimerValues, Timetable
from switchhook.telephony.wire.sip.transaction import Deliver, State, Transmit
from switchhook.telephony.wire.sip.via import MAGIC_COOKIE

_BRANCH = re.compile(rb"INVITE [^\r\n]*\r\nVia: [^\r\n]*;branch=(z9hG4bK[0-9a-f]+)")
"""At the beginning of an INVITE of ours."""

ServerKey: TypeAlias = tuple[str, ...]
ClientKey: TypeAlias = tuple[str, str]
MergeKey: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept at once."""

    transactions: int = 20_000
    """Requests outside a dialog beyond this are refused without a transaction; inside a dialog, beyond twice as many."""
    transactions_per_source: int = 10_000
    """The share of one address."""


class Caller(Protocol):
    """The user of a client transaction."""

    def answered(self, exchange: ClientExchange, response: Response, now: float) -> None:
        """A response came."""

    def unanswered(self, exchange: ClientExchange, reason: str, now: float) -> None:
        """No final response will come: `timeout` or `transport`."""


class ServerExchange:
    """A request with its server transaction: what a transaction user answers through."""

    __slots__ = ("_layer", "_request", "flow", "key", "merge_key", "reply_flow", "source", "transaction")

    def __init__(self, layer: TransactionLayer, request: Request, flow: Flow, transaction: ServerTransaction) -> None:
        self._layer = layer
        self._request: Request | None = request
        self.flow = flow
        """The way the request came."""
        self.reply_flow = reply_flow(request, flow)
        self.transaction = transaction
        self.key = server_key(request)
        self.merge_key = merge_key(request)
        self.source = flow.host

    @property
    def request(self) -> Request:
        """What is asked. It must not be asked for after the final answer: for the 32 s after it only that answer is kept."""
        assert self._request is not None
        return self._request

    def respond(self, response: Response, now: float) -> None:
        """Answer; later answers than the final one are dropped, but for a repeated 2xx to an INVITE."""
        self.transaction.respond(response, now)
        if self.transaction.answered:
            self._request = None
        self._layer.settle(self, now)


class ClientExchange:
    """A request of ours with its client transaction."""

    __slots__ = ("caller", "cancelling", "flow", "key", "request", "transaction")

    def __init__(self, request: Request, flow: Flow, caller: Caller | None, transaction: ClientTransaction) -> None:
        self.request = request
        self.flow = flow
        self.caller = caller
        """None: nobody wants to know (a CANCEL)."""
        self.cancelling = False
        """To be cancelled once a provisional response allows it."""
        self.transaction = transaction
        self.key: ClientKey = (request.via.branch or "", request.method)


Exchange: TypeAlias = ServerExchange | ClientExchange


class TransactionLayer:
    """All transactions of one user agent."""

    def __init__(
        self,
        values: TimerValues,
        entropy: Callable[[int], bytes],
        advertise: Callable[[Flow], tuple[str, int]],
        limits: Limits = Limits(),
    ) -> None:
        self.values = values
        self._entropy = entropy
        self._advertise = advertise
        self._limits = limits
        self._servers: dict[ServerKey, ServerExchange] = {}
        self._clients: dict[ClientKey, ClientExchange] = {}
        self._merges: dict[MergeKey, ServerExchange] = {}
        self._sources: dict[str, int] = {}
        self._timetable: Timetable[Exchange] = Timetable()
        self._effects: list[Send] = []

    def __len__(self) -> int:
        return len(self._servers) + len(self._clients)

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        return self._timetable.deadline

    def tick(self, now: float) -> None:
        """Fire the timers that are due."""
        for exchange in self._timetable.pop_due(now):
            exchange.transaction.tick(now)
            self.settle(exchange, now)

    def take(self) -> list[Send]:
        """Effects so far, in order."""
        effects, self._effects = self._effects, []
        return effects

    def send(self, data: bytes, flow: Flow) -> None:
        """Send outside every transaction: an ACK of a 2xx, a stateless answer."""
        self._effects.append(Send(data, flow))

    def new_via(self, flow: Flow) -> str:
        """A Via of ours with a branch of its own, asking for answers at the port we send from (RFC 3581)."""
        host, port = self._advertise(flow)
        branch = MAGIC_COOKIE + self._entropy(12).hex()
        return f"SIP/2.0/{flow.transport.upper()} {format_host_port(host, port)};branch={branch};rport"

    # -- server side

    def find_server(self, request: Request) -> ServerExchange | None:
        """The transaction this request repeats; for an ACK, the INVITE's."""
        return self._servers.get(server_key(request))

    def find_invite(self, cancel: Request) -> ServerExchange | None:
        """The INVITE that a CANCEL means (RFC 3261 §9.2)."""
        return self._servers.get(server_key(cancel, "INVITE"))

    def merged(self, request: Request) -> bool:
        """The same request came another way (RFC 3261 §8.2.2.2)."""
        key = merge_key(request)
        return key is not None and key in self._merges

    def has_room(self, flow: Flow, in_dialog: bool) -> bool:
        """Whether a request may still make a transaction."""
        if in_dialog:
            return len(self._servers) < 2 * self._limits.transactions
        return (
            len(self._servers) < self._limits.transactions
            and self._sources.get(flow.host, 0) < self._limits.transactions_per_source
        )

    def open_server(self, request: Request, flow: Flow) -> ServerExchange:
        """Begin a server transaction."""
        transaction = ServerTransaction(request.method == "INVITE", self.values, flow.reliable)
        exchange = ServerExchange(self, request, flow, transaction)
        self._servers[exchange.key] = exchange
        self._sources[exchange.source] = self._sources.get(exchange.source, 0) + 1
        if exchange.merge_key is not None:
            self._merges.setdefault(exchange.merge_key, exchange)
        return exchange

    def repeat(self, exchange: ServerExchange, now: float) -> None:
        """The request came again: the same answer goes out again."""
        exchange.transaction.repeat(now)
        self.settle(exchange, now)

    def acknowledge(self, exchange: ServerExchange, now: float) -> bool:
        """An ACK for this INVITE; False when it acknowledges a 2xx and is the dialog's."""
        accepted = exchange.transaction.state is State.ACCEPTED
        exchange.transaction.acknowledge(now)
        self.settle(exchange, now)
        return not accepted

    # -- client side

    def request(self, request: Request, flow: Flow, caller: Caller, now: float) -> ClientExchange:
        """Send a request of ours; its Via is added here."""
        request.headers.insert("Via", self.new_via(flow))
        return self._begin(request, flow, caller, now)

    def cancel(self, exchange: ClientExchange, now: float) -> None:
        """Cancel an INVITE of ours: at once if a provisional response came, else when one does (RFC 3261 §9.1).

        Without a final response in 64*T1 after that it counts as unanswered.
        """
        exchange.cancelling = True
        self._cancel(exchange, now)

    def receive(self, response: Response, now: float) -> None:
        """A response; one that belongs to no transaction is dropped."""
        exchange = self._clients.get((response.via.branch or "", response.cseq.method))
        if exchange is not None:
            exchange.transaction.receive(response, now)
            self.settle(exchange, now)
            self._cancel(exchange, now)

    def flow_failed(self, flow: Flow, now: float) -> None:
        """A connection is gone or could not be made: its requests will not be answered."""
        for exchange in [exchange for exchange in self._clients.values() if exchange.flow == flow]:
            exchange.transaction.transport_failed(now)
            self.settle(exchange, now)

    def datagram_returned(self, data: bytes, now: float) -> None:
        """The network gave the beginning of a datagram back, which reached nobody (RFC 3261 §18.4).

        It ends an INVITE that begins a call and has no answer, so that another address is tried. The branch, which only the
        addressee knows besides us, shows that it is no forgery. Other requests are repeated: a peer may be back in a moment.
        """
        branch = _BRANCH.match(data)
        exchange = self._clients.get((branch[1].decode("ascii"), "INVITE")) if branch else None
        if exchange is not None and exchange.request.to.tag is None and exchange.transaction.state is State.CALLING:
            exchange.transaction.transport_failed(now)
            self.settle(exchange, now)

    def _begin(self, request: Request, flow: Flow, caller: Caller | None, now: float) -> ClientExchange:
        exchange = ClientExchange(request, flow, caller, ClientTransaction(request, self.values, flow.reliable))
        self._clients[exchange.key] = exchange
        exchange.transaction.start(now)
        self.settle(exchange, now)
        return exchange

    def _cancel(self, exchange: ClientExchange, now: float) -> None:
        if exchange.cancelling and exchange.transaction.state is State.PROCEEDING:
            exchange.cancelling = False
            exchange.transaction.start_timer(Timer.B, now)
            self.settle(exchange, now)
            self._begin(cancel_of(exchange.request), exchange.flow, None, now)

    # -- both

    def settle(self, exchange: Exchange, now: float) -> None:
        """Perform what a transaction gave, then keep its deadline or forget it."""
        transaction = exchange.transaction
        while effects := transaction.take():
            for effect in effects:
                if isinstance(effect, Transmit):
                    flow = exchange.reply_flow if isinstance(exchange, ServerExchange) else exchange.flow
                    self._effects.append(Send(effect.data, flow))
                elif isinstance(exchange, ServerExchange) or exchange.caller is None:
                    continue  # an ACK goes to the dialog; an unacknowledged failure response ends nothing more
                elif isinstance(effect, Deliver):
                    if isinstance(effect.message, Response):
                        exchange.caller.answered(exchange, effect.message, now)
                else:
                    exchange.caller.unanswered(exchange, effect.reason, now)
        if transaction.over:
            self._forget(exchange)
        else:
            self._timetable.set(exchange, transaction.deadline)

    def _forget(self, exchange: Exchange) -> None:
        self._timetable.set(exchange, None)
        if isinstance(exchange, ClientExchange):
            self._clients.pop(exchange.key, None)
            return
        if self._servers.pop(exchange.key, None) is None:
            return
        left = self._sources[exchange.source] - 1
        if left:
            self._sources[exchange.source] = left
        else:
            del self._sources[exchange.source]
        if exchange.merge_key is not None and self._merges.get(exchange.merge_key) is exchange:
            del self._merges[exchange.merge_key]


def server_key(request: Request, method: str | None = None) -> ServerKey:
    """What finds a server transaction: branch, sent-by and method (RFC 3261 §17.2.3), an ACK's being the INVITE's.

    Without the magic cookie the sender speaks RFC 2543: Request-URI, From tag, Call-ID, CSeq number and the whole Via stand in.
    """
    via = request.via
    method = method or ("INVITE" if request.method == "ACK" else request.method)
    branch = via.branch or ""
    if branch.startswith(MAGIC_COOKIE):
        return (branch, via.host.lower(), str(via.port or ""), method)
    return ("", request.uri, request.from_.tag or "", request.call_id, str(request.cseq.number), str(via), method)


def merge_key(request: Request) -> MergeKey | None:
    """What a request outside a dialog has in common with its copies on other ways; None inside a dialog."""
    if request.to.tag is not None or request.method in ("ACK", "CANCEL"):
        return None
    return (request.call_id, request.from_.tag or "", str(request.cseq))


def reply_flow(request: Request, flow: Flow) -> Flow:
    """Where responses go: over the connection, else to the source, at the port the Via asks for (RFC 3261 §18.2.2, RFC 3581 §4).

    A `maddr` is not followed: anyone could have us send to anyone.
    """
    if flow.reliable:
        return flow
    via = request.via
    port = via.rport or via.port or 5060
    return flow if port == flow.port else flow.to(flow.host, port)

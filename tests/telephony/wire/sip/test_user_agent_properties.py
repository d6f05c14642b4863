"""Whatever comes, in whatever order: every session ends once, and nothing is left behind."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.client_tx import ClientTransaction
from switchhook.telephony.wire.sip.message import Request, Response, parse_message
from switchhook.telephony.wire.sip.session_events import Ended, Invited, SessionId, UserAgentEffect
from switchhook.telephony.wire.sip.timers import TimerValues
from switchhook.telephony.wire.sip.transaction import Deliver, Transmit
from switchhook.telephony.wire.sip.user_agent import UserAgent
from tests.peers.sip_caller import LOCAL, AgentOnClock, Caller, sdp

INVITES = (
    (),
    (("Require", "100rel"),),
    (("Supported", "timer"), ("Session-Expires", "90;refresher=uas"), ("Allow", "UPDATE")),
    (("Supported", "timer"), ("Session-Expires", "120;refresher=uac")),
    (("Max-Forwards", "0"),),
    (("Record-Route", "<sip:192.0.2.9;lr>"),),
)
REPLIES = (100, 200, 408, 422, 481, 491, 501)
BODIES = (b"", sdp(), sdp(direction="sendonly"), sdp(payloads="18"), b"nonsense")


class Chaos:
    """Turns drawn numbers into what a caller, a network, a switchboard and the clock may do."""

    def __init__(self, transport: str) -> None:
        self.ua = AgentOnClock()
        self.callers = [Caller(call_id=f"call-{number}", transport=transport) for number in range(2)]
        self.written: list[bytes] = []

    def step(self, which: int, choice: int, detail: int) -> None:
        """One event."""
        caller = self.callers[which]
        names = sorted(self._acts)
        self._acts[names[choice % len(names)]](self, caller, detail)
        for _, message, _ in self.ua.sent[-3:]:
            if isinstance(message, Response) and message.call_id == caller.call_id and 100 < message.status < 300:
                caller.learn(message)

    def _receive(self, caller: Caller, data: bytes) -> None:
        self.written.append(data)
        self.ua.receive(data, caller.flow)

    def _session(self, caller: Caller) -> SessionId:
        mine = [event.session for event in self.ua.invited if event.request.call_id == caller.call_id]
        return mine[-1] if mine else SessionId(999)

    def _invite(self, caller: Caller, detail: int) -> None:
        body = BODIES[detail // len(INVITES) % len(BODIES)]
        self._receive(caller, caller.invite(body, list(INVITES[detail % len(INVITES)])))

    def _request(self, caller: Caller, detail: int) -> None:
        method = ("BYE", "UPDATE", "INVITE", "INFO", "OPTIONS", "REFER", "PRACK")[detail % 7]
        headers = [("RAck", f"{self._rseq()} {caller.cseq} INVITE")] if method == "PRACK" else []
        self._receive(caller, caller.write(method, headers, BODIES[detail // 7 % len(BODIES)]))

    def _ack(self, caller: Caller, detail: int) -> None:
        self._receive(caller, caller.ack(BODIES[detail % len(BODIES)], max(1, caller.cseq - detail % 3)))

    def _ack_failure(self, caller: Caller, detail: int) -> None:
        self._receive(caller, caller.ack_failure())

    def _cancel(self, caller: Caller, detail: int) -> None:
        self._receive(caller, caller.cancel())

    def _again(self, caller: Caller, detail: int) -> None:
        if self.written:
            self.ua.receive(self.written[detail % len(self.written)], caller.flow)

    def _reply(self, caller: Caller, detail: int) -> None:
        ours = [message for _, message, _ in self.ua.sent if isinstance(message, Request) and message.method != "ACK"]
        if ours:
            reply = ours[-1 - detail % min(3, len(ours))].reply(REPLIES[detail % len(REPLIES)])
            reply.headers.add("Session-Expires", "90;refresher=uac")
            self.ua.receive(bytes(reply), caller.flow)

    def _decide(self, caller: Caller, detail: int) -> None:
        session = self._session(caller)
        acts: tuple[Callable[[UserAgent, float], None], ...] = (
            lambda agent, now: agent.ring(session, now),
            lambda agent, now: agent.answer(session, LOCAL, now),
            lambda agent, now: agent.reject(session, 486, None, now),
            lambda agent, now: agent.hang_up(session, now),
            lambda agent, now: agent.fail(session, "media-timeout", "", now),
            lambda agent, now: agent.flow_failed(caller.flow, now),
            lambda agent, now: agent.answer(session, LOCAL, now),
        )
        self.ua.do(acts[detail % len(acts)])

    def _wait(self, caller: Caller, detail: int) -> None:
        self.ua.advance((0.1, 0.5, 2, 8, 33, 70, 150)[detail % 7])

    def _rseq(self) -> int:
        found = [message.rseq for _, message, _ in self.ua.sent if isinstance(message, Response) and message.rseq]
        return found[-1] or 0 if found else 0

    _acts: ClassVar[dict[str, Callable[[Chaos, Caller, int], None]]] = {
        "ack": _ack,
        "ack-failure": _ack_failure,
        "again": _again,
        "cancel": _cancel,
        "decide": _decide,
        "decide-too": _decide,
        "invite": _invite,
        "reply": _reply,
        "request": _request,
        "wait": _wait,
    }


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["udp", "tcp"]),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 59)), max_size=40),
    st.booleans(),
)
def test_every_session_ends_once_and_nothing_is_left(
    transport: str, steps: list[tuple[int, int, int]], acknowledged: bool
) -> None:
    chaos = Chaos(transport)
    chaos._invite(chaos.callers[0], 0)
    for which, choice, detail in steps:
        chaos.step(which, choice, detail)
        live = {event.session for event in chaos.ua.invited} - {event.session for event in chaos.ua.ended}
        assert chaos.ua.agent.sessions >= len(live)
    for event in chaos.ua.invited:
        session = event.session
        chaos.ua.do(lambda agent, now, session=session: agent.hang_up(session, now))  # type: ignore[misc]  # bound now
    for caller in chaos.callers if acknowledged else []:
        chaos._ack(caller, 0)
    chaos.ua.advance(200)
    assert chaos.ua.empty
    ended = [event.session for event in chaos.ua.ended]
    assert sorted(ended) == sorted(event.session for event in chaos.ua.invited)


# -- a bad network


@dataclass(order=True)
class _Packet:
    at: float
    order: int
    data: bytes = field(compare=False)
    to_agent: bool = field(compare=False)


class BadNetwork:
    """A caller with real client transactions, and a user agent, over a network that loses, repeats and reorders."""

    def __init__(self, seed: int, loss: float) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.ua = AgentOnClock()
        self.ua.now = 0.0
        self.caller = Caller()
        self.packets: list[_Packet] = []
        self.transactions: list[ClientTransaction] = []
        self.order = 0
        self.collected = 0
        self.answers = 0
        self.ua.on_event = self._on_event

    def _on_event(self, effect: UserAgentEffect) -> None:
        if isinstance(effect, Invited):
            self.ua.agent.ring(effect.session, self.ua.now)
            self.ua.agent.answer(effect.session, LOCAL, self.ua.now)

    def post(self, data: bytes, to_agent: bool) -> None:
        """Hand a packet to the network."""
        for _ in range(2 if self.random.random() < 0.1 else 1):
            if self.random.random() >= self.loss:
                self.order += 1
                heapq.heappush(self.packets, _Packet(self.ua.now + self.random.uniform(0.01, 0.3), self.order, data, to_agent))

    def request(self, data: bytes) -> ClientTransaction:
        """The caller begins a transaction."""
        message = parse_message(data)
        assert isinstance(message, Request)
        transaction = ClientTransaction(message, TimerValues(), False)
        transaction.start(self.ua.now)
        self.transactions.append(transaction)
        self.flush()
        return transaction

    def flush(self) -> None:
        """Put on the wire what both sides gave."""
        for transaction in self.transactions:
            for effect in transaction.take():
                if isinstance(effect, Transmit):
                    self.post(effect.data, to_agent=True)
                elif isinstance(effect, Deliver) and isinstance(effect.message, Response) and transaction.invite:
                    self._on_response(effect.message)
        for _, message, _ in self.ua.sent[self.collected :]:
            self.post(bytes(message), to_agent=False)
        self.collected = len(self.ua.sent)

    def _on_response(self, response: Response) -> None:
        if 200 <= response.status < 300:
            self.answers += 1
            self.caller.learn(response)
            self.post(self.caller.ack(cseq=1), to_agent=True)

    def run(self, until: float) -> None:
        """Let it happen."""
        while True:
            due = [transaction.deadline for transaction in self.transactions if transaction.deadline is not None]
            due += [self.packets[0].at] if self.packets else []
            if self.ua.agent.deadline is not None:
                due.append(self.ua.agent.deadline)
            if not due or min(due) > until:
                self.ua.now = until
                return
            self.ua.now = max(self.ua.now, min(due))
            self._happen()
            self.flush()

    def _happen(self) -> None:
        now = self.ua.now
        while self.packets and self.packets[0].at <= now:
            packet = heapq.heappop(self.packets)
            if packet.to_agent:
                self.ua.receive(packet.data, self.caller.flow)
                continue
            message = parse_message(packet.data)
            if isinstance(message, Response):
                for transaction in self.transactions:
                    if transaction.request.via.branch == message.via.branch and transaction.request.method == message.cseq.method:
                        transaction.receive(message, now)
            elif message.method == "BYE":
                self.post(bytes(message.reply(200)), to_agent=True)
        for transaction in self.transactions:
            if transaction.deadline is not None and transaction.deadline <= now:
                transaction.tick(now)
        if self.ua.agent.deadline is not None and self.ua.agent.deadline <= now:
            self.ua.agent.tick(now)
        self.ua.settle()


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(12))
def test_a_call_over_a_bad_network(seed: int, loss: float) -> None:
    network = BadNetwork(seed, loss)
    network.request(network.caller.invite())
    network.run(until=20)
    if network.answers:
        network.caller.cseq = 1
        network.request(network.caller.write("BYE"))
    network.run(until=300)
    assert len(network.ua.invited) <= 1
    assert [event.session for event in network.ua.ended] == [event.session for event in network.ua.invited]
    assert network.ua.empty
    assert all(transaction.over for transaction in network.transactions)
    if loss < 0.5:
        assert network.answers >= 1
        assert isinstance(network.ua.ended[0], Ended)
        assert network.ua.ended[0].reason == "caller-hung-up"


# -- hostile bytes

FIELDS = (
    *("Contact", "Record-Route", "Require", "Session-Expires", "Min-SE", "RAck", "Content-Type", "Supported", "Route", "Via"),
    *("Refer-To", "Refer-Sub", "Referred-By", "Replaces", "Event", "Subscription-State"),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["INVITE", "ACK", "BYE", "UPDATE", "INFO", "PRACK", "OPTIONS", "CANCEL", "REFER", "NOTIFY"]),
    st.lists(st.tuples(st.sampled_from(FIELDS), st.text(max_size=30).filter(lambda text: "\r" not in text and "\n" not in text))),
    st.binary(max_size=60),
    st.sampled_from(["early", "answered", "none"]),
)
def test_nothing_a_peer_writes_raises(method: str, fields: list[tuple[str, str]], body: bytes, phase: str) -> None:
    ua, caller = AgentOnClock(), Caller()
    if phase != "none":
        session = ua.call(caller, headers=[("Require", "100rel")])
        ua.do(lambda agent, now: agent.ring(session, now))
        if phase == "answered":
            ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
        caller.learn(next(message for _, message, _ in ua.sent if isinstance(message, Response) and message.status > 100))
    headers = [(name, value.encode("utf-8", "replace").decode()) for name, value in fields]
    ua.receive(caller.write(method, headers, body), caller.flow)
    for event in ua.invited:
        answer = event.session
        ua.do(lambda agent, now, answer=answer: agent.answer(answer, LOCAL, now))  # type: ignore[misc]  # bound now
        ua.do(lambda agent, now, answer=answer: agent.hang_up(answer, now))  # type: ignore[misc]  # bound now
    ua.advance(200)
    assert ua.empty


@settings(max_examples=200, deadline=None)
@given(
    st.integers(100, 699),
    st.lists(st.tuples(st.sampled_from(FIELDS), st.text("0123456789;=<>,abc ", max_size=20))),
    st.binary(max_size=40),
)
def test_nothing_in_a_response_raises(status: int, fields: list[tuple[str, str]], body: bytes) -> None:
    for allow in ("UPDATE", "INVITE"):
        ua, caller = AgentOnClock(), Caller()
        session = ua.answered_call(
            caller, headers=[("Supported", "timer"), ("Session-Expires", "90;refresher=uas"), ("Allow", allow)]
        )
        [refresh] = [message for _, message in ua.advance(45) if isinstance(message, Request)]
        reply = refresh.reply(status)
        for name, value in fields:
            reply.headers.add(name, value)
        reply.headers.add("Content-Type", "application/sdp")
        reply.body = body
        ua.receive(bytes(reply), caller.flow)
        ua.do(lambda agent, now, session=session: agent.hang_up(session, now))  # type: ignore[misc]  # bound now
        ua.advance(200)
        assert ua.empty
        assert len(ua.ended) == 1

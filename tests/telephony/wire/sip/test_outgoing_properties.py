"""Whatever comes to a call that we place: it ends once, nothing is left behind, and no answered dialog goes without BYE."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.digest import Account, Challenge
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_events import Invited, SessionId, UserAgentEffect
from switchhook.telephony.wire.sip.user_agent import UserAgent
from tests.peers.sip_callee import HOST, Callee
from tests.peers.sip_caller import LOCAL, AgentOnClock, sdp

TAGS = ("one", "two", "three", "")
BODIES = (b"", sdp(host=HOST), sdp(host=HOST, direction="sendonly"), sdp(payloads="18"), b"nonsense")
STATUSES = (100, 180, 183, 200, 200, 202, 302, 401, 407, 408, 422, 481, 486, 491, 500, 503, 603)
HEADERS = (
    (),
    (("Require", "100rel"), ("RSeq", "1")),
    (("Require", "100rel"), ("RSeq", "2")),
    (("Require", "100rel"), ("RSeq", "x")),
    (("Contact", "nonsense"), ("Record-Route", "<<")),
    (("Session-Expires", "90;refresher=uac"), ("Allow", "UPDATE")),
    (("Session-Expires", "90;refresher=uas"),),
    (("Session-Expires", "?"), ("Min-SE", "?")),
    (("Contact", "<sip:b@192.0.2.41>"), ("Min-SE", "200")),
    (("WWW-Authenticate", str(Challenge("r", "n"))), ("Proxy-Authenticate", str(Challenge("p", "n", stale=True)))),
)
REQUESTS = ("BYE", "UPDATE", "INVITE", "INFO", "OPTIONS", "REFER", "PRACK", "NOTIFY", "ACK", "CANCEL")


class Chaos:
    """Turns drawn numbers into what callees, a network, our side and the clock may do."""

    def __init__(self, transport: str) -> None:
        self.ua = AgentOnClock()
        flow = Flow(transport, HOST, 5060)
        self.callee = Callee(
            self.ua, flow=flow, credentials=Account("acme", "secret"), redirects=2, may_follow=lambda uri: True, ring_s=20.0
        )
        self.callee.flow = flow
        self.answered: set[str] = set()
        self.ended_with_bye: set[str] = set()

    def step(self, choice: int, detail: int) -> None:
        """One event."""
        names = sorted(self._acts)
        self._acts[names[choice % len(names)]](self, detail)

    def _respond(self, detail: int) -> None:
        status = STATUSES[detail % len(STATUSES)]
        tag = TAGS[detail // 17 % len(TAGS)]
        headers = HEADERS[detail // 68 % len(HEADERS)]
        self.callee.reply(status, BODIES[detail // 680 % len(BODIES)], headers, tag)

    def _answer(self, detail: int) -> None:
        self.callee.answer(TAGS[detail % len(TAGS)], HEADERS[detail // 4 % len(HEADERS)])

    def _reply(self, detail: int) -> None:
        """To another request of ours than the INVITE that stands."""
        ours = [message for _, message, _ in self.ua.sent if isinstance(message, Request) and message.method != "ACK"]
        request = ours[-1 - detail % min(4, len(ours))]
        self.callee.reply(STATUSES[detail // 4 % len(STATUSES)], b"", HEADERS[detail // 68 % len(HEADERS)], to=request)

    def _request(self, detail: int) -> None:
        method = REQUESTS[detail % len(REQUESTS)]
        tag = TAGS[detail // 10 % len(TAGS)]
        sent = self.callee.send(method, BODIES[detail // 40 % len(BODIES)], tag=tag)
        if method == "BYE" and any(isinstance(message, Response) and message.status == 200 for message in sent):
            self.ended_with_bye.add(tag)

    def _again(self, detail: int) -> None:
        self.callee.reply(200, sdp(host=HOST), tag=TAGS[detail % 3])

    def _decide(self, detail: int) -> None:
        acts: tuple[Callable[[UserAgent, SessionId, float], None], ...] = (
            lambda agent, session, now: agent.hang_up(session, now),
            lambda agent, session, now: agent.fail(session, "media-timeout", "", now),
            lambda agent, session, now: agent.flow_failed(self.callee.flow, now),
            lambda agent, session, now: agent.refer(session, "sip:x@y", None, now),
            lambda agent, session, now: agent.ring(session, now),
        )
        self.callee.do(acts[detail % len(acts)])

    def _wait(self, detail: int) -> None:
        self.ua.advance((0.1, 0.5, 2, 8, 21, 33, 70)[detail % 7])

    _acts: ClassVar[dict[str, Callable[[Chaos, int], None]]] = {
        "again": _again,
        "answer": _answer,
        "decide": _decide,
        "reply": _reply,
        "request": _request,
        "respond": _respond,
        "respond-too": _respond,
        "wait": _wait,
    }

    def acknowledged(self) -> set[str]:
        """Tags of the dialogs whose 2xx we acknowledged: an ACK of a failure has the INVITE's branch."""
        branches = {invite.via.branch for invite in self.callee.requests("INVITE")}
        return {ack.to.tag or "" for ack in self.callee.requests("ACK") if ack.via.branch not in branches}

    def left_talking(self) -> set[str]:
        """Tags of the dialogs that stand although nobody wants them."""
        byes = {bye.to.tag or "" for bye in self.callee.requests("BYE")}
        return self.acknowledged() - byes - self.ended_with_bye


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["udp", "tcp"]), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3399)), max_size=40))
def test_every_call_ends_once_and_nothing_is_left(transport: str, steps: list[tuple[int, int]]) -> None:
    chaos = Chaos(transport)
    for choice, detail in steps:
        chaos.step(choice, detail)
        assert len(chaos.ua.ended) <= 1
        if not chaos.ua.ended:
            assert chaos.ua.agent.sessions == 1
    chaos.callee.hang_up()
    chaos.ua.advance(300)
    assert chaos.ua.empty
    assert [event.session for event in chaos.ua.ended] == [chaos.callee.session]
    assert chaos.left_talking() == set()


# -- a bad network


class BadNetwork:
    """Two agents of ours; what they send to each other is lost, repeated and overtaken."""

    def __init__(self, seed: int, loss: float) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.agents = (AgentOnClock(), AgentOnClock())
        self.carried = [0, 0]
        self.packets: list[tuple[float, int, int, bytes]] = []
        self.order = 0
        self.agents[1].on_event = self._on_event

    def _on_event(self, effect: UserAgentEffect) -> None:
        callee = self.agents[1]
        if isinstance(effect, Invited):
            callee.agent.ring(effect.session, callee.now)
            callee.agent.answer(effect.session, LOCAL, callee.now)

    def _collect(self) -> None:
        for at, source in enumerate(self.agents):
            for _, message, _ in source.sent[self.carried[at] :]:
                for _ in range(2 if self.random.random() < 0.1 else 1):
                    self.order += 1
                    if self.random.random() >= self.loss:
                        due = source.now + self.random.uniform(0.01, 0.3)
                        heapq.heappush(self.packets, (due, self.order, 1 - at, bytes(message)))
            self.carried[at] = len(source.sent)

    def run(self, until: float) -> None:
        """Let it happen."""
        while True:
            self._collect()
            due = [ua.agent.deadline for ua in self.agents if ua.agent.deadline is not None]
            due += [self.packets[0][0]] if self.packets else []
            now = min(due, default=until + 1)
            for ua in self.agents:
                ua.now = max(ua.now, min(now, until))
            if now > until:
                return
            while self.packets and self.packets[0][0] <= now:
                _, _, to, data = heapq.heappop(self.packets)
                self.agents[to].receive(data, Flow("udp", HOST, 5060))
            for ua in self.agents:
                if ua.agent.deadline is not None and ua.agent.deadline <= now:
                    ua.agent.tick(now)
                    ua.settle()


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("patience_s", [0.2, 20.0])
def test_a_call_over_a_bad_network(seed: int, loss: float, patience_s: float) -> None:
    """With little patience, CANCEL crosses the answer."""
    network = BadNetwork(seed, loss)
    caller, callee = network.agents
    call = Callee(caller)
    network.run(until=100 + patience_s)
    call.hang_up()
    network.run(until=500)
    for ua in (caller, callee):
        assert ua.empty
        assert len(ua.ended) <= 1
    assert len(caller.ended) == 1
    assert len(callee.ended) == len(callee.invited)
    if loss < 0.5 and patience_s > 10:
        assert caller.answers
        assert [event.reason for event in (*caller.ended, *callee.ended)] == ["hung-up", "caller-hung-up"]


# -- hostile bytes

FIELDS = (
    "Contact",
    "Record-Route",
    "Require",
    "RSeq",
    "Session-Expires",
    "Min-SE",
    "Allow",
    "WWW-Authenticate",
    "Proxy-Authenticate",
)
TEXT = st.text(max_size=30).filter(lambda text: "\r" not in text and "\n" not in text)


@settings(max_examples=400, deadline=None)
@given(
    st.integers(100, 699),
    st.lists(st.tuples(st.sampled_from(FIELDS), TEXT | st.text('0123456789;=<>,"sip:@Digest ', max_size=40))),
    st.binary(max_size=60),
    st.booleans(),
)
def test_nothing_in_a_response_raises(status: int, fields: list[tuple[str, str]], body: bytes, ringing: bool) -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=Account("acme", "secret"), redirects=1, may_follow=lambda uri: True)
    if ringing:
        callee.reply(180)
    headers = [(name, value.encode("utf-8", "replace").decode()) for name, value in fields]
    callee.reply(status, body, headers)
    callee.hang_up()
    ua.advance(200)
    assert ua.empty
    assert len(ua.ended) == 1

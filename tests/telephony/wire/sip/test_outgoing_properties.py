"""Whatever comes to a call that we place: it ends once, nothing is left behind, and no answered dialog goes without BYE."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.digest import Account, Challenge
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_events import SessionId
from switchhook.telephony.wire.sip.user_agent import UserAgent
from tests.peers.sip_callee import HOST, Callee
from tests.peers.sip_caller import AgentOnClock, sdp

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

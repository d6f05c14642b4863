"""Our registration with a carrier, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.digest import Account, Challenge, Credentials, NonceCounts, NonceMint, Verdict, verify
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.registration import (
    EXPIRES_S,
    KEEPALIVE_S,
    MAX_RETRY_S,
    Binding,
    KeepAlive,
    Register,
    Registration,
    RegistrationChanged,
    RegistrationEffect,
    Unregistered,
)
from switchhook.telephony.wire.sip.uri import SipUri
from tests.peers.sip_caller import counting_entropy

BINDING = Binding(SipUri("carrier.test", port=5080), "acme", "s3cret", "urn:uuid:00000000-0000-1000-8000-0")
CONTACT = SipUri("192.0.2.5", "acme", 5060)
Headers = Sequence[tuple[str, str]]


@dataclass
class Line:
    """A registration with the time, and what it did."""

    now: float = 100.0
    draw: float = 0.5
    requests: list[Request] = field(default_factory=list)
    changes: list[RegistrationChanged] = field(default_factory=list)
    ended: int = 0
    keepalive: bool = False
    kept: int = 0

    def __post_init__(self) -> None:
        self.machine = Registration(BINDING, counting_entropy(), lambda: self.draw, self.keepalive)

    def settle(self) -> Line:
        for effect in self.machine.take():
            if isinstance(effect, Register):
                request = self.machine.request(CONTACT)
                request.headers.insert("Via", "SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK1")
                self.requests.append(request)
            elif isinstance(effect, RegistrationChanged):
                self.changes.append(effect)
            elif isinstance(effect, KeepAlive):
                self.kept += 1
            else:
                self.ended += 1
        return self

    def start(self) -> Line:
        self.machine.start(self.now)
        return self.settle()

    def answer(self, status: int, *headers: tuple[str, str], reason: str = "") -> Line:
        response = self.requests[-1].reply(status, reason or None, "tag")
        for name, value in headers:
            response.headers.add(name, value)
        self.machine.answered(response, self.now)
        return self.settle()

    def silence(self) -> Line:
        self.machine.unanswered("timeout", self.now)
        return self.settle()

    def wait(self) -> float:
        """Let time pass to the next deadline; returns how long that was."""
        due = self.machine.deadline
        assert due is not None
        waited, self.now = due - self.now, due
        self.machine.tick(due)
        self.settle()
        return round(waited, 6)

    def stop(self) -> Line:
        self.machine.stop(self.now)
        return self.settle()

    @property
    def registered(self) -> bool:
        return self.machine.registered

    @property
    def last(self) -> Request:
        return self.requests[-1]


def test_a_register_says_who_and_where_we_are() -> None:
    request = Line().start().last
    assert (request.method, request.uri) == ("REGISTER", "sip:carrier.test:5080")
    assert str(request.from_.uri) == str(request.to.uri) == "sip:acme@carrier.test:5080"
    assert request.to.tag is None
    assert request.expires == EXPIRES_S
    [contact] = request.contacts
    assert str(contact.uri) == "sip:acme@192.0.2.5:5060"
    assert contact.params["reg-id"] == "1"
    assert contact.params["+sip.instance"] == f"<{BINDING.instance}>"
    assert request.supported == ["path", "outbound"]


def test_a_challenge_is_answered_and_the_nonce_used_on() -> None:
    line, mint, counts = Line().start(), NonceMint(b"k" * 16), NonceCounts()
    line.answer(401, ("WWW-Authenticate", str(Challenge("carrier", mint.mint(line.now, "0a"), "SHA-256"))))
    for number in (1, 2):
        proof = Credentials.parse(line.last.headers.get("Authorization") or "")
        account = Account("acme", "s3cret", "carrier")
        assert verify(proof, account, "REGISTER", mint, counts, line.now) is Verdict.GOOD
        assert proof.count == number
        line.answer(200, ("Expires", "60"))
        line.wait()
    assert [request.cseq.number for request in line.requests] == [1, 2, 3, 4]
    assert len({request.call_id for request in line.requests}) == 1


def test_a_proxys_challenge_is_answered_to_the_proxy() -> None:
    line = Line().start().answer(407, ("Proxy-Authenticate", 'Digest realm="r", nonce="n"'))
    assert "Proxy-Authorization" in line.last.headers
    assert "Authorization" not in line.last.headers


@pytest.mark.parametrize(
    ("headers", "granted_s"),
    [
        ((("Expires", "600"),), 600),
        ((("Contact", "<sip:acme@192.0.2.5:5060>;expires=120"), ("Expires", "600")), 120),
        ((("Contact", "<sip:acme@198.51.100.1>;expires=9"), ("Contact", "<sip:acme@192.0.2.5:5060>;expires=120")), 120),
        ((("Contact", "<sip:acme@203.0.113.7:4711>;expires=90"),), 90),
        ((), EXPIRES_S),
    ],
)
@pytest.mark.parametrize(("draw", "share"), [(0.0, 0.8), (0.999999, 0.9)])
def test_the_binding_is_refreshed_before_it_lapses(headers: Headers, granted_s: float, draw: float, share: float) -> None:
    line = Line(draw=draw).start().answer(200, *headers)
    assert line.changes == [RegistrationChanged(True, "")]
    assert line.wait() == pytest.approx(granted_s * share, rel=1e-4)
    assert line.registered
    assert len(line.requests) == 2


def test_a_registrar_that_wants_longer_gets_it_once() -> None:
    line = Line().start().answer(423, ("Min-Expires", "7200"))
    assert line.last.expires == 7200
    line.answer(423, ("Min-Expires", "9000"))
    assert len(line.requests) == 2
    assert line.changes == [RegistrationChanged(False, "423 Interval Too Brief")]


def test_a_stale_nonce_is_no_wrong_password() -> None:
    challenge = 'Digest realm="r", nonce="{}"'
    line = Line().start().answer(401, ("WWW-Authenticate", challenge.format("a")))
    line.answer(401, ("WWW-Authenticate", challenge.format("b") + ", stale=true"))
    assert Credentials.parse(line.last.headers.get("Authorization") or "").nonce == "b"
    line.answer(200, ("Expires", "60")).wait()
    line.answer(401, ("WWW-Authenticate", challenge.format("c")))
    assert Credentials.parse(line.last.headers.get("Authorization") or "").nonce == "c"
    line.answer(200)
    assert line.registered


@pytest.mark.parametrize(
    "challenge", ['Digest realm="r", nonce="b"', 'Digest realm="r", nonce="b", algorithm=SHA-512', "Basic x", 'Digest realm="r"']
)
def test_a_wrong_password_is_not_tried_again_and_again(challenge: str) -> None:
    line = Line().start().answer(401, ("WWW-Authenticate", 'Digest realm="r", nonce="a"'))
    line.answer(401, ("WWW-Authenticate", challenge))
    assert len(line.requests) == 2
    assert line.changes == [RegistrationChanged(False, "401 Unauthorized")]
    assert line.wait() >= 15


def test_nonces_that_are_always_stale_come_to_an_end() -> None:
    line = Line().start()
    for number in range(10):
        line.answer(401, ("WWW-Authenticate", f'Digest realm="r", nonce="{number}", stale=true'))
    assert len(line.requests) == 4


def test_failures_are_followed_by_longer_and_longer_waits() -> None:
    line = Line().start()
    waits = []
    for _ in range(9):
        line.silence()
        waits.append(line.wait())
    assert waits == [22.5, 45, 90, 180, 360, 720, 1350, 1350, 1350]
    assert line.changes == [RegistrationChanged(False, "timeout")]


@pytest.mark.parametrize(("retry_after", "wait_s"), [("300", 300), ("999999", MAX_RETRY_S), ("1", 22.5)])
def test_a_registrar_that_says_when_is_asked_then(retry_after: str, wait_s: float) -> None:
    line = Line().start().answer(503, ("Retry-After", retry_after))
    assert line.wait() == wait_s


def test_a_binding_that_stands_is_fought_for_and_its_end_is_told() -> None:
    line = Line(draw=0.0).start().answer(200, ("Expires", "100"))
    assert line.wait() == 80
    line.silence()
    assert line.changes == [RegistrationChanged(True, "")]
    assert line.wait() == 10
    line.silence()
    assert line.wait() == 5
    line.silence()
    while line.registered:
        line.wait()
        line.silence()
    assert line.now == 200
    assert line.changes[-1] == RegistrationChanged(False, "the registration has expired")
    line.wait()
    line.answer(200, ("Expires", "100"))
    assert line.changes[-1] == RegistrationChanged(True, "")


@pytest.mark.parametrize("answer", [200, 403, None])
def test_stopping_takes_the_binding_back(answer: int | None) -> None:
    line = Line().start().answer(200, ("Service-Route", "<sip:edge.test;lr>")).stop()
    assert line.machine.service_route == ("<sip:edge.test;lr>",)
    assert line.last.expires == 0
    assert len(line.last.contacts) == 1
    if answer is None:
        line.silence()
    else:
        line.answer(answer)
    assert (line.ended, line.machine.over, line.machine.deadline) == (1, True, None)


def test_stopping_while_a_register_is_under_way_takes_back_what_it_gets() -> None:
    line = Line().start().stop()
    assert len(line.requests) == 1
    line.answer(200)
    assert line.last.expires == 0
    line.answer(401, ("WWW-Authenticate", 'Digest realm="r", nonce="a"'))
    assert line.last.expires == 0
    assert "Authorization" in line.last.headers
    line.answer(200)
    assert line.ended == 1


def test_stopping_without_a_binding_ends_at_once() -> None:
    line = Line().start().silence().stop()
    assert (line.ended, len(line.requests)) == (1, 1)
    assert line.stop().ended == 1


def test_a_binding_of_no_time_is_a_failure() -> None:
    line = Line().start().answer(200, ("Contact", "<sip:acme@192.0.2.5:5060>;expires=0"))
    assert not line.registered
    assert line.changes[-1].detail == "the registrar took the binding back at once"


@pytest.mark.parametrize(
    ("headers", "draw", "wait_s"),
    [
        ((), 0.0, 0.8 * KEEPALIVE_S),
        ((), 0.999999, KEEPALIVE_S),
        ((("Flow-Timer", "100"),), 0.5, 90.0),
        ((("Flow-Timer", "0"),), 0.5, 9.0),
        ((("Flow-Timer", "soon"),), 0.5, 0.9 * KEEPALIVE_S),
        ((("Flow-Timer", "99999999999999999999999"),), 0.5, 0.9 * KEEPALIVE_S),
    ],
)
def test_the_flow_is_kept_open_while_the_binding_stands(headers: Headers, draw: float, wait_s: float) -> None:
    line = Line(draw=draw, keepalive=True).start().answer(200, ("Expires", "600"), *headers)
    for count in (1, 2):
        assert line.wait() == pytest.approx(wait_s, abs=0.01)
        assert line.kept == count
    assert len(line.requests) == 1
    line.stop().answer(200)
    assert line.machine.deadline is None


def test_a_binding_that_has_lapsed_keeps_no_flow_open() -> None:
    line = Line(draw=0.5, keepalive=True).start().answer(200, ("Expires", "60"))
    while line.registered:
        line.wait()
        if len(line.requests) > 1:
            line.silence()
    kept = line.kept
    assert kept in (1, 2)
    line.wait()
    assert line.kept == kept


def test_another_address_of_the_registrar_gets_a_request_of_its_own() -> None:
    line = Line().start()
    other = line.machine.request(SipUri("192.0.2.6", "acme", 5060))
    assert other.cseq.number == line.last.cseq.number + 1
    line.answer(200, ("Contact", "<sip:acme@192.0.2.5:5060>;expires=9"), ("Contact", "<sip:acme@192.0.2.6:5060>;expires=120"))
    line.stop()
    assert str(line.last.contacts[0].uri) == "sip:acme@192.0.2.6:5060"


def test_the_password_is_in_no_repr() -> None:
    assert "s3cret" not in repr(BINDING)


Step = Callable[[Line], object]
STEPS: list[Step] = [
    lambda line: line.answer(100),
    lambda line: line.answer(200),
    lambda line: line.answer(200, ("Expires", "1")),
    lambda line: line.answer(200, ("Contact", "<sip:acme@192.0.2.5:5060>;expires=0")),
    lambda line: line.answer(200, ("Contact", "<<<>")),
    lambda line: line.answer(200, ("Expires", "soon")),
    lambda line: line.answer(401, ("WWW-Authenticate", 'Digest realm="r", nonce="a"')),
    lambda line: line.answer(401, ("WWW-Authenticate", 'Digest realm="r", nonce="a", stale=true')),
    lambda line: line.answer(407, ("Proxy-Authenticate", "nonsense")),
    lambda line: line.answer(423, ("Min-Expires", "99999999999")),
    lambda line: line.answer(423, ("Min-Expires", "4000")),
    lambda line: line.answer(503, ("Retry-After", "10 (later)")),
    lambda line: line.answer(302),
    lambda line: line.silence(),
    lambda line: line.start(),
    lambda line: line.wait() if line.machine.deadline is not None else None,
]


@given(st.lists(st.sampled_from(STEPS), max_size=40), st.floats(0, 1, exclude_max=True), st.booleans())
def test_whatever_comes_there_is_one_request_at_a_time_and_stopping_ends(steps: list[Step], draw: float, keepalive: bool) -> None:
    line = Line(draw=draw, keepalive=keepalive).start()
    for step in steps:
        if line.machine.deadline is None or line.machine.deadline > line.now + 0.001:
            line.now += 0.001
        sent = len(line.requests)
        step(line)
        assert len(line.requests) <= sent + 1
        due = line.machine.deadline
        assert due is None or due > line.now
        assert due is not None or not line.machine.over
    line.stop()
    for _ in range(8):
        if line.machine.over:
            break
        line.silence()
    assert line.ended == 1
    assert line.machine.deadline is None


def test_effects_are_of_the_known_kinds() -> None:
    machine = Registration(BINDING, counting_entropy(), lambda: 0.0)
    machine.start(0.0)
    machine.stop(0.0)
    machine.answered(Response(200, "OK"), 0.0)
    effects: list[RegistrationEffect] = machine.take()
    assert [type(effect) for effect in effects] == [Register, Register]
    machine.unanswered("timeout", 1.0)
    assert machine.take() == [Unregistered()]

"""Requests outside a dialog: what is answered how, and what a flood costs."""

from __future__ import annotations

import pytest

from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.transaction_layer import Limits
from switchhook.telephony.wire.sip.user_agent import Admission, Admitted, Refused, Silenced, UserAgentOptions
from tests.peers.sip_caller import OUR_HOST, AgentOnClock, Caller, sdp, statuses


def one(messages: list[Request | Response]) -> Response:
    [response] = messages
    assert isinstance(response, Response)
    return response


class Gate:
    """Says the same to everyone."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission

    def admit(self, request: Request, flow: Flow, now: float) -> Admission:
        return self.admission


def test_options_are_answered_with_what_we_can() -> None:
    ua, caller = AgentOnClock(), Caller()
    ok = one(ua.receive(caller.write("OPTIONS", [("Max-Forwards", "0")]), caller.flow))
    assert ok.status == 200
    assert "INVITE" in ok.allow
    assert ok.headers.get("Accept") == "application/sdp"
    assert ok.supported == ["100rel", "timer", "replaces", "norefersub"]
    assert ok.to.tag


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("BYE", 481),
        ("INFO", 481),
        ("UPDATE", 481),
        ("PRACK", 481),
        ("MESSAGE", 405),
        ("SUBSCRIBE", 405),
        ("REGISTER", 405),
        ("PUBLISH", 405),
        ("REFER", 603),
        ("NOTIFY", 481),
        ("FROBNICATE", 501),
    ],
)
def test_methods_we_do_not_take_outside_a_call(method: str, status: int) -> None:
    ua, caller = AgentOnClock(), Caller()
    answer = one(ua.receive(caller.write(method), caller.flow))
    assert answer.status == status
    if status in (405, 501):
        assert "INVITE" in answer.allow
    ua.advance(40)
    assert ua.empty


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([("Max-Forwards", "0")], None, 483),
        ([("Require", "teleport")], None, 420),
        ([("Replaces", "a;to-tag=b;from-tag=c")], None, 481),
        ([], b"v=0 nonsense", 400),
        ([], sdp(payloads="18"), 488),
        ([("Content-Encoding", "gzip")], None, 415),
        ([("Contact", "<tel:+15550100>")], None, 400),
        ([("Session-Expires", "nonsense")], None, 400),
    ],
)
def test_invites_that_are_refused_before_anyone_is_asked(headers: list[tuple[str, str]], body: bytes | None, status: int) -> None:
    ua, caller = AgentOnClock(), Caller()
    answer = one(ua.receive(caller.invite(body, headers), caller.flow))
    assert answer.status == status
    assert answer.to.tag
    assert ua.invited == []
    ua.receive(caller.ack_failure(), caller.flow)
    ua.advance(40)
    assert ua.empty


def test_a_body_that_is_no_sdp_is_415_and_says_what_we_take() -> None:
    ua, caller = AgentOnClock(), Caller()
    answer = one(ua.receive(caller.write("INVITE", body=b"<x/>", content_type="application/xml"), caller.flow))
    assert (answer.status, answer.headers.get("Accept")) == (415, "application/sdp")


def test_a_tag_of_no_dialog_of_ours_is_481() -> None:
    ua, caller = AgentOnClock(), Caller(to_tag="gone")
    assert statuses(ua.receive(caller.invite(), caller.flow)) == [481]


def test_the_same_invite_by_another_way_is_a_loop() -> None:
    ua, caller = AgentOnClock(), Caller()
    ua.receive(caller.invite(), caller.flow)
    caller.cseq -= 1
    assert statuses(ua.receive(caller.invite(), caller.flow)) == [482]
    assert len(ua.invited) == 1


FIELDS = (
    b"Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"INVITE sip:x@y SIP/7.0\r\n" + FIELDS + b"\r\n", 505),
        (b"INVITE http://x/ SIP/2.0\r\n" + FIELDS + b"\r\n", 416),
        (b"INVITE sip:x@y SIP/2.0\r\n" + FIELDS + b"Content-Length: 9\r\n\r\n", 400),
    ],
)
def test_malformed_requests_of_a_trunk_are_told_so(data: bytes, status: int) -> None:
    ua = AgentOnClock()
    assert statuses(ua.receive(data, Caller().flow)) == [status]
    assert ua.empty


def test_malformed_requests_of_a_stranger_are_not() -> None:
    ua = AgentOnClock(Gate(Silenced()))
    assert ua.receive(b"INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKa\r\n\r\n", Caller().flow) == []
    assert ua.receive(b"\x00\x01\x02", Caller().flow) == []
    assert ua.empty


def test_an_rfc_2543_caller_without_branch_is_served() -> None:
    ua, caller = AgentOnClock(), Caller(rport=False)
    invite = caller.invite(branch="1")
    assert statuses(ua.receive(invite, caller.flow)) == [100]
    assert statuses(ua.receive(invite, caller.flow)) == [100]
    assert len(ua.invited) == 1
    session = ua.invited[0].session
    assert statuses(ua.do(lambda agent, now: agent.reject(session, 486, None, now))) == [486]
    ua.receive(caller.ack_failure(), caller.flow)
    assert ua.advance(3) == []


def test_a_stateless_refusal_keeps_nothing_and_repeats_itself() -> None:
    ua, caller = AgentOnClock(Gate(Refused(401, (("WWW-Authenticate", 'Digest realm="r", nonce="n"'),)))), Caller()
    invite = caller.invite()
    first = one(ua.receive(invite, caller.flow))
    assert first.status == 401
    assert first.headers.get("WWW-Authenticate")
    assert bytes(one(ua.receive(invite, caller.flow))) == bytes(first)
    assert ua.receive(caller.ack_failure(), caller.flow) == []
    assert ua.empty


def test_a_flood_of_garbage_and_of_strangers_keeps_nothing() -> None:
    ua = AgentOnClock(Gate(Silenced()))
    for count in range(3000):
        caller = Caller(call_id=f"flood-{count}", host=f"203.0.113.{count % 250}")
        ua.receive(caller.invite() if count % 2 else b"\xff" * (count % 700), caller.flow)
    assert ua.sent == []
    assert ua.events == []
    assert ua.empty
    assert ua.agent.figures.silenced == 1500


def test_calls_beyond_the_table_get_503_without_a_transaction() -> None:
    options = UserAgentOptions(limits=Limits(transactions=20, transactions_per_source=15))
    ua = AgentOnClock(options=options)
    answers = []
    for count in range(60):
        caller = Caller(call_id=f"call-{count}", host=f"192.0.2.{10 + count % 2}")
        answers += statuses(ua.receive(caller.invite(), caller.flow))
    assert answers.count(100) == 20
    assert answers.count(503) == 40
    assert len(ua.agent.layer) == 20
    one_source = AgentOnClock(options=options)
    for count in range(60):
        caller = Caller(call_id=f"call-{count}")
        one_source.receive(caller.invite(), caller.flow)
    assert len(one_source.invited) == 15


def test_requests_in_live_calls_pass_when_the_table_is_full() -> None:
    ua = AgentOnClock(options=UserAgentOptions(limits=Limits(transactions=3, transactions_per_source=3)))
    caller = Caller(call_id="live")
    ua.answered_call(caller)
    for count in range(5):
        other = Caller(call_id=f"call-{count}")
        ua.receive(other.invite(), other.flow)
    assert statuses(ua.receive(caller.write("BYE"), caller.flow)) == [200]


def test_acks_and_responses_of_nothing_are_dropped() -> None:
    ua, caller = AgentOnClock(), Caller(to_tag="x")
    assert ua.receive(caller.ack(), caller.flow) == []
    assert ua.receive(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKq\r\nFrom: <sip:a@b>;tag=1\r\n"
                      b"To: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 BYE\r\n\r\n", caller.flow) == []  # fmt: skip
    assert ua.empty


def test_the_trunk_and_the_request_reach_the_call() -> None:
    ua, caller = AgentOnClock(Gate(Admitted("carrier"))), Caller()
    ua.receive(caller.invite(), caller.flow)
    invited = ua.invited[0]
    assert (invited.trunk, invited.flow, invited.request.uri) == ("carrier", caller.flow, f"sip:+17205550100@{OUR_HOST}")

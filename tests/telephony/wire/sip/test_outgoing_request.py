"""Requests of ours outside every dialog: one answer for each, whatever happens."""

from __future__ import annotations

import pytest

from switchhook.telephony.wire.sip.digest import Account, Challenge, Credentials, matches
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.session_events import RequestAnswered
from tests.peers.sip_caller import AgentOnClock

FLOW = Flow("udp", "192.0.2.20", 5060)
CHALLENGE = ("WWW-Authenticate", str(Challenge("registrar", "n1", "SHA-256")))


def register(ua: AgentOnClock, credentials: Account | None = None) -> Request:
    """Send a REGISTER; returns it as it went out."""
    headers = [
        ("Max-Forwards", "70"),
        ("From", "<sip:acme@registrar.example>;tag=1"),
        ("To", "<sip:acme@registrar.example>"),
        ("Call-ID", "registration"),
        ("CSeq", "7 REGISTER"),
        ("Contact", "<sip:acme@198.51.100.1>"),
    ]
    request = Request("REGISTER", "sip:registrar.example", headers)
    [sent] = ua.do(lambda agent, now: agent.request(request, FLOW, credentials, now))
    assert isinstance(sent, Request)
    return sent


def answers(ua: AgentOnClock) -> list[tuple[int | None, str]]:
    found = [event for _, event in ua.events if isinstance(event, RequestAnswered)]
    return [(event.response.status if event.response else None, event.reason) for event in found]


def reply(ua: AgentOnClock, request: Request, status: int, *headers: tuple[str, str]) -> list[Request]:
    response = request.reply(status)
    for name, value in headers:
        response.headers.add(name, value)
    return [message for message in ua.receive(bytes(response), FLOW) if isinstance(message, Request)]


@pytest.mark.parametrize("status", [200, 404, 503])
def test_the_final_answer_is_told(status: int) -> None:
    ua = AgentOnClock()
    sent = register(ua)
    reply(ua, sent, 100)
    assert answers(ua) == []
    reply(ua, sent, status)
    reply(ua, sent, status)
    assert answers(ua) == [(status, "")]
    ua.advance(40)
    assert ua.empty


def test_a_challenge_is_answered_once() -> None:
    ua = AgentOnClock()
    sent = register(ua, Account("acme", "open sesame"))
    [again] = reply(ua, sent, 401, CHALLENGE)
    proof = Credentials.parse(again.headers.get("Authorization") or "")
    assert (proof.uri, proof.algorithm, again.cseq.number) == ("sip:registrar.example", "SHA-256", 8)
    assert matches(proof, "open sesame", "REGISTER")
    assert again.headers.get("Contact") == "<sip:acme@198.51.100.1>"
    assert reply(ua, again, 401, CHALLENGE) == []
    assert answers(ua) == [(401, "")]


def test_without_credentials_the_challenge_is_the_answer() -> None:
    ua = AgentOnClock()
    assert reply(ua, register(ua), 401, CHALLENGE) == []
    assert answers(ua) == [(401, "")]


def test_nobody_answers() -> None:
    ua = AgentOnClock()
    register(ua)
    ua.advance(33)
    assert answers(ua) == [(None, "timeout")]
    assert ua.empty


def test_it_cannot_be_sent() -> None:
    ua = AgentOnClock()
    register(ua)
    ua.do(lambda agent, now: agent.flow_failed(FLOW, now))
    assert answers(ua) == [(None, "transport")]
    assert ua.empty

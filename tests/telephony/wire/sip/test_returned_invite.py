"""An INVITE that the network gives back, because nobody is at its address (RFC 3261 §18.4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.peers.sip_callee import Callee
from tests.peers.sip_caller import AgentOnClock, sdp

EMBEDDED_BYTES = 520
"""So much of a datagram an ICMP error has."""


def give_back(ua: AgentOnClock, data: bytes) -> None:
    """The network says that what begins so reached nobody."""
    ua.do(lambda agent, now: agent.datagram_returned(data, now))


def test_an_invite_that_reached_nobody_has_failed() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    give_back(ua, bytes(callee.invite)[:EMBEDDED_BYTES])
    [end] = ua.ended
    assert (end.reason, end.status) == ("trunk-failed", None)


def test_an_invite_that_was_answered_goes_on() -> None:
    """The first of several copies may find the port closed, and a later one somebody."""
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(100)
    give_back(ua, bytes(callee.invite)[:EMBEDDED_BYTES])
    assert not ua.ended
    callee.reply(200, sdp())
    give_back(ua, bytes(callee.invite)[:EMBEDDED_BYTES])
    assert not ua.ended


def test_the_next_contact_of_a_redirection_is_called_when_one_is_nobodys() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, redirects=3, may_follow=lambda uri: True)
    callee.reply(302, headers=[("Contact", "<sip:a@192.0.2.41>, <sip:b@192.0.2.42>;q=0.5")])
    assert callee.invite.uri == "sip:a@192.0.2.41"
    give_back(ua, bytes(callee.invite))
    assert (callee.invite.uri, ua.ended) == ("sip:b@192.0.2.42", [])
    give_back(ua, bytes(callee.invite))
    [end] = ua.ended
    assert (end.reason, end.status) == ("trunk-failed", None)
    assert ua.agent.sessions == 0


def test_a_forged_error_changes_nothing() -> None:
    """Who has not seen the INVITE does not know its branch."""
    ua = AgentOnClock()
    callee = Callee(ua)
    invite = bytes(callee.invite)
    branch = (callee.invite.via.branch or "").encode()
    for forged in (invite.replace(branch, b"z9hG4bK" + b"0" * 24), invite[:30], b"", invite.replace(b"INVITE", b"OPTIONS", 1)):
        give_back(ua, forged)
    assert not ua.ended
    give_back(ua, invite)
    assert ua.ended


@given(st.binary(max_size=300))
def test_any_bytes_may_come_back(data: bytes) -> None:
    ua = AgentOnClock()
    Callee(ua)
    give_back(ua, data)
    give_back(ua, b"INVITE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP b;branch=" + data)
    assert not ua.ended

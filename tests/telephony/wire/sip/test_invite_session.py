"""Calls as the caller sees them: answers, cancellations, hang-ups, and what is repeated when something is lost."""

from __future__ import annotations

import pytest

from switchhook.telephony.wire.sip.message import Request, Response
from tests.peers.sip_caller import LOCAL, AgentOnClock, Caller, sdp, statuses


def test_invite_is_answered_100_180_200_and_ends_with_the_callers_bye() -> None:
    ua, caller = AgentOnClock(), Caller()
    assert statuses(ua.receive(caller.invite(), caller.flow)) == [100]
    session = ua.invited[0].session
    assert ua.invited[0].encoding == "PCMU"
    [ringing] = ua.do(lambda agent, now: agent.ring(session, now))
    assert isinstance(ringing, Response)
    assert ringing.status == 180
    assert ringing.to.tag
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert isinstance(ok, Response)
    assert ok.status == 200
    assert ok.to.tag == ringing.to.tag
    assert b"m=audio 20000 RTP/AVP 0 101" in ok.body
    assert ok.contact is not None
    assert {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "PRACK", "INFO"} <= set(ok.allow)
    caller.learn(ok)
    assert ua.receive(caller.ack(), caller.flow) == []
    assert ua.media[0].media.remote_port == 4000
    assert statuses(ua.receive(caller.write("BYE"), caller.flow)) == [200]
    assert [(event.reason) for event in ua.ended] == ["caller-hung-up"]
    ua.advance(40)
    assert ua.empty


def test_the_answer_is_repeated_until_its_ack() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    again = ua.advance(12)
    assert [at for at, _ in again] == [0.5, 1.5, 3.5, 7.5, 11.5]
    assert {bytes(message) for _, message in again} == {bytes(ok)}
    assert isinstance(ok, Response)
    caller.learn(ok)
    ua.receive(caller.ack(), caller.flow)
    assert ua.advance(60) == []


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_answer_that_is_never_acknowledged_ends_the_call_with_bye(transport: str) -> None:
    ua, caller = AgentOnClock(), Caller(transport=transport)
    session = ua.call(caller)
    ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    sent = ua.advance(32.5)
    assert "BYE" in statuses([message for _, message in sent])
    assert [event.reason for event in ua.ended] == ["no-ack"]
    ua.advance(80)
    assert ua.empty


def test_retransmitted_invite_gets_the_same_answer_and_no_second_call() -> None:
    ua, caller = AgentOnClock(), Caller()
    invite = caller.invite()
    first = ua.receive(invite, caller.flow)
    assert [bytes(message) for message in ua.receive(invite, caller.flow)] == [bytes(message) for message in first]
    session = ua.invited[0].session
    [ringing] = ua.do(lambda agent, now: agent.ring(session, now))
    assert [bytes(message) for message in ua.receive(invite, caller.flow)] == [bytes(ringing)]
    [busy] = ua.do(lambda agent, now: agent.reject(session, 486, None, now))
    assert [bytes(message) for message in ua.receive(invite, caller.flow)] == [bytes(busy)]
    assert len(ua.invited) == 1


def test_a_refusal_is_repeated_until_acknowledged_and_carries_retry_after() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    [full] = ua.do(lambda agent, now: agent.reject(session, 503, 7, now))
    assert isinstance(full, Response)
    assert full.retry_after == 7
    assert [event.reason for event in ua.ended] == ["rejected"]
    assert [at for at, _ in ua.advance(4)] == [0.5, 1.5, 3.5]
    assert ua.receive(caller.ack_failure(), caller.flow) == []
    assert ua.advance(60) == []
    assert ua.empty


def test_a_refusal_that_is_never_acknowledged_is_given_up() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    ua.do(lambda agent, now: agent.reject(session, 486, None, now))
    assert [at for at, _ in ua.advance(100)] == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert ua.empty


@pytest.mark.parametrize("ring", [False, True])
def test_cancel_before_the_answer(ring: bool) -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    if ring:
        ua.do(lambda agent, now: agent.ring(session, now))
    sent = ua.receive(caller.cancel(), caller.flow)
    assert statuses(sent) == [200, 487]
    assert sent[0].cseq.method == "CANCEL"
    assert sent[0].to.tag == sent[1].to.tag
    assert [event.reason for event in ua.ended] == ["caller-cancelled"]
    ua.receive(caller.ack_failure(), caller.flow)
    assert ua.do(lambda agent, now: agent.answer(session, LOCAL, now)) == []
    ua.advance(40)
    assert ua.empty


def test_cancel_after_the_answer_is_answered_and_ignored() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert statuses(ua.receive(caller.cancel(), caller.flow)) == [200]
    assert ua.ended == []
    assert isinstance(ok, Response)
    caller.learn(ok)
    ua.receive(caller.ack(), caller.flow)
    assert statuses(ua.receive(caller.write("BYE"), caller.flow)) == [200]


def test_cancel_of_nothing_is_481() -> None:
    ua, caller = AgentOnClock(), Caller()
    caller.invite()
    assert statuses(ua.receive(caller.cancel(), caller.flow)) == [481]
    assert ua.empty


def test_cancel_repeated_gets_the_same_answer() -> None:
    ua, caller = AgentOnClock(), Caller()
    ua.call(caller)
    cancel = caller.cancel()
    first = ua.receive(cancel, caller.flow)
    assert [bytes(message) for message in ua.receive(cancel, caller.flow)] == [bytes(first[0])]
    assert len(ua.ended) == 1


def test_bye_in_the_early_dialog_ends_the_call() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    [ringing] = ua.do(lambda agent, now: agent.ring(session, now))
    assert isinstance(ringing, Response)
    caller.learn(ringing)
    assert statuses(ua.receive(caller.write("BYE"), caller.flow)) == [200, 487]
    assert [event.reason for event in ua.ended] == ["caller-cancelled"]


def test_our_bye_is_repeated_and_ends_at_timer_f() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.answered_call(caller)
    [bye] = ua.do(lambda agent, now: agent.hang_up(session, now))
    assert isinstance(bye, Request)
    assert bye.method == "BYE"
    assert bye.uri == f"sip:ann@{caller.host}:{caller.port}"
    assert [event.reason for event in ua.ended] == ["hung-up"]
    again = [at for at, _ in ua.advance(60)]
    assert again == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert ua.empty


def test_our_bye_is_answered() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.answered_call(caller)
    [bye] = ua.do(lambda agent, now: agent.hang_up(session, now))
    assert isinstance(bye, Request)
    ua.receive(bytes(bye.reply(200)), caller.flow)
    assert ua.agent.sessions == 0
    assert ua.advance(60) == []
    assert ua.empty


def test_hang_up_before_the_ack_waits_for_it() -> None:
    """RFC 3261 §15: the callee must not send a BYE on an unacknowledged dialog."""
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert ua.do(lambda agent, now: agent.hang_up(session, now)) == []
    assert [event.reason for event in ua.ended] == ["hung-up"]
    assert isinstance(ok, Response)
    caller.learn(ok)
    assert statuses(ua.receive(caller.ack(), caller.flow)) == ["BYE"]


def test_hang_up_before_an_ack_that_never_comes() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert "BYE" in statuses([message for _, message in ua.advance(33)])
    ua.advance(60)
    assert ua.empty
    assert len(ua.ended) == 1


def test_bye_crossing_bye() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.answered_call(caller)
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert statuses(ua.receive(caller.write("BYE"), caller.flow)) == [200]
    assert len(ua.ended) == 1
    ua.advance(60)
    assert ua.empty


def test_hang_up_before_the_answer_is_480() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    assert statuses(ua.do(lambda agent, now: agent.hang_up(session, now))) == [480]
    assert [event.reason for event in ua.ended] == ["hung-up"]


def test_ringing_is_told_again_each_minute() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    ua.do(lambda agent, now: agent.ring(session, now))
    assert [(at, message.status) for at, message in ua.advance(121) if isinstance(message, Response)] == [
        (60.0, 180),
        (120.0, 180),
    ]


def test_offerless_invite_gets_our_offer_and_takes_the_answer_from_the_ack() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller, body=b"")
    assert ua.invited[0].encoding is None
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert isinstance(ok, Response)
    assert b"m=audio 20000 RTP/AVP 0 8 101" in ok.body
    assert ua.media == []
    caller.learn(ok)
    ua.receive(caller.ack(sdp(payloads="8 101", port=4444)), caller.flow)
    assert (ua.media[0].media.encoding, ua.media[0].media.remote_port) == ("PCMA", 4444)


@pytest.mark.parametrize("body", [b"", b"nonsense", sdp(payloads="18")])
def test_offerless_invite_without_a_usable_answer_ends(body: bytes) -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller, body=b"")
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert isinstance(ok, Response)
    caller.learn(ok)
    assert statuses(ua.receive(caller.ack(body), caller.flow)) == ["BYE"]
    assert [event.reason for event in ua.ended] == ["line-failed"]


def test_invite_repeated_after_the_answer_is_absorbed() -> None:
    ua, caller = AgentOnClock(), Caller()
    invite = caller.invite()
    ua.receive(invite, caller.flow)
    session = ua.invited[0].session
    ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert ua.receive(invite, caller.flow) == []
    assert len(ua.invited) == 1


def test_requests_in_the_dialog_go_to_the_contact() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.answered_call(caller, headers=[("Contact", "<sip:ann@192.0.2.77:5099>")])
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert ua.sent[-1][2].host == "192.0.2.77"
    assert ua.sent[-1][2].port == 5099


def test_requests_to_a_caller_behind_nat_go_where_it_came_from() -> None:
    ua, caller = AgentOnClock(), Caller(host="10.0.0.5", port=5062)
    outside = Caller(host="203.0.113.9", port=31000).flow
    ua.receive(caller.invite(), outside)
    session = ua.invited[0].session
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert isinstance(ok, Response)
    assert (ok.via.received, ok.via.rport) == ("203.0.113.9", 31000)
    assert ua.sent[-1][2] == outside
    caller.learn(ok)
    ua.receive(caller.ack(), outside)
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert ua.sent[-1][2] == outside


def test_without_rport_the_answer_goes_to_the_port_of_the_via() -> None:
    ua, caller = AgentOnClock(), Caller(rport=False, port=5062)
    ua.receive(caller.invite(), Caller(port=40000).flow)
    assert (ua.sent[-1][2].host, ua.sent[-1][2].port) == ("192.0.2.10", 5062)


def test_record_route_is_kept_and_followed_loosely() -> None:
    ua, caller = AgentOnClock(), Caller()
    routes = [("Record-Route", "<sip:p2.example;lr>"), ("Record-Route", "<sip:192.0.2.200:5070;lr>")]
    session = ua.call(caller, headers=routes)
    [ok] = ua.do(lambda agent, now: agent.answer(session, LOCAL, now))
    assert isinstance(ok, Response)
    assert ok.headers.get_all("Record-Route") == ["<sip:p2.example;lr>", "<sip:192.0.2.200:5070;lr>"]
    caller.learn(ok)
    ua.receive(caller.ack(), caller.flow)
    [bye] = ua.do(lambda agent, now: agent.hang_up(session, now))
    assert isinstance(bye, Request)
    assert bye.headers.get_all("Route") == ["<sip:p2.example;lr>", "<sip:192.0.2.200:5070;lr>"]
    assert bye.uri == f"sip:ann@{caller.host}:{caller.port}"
    assert ua.sent[-1][2].host == "p2.example"


def test_a_strict_router_gets_its_own_uri() -> None:
    ua, caller = AgentOnClock(), Caller()
    routes = [("Record-Route", "<sip:192.0.2.201>"), ("Record-Route", "<sip:192.0.2.202;lr>")]
    session = ua.answered_call(caller, headers=routes)
    [bye] = ua.do(lambda agent, now: agent.hang_up(session, now))
    assert isinstance(bye, Request)
    assert bye.uri == "sip:192.0.2.201"
    assert bye.headers.get_all("Route") == ["<sip:192.0.2.202;lr>", f"<sip:ann@{caller.host}:{caller.port}>"]


def test_over_tcp_everything_uses_the_connection() -> None:
    ua, caller = AgentOnClock(), Caller(transport="tcp")
    session = ua.answered_call(caller)
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert {flow for _, _, flow in ua.sent} == {caller.flow}
    assert [message for _, message in ua.advance(31)] == []


def test_our_bye_over_a_lost_connection_is_sent_once_more_and_then_given_up() -> None:
    ua, caller = AgentOnClock(), Caller(transport="tcp")
    session = ua.answered_call(caller)
    ua.do(lambda agent, now: agent.hang_up(session, now))
    [bye] = ua.do(lambda agent, now: agent.flow_failed(caller.flow, now))
    assert isinstance(bye, Request)
    assert bye.method == "BYE"
    assert ua.sent[-1][2].alternative == (caller.host, caller.port)
    assert ua.do(lambda agent, now: agent.flow_failed(caller.flow, now)) == []
    assert ua.agent.sessions == 0


def test_our_bye_to_a_caller_behind_nat_has_its_connection_alone() -> None:
    ua, caller = AgentOnClock(), Caller(transport="tcp")
    session = ua.answered_call(caller, headers=[("Contact", "<sip:ann@phone.invalid>")])
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert ua.sent[-1][2].alternative is None
    ua.do(lambda agent, now: agent.flow_failed(caller.flow, now))
    assert ua.agent.sessions == 0


def test_a_late_final_answer_does_nothing() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    ua.do(lambda agent, now: agent.reject(session, 404, None, now))
    assert ua.do(lambda agent, now: agent.answer(session, LOCAL, now)) == []
    assert ua.do(lambda agent, now: agent.hang_up(session, now)) == []
    assert ua.do(lambda agent, now: agent.ring(session, now)) == []
    assert len(ua.ended) == 1

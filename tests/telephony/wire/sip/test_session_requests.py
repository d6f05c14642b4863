"""Requests inside a dialog: hold and resume, new addresses and codecs, glare, PRACK, digits, and what is refused."""

from __future__ import annotations

import pytest

from switchhook.telephony.wire.sip.message import Request, Response
from tests.peers.sip_caller import LOCAL, AgentOnClock, Caller, sdp, statuses


def one(messages: list[Request | Response]) -> Response:
    [response] = messages
    assert isinstance(response, Response)
    return response


def established(**invite: object) -> tuple[AgentOnClock, Caller, int]:
    ua, caller = AgentOnClock(), Caller()
    return ua, caller, ua.answered_call(caller, **invite)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_hold_and_resume(method: str) -> None:
    ua, caller, _ = established()
    held = one(ua.receive(caller.write(method, body=sdp(direction="sendonly", version=2)), caller.flow))
    assert held.status == 200
    assert b"a=recvonly" in held.body
    assert (ua.media[-1].media.we_send, ua.media[-1].media.we_receive) == (False, True)
    if method == "INVITE":
        ua.receive(caller.ack(), caller.flow)
    resumed = one(ua.receive(caller.write(method, body=sdp(version=3)), caller.flow))
    assert b"a=sendrecv" in resumed.body
    assert (ua.media[-1].media.we_send, ua.media[-1].media.we_receive) == (True, True)


def test_a_new_address_and_codec() -> None:
    ua, caller, _ = established()
    moved = one(ua.receive(caller.write("INVITE", body=sdp(port=4444, host="192.0.2.99", payloads="8 101")), caller.flow))
    assert moved.status == 200
    media = ua.media[-1].media
    assert (media.remote_host, media.remote_port, media.encoding) == ("192.0.2.99", 4444, "PCMA")


def test_our_description_keeps_its_name_and_counts_its_versions() -> None:
    ua, caller, _ = established()
    first = next(message for _, message, _ in ua.sent if message.body)
    same = one(ua.receive(caller.write("UPDATE", body=sdp()), caller.flow))
    assert same.body == first.body
    held = one(ua.receive(caller.write("UPDATE", body=sdp(direction="inactive")), caller.flow))
    origins = [line.split() for body in (first.body, held.body) for line in body.decode().splitlines() if line.startswith("o=")]
    assert origins[0][1] == origins[1][1]
    assert int(origins[1][2]) == int(origins[0][2]) + 1


def test_an_unusable_offer_is_488_and_the_session_goes_on() -> None:
    ua, caller, _ = established()
    assert statuses(ua.receive(caller.write("INVITE", body=sdp(payloads="18")), caller.flow)) == [488]
    assert statuses(ua.receive(caller.write("UPDATE", body=b"v=0 nonsense"), caller.flow)) == [400]
    assert statuses(ua.receive(caller.write("UPDATE", body=b"x", content_type="text/plain"), caller.flow)) == [415]
    assert len(ua.media) == 1
    assert ua.ended == []


def test_a_re_invite_without_offer_gets_ours() -> None:
    ua, caller, _ = established()
    ok = one(ua.receive(caller.write("INVITE"), caller.flow))
    assert b"m=audio 20000" in ok.body
    ua.receive(caller.ack(sdp(port=4600)), caller.flow)
    assert ua.media[-1].media.remote_port == 4600


def test_an_offer_meets_ours_491() -> None:
    ua, caller, _ = established()
    ua.receive(caller.write("INVITE"), caller.flow)
    assert statuses(ua.receive(caller.write("INVITE", body=sdp()), caller.flow)) == [491]
    assert statuses(ua.receive(caller.write("UPDATE", body=sdp()), caller.flow)) == [491]


def test_an_overlapping_invite_or_offer_before_the_answer_is_500_with_retry_after() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    ringing = one(ua.do(lambda agent, now: agent.ring(session, now)))
    caller.learn(ringing)
    for method in ("INVITE", "UPDATE"):
        refused = one(ua.receive(caller.write(method, body=sdp()), caller.flow))
        assert refused.status == 500
        assert refused.retry_after is not None
        assert 0 <= refused.retry_after <= 10
    assert statuses(ua.receive(caller.write("UPDATE"), caller.flow)) == [200]
    assert len(ua.invited) == 1


def test_a_re_invite_whose_answer_is_never_acknowledged_ends_the_call() -> None:
    ua, caller, _ = established()
    ua.receive(caller.write("INVITE", body=sdp()), caller.flow)
    sent = ua.advance(33)
    assert [at for at, message in sent if isinstance(message, Response)][:3] == [0.5, 1.5, 3.5]
    assert [event.reason for event in ua.ended] == ["no-ack"]
    assert "BYE" in statuses([message for _, message in sent])


def test_a_re_invite_that_overtakes_the_ack_is_taken() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    ok = one(ua.do(lambda agent, now: agent.answer(session, LOCAL, now)))
    caller.learn(ok)
    late_ack = caller.ack()
    second = one(ua.receive(caller.write("INVITE", body=sdp(direction="sendonly")), caller.flow))
    assert second.status == 200
    ua.receive(late_ack, caller.flow)
    ua.receive(caller.ack(), caller.flow)
    assert ua.advance(40) == []
    assert ua.ended == []


def test_the_contact_of_a_re_invite_or_update_is_where_we_call() -> None:
    ua, caller, session_id = established()
    ua.receive(caller.write("UPDATE", [("Contact", "<sip:ann@192.0.2.55:5090>")]), caller.flow)
    session = ua.invited[0].session
    assert session == session_id
    [bye] = ua.do(lambda agent, now: agent.hang_up(session, now))
    assert isinstance(bye, Request)
    assert bye.uri == "sip:ann@192.0.2.55:5090"
    assert ua.sent[-1][2].host == "192.0.2.55"


def test_old_numbers_are_out_of_order() -> None:
    ua, caller, _ = established()
    assert statuses(ua.receive(caller.write("INFO", cseq=50), caller.flow)) == [200]
    assert statuses(ua.receive(caller.write("INFO", cseq=49), caller.flow)) == [500]
    assert statuses(ua.receive(caller.write("INFO", cseq=50), caller.flow)) == [500]
    assert statuses(ua.receive(caller.write("INFO", cseq=51), caller.flow)) == [200]


def test_a_repeated_request_gets_the_same_answer_and_acts_once() -> None:
    ua, caller, _ = established()
    info = caller.write("INFO", body=b"Signal=5\r\nDuration=160\r\n", content_type="application/dtmf-relay")
    first = ua.receive(info, caller.flow)
    assert [bytes(message) for message in ua.receive(info, caller.flow)] == [bytes(first[0])]
    assert [event.digit for event in ua.digits] == ["5"]


@pytest.mark.parametrize(
    ("kind", "body", "digit", "duration_ms"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5", 160),
        ("application/dtmf-relay", b"Signal= *\r\n", "*", None),
        ("application/dtmf-relay; charset=utf-8", b"signal=11\nduration=90", "#", 90),
        ("application/dtmf", b"7", "7", None),
        ("application/dtmf", b"d\r\n", "D", None),
    ],
)
def test_digits_by_info(kind: str, body: bytes, digit: str, duration_ms: int | None) -> None:
    ua, caller, _ = established()
    assert statuses(ua.receive(caller.write("INFO", body=body, content_type=kind), caller.flow)) == [200]
    assert [(event.digit, event.duration_ms) for event in ua.digits] == [(digit, duration_ms)]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [("application/dtmf", b"77", 400), ("application/dtmf-relay", b"5", 400), ("application/media_control+xml", b"<x/>", 415)],
)
def test_info_that_is_no_digit(kind: str, body: bytes, status: int) -> None:
    ua, caller, _ = established()
    assert statuses(ua.receive(caller.write("INFO", body=body, content_type=kind), caller.flow)) == [status]
    assert ua.digits == []


@pytest.mark.parametrize(
    ("method", "status"),
    [("REFER", 400), ("NOTIFY", 481), ("MESSAGE", 405), ("SUBSCRIBE", 405), ("FROBNICATE", 501), ("OPTIONS", 200)],
)
def test_other_methods_in_the_dialog(method: str, status: int) -> None:
    ua, caller, _ = established()
    answer = one(ua.receive(caller.write(method), caller.flow))
    assert answer.status == status
    if status in (200, 405, 501):
        assert "INVITE" in answer.allow
    assert ua.ended == []


def test_an_unknown_extension_in_the_dialog_is_420() -> None:
    ua, caller, _ = established()
    answer = one(ua.receive(caller.write("INFO", [("Require", "timer, teleport")]), caller.flow))
    assert (answer.status, answer.unsupported) == (420, ["teleport"])


def test_the_reason_of_a_bye_is_kept() -> None:
    ua, caller, _ = established()
    ua.receive(caller.write("BYE", [("Reason", 'Q.850;cause=16;text="Normal"')]), caller.flow)
    assert ua.ended[0].detail == 'Q.850;cause=16;text="Normal"'


def test_what_comes_after_our_bye_is_481() -> None:
    ua, caller, session_id = established()
    session = ua.invited[0].session
    ua.do(lambda agent, now: agent.hang_up(session, now))
    assert statuses(ua.receive(caller.write("INVITE", body=sdp()), caller.flow)) == [481]
    assert ua.digits == []
    assert session_id == session


# -- RFC 3262


def required_100rel() -> tuple[AgentOnClock, Caller, Response]:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller, headers=[("Require", "100rel")])
    ringing = one(ua.do(lambda agent, now: agent.ring(session, now)))
    caller.learn(ringing)
    return ua, caller, ringing


def test_a_required_reliable_180_is_repeated_until_its_prack() -> None:
    ua, caller, ringing = required_100rel()
    assert ringing.require == ["100rel"]
    assert ringing.rseq
    again = ua.advance(4)
    assert [at for at, _ in again] == [0.5, 1.5, 3.5]
    assert {bytes(message) for _, message in again} == {bytes(ringing)}
    prack = caller.write("PRACK", [("RAck", f"{ringing.rseq} 1 INVITE")])
    assert statuses(ua.receive(prack, caller.flow)) == [200]
    assert ua.advance(50) == []


def test_a_prack_for_something_else_is_481_and_a_broken_one_400() -> None:
    ua, caller, ringing = required_100rel()
    assert ringing.rseq is not None
    assert statuses(ua.receive(caller.write("PRACK", [("RAck", f"{ringing.rseq + 1} 1 INVITE")]), caller.flow)) == [481]
    assert statuses(ua.receive(caller.write("PRACK", [("RAck", "nonsense")]), caller.flow)) == [400]
    assert statuses(ua.receive(caller.write("PRACK"), caller.flow)) == [400]


def test_a_reliable_180_that_is_never_acknowledged_refuses_the_call() -> None:
    ua, caller, _ = required_100rel()
    sent = ua.advance(32)
    assert statuses([message for _, message in sent])[-1] == 500
    assert [event.reason for event in ua.ended] == ["no-ack"]
    ua.receive(caller.ack_failure(), caller.flow)


def test_the_answer_does_not_wait_for_the_prack() -> None:
    ua, caller, ringing = required_100rel()
    session = ua.invited[0].session
    ok = one(ua.do(lambda agent, now: agent.answer(session, LOCAL, now)))
    ua.receive(caller.ack(), caller.flow)
    assert ok.status == 200
    assert ua.advance(40) == []
    prack = caller.write("PRACK", [("RAck", f"{ringing.rseq} 1 INVITE")])
    assert statuses(ua.receive(prack, caller.flow)) == [200]


def test_an_offerless_invite_that_requires_100rel_is_not_rung_but_answered() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller, body=b"", headers=[("Require", "100rel")])
    assert ua.do(lambda agent, now: agent.ring(session, now)) == []
    assert statuses(ua.do(lambda agent, now: agent.answer(session, LOCAL, now))) == [200]


# -- RFC 4028


def timed(headers: list[tuple[str, str]]) -> tuple[AgentOnClock, Caller, Response]:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller, headers=headers)
    ok = one(ua.do(lambda agent, now: agent.answer(session, LOCAL, now)))
    caller.learn(ok)
    ua.receive(caller.ack(), caller.flow)
    return ua, caller, ok


def test_a_session_that_the_caller_does_not_refresh_ends() -> None:
    ua, _, ok = timed([("Supported", "timer"), ("Session-Expires", "300;refresher=uac")])
    assert str(ok.session_expires) == "300;refresher=uac"
    assert ok.require == ["timer"]
    sent = ua.advance(268)
    assert sent[0][0] == 268
    assert statuses([message for _, message in sent]) == ["BYE"]
    assert [(event.reason, event.detail) for event in ua.ended] == [
        ("session-expired", "the peer stopped refreshing the session")
    ]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_refresh_by_the_caller_keeps_the_session(method: str) -> None:
    ua, caller, _ = timed([("Supported", "timer"), ("Session-Expires", "300;refresher=uac")])
    for _ in range(5):
        ua.advance(150)
        headers = [("Supported", "timer"), ("Session-Expires", "300;refresher=uac")]
        refreshed = one(ua.receive(caller.write(method, headers, sdp()), caller.flow))
        assert str(refreshed.session_expires) == "300;refresher=uac"
        if method == "INVITE":
            ua.receive(caller.ack(), caller.flow)
    assert ua.ended == []


@pytest.mark.parametrize("by_update", [True, False])
def test_we_refresh_when_it_is_ours_to(by_update: bool) -> None:
    allow = "INVITE, ACK, BYE, CANCEL" + (", UPDATE" if by_update else "")
    ua, caller, ok = timed([("Supported", "timer"), ("Session-Expires", "300;refresher=uas"), ("Allow", allow)])
    assert str(ok.session_expires) == "300;refresher=uas"
    for _ in range(3):
        sent = ua.advance(150)
        [refresh] = [message for _, message in sent if isinstance(message, Request)]
        assert refresh.method == ("UPDATE" if by_update else "INVITE")
        assert str(refresh.session_expires) == "300;refresher=uac"
        reply = refresh.reply(200)
        reply.headers.add("Contact", f"<sip:ann@{caller.host}:{caller.port}>")
        reply.headers.add("Session-Expires", "300;refresher=uac")
        if not by_update:
            assert b"m=audio 20000" in refresh.body
            reply.headers.add("Content-Type", "application/sdp")
            reply.body = sdp()
        acks = ua.receive(bytes(reply), caller.flow)
        assert statuses(acks) == ([] if by_update else ["ACK"])
        if not by_update:
            assert statuses(ua.receive(bytes(reply), caller.flow)) == ["ACK"]
    assert ua.ended == []


def refresh_due(allow: str = "UPDATE") -> tuple[AgentOnClock, Caller, Request]:
    ua, caller, _ = timed([("Supported", "timer"), ("Session-Expires", "300;refresher=uas"), ("Allow", allow)])
    [(_, refresh)] = ua.advance(150)
    assert isinstance(refresh, Request)
    return ua, caller, refresh


def test_a_peer_that_never_answers_our_refresh_is_gone() -> None:
    ua, _, _ = refresh_due()
    sent = ua.advance(32)
    assert statuses([message for _, message in sent])[-1] == "BYE"
    assert [event.reason for event in ua.ended] == ["session-expired"]


@pytest.mark.parametrize("status", [408, 481])
def test_a_peer_without_our_dialog_is_gone(status: int) -> None:
    ua, caller, refresh = refresh_due()
    assert statuses(ua.receive(bytes(refresh.reply(status)), caller.flow)) == ["BYE"]
    assert len(ua.ended) == 1


def test_a_refresh_with_a_larger_interval_when_asked() -> None:
    ua, caller, refresh = refresh_due()
    small = refresh.reply(422)
    small.headers.add("Min-SE", "900")
    ua.receive(bytes(small), caller.flow)
    [(_, again)] = [(at, message) for at, message in ua.advance(0.1) if isinstance(message, Request)]
    assert again.session_expires is not None
    assert (again.session_expires.interval_s, again.min_se) == (900, 900)


def test_a_peer_that_takes_no_update_gets_a_re_invite() -> None:
    ua, caller, refresh = refresh_due()
    ua.receive(bytes(refresh.reply(501)), caller.flow)
    assert "INVITE" in statuses([message for _, message in ua.advance(0.1)])


def test_glare_is_tried_again_within_two_seconds_and_meets_the_peers_offer_with_491() -> None:
    ua, caller, refresh = refresh_due(allow="INVITE")
    assert refresh.method == "INVITE"
    assert statuses(ua.receive(caller.write("INVITE", body=sdp()), caller.flow)) == [491]
    assert statuses(ua.receive(bytes(refresh.reply(491)), caller.flow)) == ["ACK"]
    assert "INVITE" in statuses([message for _, message in ua.advance(2.01)])
    assert ua.ended == []


def test_any_other_refusal_lets_the_session_run_out() -> None:
    ua, caller, refresh = refresh_due()
    ua.receive(bytes(refresh.reply(500)), caller.flow)
    assert ua.ended == []
    ua.advance(150)
    assert [event.detail for event in ua.ended] == ["the peer stopped refreshing the session"]


def test_a_caller_without_timers_gets_none_and_a_proxys_wish_is_ours_to_refresh() -> None:
    _, _, ok = timed([])
    assert ok.session_expires is None
    _, _, ok = timed([("Session-Expires", "600")])
    assert str(ok.session_expires) == "600;refresher=uas"
    _, _, ok = timed([("Supported", "timer")])
    assert str(ok.session_expires) == "1800;refresher=uas"
    _, _, ok = timed([("Supported", "timer"), ("Session-Expires", "600")])
    assert str(ok.session_expires) == "600;refresher=uac"


def test_too_small_an_interval_is_422_for_those_who_know_it() -> None:
    ua, caller = AgentOnClock(), Caller()
    refused = one(ua.receive(caller.invite(headers=[("Supported", "timer"), ("Session-Expires", "30")]), caller.flow))
    assert (refused.status, refused.min_se) == (422, 90)
    assert ua.invited == []
    _, _, ok = timed([("Session-Expires", "30")])
    assert str(ok.session_expires) == "90;refresher=uas"


def test_a_re_invite_of_ours_that_is_never_finally_answered_is_cancelled_with_the_session() -> None:
    ua, caller, refresh = refresh_due(allow="INVITE")
    session = ua.invited[0].session
    ua.receive(bytes(refresh.reply(100)), caller.flow)
    sent = ua.do(lambda agent, now: agent.hang_up(session, now))
    assert sorted(statuses(sent)) == ["BYE", "CANCEL"]
    cancel = next(message for message in sent if isinstance(message, Request) and message.method == "CANCEL")
    assert cancel.via.branch == refresh.via.branch
    assert str(cancel.cseq) == f"{refresh.cseq.number} CANCEL"
    ua.receive(bytes(cancel.reply(200)), caller.flow)
    assert statuses(ua.receive(bytes(refresh.reply(487)), caller.flow)) == ["ACK"]
    ua.advance(60)
    assert ua.empty


def test_a_re_invite_of_ours_without_any_answer_is_cancelled_once_it_is_provisionally_answered() -> None:
    ua, caller, refresh = refresh_due(allow="INVITE")
    session = ua.invited[0].session
    assert statuses(ua.do(lambda agent, now: agent.hang_up(session, now))) == ["BYE"]
    assert statuses(ua.receive(bytes(refresh.reply(100)), caller.flow)) == ["CANCEL"]
    ua.advance(60)
    assert ua.empty

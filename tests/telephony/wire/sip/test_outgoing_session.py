"""Calls that we place: ringing, answers, refusals, forks, challenges, redirections, giving up."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest

from switchhook.telephony.wire.sip.digest import Account, Challenge, Credentials, matches
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_events import Progressed
from switchhook.telephony.wire.sip.uri import SipUri
from tests.peers.sip_callee import ASKED, FLOW, HOST, Callee
from tests.peers.sip_caller import LOCAL, OUR_HOST, OUR_PORT, AgentOnClock, sdp, statuses

SECRET = Account("acme", "open sesame")
EARLY = sdp(port=5000, host=HOST)


def events(ua: AgentOnClock) -> list[str]:
    return [type(event).__name__ for _, event in ua.events]


def progress(ua: AgentOnClock) -> list[tuple[int, int | None]]:
    """Status and the port of early media."""
    found = [event for _, event in ua.events if isinstance(event, Progressed)]
    return [(event.status, event.early_media.remote_port if event.early_media else None) for event in found]


def ending(ua: AgentOnClock) -> tuple[str, int | None]:
    [ended] = ua.ended
    return ended.reason, ended.status


def settled(ua: AgentOnClock) -> None:
    """Nothing is left once all timers have run out."""
    ua.advance(200)
    assert ua.empty
    assert len(ua.ended) == 1


# -- the INVITE


def test_the_invite_says_all_that_a_carrier_needs() -> None:
    callee = Callee(
        AgentOnClock(), headers=(("P-Asserted-Identity", "<sip:+17205550100@x>"), ("Replaces", "a;to-tag=b;from-tag=c"))
    )
    invite = callee.invite
    assert invite.uri == ASKED.request_uri
    assert invite.from_.display_name == "Acme"
    assert invite.from_.tag
    assert invite.to.tag is None
    assert invite.max_forwards == 70
    assert {"100rel", "timer"} <= set(invite.supported)
    assert {"ACK", "BYE", "CANCEL", "INFO", "PRACK", "UPDATE"} <= set(invite.allow)
    assert str(invite.contact) == f"<sip:{OUR_HOST}:{OUR_PORT}>"
    assert (str(invite.session_expires), invite.min_se) == ("1800", 90)
    assert invite.headers.get("P-Asserted-Identity") == "<sip:+17205550100@x>"
    assert invite.headers.get("Replaces") == "a;to-tag=b;from-tag=c"
    assert b"m=audio 20000 RTP/AVP 0 8 101" in invite.body


def test_an_outbound_proxy_is_named_in_route() -> None:
    callee = Callee(AgentOnClock(), proxies=("<sip:proxy.example;lr>",))
    assert callee.invite.headers.get_all("Route") == ["<sip:proxy.example;lr>"]


@pytest.mark.parametrize(("uri", "headers"), [("tel:+1", ()), ("sip:a b@c", ()), (ASKED.request_uri, (("X", "a\r\nVia: b"),))])
def test_what_cannot_be_written_is_refused_at_once(uri: str, headers: tuple[tuple[str, str], ...]) -> None:
    ua = AgentOnClock()
    with pytest.raises((GrammarError, ValueError)):
        ua.agent.invite(replace(ASKED, request_uri=uri, headers=headers), ua.now)
    assert ua.empty


# -- answers


def test_a_call_rings_is_answered_and_ended_by_us() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(100)
    callee.reply(180)
    [ack] = callee.answer()
    assert isinstance(ack, Request)
    assert (ack.method, ack.uri, ack.cseq.number) == ("ACK", f"sip:callee-ct@{HOST}:5060", 1)
    assert ack.to.tag == "ct"
    assert events(ua) == ["Progressed", "Answered", "MediaAgreed"]
    agreed = ua.media[0].media
    assert (agreed.remote_host, agreed.remote_port, agreed.encoding, agreed.dtmf_payload_type) == (HOST, 4000, "PCMU", 101)
    [bye] = callee.hang_up()
    assert isinstance(bye, Request)
    assert (bye.method, bye.cseq.number) == ("BYE", 2)
    assert ending(ua) == ("hung-up", None)
    callee.agree_to("BYE")
    assert ua.agent.sessions == 0
    settled(ua)


def test_the_callee_hangs_up() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer()
    assert statuses(callee.send("BYE")) == [200]
    assert ending(ua) == ("callee-hung-up", None)
    settled(ua)


def test_each_2xx_is_acknowledged_with_the_same_ack() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer()
    ua.advance(1)
    callee.answer()
    first, second = callee.requests("ACK")
    assert bytes(first) == bytes(second)
    assert len([event for event in events(ua) if event == "Answered"]) == 1


def test_the_ack_takes_the_way_that_the_answer_recorded() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180, headers=[("Record-Route", "<sip:192.0.2.31;lr>")])
    callee.answer(headers=[("Record-Route", "<sip:192.0.2.33;lr>, <sip:192.0.2.32:5070;lr>")])
    [ack] = callee.requests("ACK")
    assert ack.headers.get_all("Route") == ["<sip:192.0.2.32:5070;lr>", "<sip:192.0.2.33;lr>"]
    assert ua.sent[-1][2] == Flow("udp", "192.0.2.32", 5070)


@pytest.mark.parametrize("contact", ["<sip:callee@10.0.0.7:5066>", "<mailto:a@b>", ""])
def test_a_contact_that_cannot_be_reached_does_not_lose_the_call(contact: str) -> None:
    ua = AgentOnClock()
    public = Flow("udp", "8.8.8.8", 5060)
    callee = Callee(ua, flow=public, request_uri="sip:+17205550199@8.8.8.8")
    callee.flow = public
    callee.answer(headers=[("Contact", contact)])
    assert ua.sent[-1][2] == public
    assert events(ua) == ["Answered", "MediaAgreed"]


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", sdp(payloads="18"), sdp(port=0)],
    ids=["none", "unreadable", "no codec", "refused"],
)
def test_an_answer_without_usable_media_is_ended(body: bytes) -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180)
    assert statuses(callee.answer(body=body)) == ["ACK", "BYE"]
    assert ending(ua)[0] == "line-failed"
    assert "Answered" not in events(ua)
    settled(ua)


def test_the_encoding_that_the_callee_chooses_counts() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer(body=sdp(payloads="8"))
    assert [event.media.encoding for event in ua.media] == ["PCMA"]


# -- early media and reliable provisional responses


def test_early_media_then_ringing_then_an_answer_without_sdp() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, EARLY)
    callee.reply(180)
    callee.reply(180)
    callee.answer(body=b"")
    assert progress(ua) == [(183, 5000), (180, 5000)]
    assert [event.media.remote_port for event in ua.media] == [5000]


def test_sound_that_cannot_be_played_yet_is_passed_over() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, sdp(payloads="18"))
    assert progress(ua) == [(183, None)]
    callee.answer()
    assert "Answered" in events(ua)


def rel(rseq: int) -> list[tuple[str, str]]:
    return [("Require", "100rel"), ("RSeq", str(rseq))]


def test_reliable_responses_are_acknowledged_once_and_in_order() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    [prack] = callee.reply(183, EARLY, rel(7))
    assert isinstance(prack, Request)
    assert (prack.method, prack.headers.get("RAck"), prack.uri) == ("PRACK", "7 1 INVITE", f"sip:callee-ct@{HOST}:5060")
    assert callee.reply(183, EARLY, rel(7)) == []
    assert callee.reply(180, b"", rel(9)) == []
    callee.agree_to("PRACK")
    [second] = callee.reply(180, b"", rel(8))
    assert isinstance(second, Request)
    assert (second.headers.get("RAck"), second.cseq.number) == ("8 1 INVITE", 3)
    assert progress(ua) == [(183, 5000), (180, 5000)]
    callee.agree_to("PRACK")
    [ack] = callee.answer(body=b"")
    assert isinstance(ack, Request)
    assert (ack.method, ack.cseq.number) == ("ACK", 1)
    [bye] = callee.hang_up()
    assert isinstance(bye, Request)
    assert bye.cseq.number == 4
    settled(ua)


def test_a_prack_that_nobody_answers_does_not_end_the_call() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, EARLY, rel(1))
    ua.advance(40)
    callee.answer()
    assert "Answered" in events(ua)


def test_an_early_update_moves_the_sound() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, EARLY, rel(1))
    callee.agree_to("PRACK")
    [ok] = callee.send("UPDATE", sdp(port=6000, host=HOST))
    assert isinstance(ok, Response)
    assert (ok.status, b"m=audio 20000" in ok.body) == (200, True)
    assert [event.media.remote_port for event in ua.media] == [6000]


def test_an_update_before_our_offer_is_answered_meets_glare() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180)
    callee.send("UPDATE", sdp())
    assert callee.responses == [491]


# -- forks


def test_the_first_fork_that_answers_has_the_call_and_a_later_one_is_ended() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, EARLY, tag="one")
    callee.reply(180, tag="two")
    assert statuses(callee.answer("two")) == ["ACK"]
    late = callee.answer("three")
    assert [(message.method, message.to.tag) for message in late if isinstance(message, Request)] == [
        ("ACK", "three"),
        ("BYE", "three"),
    ]
    callee.agree_to("BYE")
    assert statuses(callee.answer("three")) == ["ACK"]
    assert ua.ended == []
    assert ua.agent.sessions == 1
    callee.hang_up()
    assert callee.requests("BYE")[-1].to.tag == "two"
    settled(ua)


def test_a_fork_that_answers_after_the_call_is_over_is_ended_too() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer("one")
    callee.hang_up()
    callee.agree_to("BYE")
    assert ua.agent.sessions == 0
    assert statuses(callee.answer("two")) == ["ACK", "BYE"]
    settled(ua)


def test_a_flood_of_forks_does_not_keep_the_answer_out() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    for number in range(50):
        callee.reply(180, tag=f"fork-{number}")
    callee.answer("fork-49")
    assert "Answered" in events(ua)
    callee.hang_up()
    settled(ua)


# -- refusals


@pytest.mark.parametrize("status", range(300, 700))
def test_every_refusal_is_told_with_its_status(status: int) -> None:
    """Also a challenge without credentials to answer it, and a redirection that policy does not follow."""
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180)
    headers = [("Contact", "<sip:elsewhere@192.0.2.77>"), ("WWW-Authenticate", 'Digest realm="r", nonce="n"')]
    sent = callee.reply(status, headers=headers)
    if status == 422:
        # RFC 4028 §7.3: asked again with a longer interval, twice.
        assert statuses(sent) == ["ACK", "INVITE"]
        callee.reply(status, headers=headers)
        sent = callee.reply(status, headers=headers)
    assert statuses(sent) == ["ACK"]
    assert ending(ua) == ("refused", status)
    settled(ua)


def test_a_longer_session_interval_is_asked_for() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    first = callee.invite
    callee.reply(422, headers=[("Min-SE", "3600")])
    again = callee.invite
    assert (str(again.session_expires), again.min_se) == ("3600", 3600)
    assert (again.call_id, again.from_, again.cseq.number) == (first.call_id, first.from_, 2)
    callee.answer(headers=[("Session-Expires", "3600;refresher=uac")])
    assert callee.requests("ACK")[-1].cseq.number == 2
    assert "Answered" in events(ua)


# -- challenges


def challenge(status: int, nonce: str = "n1", algorithm: str = "MD5", **more: bool) -> tuple[int, list[tuple[str, str]]]:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return status, [(name, str(Challenge(f"realm-{status}", nonce, algorithm, stale=more.get("stale", False))))]


def demand(callee: Callee, asked: tuple[int, list[tuple[str, str]]]) -> list[int | str]:
    """Challenge the last INVITE; what we sent on it."""
    return statuses(callee.reply(asked[0], headers=asked[1]))


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("status", [401, 407])
def test_a_challenge_is_answered(status: int, algorithm: str) -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    first = callee.invite
    assert demand(callee, challenge(status, algorithm=algorithm)) == ["ACK", "INVITE"]
    again = callee.invite
    name = "Authorization" if status == 401 else "Proxy-Authorization"
    proof = Credentials.parse(again.headers.get(name) or "")
    assert (proof.username, proof.realm, proof.nonce, proof.uri) == ("acme", f"realm-{status}", "n1", ASKED.request_uri)
    assert matches(proof, "open sesame", "INVITE")
    assert (again.cseq.number, again.call_id, again.from_) == (2, first.call_id, first.from_)
    assert again.via.branch != first.via.branch
    assert again.body == first.body
    callee.answer()
    assert callee.requests("ACK")[-1].headers.get(name) == again.headers.get(name)
    assert "open sesame" not in repr(ASKED) + repr(SECRET)


def test_a_wrong_password_is_tried_once() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    assert demand(callee, challenge(401)) == ["ACK", "INVITE"]
    assert demand(callee, challenge(401, "n2")) == ["ACK"]
    assert ending(ua) == ("refused", 401)
    settled(ua)


def test_a_stale_nonce_is_replaced_but_not_for_ever() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    demand(callee, challenge(401))
    assert demand(callee, challenge(401, "n2", stale=True)) == ["ACK", "INVITE"]
    assert 'nonce="n2"' in (callee.invite.headers.get("Authorization") or "")
    assert demand(callee, challenge(401, "n3", stale=True)) == ["ACK"]
    assert ending(ua) == ("refused", 401)


def test_a_proxy_and_the_server_behind_it_both_get_their_proof() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    demand(callee, challenge(407))
    assert demand(callee, challenge(401)) == ["ACK", "INVITE"]
    assert {"authorization", "proxy-authorization"} <= {name.lower() for name, _ in callee.invite.headers}


def test_the_challenges_that_we_cannot_answer_are_passed_over() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    asked = [
        ("WWW-Authenticate", "Negotiate abc"),
        ("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=SHA-512-256, qop="auth"'),
        ("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth,auth-int"'),
    ]
    assert demand(callee, (401, asked)) == ["ACK", "INVITE"]
    assert "SHA-256" in (callee.invite.headers.get("Authorization") or "")


def test_a_bye_is_proven_where_it_is_challenged() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    callee.answer()
    [bye] = callee.hang_up()
    assert isinstance(bye, Request)
    status, headers = challenge(407)
    [again] = callee.reply(status, headers=headers, to=bye)
    assert isinstance(again, Request)
    assert (again.method, again.cseq.number) == ("BYE", bye.cseq.number + 1)
    assert matches(Credentials.parse(again.headers.get("Proxy-Authorization") or ""), "open sesame", "BYE")
    assert callee.reply(status, headers=headers, to=again) == []
    assert ua.agent.sessions == 0


# -- redirections


def test_redirections_are_followed_within_policy() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, redirects=2, credentials=SECRET, may_follow=lambda uri: uri.host.startswith("192.0.2."))
    contacts = "<sip:a@198.51.100.9>, <sip:b@192.0.2.41>;q=0.5, <sip:c@192.0.2.42:5070>;q=0.9, <mailto:d@e>"
    callee.reply(302, headers=[("Contact", contacts)])
    assert (callee.invite.uri, ua.sent[-1][2]) == ("sip:c@192.0.2.42:5070", Flow("udp", "192.0.2.42", 5070))
    assert str(callee.invite.to) == str(ASKED.to)
    # The password is for the one we asked, not for whom it names.
    assert demand(callee, challenge(401)) == ["ACK", "INVITE"]
    assert (callee.invite.uri, callee.invite.headers.get("Authorization")) == ("sip:b@192.0.2.41", None)
    callee.reply(486)
    assert ending(ua) == ("refused", 486)
    settled(ua)


def test_redirections_in_a_circle_end() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, redirects=5, may_follow=lambda uri: True)
    callee.reply(302, headers=[("Contact", "<sip:x@192.0.2.50>")])
    callee.reply(302, headers=[("Contact", f"<{ASKED.request_uri}>, <sip:x@192.0.2.50>")])
    assert ending(ua) == ("refused", 302)
    settled(ua)


def test_of_an_answer_that_names_very_many_only_the_preferred_ones_are_looked_at() -> None:
    ua, judged = AgentOnClock(), list[str]()

    def refuse(uri: SipUri) -> bool:
        judged.append(uri.user or "")
        return False

    callee = Callee(ua, redirects=3, may_follow=refuse)
    contacts = ", ".join(f"<sip:u{count}@192.0.2.50>;q=0.{count:03}" for count in range(100))
    callee.reply(302, headers=[("Contact", contacts)])
    assert judged == [f"u{count}" for count in range(99, 83, -1)]
    assert ending(ua) == ("refused", 302)


def test_a_redirection_is_a_refusal_by_default() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(301, headers=[("Contact", "<sip:x@192.0.2.50>")])
    assert ending(ua) == ("refused", 301)


@pytest.mark.parametrize(
    ("uri", "flow"),
    [
        ("sip:x@192.0.2.50;transport=tcp", Flow("tcp", "192.0.2.50", 5060)),
        ("sips:x@192.0.2.50", Flow("tls", "192.0.2.50", 5061)),
        ("sip:x@192.0.2.50;transport=sctp", Flow("udp", "192.0.2.50", 5060)),
        ("sip:x@example.com;maddr=192.0.2.51", Flow("udp", "192.0.2.51", 5060)),
    ],
)
def test_where_a_redirection_leads(uri: str, flow: Flow) -> None:
    ua = AgentOnClock()
    callee = Callee(ua, redirects=1, may_follow=lambda contact: contact == SipUri.parse(uri))
    callee.reply(302, headers=[("Contact", f"<{uri}>")])
    assert ua.sent[-1][2] == flow


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("sip:x@carrier.example", "192.0.2.7", 5070),
        ("sip:x@CARRIER.example;transport=udp", "192.0.2.7", 5070),
        ("sip:x@carrier.example:5062", "192.0.2.7", 5062),
        ("sip:x@192.0.2.8", "192.0.2.8", 5060),
    ],
)
def test_a_redirection_to_the_name_that_was_asked_stays_where_that_was_found(uri: str, host: str, port: int) -> None:
    """By the certificate and password of the same trunk."""
    ua = AgentOnClock()
    found = Flow("udp", "192.0.2.7", 5070, trunk="carrier")
    callee = Callee(ua, redirects=1, may_follow=lambda contact: True, flow=found, request_uri="sip:y@carrier.example")
    callee.reply(302, headers=[("Contact", f"<{uri}>")])
    assert ua.sent[-1][2] == Flow("udp", host, port, trunk="carrier")


# -- giving up


def test_cancel_waits_for_a_provisional_response() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    assert callee.hang_up() == []
    assert ending(ua) == ("hung-up", None)
    [cancel] = callee.reply(100)
    assert isinstance(cancel, Request)
    assert (cancel.method, cancel.cseq.number) == ("CANCEL", 1)
    assert cancel.via.branch == callee.invite.via.branch
    callee.agree_to("CANCEL")
    callee.reply(487)
    assert ua.agent.sessions == 0
    assert callee.methods == ["INVITE", "CANCEL", "ACK"]
    settled(ua)


def test_cancel_after_ringing() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180)
    assert statuses(callee.hang_up()) == ["CANCEL"]
    callee.reply(487)
    settled(ua)


def test_an_answer_that_crosses_our_cancel_is_ended() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180)
    callee.hang_up()
    assert statuses(callee.answer()) == ["ACK", "BYE"]
    assert events(ua)[-1] == "Ended"
    assert ua.agent.sessions == 1
    callee.agree_to("BYE")
    assert ua.agent.sessions == 0
    settled(ua)


def test_a_cancelled_call_that_never_ends_is_forgotten() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(180)
    callee.hang_up()
    ua.advance(33)
    assert ua.agent.sessions == 0
    settled(ua)


def test_nobody_answers() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, ring_s=20.0)
    callee.reply(100)
    ua.advance(10)
    callee.reply(180)
    ua.advance(19)
    callee.reply(180)
    assert ua.ended == []
    assert statuses([message for _, message in ua.advance(1.1)])[0] == "CANCEL"
    assert ending(ua) == ("no-answer", None)
    callee.reply(487)
    settled(ua)


def test_a_trunk_that_only_tries_has_failed() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, setup_s=16.0)
    callee.reply(100)
    ua.advance(17)
    assert ending(ua) == ("trunk-failed", 408)
    assert callee.methods[:2] == ["INVITE", "CANCEL"]
    settled(ua)


def test_a_trunk_that_is_silent_has_failed() -> None:
    ua = AgentOnClock()
    Callee(ua, setup_s=100.0)
    repeated = [at for at, _ in ua.advance(40)]
    assert repeated == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert ending(ua) == ("trunk-failed", 408)
    settled(ua)


def test_a_silent_trunk_can_be_given_up_sooner_and_is_cancelled_when_it_wakes_up() -> None:
    ua = AgentOnClock()
    callee = Callee(ua, silence_s=6.0)
    ua.advance(6.1)
    assert ending(ua) == ("trunk-failed", 408)
    assert statuses(callee.reply(180)) == ["CANCEL"]
    assert statuses(callee.answer()) == ["ACK", "BYE"]
    settled(ua)


@pytest.mark.parametrize("status", [100, 180, 401])
def test_a_trunk_that_says_anything_is_not_silent(status: int) -> None:
    ua = AgentOnClock()
    callee = Callee(ua, silence_s=6.0, credentials=SECRET)
    callee.reply(status, headers=challenge(401)[1])
    ua.advance(20)
    assert ua.ended == []


def test_the_reason_that_a_network_gives_is_kept() -> None:
    ua = AgentOnClock()
    Callee(ua).reply(480, headers=[("Reason", 'Q.850;cause=19;text="no answer"'), ("Reason", "broken;;=")])
    assert ua.ended[0].detail == 'Temporarily Unavailable; Q.850;cause=19;text="no answer"'


def test_a_finished_call_does_not_wait_for_the_garbage_collector() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, EARLY, tag="one")
    callee.answer("two")
    sessions = [weakref.ref(session) for session in ua.agent._sessions.values()]
    gc.disable()
    try:
        callee.hang_up()
        callee.agree_to("BYE")
        ua.advance(100)
        assert ua.empty
        assert [session() for session in sessions] == [None]
    finally:
        gc.enable()


def test_a_trunk_that_cannot_be_reached_has_failed() -> None:
    ua = AgentOnClock()
    Callee(ua)
    ua.do(lambda agent, now: agent.flow_failed(FLOW, now))
    assert ending(ua) == ("trunk-failed", None)
    settled(ua)


def test_the_ack_of_a_refusal_that_cannot_be_sent_changes_nothing() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(486)
    ua.do(lambda agent, now: agent.flow_failed(FLOW, now))
    assert ending(ua) == ("refused", 486)
    settled(ua)


def test_a_bye_in_the_early_dialog_ends_the_call() -> None:
    """No callee should send one (RFC 3261 §15); some do in place of a refusal."""
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.reply(183, EARLY)
    assert statuses(callee.send("BYE"))[0] == 200
    assert ending(ua) == ("callee-hung-up", None)
    assert callee.methods[-1] == "CANCEL"
    callee.reply(487)
    settled(ua)


# -- the answered call is a session like any other


def test_hold_and_options_inside_the_call() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer()
    [ok] = callee.send("INVITE", sdp(host=HOST, direction="sendonly", version=2))
    assert isinstance(ok, Response)
    assert b"a=recvonly" in ok.body
    held = ua.media[-1].media
    assert (held.we_send, held.we_receive) == (False, True)
    callee.send("ACK")
    callee.send("OPTIONS")
    assert callee.responses == [200, 200]
    callee.hang_up()
    settled(ua)


def test_a_digit_by_info() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer()
    callee.send("INFO", b"Signal=5\r\nDuration=160\r\n", content_type="application/dtmf-relay")
    assert [event.digit for event in ua.digits] == ["5"]


@pytest.mark.parametrize(("allow", "method"), [("UPDATE", "UPDATE"), ("INVITE", "INVITE")])
def test_we_refresh_the_session_when_we_are_to(allow: str, method: str) -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer(headers=[("Session-Expires", "100;refresher=uac"), ("Allow", allow)])
    ua.advance(50.5)
    refresh = callee.requests(method)[-1]
    assert (refresh.to.tag, str(refresh.session_expires)) == ("ct", "100;refresher=uac")
    callee.reply(200, sdp(host=HOST), [("Session-Expires", "100;refresher=uac")], to=refresh)
    ua.advance(45)
    assert ua.ended == []
    callee.hang_up()
    settled(ua)


@pytest.mark.parametrize("allow", ["UPDATE", "INVITE"])
def test_a_refresh_is_proven_where_it_is_challenged(allow: str) -> None:
    ua = AgentOnClock()
    callee = Callee(ua, credentials=SECRET)
    callee.answer(headers=[("Session-Expires", "100;refresher=uac"), ("Allow", allow)])
    ua.advance(50.5)
    status, headers = challenge(407)
    refresh = callee.requests(allow)[-1]
    again = [message for message in callee.reply(status, headers=headers, to=refresh) if isinstance(message, Request)][-1]
    assert (again.method, again.cseq.number) == (allow, refresh.cseq.number + 1)
    assert "Proxy-Authorization" in again.headers
    callee.reply(200, sdp(host=HOST), [("Session-Expires", "100;refresher=uac")], to=again)
    if allow == "INVITE":
        ack = callee.requests("ACK")[-1]
        assert (ack.cseq.number, "Proxy-Authorization" in ack.headers) == (again.cseq.number, True)
    ua.advance(45)
    assert ua.ended == []
    callee.hang_up()
    settled(ua)


def test_a_callee_that_does_not_refresh_loses_the_session() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer(headers=[("Session-Expires", "90;refresher=uas")])
    ua.advance(61)
    assert ending(ua)[0] == "session-expired"
    assert callee.methods[-1] == "BYE"
    settled(ua)


def test_a_callee_without_session_timers_is_left_in_peace() -> None:
    ua = AgentOnClock()
    callee = Callee(ua)
    callee.answer()
    ua.advance(10_000)
    assert ua.ended == []
    assert callee.methods == ["INVITE", "ACK"]


class Wire:
    """Carries what two agents send to each other."""

    def __init__(self, *agents: AgentOnClock) -> None:
        self.agents = agents
        self.carried = [0, 0]

    def carry(self) -> None:
        """All that was sent since the last time, until nothing is."""
        while any(len(agent.sent) > done for agent, done in zip(self.agents, self.carried, strict=True)):
            for at, source in enumerate(self.agents):
                fresh, self.carried[at] = source.sent[self.carried[at] :], len(source.sent)
                for _, message, _ in fresh:
                    self.agents[1 - at].receive(bytes(message), Flow("udp", OUR_HOST, OUR_PORT))


def test_two_agents_of_ours_call_each_other() -> None:
    """What one writes, the other understands."""
    caller, other = AgentOnClock(), AgentOnClock()
    wire = Wire(caller, other)
    callee = Callee(caller)
    wire.carry()
    [invited] = other.invited
    other.do(lambda agent, now: agent.ring(invited.session, now))
    wire.carry()
    other.do(lambda agent, now: agent.answer(invited.session, LOCAL, now))
    wire.carry()
    assert events(caller) == ["Progressed", "Answered", "MediaAgreed"]
    callee.hang_up()
    wire.carry()
    assert [ended.reason for ended in other.ended] == ["caller-hung-up"]
    settled(caller)
    settled(other)

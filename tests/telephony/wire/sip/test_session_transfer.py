"""REFER inside a call, both ways, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_core import SDP
from switchhook.telephony.wire.sip.session_events import Referred, TransferRequested
from switchhook.telephony.wire.sip.session_transfer import SUBSCRIPTION_S
from switchhook.telephony.wire.sip.user_agent import UserAgentOptions
from tests.peers.sip_caller import LOCAL, AgentOnClock, Caller, sdp, statuses

TARGET = "sip:+17205550199@carrier.example"
ACTIVE = "active;expires=60"
DONE = "terminated;reason=noresource"


class Talk:
    """An answered call whose caller takes REFERs and sends them."""

    def __init__(self, options: UserAgentOptions | None = None) -> None:
        self.ua = AgentOnClock(options=options)
        self.caller = Caller()
        self.session = self.ua.answered_call(self.caller)

    # -- ours

    def refer(self) -> Request:
        [request] = self.ua.do(lambda agent, now: agent.refer(self.session, TARGET, None, now))
        assert isinstance(request, Request)
        return request

    def reply(self, request: Request, status: int, *headers: tuple[str, str]) -> None:
        response = request.reply(status, None, self.caller.from_tag)
        for name, value in headers:
            response.headers.add(name, value)
        self.ua.receive(bytes(response), self.caller.flow)

    def notify(self, status: int | None, state: str = ACTIVE, event: str = "refer") -> list[int | str]:
        headers = [("Event", event), ("Subscription-State", state)]
        body = b"" if status is None else f"SIP/2.0 {status} X\r\n".encode()
        return statuses(
            self.ua.receive(self.caller.write("NOTIFY", headers, body, "message/sipfrag;version=2.0"), self.caller.flow)
        )

    def bye(self) -> None:
        self.ua.receive(self.caller.write("BYE"), self.caller.flow)

    @property
    def told(self) -> list[tuple[int, bool, bool]]:
        return [(event.status, event.final, event.accepted) for _, event in self.ua.events if isinstance(event, Referred)]

    @property
    def endings(self) -> list[tuple[str, str]]:
        return [(event.reason, event.detail) for event in self.ua.ended]

    # -- the peer's

    def asked(self, *headers: tuple[str, str], to: str = f"<{TARGET}>") -> list[Request | Response]:
        return self.ua.receive(self.caller.write("REFER", [("Refer-To", to), *headers]), self.caller.flow)

    def result(self, status: int) -> list[Request | Response]:
        return self.ua.do(lambda agent, now: agent.refer_result(self.session, status, now))

    @property
    def requests(self) -> list[TransferRequested]:
        return [event for _, event in self.ua.events if isinstance(event, TransferRequested)]


def news(messages: Sequence[Request | Response]) -> tuple[str, str, bytes]:
    """What one NOTIFY of ours says."""
    [notify] = [message for message in messages if isinstance(message, Request)]
    assert notify.method == "NOTIFY"
    assert notify.content_type == "message/sipfrag"
    return notify.headers.get("Event") or "", notify.headers.get("Subscription-State") or "", notify.body


# -- ours


def test_our_refer_says_whom_to_call_and_who_asks() -> None:
    talk = Talk()
    request = talk.refer()
    assert request.method == "REFER"
    assert request.headers.get_all("Refer-To") == [f"<{TARGET}>"]
    assert request.headers.get("Referred-By") == "<sip:+17205550100@198.51.100.1>"
    assert request.contact is not None
    assert request.to.tag == talk.caller.from_tag


def test_a_transfer_that_succeeds() -> None:
    talk = Talk()
    request = talk.refer()
    talk.reply(request, 100)
    talk.reply(request, 202)
    assert talk.notify(100) == [200]
    assert talk.notify(180) == [200]
    assert talk.notify(180) == [200]
    assert talk.notify(200, DONE) == [200]
    assert talk.told == [(202, False, True), (100, False, True), (180, False, True), (200, True, True)]
    talk.bye()
    assert talk.endings == [("referred", "")]
    assert len(talk.told) == 4
    talk.ua.advance(200)
    assert talk.ua.empty


@pytest.mark.parametrize("status", [403, 405, 481, 503, 603])
def test_a_refusal_is_final_and_the_call_goes_on(status: int) -> None:
    talk = Talk()
    talk.reply(talk.refer(), status)
    assert talk.told == [(status, True, False)]
    talk.ua.advance(100)
    assert talk.told == [(status, True, False)]
    talk.bye()
    assert talk.endings == [("caller-hung-up", "")]


def test_a_failed_transfer_is_no_hand_over_when_the_caller_hangs_up_later() -> None:
    talk = Talk()
    talk.reply(talk.refer(), 202)
    talk.notify(486, DONE)
    assert talk.told[-1] == (486, True, True)
    talk.bye()
    assert talk.endings == [("caller-hung-up", "")]


def test_a_second_attempt_after_a_failed_one() -> None:
    talk = Talk()
    first = talk.refer()
    talk.reply(first, 202)
    talk.notify(486)
    second = talk.refer()
    talk.reply(second, 202)
    assert talk.notify(486, DONE, f"refer;id={first.cseq.number}") == [481]
    assert talk.notify(200, DONE, f"refer;id={second.cseq.number}") == [200]
    assert [event for event in talk.told if event[1]] == [(486, True, True), (200, True, True)]


def test_a_final_notify_counts_though_its_subscription_stays_open() -> None:
    talk = Talk()
    talk.reply(talk.refer(), 202)
    talk.notify(200, ACTIVE)
    assert talk.told[-1] == (200, True, True)
    assert talk.notify(200, DONE) == [200]
    assert len(talk.told) == 2


def test_a_notify_may_come_before_the_answer() -> None:
    talk = Talk()
    request = talk.refer()
    talk.notify(100)
    assert talk.told == [(100, False, True)]
    talk.notify(None)
    talk.reply(request, 202)
    talk.notify(200, DONE)
    assert talk.told == [(100, False, True), (200, True, True)]


def test_a_notify_that_says_nothing_shows_that_the_peer_took_it() -> None:
    talk = Talk()
    talk.refer()
    talk.notify(None)
    assert talk.told == [(202, False, True)]


@pytest.mark.parametrize("last", [None, 100, 180])
def test_a_subscription_that_ends_without_an_outcome_is_408(last: int | None) -> None:
    talk = Talk()
    talk.reply(talk.refer(), 202)
    talk.notify(last, "terminated;reason=timeout")
    assert talk.told == [(202, False, True), (408, True, True)]


def test_patience_ends_after_a_minute() -> None:
    talk = Talk()
    talk.reply(talk.refer(), 202)
    talk.notify(180)
    talk.ua.advance(59.9)
    assert talk.told[-1] == (180, False, True)
    talk.ua.advance(0.2)
    assert talk.told[-1] == (408, True, True)
    assert talk.notify(200, DONE) == [200]
    assert talk.told[-1] == (408, True, True)


def test_patience_can_be_set() -> None:
    talk = Talk(UserAgentOptions(refer_s=5))
    talk.reply(talk.refer(), 202, ("Refer-Sub", "false"))
    talk.ua.advance(5)
    assert talk.told == [(202, False, True), (408, True, True)]


def test_a_refer_that_nobody_answers() -> None:
    talk = Talk()
    talk.refer()
    talk.ua.advance(33)
    assert talk.told == [(408, True, False)]


def test_a_refer_that_could_not_be_sent() -> None:
    talk = Talk()
    talk.refer()
    talk.ua.do(lambda agent, now: agent.flow_failed(talk.caller.flow, now))
    assert talk.told == [(503, True, False)]


def test_a_peer_that_hangs_up_in_place_of_telling() -> None:
    talk = Talk()
    talk.reply(talk.refer(), 202)
    talk.notify(180)
    talk.bye()
    assert talk.told[-1] == (0, True, True)
    assert talk.endings == [("referred", "the peer did not tell what came of the transfer")]
    assert isinstance(talk.ua.events[-2][1], Referred)


def test_a_peer_that_hangs_up_before_it_took_the_refer() -> None:
    talk = Talk()
    request = talk.refer()
    talk.bye()
    talk.reply(request, 202)
    assert talk.told == [(0, True, False)]
    assert talk.endings == [("caller-hung-up", "")]


def test_our_own_end_of_the_call_ends_the_refer() -> None:
    talk = Talk()
    talk.reply(talk.refer(), 202)
    talk.ua.do(lambda agent, now: agent.hang_up(talk.session, now))
    assert talk.told[-1] == (0, True, True)
    assert talk.endings == [("hung-up", "")]
    assert talk.notify(200, DONE) == [481]


def test_one_refer_at_a_time() -> None:
    talk = Talk()
    talk.refer()
    assert talk.ua.do(lambda agent, now: agent.refer(talk.session, TARGET, None, now)) == []
    assert talk.told == []


def test_a_call_that_is_not_answered_is_not_referred() -> None:
    ua, caller = AgentOnClock(), Caller()
    session = ua.call(caller)
    assert ua.do(lambda agent, now: agent.refer(session, TARGET, None, now)) == []
    assert ua.events[-1][1] == Referred(session, 481, final=True, accepted=False)


def test_a_target_that_cannot_be_called_is_an_error() -> None:
    talk = Talk()
    with pytest.raises(GrammarError):
        talk.ua.agent.refer(talk.session, "http://x", None, talk.ua.now)
    assert talk.told == []


def test_a_notify_without_a_refer_is_481() -> None:
    talk = Talk()
    assert talk.notify(200) == [481]
    talk.refer()
    assert talk.notify(200, event="presence") == [481]
    assert talk.notify(200, event="refer;id=99") == [481]
    assert talk.told == []


def test_an_attended_transfer_names_the_other_call() -> None:
    talk = Talk()
    other = Caller(call_id="call-2@phone", from_tag="ft2")
    consulted = talk.ua.answered_call(other)
    [refer] = talk.ua.do(lambda agent, now: agent.refer(talk.session, TARGET, consulted, now))
    assert refer.headers.get("Refer-To") == f"<{TARGET}?Replaces=call-2%40phone%3Bto-tag%3Dft2%3Bfrom-tag%3D{other.to_tag}>"


def test_an_attended_transfer_without_the_other_call_is_refused() -> None:
    talk = Talk()
    ringing = talk.ua.call(Caller(call_id="call-2@phone"))
    for replaces in (ringing, type(ringing)(999)):
        assert talk.ua.do(lambda agent, now, replaces=replaces: agent.refer(talk.session, TARGET, replaces, now)) == []  # type: ignore[misc]  # bound now
    assert talk.told == [(481, True, False)] * 2


# -- the peer's


def test_a_refer_of_the_peer_is_taken_and_told_of() -> None:
    talk = Talk()
    accepted, trying = talk.asked(("Referred-By", "<sip:ann@192.0.2.10>"))
    assert isinstance(accepted, Response)
    assert (accepted.status, accepted.reason) == (202, "Accepted")
    assert accepted.contact is not None
    event, state, body = news([trying])
    assert (event, body) == ("refer", b"SIP/2.0 100 Trying\r\n")
    assert state == f"active;expires={SUBSCRIPTION_S:.0f}"
    [asked] = talk.requests
    assert (asked.target, asked.replaces, asked.referred_by) == (TARGET, None, "<sip:ann@192.0.2.10>")
    talk.ua.advance(2)
    assert news(talk.result(180)) == ("refer", "active;expires=178", b"SIP/2.0 180 Ringing\r\n")
    assert talk.result(180) == []
    assert news(talk.result(200)) == ("refer", DONE, b"SIP/2.0 200 OK\r\n")
    assert talk.result(486) == []


def test_a_refer_with_replaces_is_an_attended_transfer() -> None:
    talk = Talk()
    talk.asked(to=f"<{TARGET}?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>")
    assert (talk.requests[0].target, talk.requests[0].replaces) == (TARGET, "x@y;to-tag=1;from-tag=2")


@pytest.mark.parametrize(("to", "status"), [("<http://x/>", 400), ("nonsense", 400), ("<sip:a@b?Replaces=x>", 400)])
def test_a_refer_that_cannot_be_followed(to: str, status: int) -> None:
    talk = Talk()
    assert statuses(talk.asked(to=to)) == [status]
    assert talk.requests == []


def test_a_second_refer_waits_for_the_first() -> None:
    talk = Talk()
    talk.asked()
    assert statuses(talk.asked()) == [491]
    talk.result(486)
    _, notify = talk.asked()
    event, _, _ = news([notify])
    assert event == f"refer;id={talk.caller.cseq}"
    assert len(talk.requests) == 2


def test_a_refer_before_the_answer_has_to_wait() -> None:
    talk = Talk()
    other = Caller(call_id="call-2@phone")
    session = talk.ua.call(other)
    [ringing] = talk.ua.do(lambda agent, now: agent.ring(session, now))
    assert isinstance(ringing, Response)
    other.learn(ringing)
    assert statuses(talk.ua.receive(other.write("REFER", [("Refer-To", f"<{TARGET}>")]), other.flow)) == [491]


def test_a_peer_that_wants_no_subscription_gets_none() -> None:
    talk = Talk()
    [accepted] = talk.asked(("Refer-Sub", "false"), ("Require", "norefersub"))
    assert isinstance(accepted, Response)
    assert (accepted.status, accepted.headers.get("Refer-Sub")) == (202, "false")
    assert len(talk.requests) == 1
    assert talk.result(180) == []
    assert statuses(talk.asked()) == [491]
    assert talk.result(200) == []
    assert statuses(talk.asked()) == [202, "NOTIFY"]


def test_a_subscription_ends_in_time() -> None:
    talk = Talk()
    _, notify = talk.asked()
    assert isinstance(notify, Request)
    talk.reply(notify, 200)
    sent = talk.ua.advance(SUBSCRIPTION_S)
    assert news([message for _, message in sent][:1]) == ("refer", "terminated;reason=timeout", b"SIP/2.0 100 Trying\r\n")
    assert talk.result(200) == []
    assert statuses(talk.asked()) == [202, "NOTIFY"]


def test_a_peer_that_knows_no_subscription_hears_no_more() -> None:
    talk = Talk()
    _, notify = talk.asked()
    assert isinstance(notify, Request)
    talk.reply(notify, 481)
    assert talk.result(200) == []
    assert talk.endings == []


def test_a_peer_that_does_not_answer_our_notify_hears_no_more() -> None:
    talk = Talk()
    talk.asked()
    talk.ua.advance(33)
    assert talk.result(200) == []


def test_a_refer_of_the_peer_goes_with_the_call() -> None:
    talk = Talk()
    talk.asked()
    talk.bye()
    assert talk.result(200) == []
    talk.ua.advance(200)
    assert talk.ua.empty


def test_what_is_no_status_is_an_error() -> None:
    talk = Talk()
    talk.asked()
    with pytest.raises(ValueError, match="99"):
        talk.result(99)


# -- in a call that we placed


class Placed:
    """A call of ours, answered by a callee who asks for proofs when told to."""

    def __init__(self, credentials: Account | None = None) -> None:
        self.ua = AgentOnClock()
        self.callee = Caller(call_id="", from_tag="ct")
        asked = OutgoingInvite(
            flow=self.callee.flow,
            request_uri=f"sip:+17205550111@{self.callee.host}:{self.callee.port}",
            from_=NameAddr.parse("<sip:+17205550100@198.51.100.1>"),
            to=NameAddr.parse("<sip:+17205550111@192.0.2.10>"),
            media=LOCAL,
            credentials=credentials,
        )
        self.session = self.ua.agent.invite(asked, self.ua.now)
        self.ua.settle()
        invite = self.ua.sent[-1][1]
        assert isinstance(invite, Request)
        self.invite = invite
        self.callee.call_id, self.callee.to_tag = invite.call_id, invite.from_.tag
        self.reply(
            invite, 200, ("Contact", f"<sip:ann@{self.callee.host}:{self.callee.port}>"), ("Content-Type", SDP), body=sdp()
        )

    def reply(self, request: Request, status: int, *headers: tuple[str, str], body: bytes = b"") -> list[Request | Response]:
        response = request.reply(status, None, self.callee.from_tag)
        for name, value in headers:
            response.headers.add(name, value)
        response.body = body
        return self.ua.receive(bytes(response), self.callee.flow)

    def refer(self) -> Request:
        [request] = self.ua.do(lambda agent, now: agent.refer(self.session, TARGET, None, now))
        assert isinstance(request, Request)
        return request

    def notify(self, status: int, cseq: int) -> list[int | str]:
        headers = [("Event", f"refer;id={cseq}"), ("Subscription-State", DONE)]
        body = f"SIP/2.0 {status} X\r\n".encode()
        return statuses(self.ua.receive(self.callee.write("NOTIFY", headers, body, "message/sipfrag"), self.callee.flow))

    @property
    def told(self) -> list[tuple[int, bool, bool]]:
        return [(event.status, event.final, event.accepted) for _, event in self.ua.events if isinstance(event, Referred)]


def test_a_call_that_we_placed_is_referred_like_any_other() -> None:
    placed = Placed()
    refer = placed.refer()
    assert refer.to.tag == "ct"
    placed.reply(refer, 202)
    assert placed.notify(200, refer.cseq.number) == [200]
    placed.ua.receive(placed.callee.write("BYE"), placed.callee.flow)
    assert placed.told == [(202, False, True), (200, True, True)]
    assert [event.reason for event in placed.ua.ended] == ["referred"]
    placed.ua.advance(200)
    assert placed.ua.empty


def test_a_callee_asks_for_a_transfer() -> None:
    placed = Placed()
    sent = placed.ua.receive(placed.callee.write("REFER", [("Refer-To", f"<{TARGET}>")]), placed.callee.flow)
    assert statuses(sent) == [202, "NOTIFY"]
    [done] = placed.ua.do(lambda agent, now: agent.refer_result(placed.session, 603, now))
    assert news([done])[2] == b"SIP/2.0 603 Decline\r\n"


def test_a_challenge_to_our_refer_is_answered() -> None:
    placed = Placed(Account("pbx", "carrier", "open sesame"))
    first = placed.refer()
    challenge = ("Proxy-Authenticate", 'Digest realm="carrier", nonce="n", algorithm=MD5, qop="auth"')
    [second] = placed.reply(first, 407, challenge)
    assert isinstance(second, Request)
    assert second.cseq.number == first.cseq.number + 1
    assert second.headers.get_all("Refer-To") == first.headers.get_all("Refer-To")
    assert 'username="pbx"' in (second.headers.get("Proxy-Authorization") or "")
    placed.reply(second, 202)
    assert placed.notify(200, first.cseq.number) == [481]
    assert placed.notify(200, second.cseq.number) == [200]
    assert placed.told == [(202, False, True), (200, True, True)]


def test_a_wrong_password_is_a_refusal() -> None:
    placed = Placed(Account("pbx", "carrier", "wrong"))
    challenge = ("WWW-Authenticate", 'Digest realm="carrier", nonce="n"')
    [second] = placed.reply(placed.refer(), 401, challenge)
    assert isinstance(second, Request)
    placed.reply(second, 401, challenge)
    assert placed.told == [(401, True, False)]


def test_a_call_that_we_placed_can_be_replaced() -> None:
    placed = Placed()
    placed.ua.agent.may_replace = lambda trunk, session: session == placed.session
    other = Caller(call_id="call-2@phone", from_tag="ft2")
    value = f"{placed.invite.call_id};to-tag={placed.invite.from_.tag};from-tag=ct"
    placed.ua.receive(other.invite(headers=[("Replaces", value)]), other.flow)
    assert placed.ua.invited[0].replaces == placed.session


# -- whatever comes


class Storm:
    """Turns drawn numbers into what a peer, the network and the clock may do to a REFER of ours."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.refer = self.talk.refer()
        self.acts: tuple[Callable[[int], object], ...] = (
            lambda detail: self.talk.reply(self.refer, (100, 200, 202, 300, 408, 481, 503, 603)[detail % 8]),
            lambda detail: self.talk.notify(
                (None, 100, 180, 200, 486, 603)[detail % 6], (ACTIVE, DONE, "pending", "")[detail % 4]
            ),
            lambda detail: self.talk.notify(200, DONE, f"refer;id={self.refer.cseq.number + detail % 2}"),
            lambda detail: self.talk.ua.advance((0.1, 1, 20, 40, 70)[detail % 5]),
            lambda detail: self.talk.ua.receive(self.talk.caller.ack(), self.talk.caller.flow),
            lambda detail: self.talk.asked(),
            lambda detail: self.talk.result((100, 180, 200, 486)[detail % 4]),
            lambda detail: (
                self.talk.ua.do(lambda agent, now: agent.refer(self.talk.session, TARGET, self.talk.session, now))
                if not any(final for _, final, _ in self.talk.told)
                else None
            ),
            self._end,
        )

    def _end(self, detail: int) -> None:
        if detail % 3 == 0:
            self.talk.bye()
        elif detail % 3 == 1:
            self.talk.ua.do(lambda agent, now: agent.hang_up(self.talk.session, now))
        else:
            self.talk.ua.do(lambda agent, now: agent.flow_failed(self.talk.caller.flow, now))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 119)), max_size=14))
def test_a_refer_has_one_end_whatever_comes(steps: list[tuple[int, int]]) -> None:
    storm = Storm()
    talk = storm.talk
    for act, detail in steps:
        storm.acts[act](detail)
    talk.ua.advance(61)
    finals = [at for at, event in enumerate(talk.told) if event[1]]
    assert finals == [len(talk.told) - 1]
    status, _, accepted = talk.told[-1]
    if status == 0:
        assert talk.ua.ended
    if 200 <= status < 300:
        assert accepted
    talk.ua.do(lambda agent, now: agent.hang_up(talk.session, now))
    talk.ua.advance(250)
    assert talk.ua.empty
    assert len(talk.ua.ended) == 1

"""Replaces (RFC 3891): the header, and INVITEs that take the place of a call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.dialog import Dialog
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.message import Request, Response, parse_message
from switchhook.telephony.wire.sip.replaces import Replaces, replaces_value
from switchhook.telephony.wire.sip.session_events import SessionId
from tests.peers.sip_caller import LOCAL, AgentOnClock, Caller, statuses
from tests.telephony.wire.sip.samples import message

FLOW = Caller().flow


def test_the_example_of_the_rfc_is_read_and_written() -> None:
    text = "98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff"
    found = Replaces.parse(text)
    assert found == Replaces("98732@sip.example.com", "ff87ff", "r33th4x0r")
    assert Replaces.parse(str(found)) == found
    assert Replaces.parse("a@b; to-tag = 1 ;FROM-TAG=2;early-only").early_only


@pytest.mark.parametrize(
    "text",
    ["", "a@b", "a@b;to-tag=1", "a@b;from-tag=1", "a b;to-tag=1;from-tag=2", ";to-tag=1;from-tag=2", 'a;to-tag="1 2";from-tag=2'],
)
def test_what_is_no_replaces(text: str) -> None:
    with pytest.raises(GrammarError):
        Replaces.parse(text)


@given(st.text(max_size=80) | st.from_regex(r"\A[ -~]{1,20};to-tag=[ -~]{0,10};from-tag=[ -~]{0,10}\Z"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = Replaces.parse(text)
    except GrammarError:
        return
    assert Replaces.parse(str(found)) == found
    assert "\r" not in str(found)
    assert "\n" not in str(found)


def test_a_third_party_names_our_dialog_as_the_peer_sees_it() -> None:
    invite = parse_message(message("Contact: <sip:a@192.0.2.9>"))
    assert isinstance(invite, Request)
    ours = Dialog.as_uas(invite, "ours", FLOW)
    found = Replaces.parse(replaces_value(ours))
    # The peer sent the INVITE with the tag `a`: there it is the reader's own.
    assert found == Replaces("c1", to_tag="a", from_tag="ours")


class Transferred:
    """An answered call, and a second caller who knows its dialog."""

    def __init__(self, allowed: bool = True) -> None:
        self.ua = AgentOnClock()
        self.asked: list[tuple[str | None, SessionId]] = []
        self.ua.agent.may_replace = self._may_replace
        self._allowed = allowed
        self.first, self.second = Caller(), Caller(call_id="call-2@phone", from_tag="ft2")
        self.session = self.ua.call(self.first)

    def _may_replace(self, trunk: str | None, session: SessionId) -> bool:
        self.asked.append((trunk, session))
        return self._allowed

    def answer(self) -> None:
        [ok] = self.ua.do(lambda agent, now: agent.answer(self.session, LOCAL, now))
        assert isinstance(ok, Response)
        self.first.learn(ok)
        self.ua.receive(self.first.ack(), self.first.flow)

    def value(self, more: str = "") -> str:
        [tag] = {m.to.tag for _, m, _ in self.ua.sent if isinstance(m, Response) and m.to.tag} or {"unknown"}
        return f"{self.first.call_id};to-tag={tag};from-tag={self.first.from_tag}{more}"

    def invite(self, *headers: tuple[str, str]) -> list[int | str]:
        return statuses(self.ua.receive(self.second.invite(headers=headers), self.second.flow))


def test_an_invite_that_replaces_an_answered_call() -> None:
    case = Transferred()
    case.answer()
    assert case.invite(("Replaces", case.value()), ("Require", "replaces")) == [100]
    assert case.asked == [("trunk", case.session)]
    invited = case.ua.invited[-1]
    assert invited.replaces == case.session
    assert invited.session != case.session
    [ok] = case.ua.do(lambda agent, now: agent.answer(invited.session, LOCAL, now))
    [bye] = case.ua.do(lambda agent, now: agent.hang_up(case.session, now))
    assert statuses([ok, bye]) == [200, "BYE"]
    assert bye.call_id == case.first.call_id


def test_an_ordinary_invite_replaces_nothing() -> None:
    case = Transferred()
    assert case.ua.invited[0].replaces is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["{right}"], 403),
        (["nowhere@phone;to-tag=1;from-tag=2"], 481),
        (["{right};early-only"], 403),
        (["{right}", "{right}"], 400),
        (["nonsense"], 400),
    ],
)
def test_what_may_not_be_replaced(headers: list[str], status: int) -> None:
    case = Transferred(allowed=False)
    case.answer()
    assert case.invite(*(("Replaces", value.format(right=case.value())) for value in headers)) == [status]
    assert len(case.ua.invited) == 1
    assert case.ua.ended == []


def test_nobody_may_replace_unless_somebody_judges() -> None:
    case = Transferred()
    case.answer()
    case.ua.agent.may_replace = AgentOnClock().agent.may_replace
    assert case.invite(("Replaces", case.value())) == [403]


def test_an_answered_call_is_not_replaced_early_only() -> None:
    case = Transferred()
    case.answer()
    assert case.invite(("Replaces", case.value(";early-only"))) == [486]


def test_a_call_that_still_rings_is_not_replaced() -> None:
    case = Transferred()
    case.ua.do(lambda agent, now: agent.ring(case.session, now))
    assert case.invite(("Replaces", case.value())) == [481]


def test_a_call_that_is_over_is_not_replaced() -> None:
    case = Transferred()
    case.answer()
    value = case.value()
    case.ua.do(lambda agent, now: agent.hang_up(case.session, now))
    assert case.invite(("Replaces", value)) == [603]
    [bye] = [m for _, m, _ in case.ua.sent if isinstance(m, Request)]
    case.ua.receive(bytes(bye.reply(200)), case.first.flow)
    case.second.call_id = "call-3@phone"
    assert case.invite(("Replaces", value)) == [481]


def test_the_zero_tag_means_a_peer_that_gave_none() -> None:
    found = Replaces.parse("a@b;to-tag=1;from-tag=0")
    assert found.dialog_keys() == [("a@b", "1", "0"), ("a@b", "1", "")]

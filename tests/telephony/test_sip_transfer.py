"""Transfers as the legs see them: the URI that a peer is given, the target that a peer names, INVITEs with Replaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.model import CallAttempt, TransferMode, Trunk
from switchhook.domain.ports import Leg, LegEnded, OfferedLeg, ReferProgress, TransferAsked
from switchhook.telephony.sip_transfer import asked_target, leg_event, refer_uri
from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.headers import Headers
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.refer import read_refer_to
from switchhook.telephony.wire.sip.session_events import Referred, SessionId, TransferRequested
from tests.peers.answering_machine import LOCAL_TRUNK, AnsweringMachine, TakenCall, answering_machine
from tests.peers.sip_caller import Caller, sdp
from tests.telephony.test_sip_server import Line, here, line

CARRIER = Trunk("carrier", "acme", "sip:trunk.carrier.example:5070")
PEER = Flow("udp", "192.0.2.9", 5066)
NUMBER = "+17205550199"
SESSION = SessionId(1)


@pytest.mark.parametrize(
    ("target", "trunk", "uri"),
    [
        (NUMBER, CARRIER, "sip:+17205550199@trunk.carrier.example:5070"),
        (f"tel:{NUMBER}", CARRIER, "sip:+17205550199@trunk.carrier.example:5070"),
        (NUMBER, replace(CARRIER, number_form="plain"), "sip:17205550199@trunk.carrier.example:5070"),
        (NUMBER, replace(CARRIER, number_form="national"), "sip:7205550199@trunk.carrier.example:5070"),
        (NUMBER, replace(CARRIER, address="sips:carrier.example"), "sips:+17205550199@carrier.example"),
        (NUMBER, replace(CARRIER, address="sip:[2001:db8::1]:5070"), "sip:+17205550199@[2001:db8::1]:5070"),
        (" sip:bob@trunk.carrier.example;user=phone", CARRIER, "sip:bob@trunk.carrier.example;user=phone"),
        (NUMBER, None, "sip:+17205550199@192.0.2.9:5066"),
    ],
)
def test_where_a_peer_is_sent(target: str, trunk: Trunk | None, uri: str) -> None:
    assert refer_uri(target, trunk, PEER) == uri


def test_behind_the_port_of_a_connection_nobody_is_called() -> None:
    assert refer_uri(NUMBER, None, Flow("tcp", "192.0.2.9", 41234, 7)) == "sip:+17205550199@192.0.2.9;transport=tcp"


@pytest.mark.parametrize("target", ["", "sip:", "sip:a b@c", "tel:bob", "+1720\r\nX: y", "sip:1001@pbx.example"])
def test_targets_that_cannot_be_written(target: str) -> None:
    with pytest.raises(GrammarError):
        refer_uri(target, CARRIER, PEER)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("sip:+17205550199@pbx.example:5061;transport=tcp", NUMBER),
        ("sip:17205550199;phone-context=x@pbx.example", "17205550199"),
        ("tel:+1-720-555-0199", NUMBER),
        ("sip:1001@pbx.example;user=phone", "sip:1001@pbx.example;user=phone"),
        ("sip:(720)5550199@pbx.example;user=phone", "(720)5550199"),
        ("sip:1001@pbx.example", "sip:1001@pbx.example"),
        ("sips:bob@pbx.example", "sips:bob@pbx.example"),
        ("sip:pbx.example;user=phone", "sip:pbx.example;user=phone"),
    ],
)
def test_whom_a_peer_wants_called(uri: str, target: str) -> None:
    assert asked_target(uri) == target


@given(
    st.sampled_from(["sip:", "sips:", "tel:", ""]),
    st.text("+0123456789ab;=@?&%:.-*# /\xe9", max_size=40)
    | st.text(max_size=30).filter(lambda text: not {"\r", "\n"} & set(text)),
)
def test_whatever_target_a_peer_names_is_refused_or_can_be_told(scheme: str, rest: str) -> None:
    headers = Headers([("Refer-To", f"<{scheme}{rest}>".encode("utf-8", "replace").decode())])
    try:
        target = read_refer_to(Request("REFER", "sip:a@b", headers))
    except RemoteProtocolError:
        return
    assert asked_target(target.uri)


def test_what_the_call_is_told() -> None:
    assert leg_event(Referred(SESSION, 180, final=False, accepted=True)) == ReferProgress(180, final=False)
    assert leg_event(Referred(SESSION, 603, final=True, accepted=False)) == ReferProgress(603, final=True, accepted=False)
    assert leg_event(Referred(SESSION, 0, final=True, accepted=True)) is None
    assert leg_event(TransferRequested(SESSION, f"sip:{NUMBER}@x", "a;to-tag=1;from-tag=2", None)) == TransferAsked(
        NUMBER, "a;to-tag=1;from-tag=2"
    )


# -- over a real line


def answer(call: TakenCall) -> None:
    call.leg.answer()


@dataclass
class Talking:
    """A server with one answered call, and a second line of the same peer."""

    machine: AnsweringMachine
    first: Line
    caller: Caller
    second: Line

    @property
    def call(self) -> TakenCall:
        return self.machine.calls[0]

    def value(self) -> str:
        return f"{self.caller.call_id};to-tag={self.caller.to_tag};from-tag={self.caller.from_tag}"

    def invite(self, value: str) -> Caller:
        other = self.second.caller(call_id="call-2@phone", from_tag="ft2")
        self.second.send(other.invite(sdp(host="127.0.0.1"), [("Replaces", value), ("Require", "replaces")]))
        return other


async def connect(end: Line, caller: Caller) -> None:
    end.send(caller.invite(sdp(host="127.0.0.1")))
    assert await end.status() == 100
    ok = await end.next()
    assert isinstance(ok, Response)
    assert ok.status == 200
    caller.learn(ok)
    end.send(caller.ack())


@asynccontextmanager
async def talking(trunk: Trunk = LOCAL_TRUNK, media_timeout_s: float = 30.0) -> AsyncIterator[Talking]:
    async with (
        answering_machine(trunks=[trunk], treat=answer, media_timeout_s=media_timeout_s) as machine,
        line(here(machine)) as one,
        line(here(machine)) as two,
    ):
        caller = one.caller()
        await connect(one, caller)
        yield Talking(machine, one, caller, two)


@pytest.mark.parametrize("mode", list(TransferMode))
async def test_the_mode_is_the_trunks(mode: TransferMode) -> None:
    async with talking(replace(LOCAL_TRUNK, transfer=mode)) as case:
        assert case.call.leg.transfer_mode is mode


async def test_a_target_that_cannot_be_called_is_told_as_a_refusal() -> None:
    async with talking() as case:
        case.call.leg.refer("")
        await case.machine.until(lambda: ReferProgress(400, final=True, accepted=False) in case.call.events)
        assert case.call.endings == []


async def test_an_attended_transfer_between_two_calls() -> None:
    async with talking() as case:
        other = case.second.caller(call_id="call-2@phone", from_tag="ft2")
        await connect(case.second, other)
        case.call.leg.refer(NUMBER, case.machine.calls[1].leg)
        refer = await case.first.next()
        assert isinstance(refer, Request)
        assert refer.headers.get("Refer-To") == (
            f"<sip:{NUMBER}@127.0.0.1:5070?Replaces=call-2%40phone%3Bto-tag%3Dft2%3Bfrom-tag%3D{other.to_tag}>"
        )


async def test_a_peer_may_be_silent_while_it_calls_the_other_party() -> None:
    async with talking(media_timeout_s=1.5) as case:
        case.call.leg.refer(NUMBER)
        refer = await case.first.next()
        assert isinstance(refer, Request)
        case.first.send(bytes(refer.reply(202)))
        await connect(case.second, case.second.caller(call_id="call-2@phone", from_tag="ft2"))
        await case.machine.until(lambda: [end.reason for end in case.machine.calls[1].endings] == ["media-timeout"])
        assert case.call.endings == []
        headers = [("Event", "refer"), ("Subscription-State", "terminated")]
        case.first.send(case.caller.write("NOTIFY", headers, b"SIP/2.0 486 Busy Here\r\n", "message/sipfrag"))
        await case.machine.until(lambda: [end.reason for end in case.call.endings] == ["media-timeout"])
        assert ReferProgress(486, final=True) in case.call.events


async def test_a_line_of_another_server_cannot_be_named_to_the_peer() -> None:
    async with talking() as case, talking() as elsewhere:
        case.call.leg.refer(NUMBER, elsewhere.call.leg)
        await case.machine.until(lambda: ReferProgress(481, final=True, accepted=False) in case.call.events)


async def test_a_call_takes_the_place_of_another() -> None:
    async with talking() as case:
        handed: list[tuple[CallAttempt, Leg]] = []

        def take_over(attempt: CallAttempt, leg: OfferedLeg, replaced: Leg) -> None:
            handed.append((attempt, replaced))
            leg.answer()
            replaced.hang_up()

        case.machine.server.on_replacing = take_over
        other = case.invite(case.value())
        assert [await case.second.status(), await case.second.status()] == [100, 200]
        bye = await case.first.next()
        assert isinstance(bye, Request)
        assert bye.method == "BYE"
        case.first.send(bytes(bye.reply(200)))
        await case.machine.until(lambda: case.call.endings == [LegEnded("hung-up")])
        [(attempt, replaced)] = handed
        assert (attempt.line_call_id, attempt.account, replaced) == (other.call_id, "acme", case.call.leg)
        assert len(case.machine.calls) == 1


async def test_calls_are_not_replaced_unless_somebody_does_it() -> None:
    async with talking() as case:
        other = case.invite(case.value())
        assert [await case.second.status(), await case.second.status()] == [100, 603]
        case.second.send(other.ack_failure())
        assert case.call.endings == []


async def test_another_account_replaces_nothing() -> None:
    async with talking() as case:
        case.machine.directory.replace([replace(LOCAL_TRUNK, name="other", account="globex")])
        case.invite(case.value())
        assert await case.second.status() == 403


async def test_a_source_of_several_accounts_replaces_nothing() -> None:
    async with talking() as case:
        case.machine.directory.replace([LOCAL_TRUNK, replace(LOCAL_TRUNK, name="other", account="globex")])
        case.invite(case.value())
        assert await case.second.status() == 403


async def test_a_call_that_is_not_there_is_not_replaced() -> None:
    async with talking() as case:
        case.invite("nothing@phone;to-tag=1;from-tag=2")
        assert await case.second.status() == 481

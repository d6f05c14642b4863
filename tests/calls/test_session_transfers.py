"""Whole calls on virtual time, with the real agent: callers who are put through."""

from __future__ import annotations

import asyncio

import pytest

from switchhook.calls.transfer import WaitingSound
from switchhook.domain.dialling import DialRefused
from switchhook.domain.model import TransferMode
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.ports import (
    DigitPressed,
    LegAnswered,
    LegEnded,
    ReferProgress,
)
from tests.calls.fakes import (
    FakePlayout,
)
from tests.calls.house import (
    House,
    asks_for_transfer,
    briefings,
    call_item,
    consult_item,
    consulting,
    live,
    outputs,
    transfer_item,
    transferring,
)


def test_a_blind_transfer_lets_the_caller_talk_with_the_destination() -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=False)
        assert house.joining.waiting == {id(house.leg): WaitingSound.RINGBACK}
        assert house.dialer.requests[0].called == "+13035551212"
        assert house.leg.on_audio is None, "the agent hears nothing of the waiting"
        house.callee(LegAnswered())
        assert house.joining.joined == [(house.leg, house.dialer.legs[0])]
        assert house.joining.waiting == {}
        assert not house.agents.links[0].is_open
        await asyncio.sleep(1000)
        house.leg.emit(DigitPressed("7"))
        assert house.joining.digits == ["7"]
        house.callee(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")
    (record,) = house.book.reports[0].transfers
    assert (record.called, record.result, record.sip_status) == ("+13035551212", "connected", 200)
    assert house.leg.done[-1] == "hang up"


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (LegEnded("refused", "", 486), "busy"),
        (LegEnded("no-answer"), "no-answer"),
        (LegEnded("refused", "", 404), "unreachable"),
        (LegEnded("refused", "", 603), "declined"),
        (LegEnded("trunk-failed", "", 503), "trunk-error"),
    ],
)
def test_a_failed_transfer_returns_to_the_agent_with_what_came_of_it(end: LegEnded, result: str) -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=False)
        asked = len(house.sent("response.create"))
        house.callee(end)
        assert outputs(house)["t-blind"] == {"status": "failed", "result": result}
        assert len(house.sent("response.create")) == asked + 1, "the agent goes on"
        assert house.leg.on_audio is not None, "and hears the caller"
        assert house.joining.waiting == {}
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == [result]


def test_an_attended_transfer_is_briefed_and_accepted() -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=True)
        assert house.joining.waiting == {id(house.leg): WaitingSound.HOLD}
        house.callee(LegAnswered())
        callee = house.dialer.legs[0]
        assert callee.on_audio is not None, "the agent hears the destination"
        assert house.leg.on_audio is None
        tools = house.sent("session.update")[-1]["session"]["tools"]
        assert [tool["name"] for tool in tools] == ["complete_transfer", "cancel_transfer"]
        house.model("response.created", response={"id": "r2"})
        house.speaks("r2", "m2")
        assert isinstance(callee.playout, FakePlayout)
        assert callee.playout.played, "the destination hears the agent"
        house.model("response.output_item.done", response_id="r2", item=consult_item("complete_transfer"))
        assert house.joining.joined == [(house.leg, callee)]
        house.model("response.done", response={"id": "r2", "status": "cancelled"})
        assert not house.agents.links[0].is_open
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")
    assert [record.result for record in house.book.reports[0].transfers] == ["connected"]


@pytest.mark.parametrize("how", ["tool", "voicemail", "digit", "goodbye", "gone", "late"])
def test_an_attended_transfer_that_is_not_taken_returns_to_the_caller(how: str) -> None:
    house = House()

    async def story() -> None:
        await consulting(house)
        house.model("response.created", response={"id": "r2"})
        if how == "tool":
            house.model("response.output_item.done", response_id="r2", item=consult_item("cancel_transfer"))
        elif how == "voicemail":
            item = consult_item("cancel_transfer") | {"arguments": '{"reason":"voicemail"}'}
            house.model("response.output_item.done", response_id="r2", item=item)
        elif how == "digit":
            house.callee(DigitPressed("2"))
        elif how == "goodbye":
            house.model("response.output_item.done", response_id="r2", item=call_item(0))
        elif how == "gone":
            house.callee(LegEnded("callee-hung-up"))
        else:
            house.model("response.done", response={"id": "r2", "status": "completed", "output": []})
            await asyncio.sleep(61)
        house.model("response.done", response={"id": "r2", "status": "completed", "output": []})
        assert outputs(house)["t-attended"]["result"] == {"gone": "dropped", "voicemail": "voicemail"}.get(how, "declined")
        assert house.leg.on_audio is not None
        assert house.sent("session.update")[-1]["session"]["tools"] == [], "the two tools are gone again"
        assert house.agents.links[0].is_open
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_a_caller_who_gives_up_on_hold_ends_the_call_of_the_destination() -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=True)
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == ["cancelled"]


@pytest.mark.parametrize(("status", "accepted", "result"), [(200, True, "connected"), (486, True, "busy")])
def test_a_line_whose_peer_transfers_is_asked_by_refer(status: int, accepted: bool, result: str) -> None:
    house = House()
    house.leg.transfer_mode = TransferMode.REFER

    async def story() -> None:
        await transferring(house, attended=False)
        assert house.leg.done[-1] == "refer +13035551212"
        house.leg.emit(ReferProgress(202, final=False))
        house.leg.emit(ReferProgress(status, final=True, accepted=accepted))
        if result != "connected":
            assert outputs(house)["t-blind"]["result"] == result
            house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    report = house.book.reports[0]
    assert [record.result for record in report.transfers] == [result]
    assert report.referred_out is (result == "connected")


def test_a_refused_refer_becomes_a_bridge() -> None:
    house = House()
    house.leg.transfer_mode = TransferMode.REFER

    async def story() -> None:
        await transferring(house, attended=False)
        house.leg.emit(ReferProgress(603, final=True, accepted=False))
        assert house.dialer.requests[0].called == "+13035551212"
        house.callee(LegAnswered())
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert not house.book.reports[0].referred_out


def test_a_number_that_the_policy_refuses_is_not_dialled() -> None:
    house = House()
    house.gate.refusal = DialRefused("country", "GB is not among the countries")

    async def story() -> None:
        await transferring(house, attended=False)
        assert outputs(house)["t-blind"]["result"] == "policy"
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert not house.dialer.requests
    assert "country" in house.book.reports[0].transfers[0].detail


def test_an_outbound_call_keeps_the_policys_limit_when_it_is_put_through() -> None:
    house = House()
    house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.callee(LegAnswered())
        asks_for_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        await asyncio.sleep(3601)
        assert house.dialer.legs[0].done[-1] == "hang up"

    live(house, story)


def test_a_goodbye_that_a_transfer_overtakes_does_not_end_the_call() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.model("response.created", response={"id": "r1"})
        house.model("response.output_item.done", response_id="r1", item=call_item(0))
        house.model("response.output_item.done", response_id="r1", item=transfer_item(False))
        house.model("response.done", response={"id": "r1", "status": "completed", "output": []})
        await asyncio.sleep(0.1)
        house.model("response.created", response={"id": "r2"})
        house.model("response.done", response={"id": "r2", "status": "cancelled", "output": []})
        asked = len(house.sent("response.create"))
        await asyncio.sleep(20)
        assert len(house.sent("response.create")) == asked, "nobody would hear it"
        house.callee(LegEnded("refused", "", 486))
        assert outputs(house)["t-blind"]["result"] == "busy"
        assert len(house.sent("response.create")) > asked, "the agent goes on"
        assert house.agents.links[0].is_open
        assert house.leg.on_audio is not None
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_a_model_that_is_replaced_while_the_destination_is_briefed_is_told_with_whom_it_talks() -> None:
    house = House()

    async def story() -> None:
        await consulting(house)
        house.lost()
        for link in house.agents.links:
            link.sent.clear()
        house.establish()
        assert any("is on hold" in text for text in briefings(house))
        assert [tool["name"] for tool in house.sent("session.update")[-1]["session"]["tools"]] == [
            "complete_transfer",
            "cancel_transfer",
        ]
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)

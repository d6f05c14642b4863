"""`vns_transfer_call`: what the model may write, and what it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.vns.transfer import result_word
from switchhook.domain.dialling import DialResult
from switchhook.domain.model import Direction, ToolCall, TransferRecord
from switchhook.domain.plan import TransferOrder
from tests.api.vns.cases import VNS, attempt, plan_of, reply_with

PLAN = plan_of(reply_with({}))
NOW = datetime(2026, 3, 12, 10, 43, 1, tzinfo=UTC)


def order(arguments: str, outbound: bool = False) -> TransferOrder | str:
    call = attempt()
    if outbound:
        call = replace(call, direction=Direction.OUTBOUND, called="+13035550000", caller="7206999999")
    return VNS.transfer_order(PLAN, call, ToolCall("c", "vns_transfer_call", arguments))


def test_the_caller_is_shown_unless_the_vns_number_is_asked_for() -> None:
    blind = order('{"transferNumber": "+13035551212"}')
    assert isinstance(blind, TransferOrder)
    assert (blind.called, blind.caller, blind.caller_name, blind.attended) == (
        "+13035551212",
        "+13032639999",
        "Ada Caller",
        False,
    )
    ours = order('{"transferNumber": "+13035551212", "useVnsNumberAsCallerId": true, "attended": "true"}')
    assert isinstance(ours, TransferOrder)
    assert (ours.caller, ours.caller_name, ours.attended) == (PLAN.number.number, None, True)


def test_of_an_outbound_call_the_party_is_the_one_we_called() -> None:
    shown = order('{"transferNumber": "+13035551212"}', outbound=True)
    assert isinstance(shown, TransferOrder)
    assert shown.caller == "+13035550000"


@pytest.mark.parametrize("arguments", ["{}", "[]", "nonsense", '{"transferNumber": ""}', '{"transferNumber": null}', ""])
def test_without_a_number_the_model_is_told_so(arguments: str) -> None:
    told = order(arguments)
    assert isinstance(told, str)
    assert json.loads(told)["status"] == "failed"
    assert "transferNumber" in json.loads(told)["reason"]


@given(st.text())
def test_any_arguments_are_taken(arguments: str) -> None:
    assert isinstance(order(arguments), TransferOrder | str)


@pytest.mark.parametrize("result", DialResult)
def test_every_result_has_a_word_of_the_contract(result: DialResult) -> None:
    words = ("Connected", "Successful", "MachineDetected", "NoAnswer", "Busy", "OperatorIntercept", "Failed", "Error")
    assert result_word(result.value) in words
    record = TransferRecord("+13035551212", "3032639999", None, NOW, NOW, result.value)
    told = json.loads(VNS.transfer_output(record))
    assert (told["status"], told["transferCallResult"]) == ("failed", result_word(result.value))

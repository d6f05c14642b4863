"""What a finished call cost: in its record, under any contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from switchhook.domain.contract import HttpReply
from switchhook.domain.model import CallId
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import AgentSpec, Answer, CallPlan, Converse, HangUp, Refusal
from switchhook.domain.records import OutboxEvent
from switchhook.domain.report import CallReport
from switchhook.store.opened import Store
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.costs import as_record, call_costs
from switchhook.usecases.incoming import Incoming
from switchhook.usecases.model_names import ModelNames
from switchhook.usecases.prices import load_prices
from tests.usecases.fakes import DOWN, NUMBER, START, Customer, PlainContract, SteppedClock, always, attempt

PRICES = load_prices()
USAGE = {"input_text": 365, "input_audio": 90, "output_text": 45, "output_audio": 109}
AI = {"input_text": "0.00146", "input_audio": "0.00288", "input_image": "0", "output_text": "0.00072", "output_audio": "0.006976"}


def plan_with(model: str | None = "gpt-realtime-1.5", **fields: object) -> CallPlan:
    spec = AgentSpec("wss://ai/rt" + (f"?model={model}" if model else ""))
    return replace(CallPlan(NUMBER, (Answer(), Converse(spec), HangUp())), **fields)  # type: ignore[arg-type]  # any field of it


def report(usage: Mapping[str, int] = USAGE, line: str = "sip", connected: bool = True) -> CallReport:
    return CallReport(
        replace(attempt(), line=line),
        NUMBER,
        Verdict(Ending.COMPLETED, "caller-hung-up"),
        START if connected else None,
        START + timedelta(seconds=46.92),
        end_webhook_owed=True,
        usage=usage,
    )


def test_a_sip_call_costs_its_tokens_and_what_its_trunk_costs_nobody_knows() -> None:
    costs = call_costs(report(), plan_with(), PRICES)
    assert as_record(costs) == AI
    assert (costs.parts["carrier"], costs.total) == (None, None)


def test_a_twilio_call_costs_its_unrounded_seconds_too() -> None:
    costs = call_costs(report(line="twilio"), plan_with(), PRICES)
    assert as_record(costs) == {**AI, "carrier": "0.006647", "total": "0.018683"}
    assert as_record(call_costs(report(), plan_with(carrier="twilio"), PRICES)) == as_record(costs)


def test_a_plan_may_name_its_own_price() -> None:
    costs = call_costs(report(line="twilio"), plan_with(carrier_usd_per_minute=Decimal("0.01")), PRICES)
    assert costs.parts["carrier"] == Decimal("0.00782")


@pytest.mark.parametrize("model", [None, "gpt-unheard-of"])
def test_an_unknown_model_is_no_guess(model: str | None) -> None:
    assert as_record(call_costs(report(line="twilio"), plan_with(model), PRICES)) == {"carrier": "0.006647"}


def test_tokens_that_were_told_apart_in_part_are_no_guess() -> None:
    """One response of several, or one kind of tokens, was counted without a word of what it was of."""
    whole = {"input": 455, "output": 154}
    assert as_record(call_costs(report({**USAGE, **whole}), plan_with(), PRICES)) == AI
    output = {name: amount for name, amount in AI.items() if name.startswith("output")}
    assert as_record(call_costs(report({**USAGE, **whole, "input": 456}), plan_with(), PRICES)) == output
    assert as_record(call_costs(report({**USAGE, **whole, "input": 456, "output": 155}), plan_with(), PRICES)) == {}
    assert as_record(call_costs(report({**USAGE, "cached": 9}), plan_with(), PRICES)) == output, "which of them were cached?"
    assert len(as_record(call_costs(report({**USAGE, "cached": 9, "cached_text": 9}), plan_with(), PRICES))) == 5
    plan = CallPlan(NUMBER, (Answer(), HangUp()))
    assert call_costs(report({"input": 5}, "twilio"), plan, PRICES).total is not None


def test_a_call_without_an_agent_costs_no_tokens() -> None:
    plan = CallPlan(NUMBER, (Answer(), HangUp()))
    assert as_record(call_costs(report({}, "twilio"), plan, PRICES))["total"] == "0.006647"
    assert as_record(call_costs(report({}, "twilio", connected=False), plan, PRICES))["total"] == "0"


class Tacit(PlainContract):
    tells_of_refused_calls = False


@pytest.mark.parametrize("contract", [PlainContract(), Tacit()])
async def test_the_contract_decides_whether_a_refused_call_is_told_of(
    store: Store, customer: Customer, clock: SteppedClock, contract: PlainContract
) -> None:
    customer.answers["start"] = always(DOWN)
    decision = await Incoming(store.directory, store.calls, {"plain": contract}, customer, clock).route(attempt())
    assert isinstance(decision, Refusal)
    assert decision.end_webhook_owed is contract.tells_of_refused_calls
    queued: list[OutboxEvent] = []
    book = CallBookkeeper(store.calls, {"plain": contract}, customer, clock, queued.append)
    await book.finish(replace(report({}, connected=False), end_webhook_owed=decision.end_webhook_owed))
    assert len(queued) == contract.tells_of_refused_calls
    record = await store.calls.get(CallId("call-1"))
    assert record is not None
    assert (record.ended_at is not None, record.end_webhook_owed) == (True, contract.tells_of_refused_calls)


async def test_costs_are_kept_with_the_call(
    store: Store, contract: PlainContract, customer: Customer, clock: SteppedClock
) -> None:
    await Incoming(store.directory, store.calls, {"plain": contract}, customer, clock).route(attempt())
    book = CallBookkeeper(store.calls, {"plain": contract}, customer, clock, lambda event: None, PRICES)
    book.open(attempt(), plan_with())
    await book.finish(report(line="twilio"))
    record = await store.calls.get(CallId("call-1"))
    assert record is not None
    assert record.costs == {**AI, "carrier": "0.006647", "total": "0.018683"}


async def test_a_retired_model_is_replaced_when_the_operator_opted_in(
    store: Store, contract: PlainContract, customer: Customer, clock: SteppedClock
) -> None:
    class Old(PlainContract):
        def read_start_outcome(self, *_: object) -> CallPlan | Refusal:
            return plan_with("gpt-realtime")

    customer.answers["start"] = always(HttpReply(200, b"{}"))
    names = ModelNames({"gpt-realtime": "gpt-realtime-2.1"}, PRICES)
    decision = await Incoming(store.directory, store.calls, {"plain": Old()}, customer, clock, names).route(attempt())
    assert isinstance(decision, CallPlan)
    assert decision.flow[1] == Converse(AgentSpec("wss://ai/rt?model=gpt-realtime-2.1"))

from __future__ import annotations

import asyncio
import json

import pytest

from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId, Number
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import CallPlan, Refusal
from switchhook.domain.records import CallRecord, DirectoryUpdate
from switchhook.store.opened import Store
from switchhook.usecases.incoming import Incoming
from tests.usecases.fakes import DOWN, NUMBER, Customer, PlainContract, SteppedClock, always, attempt
from tests.usecases.running import until


@pytest.fixture
def incoming(store: Store, contract: PlainContract, customer: Customer, clock: SteppedClock) -> Incoming:
    return Incoming(store.directory, store.calls, {"plain": contract}, customer, clock)


@pytest.mark.parametrize(
    "called",
    ["+17206999999", "17206999999", "7206999999", "+1 (720) 699-9999", "720.699.9999", "+17206999999;npdi=yes", "0117206999999"],
)
async def test_a_number_is_found_in_every_form(incoming: Incoming, called: str) -> None:
    decision = await incoming.route(attempt(called=called))
    if called.startswith("011"):
        assert isinstance(decision, Refusal)
    else:
        assert isinstance(decision, CallPlan)
        assert decision.number == NUMBER


@pytest.mark.parametrize("called", ["+17200000000", "alice", "", "+", "1000", "+17206999999x"])
async def test_an_unknown_number_is_refused_without_a_word_to_anyone(
    incoming: Incoming, customer: Customer, store: Store, called: str
) -> None:
    decision = await incoming.route(attempt(called=called))
    assert isinstance(decision, Refusal)
    assert (decision.status, decision.ending, decision.reason) == (404, Ending.REJECTED, "unknown-number")
    assert not decision.end_webhook_owed
    assert customer.requests == []
    assert await store.calls.get(CallId("call-1")) is None


async def test_a_number_of_another_account_is_not_found(incoming: Incoming, customer: Customer) -> None:
    decision = await incoming.route(attempt(account="other"))
    assert isinstance(decision, Refusal)
    assert (decision.status, decision.reason) == (404, "unknown-number")
    assert decision.message == "+17206999999 belongs to account acme, the trunk to other"
    assert customer.requests == []


async def test_a_line_without_an_account_finds_any_number(incoming: Incoming) -> None:
    assert isinstance(await incoming.route(attempt(account=None)), CallPlan)


async def test_the_record_is_committed_before_the_customer_hears_of_the_call(
    incoming: Incoming, customer: Customer, store: Store, clock: SteppedClock
) -> None:
    found: list[CallRecord | None] = []
    gate = customer.gates["start"] = asyncio.Event()
    routing = asyncio.ensure_future(incoming.route(attempt()))
    await until(lambda: customer.waiting == 1)
    found.append(await store.calls.get(CallId("call-1")))
    gate.set()
    assert isinstance(await routing, CallPlan)
    (record,) = found
    assert record is not None
    assert (record.account, record.number, record.contract) == ("acme", "+17206999999", "plain")
    assert record.call_start_sent_at == clock.utc()
    assert record.end_webhook_owed
    assert [json.loads(body) for body in customer.bodies("start")] == [{"call": "call-1"}]


@pytest.mark.parametrize("outcome", [DOWN, HttpFailure("timeout", "10 s", 10_000), HttpReply(500, b"")])
async def test_a_failed_start_webhook_owes_the_end_webhook(incoming: Incoming, customer: Customer, outcome: HttpOutcome) -> None:
    customer.answers["start"] = always(outcome)
    decision = await incoming.route(attempt())
    assert isinstance(decision, Refusal)
    assert (decision.status, decision.ending, decision.number) == (480, Ending.CALL_START_FAILED, NUMBER)
    assert decision.end_webhook_owed


@pytest.mark.parametrize("method", ["start_request", "read_start_outcome"])
async def test_a_fault_of_the_contract_is_a_refusal(incoming: Incoming, contract: PlainContract, method: str) -> None:
    contract.broken = method
    decision = await incoming.route(attempt())
    assert isinstance(decision, Refusal)
    assert (decision.status, decision.ending, decision.number) == (480, Ending.CALL_START_FAILED, NUMBER)
    assert decision.end_webhook_owed


async def test_an_unknown_contract_is_named(incoming: Incoming, store: Store, customer: Customer) -> None:
    await store.directory.write(DirectoryUpdate(numbers=(Number("+17206999998", "acme", "veevo", {}),)))
    decision = await incoming.route(attempt(called="+17206999998"))
    assert isinstance(decision, Refusal)
    assert (decision.status, decision.reason) == (480, "unknown-contract")
    assert "veevo" in (decision.message or "")
    assert customer.requests == []


class BrokenStore:
    """A database that is away."""

    async def find_number(self, number: str) -> Number | None:
        raise StoreUnavailable


async def test_a_store_that_is_away_refuses_the_call(
    store: Store, contract: PlainContract, customer: Customer, clock: SteppedClock
) -> None:
    incoming = Incoming(BrokenStore(), store.calls, {"plain": contract}, customer, clock)
    decision = await incoming.route(attempt())
    assert isinstance(decision, Refusal)
    assert (decision.status, decision.ending, decision.reason) == (480, Ending.INTERNAL_ERROR, "store-unavailable")


async def test_a_caller_who_gives_up_ends_the_routing(incoming: Incoming, customer: Customer) -> None:
    customer.gates["start"] = asyncio.Event()
    routing = asyncio.ensure_future(incoming.route(attempt()))
    await until(lambda: customer.waiting == 1)
    routing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await routing


def _token(request: HttpRequest) -> str | None:
    return request.headers.get("Token")


async def test_the_customers_headers_go_with_it(incoming: Incoming, customer: Customer) -> None:
    await incoming.route(attempt())
    assert [_token(request) for request in customer.requests] == ["abc"]

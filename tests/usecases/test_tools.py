from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from switchhook.domain.contract import HttpReply
from switchhook.domain.model import ToolCall
from switchhook.domain.plan import JournalSpec
from switchhook.usecases.tools import BROKEN, WebhookTools
from tests.usecases.fakes import DOWN, EVERYTHING, Customer, PlainContract, SteppedClock, always, attempt, plan
from tests.usecases.running import until


class House:
    """Tools of one call with the lines they wrote."""

    def __init__(self, contract: PlainContract, customer: Customer, journal: JournalSpec = EVERYTHING) -> None:
        self.lines: list[str] = []
        self.tools = WebhookTools(plan(journal=journal), attempt(), contract, customer, SteppedClock(), self._write)

    def _write(self, text: str, at: datetime) -> None:
        self.lines.append(text)


def call(name: str = "lookup", arguments: str = '{"a":1}') -> ToolCall:
    return ToolCall("c1", name, arguments)


async def test_a_customers_tool_is_posted_and_its_reply_handed_back(contract: PlainContract, customer: Customer) -> None:
    customer.answers["tool"] = always(HttpReply(201, b'{"found":true}'))
    house = House(contract, customer)
    assert await house.tools.run(call()) == '{"found":true}'
    assert customer.bodies("tool") == [b'{"a":1}']
    assert house.lines == ['request lookup {"a":1}', 'reply lookup {"found":true}']


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        (JournalSpec(), []),
        (JournalSpec(transcript=True), []),
        (JournalSpec(tool_requests=True), ['request lookup {"a":1}']),
        (JournalSpec(tool_replies=True), ["reply lookup {}"]),
    ],
)
async def test_what_was_not_asked_for_is_not_logged(
    contract: PlainContract, customer: Customer, journal: JournalSpec, expected: list[str]
) -> None:
    house = House(contract, customer, journal)
    await house.tools.run(call())
    assert house.lines == expected


async def test_the_gateways_own_tools_reach_nobody(contract: PlainContract, customer: Customer) -> None:
    house = House(contract, customer)
    assert await house.tools.run(call("what_time")) == "utc_datetime at 16:26:12"
    assert await house.tools.run(call("spare_info")) == "call_info at 16:26:12"
    assert customer.requests == []


async def test_a_tool_that_fails_or_has_no_url_still_gives_an_output(contract: PlainContract, customer: Customer) -> None:
    customer.answers["tool"] = always(DOWN)
    house = House(contract, customer)
    assert await house.tools.run(call()) == "failed: unreachable"
    assert await house.tools.run(call("homeless")) == "no url"


async def test_a_fault_of_the_contract_still_gives_an_output(contract: PlainContract, customer: Customer) -> None:
    contract.broken = "tool_request"
    assert await House(contract, customer).tools.run(call()) == BROKEN


async def test_tools_run_side_by_side(contract: PlainContract, customer: Customer) -> None:
    gate = customer.gates["tool"] = asyncio.Event()
    house = House(contract, customer)
    running = asyncio.gather(*(house.tools.run(call(arguments=str(number))) for number in range(3)))
    await until(lambda: customer.waiting == 3)
    gate.set()
    assert await running == ["{}"] * 3


async def test_a_tool_that_is_not_waited_for_is_noted(contract: PlainContract, customer: Customer) -> None:
    customer.gates["tool"] = asyncio.Event()
    house = House(contract, customer)
    running = asyncio.ensure_future(house.tools.run(call()))
    await until(lambda: customer.waiting == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert house.lines[-1].startswith("Tool lookup: not waited for any longer")

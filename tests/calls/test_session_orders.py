"""Whole calls on virtual time, with the real agent: whatever arrives, in whatever order, everything is given back."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.domain.model import TransferMode
from switchhook.domain.outcome import Ending
from switchhook.domain.plan import (
    Answer,
    CallPlan,
    HangUp,
    Refusal,
    Say,
)
from tests.calls.house import (
    EVENTS,
    NUMBER,
    House,
    live,
)
from tests.peers.virtual_loop import run_virtual

DECISIONS = [
    None,
    Refusal(480, Ending.CALL_START_FAILED, "timeout", end_webhook_owed=True),
    CallPlan(NUMBER, (Answer(), Say("closed"), HangUp()), ending=Ending.CALL_START_FAILED),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(sorted(EVENTS))), max_size=20),
    decision=st.sampled_from(DECISIONS),
    answers=st.booleans(),
    confirms=st.booleans(),
    tool_s=st.sampled_from([0.0, 1.0, 100.0]),
    mode=st.sampled_from(TransferMode),
    outbound=st.booleans(),
)
def test_every_order_of_events_gives_everything_back(
    script: list[tuple[float, str]],
    decision: CallPlan | Refusal | None,
    answers: bool,
    confirms: bool,
    tool_s: float,
    mode: TransferMode,
    outbound: bool,
) -> None:
    house = House(decision, tool_s)
    house.leg.answers, house.leg.confirms, house.leg.transfer_mode = answers, confirms, mode
    if outbound:
        house.call_out()

    async def story() -> None:
        for gap, name in script:
            await asyncio.sleep(gap)
            EVENTS[name](house)

    live(house, story)
    outputs = [
        frame["item"]["call_id"]
        for frame in house.sent("conversation.item.create")
        if frame["item"].get("type") == "function_call_output"
    ]
    assert len(outputs) == len(set(outputs)), "a tool is answered once"


def sabotage(house: House, what: str) -> None:
    """Make one collaborator raise whenever it is asked."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"{what} is broken")

    owner, _, name = what.partition(".")
    targets: dict[str, object] = {"leg": house.leg, "playout": house.leg.playout, "recorders": house.recorders}
    if owner == "link":
        link = house.agents.link

        def bad_link(*args: Any) -> Any:
            made = link(*args)
            setattr(made, name, broken)
            return made

        setattr(house.agents, "link", bad_link)  # noqa: B010 - the type checker need not know
    elif owner == "journal":
        setattr(house.journal, name, broken)
    else:
        setattr(targets[owner], name, broken)


BREAKABLE = [
    *(f"leg.{name}" for name in ("ring", "answer", "reject", "hang_up", "close", "listen", "tap")),
    *(f"link.{name}" for name in ("open", "send", "close")),
    *(f"playout.{name}" for name in ("enqueue", "finish", "interrupt")),
    *(f"journal.{name}" for name in ("utterance", "log", "answered")),
    *("recorders.open", "recorders.stop"),
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    what=st.sampled_from(BREAKABLE),
    script=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(sorted(EVENTS))), max_size=12),
)
def test_a_broken_part_costs_one_call_and_still_gives_it_a_record(what: str, script: list[tuple[float, str]]) -> None:
    house = House()
    sabotage(house, what)

    async def story() -> None:
        for gap, name in script:
            await asyncio.sleep(gap)
            EVENTS[name](house)

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(story())
            await asyncio.wait_for(house.session.run(), 100_000)
        assert len(house.book.reports) == 1
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    run_virtual(both())

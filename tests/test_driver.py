"""The driver and the virtual clock hold to one rule: one input, all effects, one timer."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from switchhook.driver import Driver, simulate
from tests.peers.virtual_loop import run_virtual


class Echo:
    """Repeats what it was given after a second, and then every second until told to stop."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.deadline: float | None = None
        self.word = ""

    def say(self, word: str, now: float) -> None:
        self.word = word
        self.effects.append(f"heard {word}")
        self.deadline = now + 1

    def hush(self, now: float) -> None:
        self.deadline = None

    def tick(self, now: float) -> None:
        self.effects.append(f"echo {self.word}")
        self.deadline = now + 1

    def take(self) -> list[str]:
        effects, self.effects = self.effects, []
        return effects


def test_simulation_jumps_from_deadline_to_deadline() -> None:
    machine = Echo()
    seen = simulate(machine, [(0.5, lambda now: machine.say("a", now)), (2.7, machine.hush)], until=100)
    assert seen == [(0.5, "heard a"), (1.5, "echo a"), (2.5, "echo a")]


def test_at_one_instant_the_input_goes_first() -> None:
    machine = Echo()
    seen = simulate(machine, [(0, lambda now: machine.say("a", now)), (1, machine.hush)], until=10)
    assert seen == [(0, "heard a")]


def test_a_deadline_that_does_not_move_is_a_fault() -> None:
    class Stuck(Echo):
        def tick(self, now: float) -> None:
            self.effects.append("again")

    machine = Stuck()
    with pytest.raises(AssertionError, match="Stuck keeps the deadline"):
        simulate(machine, [(0, lambda now: machine.say("a", now))], until=10)


def test_driver_does_what_the_simulation_does() -> None:
    machine = Echo()
    seen: list[tuple[float, str]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = Driver(machine, lambda effect: seen.append((round(loop.time(), 6), effect)))
        await asyncio.sleep(0.5)
        driver.feed(lambda now: machine.say("a", now))
        await asyncio.sleep(2.2)
        driver.feed(machine.hush)
        await asyncio.sleep(5)
        driver.close()

    run_virtual(main())
    assert seen == [(0.5, "heard a"), (1.5, "echo a"), (2.5, "echo a")]


def test_an_effect_may_feed_the_machine_and_order_is_kept() -> None:
    machine = Echo()
    seen: list[str] = []

    async def main() -> None:
        def perform(effect: str) -> None:
            seen.append(effect)
            if effect == "heard a":
                driver.feed(lambda now: machine.say("b", now))
                seen.append("after a")

        driver = Driver(machine, perform)
        driver.feed(lambda now: machine.say("a", now))
        driver.close()

    run_virtual(main())
    assert seen == ["heard a", "after a", "heard b"]


def test_an_earlier_deadline_moves_the_timer_and_a_closed_driver_is_silent() -> None:
    machine = Echo()
    seen: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = Driver(machine, lambda effect: seen.append(round(loop.time(), 6)))
        driver.feed(lambda now: machine.say("a", now))
        machine.deadline = 0.25
        driver.drain()
        await asyncio.sleep(0.3)
        driver.close()
        driver.feed(lambda now: machine.say("b", now))
        await asyncio.sleep(5)

    run_virtual(main())
    assert seen == [0.0, 0.25]


def test_an_input_right_before_a_deadline_is_taken() -> None:
    """On the loop that the server runs on: uvloop gives another kind of handle for a time that is already here."""
    machine = Echo()
    seen: list[str] = []

    async def main() -> None:
        driver = Driver(machine, seen.append)
        driver.feed(lambda now: machine.say("a", now))
        machine.deadline = asyncio.get_running_loop().time()
        driver.drain()
        driver.feed(lambda now: machine.say("b", now))
        driver.feed(machine.hush)
        driver.close()

    uvloop.run(main())
    assert seen == ["heard a", "heard b"]

"""Machines and the one driver that runs them.

A machine holds protocol or conversational state and has no clock, no socket and no await: it is *given* input and `now`, it
*gives back* effects and one deadline. The rule (after str0m): one input, then drain all effects, then arm one timer. When an
input and a deadline fall on the same instant, the input goes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

EffectT = TypeVar("EffectT")


class Machine(Protocol[EffectT]):
    """What the driver and the virtual clock need of a machine; inputs are the machine's own methods."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds at which `tick` is due, or None."""

    def tick(self, now: float) -> None:
        """The deadline passed."""

    def take(self) -> list[EffectT]:
        """Return the effects gathered so far and forget them."""


class Driver:
    """Runs one machine on asyncio: after each input it performs every effect and re-arms one timer.

    `perform` is called for each effect in order; it may feed the machine again through `feed`, which is then run after the
    effects already gathered. The timer is re-armed only when the deadline moves earlier. `on_fault` is told of an exception in an
    input, an effect or `tick`, and the rest goes on; without it the exception is raised where it happened.
    """

    def __init__(
        self, machine: Machine[Any], perform: Callable[[Any], None], on_fault: Callable[[Exception], None] | None = None
    ) -> None:
        self._machine = machine
        self._on_fault = on_fault
        self._perform = perform
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._draining = False
        self._closed = False

    def feed(self, change: Callable[[float], None]) -> None:
        """Give the machine one input: `change` is called with now."""
        if self._closed:
            return
        self._guard(change, self._loop.time())
        self.drain()

    def drain(self) -> None:
        """Perform every effect, then arm the timer; call it after inputs that went to the machine directly."""
        if self._draining or self._closed:
            return
        self._draining = True
        try:
            while effects := self._machine.take():
                for effect in effects:
                    self._guard(self._perform, effect)
        finally:
            self._draining = False
        self._arm()

    def close(self) -> None:
        """Stop for good; idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        deadline = self._machine.deadline
        if self._closed or deadline is None:
            return
        if self._timer is not None:
            if self._due <= deadline:
                return
            self._timer.cancel()
        # The handle is not asked when it is due: uvloop's has no such method when the time is already here.
        self._due = deadline
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._closed:
            return
        now = self._loop.time()
        deadline = self._machine.deadline
        if deadline is not None and deadline <= now:
            self._guard(self._machine.tick, now)
        self.drain()

    def _guard(self, act: Callable[[Any], None], value: Any) -> None:
        """One fault costs one step: the effects after it are still performed and the timer is armed."""
        try:
            act(value)
        except Exception as fault:
            if self._on_fault is None:
                raise
            self._on_fault(fault)


def simulate(
    machine: Machine[EffectT],
    script: Iterable[tuple[float, Callable[[float], None]]],
    until: float,
) -> list[tuple[float, EffectT]]:
    """Run a machine on a virtual clock and return its effects with the times at which it gave them.

    `script` lists inputs as (time, function of now), in order of time. Between them the clock jumps from deadline to deadline;
    at one instant an input goes before a deadline. A deadline that does not move after `tick` is an error of the machine.
    """
    seen: list[tuple[float, EffectT]] = []

    def run_until(limit: float, inclusive: bool) -> None:
        while (due := machine.deadline) is not None and (due < limit or (inclusive and due <= limit)):
            machine.tick(due)
            seen.extend((due, effect) for effect in machine.take())
            after = machine.deadline
            if after is not None and after <= due:
                raise AssertionError(f"{type(machine).__name__} keeps the deadline {due} after tick")

    seen.extend((0.0, effect) for effect in machine.take())
    for at, change in script:
        run_until(at, inclusive=False)
        change(at)
        seen.extend((at, effect) for effect in machine.take())
    run_until(until, inclusive=True)
    return seen

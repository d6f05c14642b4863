"""Limits of one trunk: calls at one time and calls a second."""

from __future__ import annotations

from dataclasses import replace

from switchhook.domain.model import Trunk
from switchhook.telephony.trunk_load import TrunkLoad

TRUNK = Trunk("carrier", "acme", "sip:192.0.2.1")


def taken(load: TrunkLoad, trunk: Trunk, now: float) -> bool:
    """Place a call when there is room."""
    if load.objection(trunk, now) is not None:
        return False
    load.take(trunk, now)
    return True


def test_a_trunk_without_limits_takes_everything() -> None:
    load = TrunkLoad()
    assert all(taken(load, TRUNK, 0.0) for _ in range(500))
    assert load.live("carrier") == 500


def test_no_more_calls_at_one_time_than_allowed() -> None:
    load, trunk = TrunkLoad(), replace(TRUNK, max_calls=2)
    assert [taken(load, trunk, 0.0) for _ in range(3)] == [True, True, False]
    assert load.objection(trunk, 0.0) == "it carries its 2 calls (max_calls)"
    load.give_back(trunk)
    assert load.objection(trunk, 0.0) is None
    assert taken(load, trunk, 0.0)
    for _ in range(5):
        load.give_back(trunk)
    assert load.live("carrier") == 0


def test_no_more_calls_a_second_than_allowed() -> None:
    load, trunk = TrunkLoad(), replace(TRUNK, calls_per_second=2.0)
    assert [taken(load, trunk, 10.0) for _ in range(3)] == [True, True, False]
    assert load.objection(trunk, 10.0) == "it takes 2 calls a second (calls_per_second)"
    assert [taken(load, trunk, 10.5) for _ in range(2)] == [True, False]
    assert load.live("carrier") == 3


def test_a_slow_trunk_takes_one_call_now_and_then() -> None:
    load, trunk = TrunkLoad(), replace(TRUNK, calls_per_second=0.5)
    assert [taken(load, trunk, at) for at in (0.0, 1.0, 2.0, 3.0, 4.0)] == [True, False, True, False, True]


def test_a_limit_that_is_changed_or_lifted_counts_at_once() -> None:
    load = TrunkLoad()
    assert [taken(load, replace(TRUNK, calls_per_second=1.0), 0.0) for _ in range(2)] == [True, False]
    assert taken(load, replace(TRUNK, calls_per_second=5.0), 0.0)
    assert taken(load, TRUNK, 0.0)

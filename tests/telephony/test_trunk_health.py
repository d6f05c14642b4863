"""When a trunk counts as down, and which addresses are tried last; on a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.driver import simulate
from switchhook.telephony.sip_targets import Target
from switchhook.telephony.trunk_health import AVOID_S, MAX_ADDRESSES, MAX_AVOID_S, HealthChanged, Probe, TrunkHealth

HERE = Target("udp", "192.0.2.1", 5060, "carrier.test")
THERE = Target("udp", "192.0.2.2", 5060, "carrier.test")


def probed(health: TrunkHealth, *answers: int | None) -> list[HealthChanged]:
    """Let probes come to these ends, one after another."""
    health.start(0.0)
    changes = []
    for answer in answers:
        due = health.deadline
        assert due is not None
        health.tick(due)
        assert health.take() == [Probe()]
        health.probed(answer, "timeout", due + 0.1)
        changes += [effect for effect in health.take() if isinstance(effect, HealthChanged)]
    return changes


@pytest.mark.parametrize("answer", [200, 404, 405, 483, 500, 401])
def test_any_answer_shows_life(answer: int) -> None:
    health = TrunkHealth(30.0, lambda: 0.5)
    assert probed(health, *[answer] * 5) == []
    assert health.up


@pytest.mark.parametrize("answer", [None, 503, 408])
def test_three_probes_without_life_mark_it_down_and_one_with_brings_it_back(answer: int | None) -> None:
    health = TrunkHealth(30.0, lambda: 0.5)
    [change] = probed(health, answer, answer, answer, answer)
    assert not change.healthy
    assert "3 probes in a row" in change.detail
    assert [health.up, health.avoids(HERE, 0.0)] == [False, True]
    assert probed(health, 200) == [HealthChanged(True, "the peer answers again")]
    assert health.up
    assert not health.avoids(HERE, 0.0)


def test_lost_probes_that_are_not_in_a_row_change_nothing() -> None:
    health = TrunkHealth(30.0, lambda: 0.5)
    assert probed(health, None, None, 200, None, None, 200) == []


def test_probes_come_at_their_interval() -> None:
    health = TrunkHealth(30.0, lambda: 0.5)

    def answer(now: float) -> None:
        health.probed(200, "", now)

    seen = simulate(health, [(0.0, health.start), (1.0, answer), (32.0, answer), (63.0, answer)], until=100.0)
    assert [at for at, effect in seen if effect == Probe()] == [0.5, 31.0, 62.0, 93.0]


def test_without_an_interval_there_are_no_probes() -> None:
    health = TrunkHealth(None, lambda: 0.5)
    health.start(0.0)
    assert health.deadline is None


@pytest.mark.parametrize(
    ("status", "retry_after_s", "avoided_s"),
    [(None, None, AVOID_S), (503, None, AVOID_S), (503, 7, 7.0), (503, 0, 1.0), (503, 86_400, MAX_AVOID_S)],
)
def test_an_address_that_fails_is_tried_last_for_a_while(status: int | None, retry_after_s: int | None, avoided_s: float) -> None:
    health = TrunkHealth(None, lambda: 0.5)
    health.tried(HERE, status, retry_after_s, 100.0)
    assert health.avoids(HERE, 100.0)
    assert health.avoids(HERE, 100.0 + avoided_s - 0.01)
    assert not health.avoids(HERE, 100.0 + avoided_s + 0.01)
    assert not health.avoids(THERE, 100.0)
    assert health.up


@pytest.mark.parametrize("status", [200, 404, 408, 486, 500])
def test_an_address_whose_calls_are_answered_is_not(status: int) -> None:
    health = TrunkHealth(None, lambda: 0.5)
    health.tried(HERE, status, None, 100.0)
    assert not health.avoids(HERE, 100.0)


def test_further_failures_make_it_longer_and_an_answer_ends_it() -> None:
    health = TrunkHealth(None, lambda: 0.5)
    for _ in range(3):
        health.tried(HERE, None, None, 100.0)
    assert health.avoids(HERE, 100.0 + 4 * AVOID_S - 1)
    assert not health.avoids(HERE, 100.0 + 4 * AVOID_S + 1)
    health.tried(HERE, 486, None, 101.0)
    assert not health.avoids(HERE, 101.0)


def test_an_answered_probe_forgives_silence_and_not_overload() -> None:
    health = TrunkHealth(30.0, lambda: 0.5)
    health.tried(HERE, None, None, 0.0)
    health.tried(THERE, 503, 60, 0.0)
    probed(health, 200)
    assert not health.avoids(HERE, 1.0)
    assert health.avoids(THERE, 1.0)


def test_a_bounded_number_of_addresses_is_remembered() -> None:
    health = TrunkHealth(None, lambda: 0.5)
    many = [Target("udp", f"192.0.2.{number}", 5060, "x") for number in range(MAX_ADDRESSES + 1)]
    for target in many:
        health.tried(target, None, None, 0.0)
    assert [health.avoids(target, 1.0) for target in many] == [False, *[True] * MAX_ADDRESSES]


Step = Callable[[TrunkHealth, float], None]
STEPS: list[Step] = [
    lambda health, now: health.start(now),
    lambda health, now: health.tick(now),
    lambda health, now: health.probed(None, "timeout", now),
    lambda health, now: health.probed(200, "", now),
    lambda health, now: health.tried(HERE, None, None, now),
    lambda health, now: health.tried(HERE, 503, 3, now),
    lambda health, now: health.tried(HERE, 200, None, now),
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 100)), max_size=60))
def test_whatever_happens_probes_go_on_and_changes_alternate(steps: list[tuple[Step, float]]) -> None:
    health = TrunkHealth(10.0, lambda: 0.5)
    now, changes, asked = 0.0, [], 0
    health.start(now)
    for step, pause in steps:
        now += pause
        step(health, now)
        for effect in health.take():
            if isinstance(effect, HealthChanged):
                changes.append(effect.healthy)
            else:
                asked += 1
    assert all(first is not second for first, second in itertools.pairwise(changes))
    assert changes[:1] in ([], [False])
    due = health.deadline
    if due is not None:
        health.tick(due)
    health.probed(200, "", now)
    assert health.up
    assert health.deadline is not None or not asked

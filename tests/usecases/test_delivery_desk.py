from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.usecases.delivery_desk import HOURLY_TRIES, LOOK_EVERY_S, DeliveryDesk, next_attempt
from tests.usecases.fakes import START

LADDER = (5.0, 30.0, 120.0, 600.0, 3600.0)


def test_the_ladder_then_hourly_for_72_hours_then_never() -> None:
    pauses = []
    for attempts in range(1, len(LADDER) + HOURLY_TRIES + 1):
        due = next_attempt(LADDER, attempts, START)
        assert due is not None
        pauses.append((due - START).total_seconds())
    assert pauses == [*LADDER, *[3600.0] * 72]
    assert next_attempt(LADDER, len(LADDER) + HOURLY_TRIES + 1, START) is None
    assert next_attempt((), 1, START) == START + timedelta(hours=1)


@given(st.lists(st.floats(0.1, 10_000), max_size=8))
def test_every_ladder_comes_to_an_end(ladder: list[float]) -> None:
    now, attempts = START, 0
    while (due := next_attempt(ladder, (attempts := attempts + 1), now)) is not None:
        assert due > now
        now = due
    assert attempts == len(ladder) + HOURLY_TRIES + 1
    assert (now - START).total_seconds() == pytest.approx(sum(ladder) + 72 * 3600, abs=1)


def test_one_account_holds_its_own_places_only() -> None:
    desk = DeliveryDesk(places=8, places_per_account=2)
    assert [desk.admit(f"dead-{number}", "dead") for number in range(5)] == [True, True, False, False, False]
    assert [desk.admit(f"other-{number}", f"other-{number}") for number in range(7)] == [True] * 6 + [False]
    assert desk.full_accounts == {"dead"}


def test_an_event_under_way_is_not_sent_twice() -> None:
    desk = DeliveryDesk()
    assert desk.admit("a", "acme")
    assert not desk.admit("a", "acme")


def test_what_was_left_behind_is_looked_for_when_a_place_is_free() -> None:
    desk = DeliveryDesk(places=1)
    desk.looking(0.0)
    desk.looked(0, None, 0.0)
    assert desk.deadline == LOOK_EVERY_S
    assert desk.admit("a", "acme")
    assert not desk.admit("b", "acme")
    desk.release("a", 3.0)
    assert desk.deadline == 3.0


def test_an_event_whose_outcome_is_being_recorded_holds_no_place_and_is_not_sent_again() -> None:
    desk = DeliveryDesk(places=1)
    desk.looking(0.0)
    desk.looked(0, None, 0.0)
    assert desk.admit("a", "acme")
    assert not desk.admit("b", "acme")
    desk.replied("a", 3.0)
    assert desk.deadline == 3.0
    assert not desk.admit("a", "acme")
    assert desk.admit("b", "acme")
    assert desk.under_way == 2
    desk.release("a", 4.0)
    assert not desk.admit("c", "acme")
    desk.release("b", 5.0)
    assert (desk.under_way, desk.free) == (0, 1)


def test_a_retry_is_looked_for_in_time() -> None:
    desk = DeliveryDesk()
    desk.looking(0.0)
    desk.looked(0, 40.0, 0.0)
    assert desk.deadline == 40.0
    desk.admit("a", "acme")
    desk.release("a", 1.0, retry_in_s=5.0)
    assert desk.deadline == 6.0


def test_what_is_released_during_a_look_is_told_once() -> None:
    desk = DeliveryDesk()
    desk.admit("before", "acme")
    desk.release("before", 0.0)
    desk.looking(0.0)
    desk.admit("during", "acme")
    desk.release("during", 0.5)
    assert desk.released_meanwhile() == {"during"}
    desk.admit("after", "acme")
    desk.release("after", 0.6)
    assert desk.released_meanwhile() == set()


def test_a_look_that_fetched_only_what_was_released_is_followed_by_another() -> None:
    desk = DeliveryDesk(places=2)
    desk.looking(0.0)
    for name in ("a", "b"):
        desk.admit(name, "acme")
        desk.release(name, 0.5)
    assert desk.released_meanwhile() == {"a", "b"}
    desk.looked(2, None, 1.0)
    assert desk.deadline == 1.0


class World:
    """A backlog, a desk that works on it, and deliveries that take their time. Virtual seconds."""

    def __init__(self, due: dict[str, tuple[str, float]], tries: dict[str, int]) -> None:
        self.due = due
        self.tries = tries
        self.desk = DeliveryDesk(places=4, places_per_account=2)
        self.under_way: dict[str, float] = {}
        self.recorded: dict[str, float] = {}
        self.delivered: Counter[str] = Counter()
        self.now = 0.0

    def offer(self, event: str, takes_s: float) -> None:
        if self.desk.admit(event, self.due[event][0]):
            assert event not in self.under_way
            assert event not in self.recorded
            self.under_way[event] = self.now + takes_s
        busy = Counter(self.due[event][0] for event in self.under_way)
        assert len(self.under_way) <= 4
        assert all(count <= 2 for count in busy.values())

    def look(self, takes_s: float) -> None:
        limit = self.desk.looking(self.now)
        open_accounts = [event for event, (account, due) in self.due.items() if account not in self.desk.full_accounts]
        found = sorted((event for event in open_accounts if self.due[event][1] <= self.now), key=lambda event: self.due[event][1])
        assert self.desk.released_meanwhile() == set()
        for event in found[:limit]:
            self.offer(event, takes_s)
        later = [due for _, due in self.due.values() if due > self.now]
        self.desk.looked(len(found[:limit]), min(later) - self.now if later else None, self.now)

    def reply(self, event: str, recording_s: float) -> None:
        del self.under_way[event]
        self.recorded[event] = self.now + recording_s
        self.desk.replied(event, self.now)

    def end(self, event: str) -> None:
        del self.recorded[event]
        account, _ = self.due[event]
        self.tries[event] -= 1
        if self.tries[event] <= 0:
            del self.due[event]
            self.delivered[event] += 1
            self.desk.release(event, self.now)
        else:
            self.due[event] = (account, self.now + 5.0)
            self.desk.release(event, self.now, 5.0)

    def step(self, takes_s: float) -> None:
        ends = sorted((end, event) for event, end in (self.under_way | self.recorded).items())
        if ends and ends[0][0] <= self.desk.deadline:
            self.now = max(self.now, ends[0][0])
            if ends[0][1] in self.under_way:
                self.reply(ends[0][1], takes_s / 10)
            else:
                self.end(ends[0][1])
        else:
            self.now = max(self.now, self.desk.deadline)
            self.look(takes_s)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 300), st.integers(1, 4)), min_size=1, max_size=25),
    st.lists(st.floats(0.01, 30), min_size=1, max_size=10),
)
def test_whatever_comes_everything_is_delivered_once_and_no_limit_is_broken(
    events: list[tuple[str, float, int]], durations: list[float]
) -> None:
    world = World(
        {f"e{index}": (account, due) for index, (account, due, _) in enumerate(events)},
        {f"e{index}": tries for index, (_, _, tries) in enumerate(events)},
    )
    for step in range(5_000):
        if not world.due:
            break
        world.step(durations[step % len(durations)])
    assert world.delivered == Counter({f"e{index}": 1 for index in range(len(events))})
    assert world.desk.under_way == 0


def test_the_hourly_tries_are_an_hour_apart() -> None:
    times = [START]
    for attempts in range(len(LADDER) + 1, len(LADDER) + HOURLY_TRIES + 1):
        due = next_attempt(LADDER, attempts, times[-1])
        assert due is not None
        times.append(due)
    assert {(later - earlier) for earlier, later in pairwise(times)} == {timedelta(hours=1)}

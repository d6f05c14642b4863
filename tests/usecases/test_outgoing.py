"""A customer asks for a call: what is judged before anything is dialled."""

from __future__ import annotations

import pytest

from switchhook.calls.steering import OrderedCall
from switchhook.domain.dialling import DialPermit, DialPurpose, DialRefused
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallAttempt, CallId, Direction, Number
from switchhook.domain.outcome import Ending, Verdict
from switchhook.usecases.outgoing import CallOrder, NotPlaced, Outgoing, Placed, Unplaced
from tests.usecases.fakes import NUMBER, SteppedClock

ORDER = CallOrder(NUMBER.account, "+13032639999", NUMBER.number, "Acme", "abc123")


class Board:
    """Begins calls while it has room."""

    def __init__(self) -> None:
        self.room = True
        self.fault: Exception | None = None
        self.placed: list[tuple[CallAttempt, DialPermit]] = []
        self.refused: list[tuple[CallAttempt, Verdict]] = []

    def place(self, attempt: CallAttempt, permit: DialPermit, ordered: OrderedCall | None = None) -> bool:
        if self.fault is not None:
            raise self.fault
        if self.room:
            self.placed.append((attempt, permit))
        return self.room

    def not_placed(self, attempt: CallAttempt, verdict: Verdict) -> None:
        self.refused.append((attempt, verdict))


class House:
    """Numbers, policy and board around the use case."""

    def __init__(self) -> None:
        self.board = Board()
        self.refusal: DialRefused | None = None
        self.lines = True
        self.database = True
        self.released: list[DialPermit] = []
        self.outgoing = Outgoing(
            self, self, self.board, lambda account: "sip" if self.lines else None, SteppedClock(), lambda: CallId("call-1")
        )

    async def find_number(self, number: str) -> Number | None:
        if not self.database:
            raise StoreUnavailable
        return NUMBER if number == NUMBER.number else None

    async def admit(self, account: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        assert purpose is DialPurpose.OUTBOUND
        return self.refusal or DialPermit(number, 3600, 7)

    def release(self, permit: DialPermit, seconds: float) -> None:
        self.released.append(permit)

    def verdict(self) -> Verdict:
        [(_, verdict)] = self.board.refused
        return verdict


async def test_an_allowed_call_begins_under_the_accounts_number() -> None:
    house = House()
    assert await house.outgoing.place(ORDER) == Placed(CallId("call-1"))
    [(attempt, permit)] = house.board.placed
    assert (attempt.direction, attempt.caller, attempt.called) == (Direction.OUTBOUND, NUMBER.number, "+13032639999")
    assert (attempt.customer_call_id, attempt.caller_name, attempt.account) == ("abc123", "Acme", NUMBER.account)
    assert permit.token == 7


@pytest.mark.parametrize("caller", ["+17200000000", "nobody", ""])
async def test_a_caller_id_that_is_not_the_accounts_is_refused_and_written_down(caller: str) -> None:
    house = House()
    told = await house.outgoing.place(CallOrder(NUMBER.account, "+13032639999", caller))
    assert isinstance(told, NotPlaced)
    assert told.why is Unplaced.BAD_REQUEST
    assert told.message.startswith("callerId:")
    assert house.verdict().ending is Ending.REJECTED
    assert house.board.placed == []


async def test_the_number_of_another_account_is_not_lent() -> None:
    house = House()
    told = await house.outgoing.place(CallOrder("another", "+13032639999", NUMBER.number))
    assert isinstance(told, NotPlaced)
    assert told.why is Unplaced.BAD_REQUEST


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("country", Unplaced.BAD_REQUEST),
        ("do-not-call", Unplaced.BAD_REQUEST),
        ("rate", Unplaced.TOO_MANY),
        ("concurrency", Unplaced.TOO_MANY),
        ("spend", Unplaced.TOO_MANY),
        ("unavailable", Unplaced.UNAVAILABLE),
    ],
)
async def test_the_policys_refusal_names_its_rule_in_the_record(rule: str, why: Unplaced) -> None:
    house = House()
    house.refusal = DialRefused(rule, "not allowed")
    told = await house.outgoing.place(ORDER)
    assert isinstance(told, NotPlaced)
    assert told.why is why
    assert house.verdict().reason == f"policy-{rule}"


async def test_without_a_line_nothing_is_asked_of_the_policy() -> None:
    house = House()
    house.lines = False
    told = await house.outgoing.place(ORDER)
    assert isinstance(told, NotPlaced)
    assert (told.why, house.verdict().reason) == (Unplaced.UNAVAILABLE, "no-trunk")


async def test_a_permit_that_finds_no_slot_is_given_back() -> None:
    house = House()
    house.board.room = False
    told = await house.outgoing.place(ORDER)
    assert isinstance(told, NotPlaced)
    assert told.why is Unplaced.UNAVAILABLE
    assert [permit.token for permit in house.released] == [7]


async def test_a_permit_is_given_back_when_the_call_cannot_begin() -> None:
    house = House()
    house.board.fault = RuntimeError("the board is closed")
    with pytest.raises(RuntimeError):
        await house.outgoing.place(ORDER)
    assert [permit.token for permit in house.released] == [7]


async def test_a_database_that_is_away_places_nothing() -> None:
    house = House()
    house.database = False
    told = await house.outgoing.place(ORDER)
    assert isinstance(told, NotPlaced)
    assert (told.why, house.verdict().reason) == (Unplaced.UNAVAILABLE, "store-unavailable")

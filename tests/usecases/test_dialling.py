from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.dialling import DiallingRules, DialPermit, DialPurpose, DialRefused
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import Number, Trunk
from switchhook.domain.records import AccountSettings, Directory, Reservation
from switchhook.store.opened import Store
from switchhook.usecases import dialling as dialling_module
from switchhook.usecases.dialling import AccountDialling, explain
from switchhook.usecases.numbering import country_of
from tests.peers.virtual_loop import run_virtual
from tests.usecases.fakes import START, SteppedClock

DENVER, LONDON = "+17205551212", "+442079460018"
OWN = Number("+17206999999", "acme", "vns", {})
TODAY = START.date()


class MemorySpend:
    """Sums in memory. `away`: no answer comes; `fault`: raised instead of an answer."""

    def __init__(self) -> None:
        self.sums: Counter[tuple[str, date]] = Counter()
        self.away = False
        self.fault: Exception | None = None

    async def _answer(self) -> None:
        if self.fault is not None:
            raise self.fault
        if self.away:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def reserve(self, account: str, day: date, wanted: Reservation) -> int | None:
        await self._answer()
        amount = min(wanted.most, wanted.limit - self.sums[account, day])
        if amount < wanted.least:
            return None
        self.sums[account, day] += amount
        return amount

    async def add(self, amounts: dict[tuple[str, date], int]) -> None:
        await self._answer()
        self.sums.update(amounts)

    async def spent(self, account: str, day: date) -> int:
        return self.sums[account, day]

    @property
    def dollars(self) -> float:
        return self.sums["acme", TODAY] / 1e6


@pytest.fixture
def spend() -> MemorySpend:
    return MemorySpend()


@pytest.fixture
def gate(spend: MemorySpend, clock: SteppedClock) -> AccountDialling:
    return AccountDialling(spend, clock)


def put(gate: AccountDialling, *numbers: Number, **keys: Any) -> None:
    gate.replace({"acme": AccountSettings("acme", DiallingRules(**keys))}, numbers or (OWN,))


async def admit(gate: AccountDialling, number: str = DENVER, account: str = "acme") -> DialPermit | str:
    decision = await gate.admit(account, number, DialPurpose.OUTBOUND)
    return decision.rule if isinstance(decision, DialRefused) else decision


async def permitted(gate: AccountDialling) -> DialPermit:
    permit = await admit(gate)
    assert isinstance(permit, DialPermit), permit
    return permit


async def test_an_account_dials_the_countries_of_its_own_numbers(gate: AccountDialling) -> None:
    put(gate)
    assert isinstance(await admit(gate, "720 555 1212"), DialPermit)
    assert await admit(gate, LONDON) == "country"
    put(gate, OWN, Number("+442079460000", "acme", "vns", {}), Number("+33142685300", "other", "vns", {}))
    assert isinstance(await admit(gate, LONDON), DialPermit)
    assert await admit(gate, "+33142685301") == "country"


@pytest.mark.parametrize(("number", "rule"), [(DENVER, None), (LONDON, "country"), ("+19005550100", "premium"), ("", "number")])
async def test_a_redirected_call_is_judged_and_not_counted(gate: AccountDialling, number: str, rule: str | None) -> None:
    """The one call that the account may have at a time, in a second and for its money is the one that is redirected."""
    put(gate, concurrent=1, calls_per_second=1, max_spend_per_day=0.01, price_per_minute=0.01, max_seconds=60)
    assert isinstance(await admit(gate), DialPermit)
    decision = gate.review("acme", number)
    assert (decision.rule if isinstance(decision, DialRefused) else None) == rule
    assert gate.live == 1
    assert rule is None or gate.refused[rule] == 1
    assert isinstance(gate.review("nobody", DENVER), DialRefused)


async def test_a_fault_of_the_policy_refuses_a_redirection(gate: AccountDialling, monkeypatch: pytest.MonkeyPatch) -> None:
    put(gate)
    monkeypatch.setattr(dialling_module, "judge", lambda *arguments: 1 / 0)
    decision = gate.review("acme", DENVER)
    assert isinstance(decision, DialRefused)
    assert decision.rule == "unavailable"


async def test_the_countries_of_a_big_account_are_found_by_its_area_codes(
    gate: AccountDialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(number: str) -> str | None:
        asked.append(number)
        return country_of(number)

    monkeypatch.setattr(dialling_module, "country_of", counting)
    own = [Number(f"+1{area}{tail:07d}", "acme", "vns", {}) for area in (720, 416) for tail in range(2_000_000, 9_000_000, 7_000)]
    put(gate, *own)
    assert isinstance(await admit(gate, "+14165551212"), DialPermit)
    assert await admit(gate, "+18765551212") == "country"
    assert len(asked) == 2


async def test_an_account_that_is_not_known_dials_nobody(gate: AccountDialling) -> None:
    assert await admit(gate) == "unavailable"
    put(gate)
    assert await admit(gate, account="nobody") == "unavailable"
    gate.replace({}, ())
    assert await admit(gate) == "unavailable"


async def test_the_rate_is_kept_and_fills_up_again(gate: AccountDialling, clock: SteppedClock) -> None:
    put(gate, calls_per_second=2)
    found = [await admit(gate) for _ in range(3)]
    assert [isinstance(one, DialPermit) for one in found] == [True, True, False]
    assert found[2] == "rate"
    clock.passed_s += 0.5
    assert isinstance(await admit(gate), DialPermit)
    assert await admit(gate) == "rate"
    clock.passed_s += 3600
    assert [isinstance(await admit(gate), DialPermit) for _ in range(3)] == [True, True, False]


async def test_a_rate_below_one_a_second_lets_single_calls_through(gate: AccountDialling, clock: SteppedClock) -> None:
    put(gate, calls_per_second=0.1)
    assert isinstance(await admit(gate), DialPermit)
    clock.passed_s += 9.9
    assert await admit(gate) == "rate"
    clock.passed_s += 0.2
    assert isinstance(await admit(gate), DialPermit)


async def test_a_refused_number_uses_nothing_up(gate: AccountDialling) -> None:
    put(gate, calls_per_second=1, concurrent=1)
    for number in (LONDON, "911", "nonsense"):
        assert await admit(gate, number) in ("country", "number")
    assert isinstance(await admit(gate), DialPermit)


async def test_a_permit_counts_until_it_is_released_once(gate: AccountDialling) -> None:
    put(gate, concurrent=2, calls_per_second=100)
    first, second = await permitted(gate), await permitted(gate)
    assert await admit(gate) == "concurrency"
    for _ in range(5):
        gate.release(first, 3)
    gate.release(DialPermit(DENVER, 10, 4711), 3)
    assert gate.live == 1
    assert isinstance(await admit(gate), DialPermit)
    assert await admit(gate) == "concurrency"
    gate.release(second, 0)
    assert gate.live == 1


async def test_calls_under_way_count_under_new_rules(gate: AccountDialling) -> None:
    put(gate, concurrent=2, calls_per_second=100)
    permit = await permitted(gate)
    put(gate, concurrent=1, calls_per_second=100)
    assert await admit(gate) == "concurrency"
    gate.replace({}, ())
    put(gate, concurrent=1, calls_per_second=100)
    assert await admit(gate) == "concurrency", "an account that went and came back has its call still"
    gate.release(permit, 1)
    assert isinstance(await admit(gate), DialPermit)


async def test_the_spend_of_a_day_is_never_exceeded(gate: AccountDialling, spend: MemorySpend, clock: SteppedClock) -> None:
    put(gate, max_seconds=600, max_spend_per_day=1.0, price_per_minute=0.04, calls_per_second=100)
    permits = [await permitted(gate) for _ in range(3)]
    assert [permit.max_seconds for permit in permits] == [600, 600, pytest.approx(300)], "the last one may use up the rest"
    assert await admit(gate) == "spend", "a live call counts by its longest duration"
    gate.release(permits[0], 60)
    await gate.settle()
    assert spend.dollars == pytest.approx(0.64)
    fourth = await permitted(gate)
    assert fourth.max_seconds == pytest.approx(540)
    for permit in (*permits[1:], fourth):
        gate.release(permit, permit.max_seconds)
    await gate.settle()
    assert spend.dollars == pytest.approx(1.0)
    assert await admit(gate) == "spend"
    assert gate.live == 0
    clock.passed_s += 86_400
    assert isinstance(await admit(gate), DialPermit)


async def test_calls_are_counted_from_the_day_a_price_is_set(gate: AccountDialling, spend: MemorySpend) -> None:
    put(gate, price_per_minute=0.03)
    gate.release(await permitted(gate), 40)
    await gate.settle()
    assert spend.dollars == pytest.approx(0.02)


async def test_a_text_message_reserves_no_minutes(gate: AccountDialling, spend: MemorySpend) -> None:
    put(gate, max_seconds=600, max_spend_per_day=0.1, price_per_minute=0.04)
    decision = await gate.admit("acme", DENVER, DialPurpose.MESSAGE)
    assert isinstance(decision, DialPermit)
    gate.release(decision, 0)
    assert spend.dollars == 0


@pytest.mark.parametrize("fault", [StoreUnavailable(), RuntimeError("broken on purpose")])
async def test_without_the_database_a_capped_account_dials_nobody(
    gate: AccountDialling, spend: MemorySpend, fault: Exception
) -> None:
    put(gate, max_spend_per_day=100.0, price_per_minute=0.01)
    spend.fault = fault
    assert await admit(gate) == "unavailable"
    assert gate.live == 0
    spend.fault = None
    assert isinstance(await admit(gate), DialPermit)


async def test_a_database_that_does_not_answer_is_not_waited_for(
    gate: AccountDialling, spend: MemorySpend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling_module, "RESERVE_S", 0.0)
    put(gate, max_spend_per_day=100.0, price_per_minute=0.01)
    spend.away = True
    assert await admit(gate) == "unavailable"
    assert gate.live == 0


async def test_a_cancelled_admission_holds_nothing(gate: AccountDialling, spend: MemorySpend) -> None:
    put(gate, max_spend_per_day=100.0, price_per_minute=0.01)
    spend.away = True
    waiting = asyncio.ensure_future(admit(gate))
    await asyncio.sleep(0)
    assert gate.live == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gate.live == 0


async def test_costs_that_could_not_be_written_are_written_later(gate: AccountDialling, spend: MemorySpend) -> None:
    put(gate, price_per_minute=0.06)
    gate.release(await permitted(gate), 60)
    spend.fault = StoreUnavailable()
    await gate.settle()
    gate.release(await permitted(gate), 60)
    spend.fault = None
    await gate.close()
    assert spend.dollars == pytest.approx(0.12)


def test_costs_are_written_while_the_server_runs(spend: MemorySpend) -> None:
    async def run() -> None:
        gate = AccountDialling(spend, SteppedClock())
        put(gate, price_per_minute=0.06)
        running = asyncio.ensure_future(gate.run())
        for calls in range(1, 4):
            gate.release(await permitted(gate), 60)
            await asyncio.sleep(5)
            assert spend.dollars == pytest.approx(0.06 * calls)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtual(run())


async def test_a_refusal_is_counted_and_told(gate: AccountDialling, caplog: pytest.LogCaptureFixture) -> None:
    put(gate)
    with caplog.at_level(logging.WARNING):
        assert await admit(gate, LONDON) == "country"
        assert await admit(gate, LONDON) == "country"
        assert await admit(gate, "911") == "number"
    assert {rule: count for rule, count in gate.refused.items() if count} == {"country": 2, "number": 1}
    assert [(record.message, vars(record)["rule"]) for record in caplog.records] == [
        ("dialling refused", "country"),
        ("dialling refused", "country"),
        ("dialling refused", "number"),
    ]


async def test_extensions_are_those_of_the_accounts_own_trunks_and_get_no_text_messages(
    gate: AccountDialling, spend: MemorySpend
) -> None:
    pbx = Trunk("pbx", "acme", "sip:pbx.test", extensions=("1000-1999",))
    accounts = {name: AccountSettings(name) for name in ("acme", "shop")}
    gate.replace(accounts, [OWN], [pbx])
    permit = await admit(gate, "1001")
    assert isinstance(permit, DialPermit)
    assert permit.called == "sip:1001@pbx.test"
    assert await admit(gate, "1001", "shop") == "number"
    message = await gate.admit("acme", "1001", DialPurpose.MESSAGE)
    assert isinstance(message, DialRefused)
    assert await admit(gate, "sip:1001@192.0.2.5") == "number"
    known = AccountDialling(spend, SteppedClock(), own_hosts=("192.0.2.5",))
    known.replace(accounts, [OWN], [pbx])
    assert isinstance(await admit(known, "sip:1001@192.0.2.5"), DialPermit)
    gate.replace(accounts, [OWN], [])
    assert await admit(gate, "1001") == "number"


async def test_an_explanation_knows_the_extensions(store: Store) -> None:
    pbx, foreign = Trunk("pbx", "acme", "sip:pbx.test", extensions=("1001",)), Trunk("x", "b", "sip:x.test", extensions=("1002",))
    house = Directory({}, {"pbx": pbx, "x": foreign}, {}, {"acme": AccountSettings("acme")})
    lines, allowed = await explain(house, None, "1001", store.spend, START)
    assert allowed
    assert lines[1] == "allowed: sip:1001@pbx.test for 3600 seconds at most"
    assert not (await explain(house, None, "1002", store.spend, START))[1]
    assert not (await explain(house, None, "sip:1001@192.0.2.5", store.spend, START))[1]
    assert (await explain(house, None, "sip:1001@192.0.2.5", store.spend, START, ("192.0.2.5",)))[1]


async def test_the_spend_outlives_the_server(store: Store, clock: SteppedClock) -> None:
    keys = {"max_seconds": 600, "max_spend_per_day": 1.0, "price_per_minute": 0.04}
    gate = AccountDialling(store.spend, clock)
    put(gate, **keys)
    finished, _killed = await permitted(gate), await permitted(gate)
    gate.release(finished, 330)
    await gate.close()
    after = AccountDialling(store.spend, clock)
    put(after, **keys)
    assert await store.spend.spent("acme", TODAY) == 620_000, "a call that was live counts by its longest duration"
    assert (await permitted(after)).max_seconds == pytest.approx(570)
    assert await admit(after) == "spend"


async def test_an_explanation_needs_to_know_the_account(store: Store) -> None:
    two = Directory({}, {}, {}, {name: AccountSettings(name) for name in ("acme", "shop")})
    lines, allowed = await explain(two, None, DENVER, store.spend, START)
    assert (lines, allowed) == (["name an account with --account", "accounts: acme, shop"], False)
    lines, allowed = await explain(two, "nobody", DENVER, store.spend, START)
    assert lines[0] == "there is no account nobody"
    lines, _ = await explain(Directory({}, {}, {}), None, DENVER, store.spend, START)
    assert "none; add one with switchhook apply" in lines[1]


async def test_an_explanation_counts_what_was_spent(store: Store) -> None:
    rules = DiallingRules(max_seconds=600, max_spend_per_day=1.0, price_per_minute=0.04)
    one = Directory({}, {}, {OWN.number: OWN}, {"acme": AccountSettings("acme", rules)})
    lines, allowed = await explain(one, None, DENVER, store.spend, START)
    assert allowed
    assert lines[:2] == ["account acme", f"allowed: {DENVER} for 600 seconds at most"]
    await store.spend.add({("acme", TODAY): 800_000})
    lines, _ = await explain(one, None, DENVER, store.spend, START)
    assert lines[1] == f"allowed: {DENVER} for 300 seconds at most"
    await store.spend.add({("acme", TODAY): 170_000})
    lines, allowed = await explain(one, None, DENVER, store.spend, START)
    assert not allowed
    assert lines[1].startswith("refused by the rule spend")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit slowly", "give up", "release", "release again", "rules", "wait"]), st.integers(0, 9)
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 3), st.booleans())
def test_the_cap_holds_whatever_comes(steps: list[tuple[str, int]], concurrent: int, capped: bool) -> None:
    keys: dict[str, Any] = {"concurrent": concurrent, "calls_per_second": 1000}
    keys |= {"max_spend_per_day": 0.02, "price_per_minute": 0.01, "max_seconds": 30} if capped else {}

    async def run() -> None:
        spend = MemorySpend()
        gate = AccountDialling(spend, SteppedClock())
        put(gate, **keys)
        out: list[DialPermit] = []
        returned: list[DialPermit] = []
        waiting: list[asyncio.Future[DialPermit | str]] = []
        for step, which in steps:
            if step == "admit":
                found = await admit(gate)
                out += [found] if isinstance(found, DialPermit) else []
            elif step == "admit slowly":
                waiting.append(asyncio.ensure_future(admit(gate)))
            elif step == "give up" and waiting:
                waiting[which % len(waiting)].cancel()
            elif step == "release" and out:
                returned.append(out.pop(which % len(out)))
                gate.release(returned[-1], which)
            elif step == "release again" and returned:
                gate.release(returned[which % len(returned)], which)
            elif step == "rules":
                put(gate, **keys)
            await asyncio.sleep(0)
            done = [one for one in waiting if one.done()]
            waiting = [one for one in waiting if not one.done()]
            out += [found for one in done if not one.cancelled() and isinstance(found := one.result(), DialPermit)]
            assert len(out) <= gate.live <= concurrent
            assert spend.dollars <= 0.02
        late = await asyncio.gather(*waiting, return_exceptions=True)
        for permit in (*out, *(found for found in late if isinstance(found, DialPermit))):
            gate.release(permit, 0)
        assert gate.live == 0

    asyncio.run(run())

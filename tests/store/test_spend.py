from __future__ import annotations

import asyncio
from datetime import date

from switchhook.domain.records import Reservation
from switchhook.store.opened import Store
from tests.store.opening import running_store

DAY, NEXT_DAY = date(2026, 4, 17), date(2026, 4, 18)


async def test_reservations_stop_at_the_limit(store: Store) -> None:
    wanted = Reservation(most=40, least=10, limit=100)
    assert [await store.spend.reserve("acme", DAY, wanted) for _ in range(4)] == [40, 40, 20, None]
    assert await store.spend.spent("acme", DAY) == 100
    assert await store.spend.reserve("acme", NEXT_DAY, wanted) == 40
    assert await store.spend.reserve("other", DAY, wanted) == 40


async def test_what_is_given_back_can_be_reserved_again(store: Store) -> None:
    wanted = Reservation(most=100, least=100, limit=100)
    assert await store.spend.reserve("acme", DAY, wanted) == 100
    await store.spend.add({("acme", DAY): -99, ("other", DAY): 7})
    assert await store.spend.reserve("acme", DAY, wanted) is None
    await store.spend.add({("acme", DAY): -1})
    assert await store.spend.reserve("acme", DAY, wanted) == 100
    assert await store.spend.spent("other", DAY) == 7
    assert await store.spend.spent("nobody", DAY) == 0


async def test_two_servers_keep_one_limit_and_a_restart_keeps_the_sum(url: str) -> None:
    wanted = Reservation(most=10, least=10, limit=100)
    async with running_store(url) as one, running_store(url, node="another") as other:
        taken = await asyncio.gather(*(server.spend.reserve("acme", DAY, wanted) for _ in range(10) for server in (one, other)))
    assert sorted(taken, key=str) == [10] * 10 + [None] * 10
    async with running_store(url) as store:
        assert await store.spend.spent("acme", DAY) == 100

from __future__ import annotations

import asyncio
import sqlite3
from asyncio import TimerHandle
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from pathlib import Path
from typing import TypeVar, TypeVarTuple, cast

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from switchhook.domain.errors import StoreUnavailable
from switchhook.store import writer as writer_module
from switchhook.store.database import Database
from switchhook.store.schema import accounts
from switchhook.store.writer import Writer
from tests.peers.virtual_loop import VirtualLoop
from tests.store.opening import PostgresDatabases

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database(url)
    yield opened
    await opened.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    made = Writer(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run())
        yield made
        await made.close()


def add(name: str) -> Callable[[Connection], str]:
    def unit(connection: Connection) -> str:
        connection.execute(insert(accounts), {"name": name})
        return name

    return unit


async def names(database: Database) -> list[str]:
    def work(connection: Connection) -> list[str]:
        return list(connection.execute(select(accounts.c.name).order_by(accounts.c.name)).scalars())

    return await database.read(work)


async def test_many_submitters_share_few_transactions(database: Database, writer: Writer) -> None:
    wanted = [f"a{number:03}" for number in range(500)]
    assert await asyncio.gather(*(writer.submit(add(name)) for name in wanted)) == wanted
    assert await names(database) == wanted
    assert writer.commits <= 5
    assert writer.units == 500


async def test_a_change_is_committed_when_submit_returns(database: Database, writer: Writer) -> None:
    await writer.submit(add("one"))
    assert await names(database) == ["one"]


async def test_a_bad_unit_fails_alone(database: Database, writer: Writer) -> None:
    def broken(connection: Connection) -> None:
        connection.execute(insert(accounts), {"name": "half"})
        raise LookupError("broken on purpose")

    results = await asyncio.gather(
        writer.submit(add("a")), writer.submit(broken), writer.submit(add("b")), writer.submit(add("a")), return_exceptions=True
    )
    assert results[0] == "a"
    assert isinstance(results[1], LookupError)
    assert results[2] == "b"
    assert isinstance(results[3], IntegrityError)
    assert await names(database) == ["a", "b"]


async def test_who_cannot_wait_takes_the_others_along(database: Database, writer: Writer) -> None:
    patient = asyncio.ensure_future(writer.submit(add("patient"), within_s=3600))
    await asyncio.sleep(0)
    await writer.submit(add("hasty"), within_s=0)
    assert await patient == "patient"
    assert writer.commits == 1


class EarlyLoop(VirtualLoop):
    """Rings every timer a little early, as uvloop does, which counts whole milliseconds."""

    armed = 0

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> TimerHandle:
        """Ring early; a hundred timers for one transaction are a spin."""
        self.armed += 1
        assert self.armed < 100, "the writer spins"
        return super().call_at(when - 0.0009, callback, *args, context=context)


class Counted(Database):
    """Runs the work on nothing."""

    def __init__(self) -> None:
        self.transactions = 0

    async def transact(self, work: Callable[[Connection], T]) -> T:
        self.transactions += 1
        return work(cast("Connection", None))


def test_a_timer_that_rings_early_is_not_waited_out_by_spinning() -> None:
    async def scenario() -> int:
        database = Counted()
        writer = Writer(database)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run())
            submitted = [tasks.create_task(writer.submit(lambda _: None, within_s)) for within_s in (0.05, 0.01, 3600)]
            await asyncio.gather(*submitted)
            await writer.close()
        return database.transactions

    with asyncio.Runner(loop_factory=EarlyLoop) as runner:
        assert runner.run(scenario()) == 1


async def test_a_full_queue_lets_callers_wait(database: Database) -> None:
    small = Writer(database, queue_units=2)
    callers = [asyncio.ensure_future(small.submit(add(f"a{number}"), within_s=0)) for number in range(5)]
    await asyncio.sleep(0)
    assert small.waiting == 2
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(small.run())
        assert len(await asyncio.gather(*callers)) == 5
        await small.close()
    assert len(await names(database)) == 5


async def test_closing_writes_what_was_submitted_and_then_refuses(database: Database) -> None:
    writer = Writer(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        waiting = asyncio.ensure_future(writer.submit(add("last"), within_s=3600))
        await asyncio.sleep(0)
        await writer.close()
    assert await waiting == "last"
    with pytest.raises(StoreUnavailable):
        await writer.submit(add("late"))
    assert await names(database) == ["last"]


async def test_a_caller_who_gave_up_leaves_no_trace(database: Database, writer: Writer) -> None:
    impatient = asyncio.ensure_future(writer.submit(add("gone"), within_s=3600))
    await asyncio.sleep(0)
    impatient.cancel()
    await writer.submit(add("here"), within_s=0)
    assert await names(database) == ["here"]


async def test_a_cancelled_writer_tells_its_callers(database: Database) -> None:
    writer = Writer(database)
    running = asyncio.ensure_future(writer.run())
    waiting = asyncio.ensure_future(writer.submit(add("never"), within_s=3600))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(StoreUnavailable):
        await waiting
    assert await names(database) == []


async def test_closing_a_writer_that_does_not_run_returns(database: Database) -> None:
    await Writer(database).close()


async def test_a_locked_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchhook.store.lite.BUSY_TIMEOUT_MS", 10)
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    database = Database(f"sqlite:///{tmp_path}/switchhook.db")
    await database.migrate()
    other = sqlite3.connect(tmp_path / "switchhook.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = Writer(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        waiting = asyncio.ensure_future(writer.submit(add("patient"), within_s=0))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        other.execute("COMMIT")
        other.close()
        assert await waiting == "patient"
        await writer.close()
    count = await database.read(lambda connection: connection.execute(select(func.count()).select_from(accounts)).scalar())
    assert count == 1
    await database.close()


async def test_a_writer_that_closes_gives_up_on_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(writer_module, "CLOSING_S", 0.05)
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    writer = Writer(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        waiting = asyncio.ensure_future(writer.submit(add("never"), within_s=0))
        await asyncio.sleep(0)
        await writer.close()
    with pytest.raises(StoreUnavailable):
        await waiting
    await database.close()


@pytest.mark.peer("postgresql")
async def test_connections_that_broke_are_replaced(
    postgres: PostgresDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    database = Database(await postgres.fresh(tmp_path))
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    writer = Writer(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        await writer.submit(add("before"))
        await database.read(lambda connection: connection.execute(cut).all())
        await writer.submit(add("after"))
        await writer.submit(lambda connection: connection.execute(cut).all())
        assert await names(database) == ["after", "before"]
        await writer.close()
    await database.close()

"""Repository of what accounts spent on dialling, by UTC day. Several servers on one database count together."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, bindparam, select, update

from switchhook.domain.records import Reservation
from switchhook.store.database import Database, insert_missing
from switchhook.store.schema import dialling_spend
from switchhook.store.writer import Writer

_FIRST = insert_missing(dialling_spend)
_ROW = (dialling_spend.c.account == bindparam("of_account"), dialling_spend.c.day == bindparam("of_day"))
_ADD = update(dialling_spend).where(*_ROW).values(microdollars=dialling_spend.c.microdollars + bindparam("amount"))
_SPENT = select(dialling_spend.c.microdollars).where(*_ROW)
_LOCKED = _SPENT.with_for_update()


class SpendRepository:
    """Adds up amounts of a millionth of a US dollar."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def reserve(self, account: str, day: date, wanted: Reservation) -> int | None:
        """Add to the day's sum what the limit leaves, and give that; None: it leaves too little, and nothing was added."""
        row = _row(account, day)

        def work(connection: Connection) -> int | None:
            connection.execute(_FIRST(connection), {"account": account, "day": day.isoformat(), "microdollars": 0})
            spent: int = connection.execute(_LOCKED, row).scalar_one()
            amount = min(wanted.most, wanted.limit - spent)
            if amount < wanted.least:
                return None
            connection.execute(_ADD, {**row, "amount": amount})
            return amount

        return await self._writer.submit(work, within_s=0)

    async def add(self, amounts: dict[tuple[str, date], int]) -> None:
        """Add to the sums of accounts and days; an amount below nought gives back what was reserved."""

        def work(connection: Connection) -> None:
            for (account, day), amount in amounts.items():
                connection.execute(_FIRST(connection), {"account": account, "day": day.isoformat(), "microdollars": 0})
                connection.execute(_ADD, {**_row(account, day), "amount": amount})

        await self._writer.submit(work)

    async def spent(self, account: str, day: date) -> int:
        """The day's sum."""
        return await self._database.read(lambda connection: connection.execute(_SPENT, _row(account, day)).scalar()) or 0


def _row(account: str, day: date) -> dict[str, str]:
    return {"of_account": account, "of_day": day.isoformat()}

"""Repository of what is configured: accounts, API tokens, trunks, numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from switchhook.domain.dialling import DiallingRules
from switchhook.domain.errors import DirectoryChanged
from switchhook.domain.model import Number, Trunk
from switchhook.domain.records import AccountSettings, Directory, DirectoryUpdate, TwilioCredentials, VeevoCredentials
from switchhook.store.database import Database
from switchhook.store.schema import accounts, api_tokens, counters, numbers, trunks
from switchhook.store.secrets import SecretBox
from switchhook.store.writer import Writer

FRESH_S = 1.0
"""A number is not read again for so long: a busy one would be read twice for each call."""
FRESH_NUMBERS = 4_096

_TRUNK_COLUMNS = ("name", "account", "address", "allow_from", "username", "password", "register")
"""The other settings of a trunk are in its `options`."""

_VERSION = "directory"
_FIND_NUMBER = select(numbers).where(numbers.c.number == bindparam("wanted"))
_FIND_TOKEN = select(api_tokens.c.account, api_tokens.c.digest).where(api_tokens.c.digest == bindparam("wanted"))
_FIND_VERSION = select(counters.c.value).where(counters.c.name == _VERSION)


class DirectoryRepository:
    """Reads and writes the configuration; secrets are sealed on the way in and opened on the way out."""

    def __init__(self, database: Database, writer: Writer, box: SecretBox) -> None:
        self._database = database
        self._writer = writer
        self._box = box
        self._fresh: dict[str, tuple[Number, float]] = {}

    async def find_number(self, number: str) -> Number | None:
        """The number, E.164, as it is configured; a change by another process shows within a second."""
        now = asyncio.get_running_loop().time()
        known = self._fresh.get(number)
        if known is not None and now < known[1]:
            return known[0]

        def work(connection: Connection) -> Any:
            return connection.execute(_FIND_NUMBER, {"wanted": number}).one_or_none()

        row = await self._database.read(work)
        if row is None:
            return None
        found = self._number(row)
        if known is not None and known[0] == found:
            found = known[0]  # one object as long as it is the same: others remember what they made of it
        if len(self._fresh) >= FRESH_NUMBERS:
            self._fresh.clear()
        self._fresh[number] = (found, now + FRESH_S)
        return found

    async def find_token(self, digest: bytes) -> tuple[str, bytes] | None:
        """Account and digest of the API token with this SHA-256."""

        def work(connection: Connection) -> Any:
            return connection.execute(_FIND_TOKEN, {"wanted": digest}).one_or_none()

        row = await self._database.read(work)
        return None if row is None else (row.account, bytes(row.digest))

    async def trunks(self) -> list[Trunk]:
        """All trunks."""
        rows = await self._database.read(lambda connection: connection.execute(select(trunks)).all())
        return [self._trunk(row) for row in rows]

    async def version(self) -> int:
        """Rises with each change of the configuration, by whichever process."""
        return await self._database.read(lambda connection: connection.execute(_FIND_VERSION).scalar()) or 0

    async def read(self) -> Directory:
        """Everything that is configured."""

        def work(connection: Connection) -> tuple[Any, ...]:
            return tuple(connection.execute(select(table)).all() for table in (accounts, api_tokens, trunks, numbers))

        rows = await self._database.read(work)
        # Every secret is opened: some thousand numbers would keep the calls' sound waiting for a tenth of a second.
        return await asyncio.to_thread(self._directory, *rows)

    def _directory(self, account_rows: Any, token_rows: Any, trunk_rows: Any, number_rows: Any) -> Directory:
        tokens: dict[str, dict[str, bytes]] = {row.name: {} for row in account_rows}
        for row in token_rows:
            tokens.setdefault(row.account, {})[row.name] = bytes(row.digest)
        return Directory(
            tokens,
            {row.name: self._trunk(row) for row in trunk_rows},
            {row.number: self._number(row) for row in number_rows},
            {row.name: self._account(row) for row in account_rows},
        )

    async def write(self, changes: DirectoryUpdate) -> None:
        """Make all changes, or none. Raises DirectoryChanged when they were decided on another version."""
        account_rows = [self._account_row(account) for account in changes.accounts]
        trunk_rows = [self._trunk_row(trunk) for trunk in changes.trunks]
        number_rows = [self._number_row(number) for number in changes.numbers]

        def work(connection: Connection) -> None:
            _check_version(connection, changes.based_on)
            for account, name in changes.remove_tokens:
                _delete(connection, api_tokens, {"account": account, "name": name})
            for name in changes.remove_trunks:
                _delete(connection, trunks, {"name": name})
            for number in changes.remove_numbers:
                _delete(connection, numbers, {"number": number})
            for row in account_rows:
                _put(connection, accounts, {"name": row["name"]}, row)
            for account, name, digest in changes.tokens:
                _put(connection, api_tokens, {"account": account, "name": name}, {"digest": digest})
            for row in trunk_rows:
                _put(connection, trunks, {"name": row["name"]}, row)
            for row in number_rows:
                _put(connection, numbers, {"number": row["number"]}, row)
            _raise_version(connection)

        await self._writer.submit(work, within_s=0)
        self._fresh.clear()

    def _account(self, row: Any) -> AccountSettings:
        rules = msgspec.convert(row.dialling or {}, DiallingRules)
        if row.credentials_sealed is None:
            return AccountSettings(row.name, rules)
        opened = self._box.open(row.credentials_sealed, _context(accounts, row.name))
        credentials = msgspec.json.decode(opened, type=_Credentials)
        return AccountSettings(row.name, rules, credentials.twilio, credentials.veevo)

    def _account_row(self, account: AccountSettings) -> dict[str, Any]:
        credentials = _Credentials(account.twilio, account.veevo)
        sealed = None
        if credentials != _Credentials():
            sealed = self._box.seal(msgspec.json.encode(credentials), _context(accounts, account.name))
        return {"name": account.name, "dialling": msgspec.to_builtins(account.dialling), "credentials_sealed": sealed}

    def _number(self, row: Any) -> Number:
        settings = msgspec.json.decode(self._box.open(row.settings_sealed, _context(numbers, row.number)))
        return Number(row.number, row.account, row.contract, settings)

    def _number_row(self, number: Number) -> dict[str, Any]:
        settings = msgspec.json.encode(number.settings)
        return {
            "number": number.number,
            "account": number.account,
            "contract": number.contract,
            "settings_sealed": self._box.seal(settings, _context(numbers, number.number)),
        }

    def _trunk(self, row: Any) -> Trunk:
        sealed = row.password_sealed
        known = {
            "name": row.name,
            "account": row.account,
            "address": row.address,
            "allow_from": row.allow_from,
            "username": row.username,
            "password": None if sealed is None else self._box.open(sealed, _context(trunks, row.name)).decode(),
            "register": row.register,
        }
        return msgspec.convert({**(row.options or {}), **known}, Trunk)

    def _trunk_row(self, trunk: Trunk) -> dict[str, Any]:
        password = trunk.password
        values = msgspec.to_builtins(trunk)
        return {
            "name": trunk.name,
            "account": trunk.account,
            "address": trunk.address,
            "allow_from": list(trunk.allow_from),
            "username": trunk.username,
            "password_sealed": None if password is None else self._box.seal(password.encode(), _context(trunks, trunk.name)),
            "register": trunk.register,
            "options": {name: value for name, value in values.items() if name not in _TRUNK_COLUMNS},
        }


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What is sealed of an account."""

    twilio: TwilioCredentials | None = None
    veevo: VeevoCredentials | None = None


def _context(table: Table, key: str) -> bytes:
    return f"{table.name}:{key}".encode()


def _where(table: Table, key: Mapping[str, str]) -> list[Any]:
    return [table.c[column] == value for column, value in key.items()]


def _delete(connection: Connection, table: Table, key: Mapping[str, str]) -> None:
    connection.execute(delete(table).where(*_where(table, key)))


def _put(connection: Connection, table: Table, key: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Replace the row, or add it."""
    there = connection.execute(update(table).where(*_where(table, key)).values({**key, **values}))
    if there.rowcount == 0:
        connection.execute(insert(table), {**key, **values})


def _check_version(connection: Connection, wanted: int | None) -> None:
    """Whoever else wants to change something waits from here on (SQLite lets nobody else write anyway)."""
    if wanted is not None and (connection.execute(_FIND_VERSION.with_for_update()).scalar() or 0) != wanted:
        raise DirectoryChanged


def _raise_version(connection: Connection) -> None:
    raised = update(counters).where(counters.c.name == _VERSION).values(value=counters.c.value + 1)
    if connection.execute(raised).rowcount == 0:
        connection.execute(insert(counters), {"name": _VERSION, "value": 1})

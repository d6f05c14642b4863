"""Makes accounts, API tokens, trunks and numbers as a file says; applying it again changes nothing.

What the file does not name is left alone; `remove: true` takes a token, a trunk or a number away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import msgspec

from switchhook.domain.contract import Contract
from switchhook.domain.errors import ApplyError
from switchhook.domain.model import Number, Trunk
from switchhook.domain.records import AccountSettings, Directory, DirectoryUpdate
from switchhook.usecases.accounts import token_digest
from switchhook.usecases.apply_entries import AccountEntry, NumberEntry
from switchhook.usecases.apply_schema import ApplyFile, read_file
from switchhook.usecases.repositories import DirectoryStore

_SECRET_WORDS = ("header", "password", "token", "secret", "key", "auth", "bearer", "basic")
_ABSENT = object()


class Action(Enum):
    """What becomes of an entry."""

    ADDED = "+"
    CHANGED = "~"
    REMOVED = "-"
    UNCHANGED = "="


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the file against what is configured."""

    action: Action
    what: str
    """`account acme`, `token acme/main`, `trunk local`, `number +17206999999`."""
    details: tuple[str, ...] = ()
    """Of a changed entry: `call_end.url: old → new`; secrets are not shown."""

    def lines(self) -> list[str]:
        """For a terminal."""
        return [f"{self.action.value} {self.what}", *(f"    {detail}" for detail in self.details)]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an application of a file came to."""

    changes: tuple[Change, ...]
    dry_run: bool

    @property
    def changed(self) -> bool:
        """Whether anything is, or would be, different."""
        return any(change.action is not Action.UNCHANGED for change in self.changes)

    def lines(self) -> list[str]:
        """The difference, for a terminal."""
        count = {action: sum(change.action is action for change in self.changes) for action in Action}
        verb = "would be " if self.dry_run else ""
        total = ", ".join(f"{count[action]} {verb}{action.name.lower()}" for action in Action if action is not Action.UNCHANGED)
        summary = f"{total}, {count[Action.UNCHANGED]} unchanged; what the file does not name is left alone"
        return [line for change in self.changes for line in change.lines()] + [summary]


class Applier:
    """Applies files. `refresh` is awaited after a change, so that a running server takes it up."""

    def __init__(
        self,
        directory: DirectoryStore,
        contracts: Mapping[str, Contract],
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._directory = directory
        self._contracts = contracts
        self._refresh = refresh

    async def apply(self, text: str, dry_run: bool = False) -> Applied:
        """Apply the text of a file, all of it or nothing. Raises ApplyError naming each place and its cure."""
        file = read_file(text)
        wanted = _Wanted(file, await self._directory.read(), self._contracts)
        applied = Applied(tuple(wanted.changes), dry_run)
        if applied.changed and not dry_run:
            await self._directory.write(wanted.update())
            if self._refresh is not None:
                await self._refresh()
        return applied


class _Wanted:
    """A file held against the directory: what is wrong with it, what it changes."""

    def __init__(self, file: ApplyFile, there: Directory, contracts: Mapping[str, Contract]) -> None:
        self._file = file
        self._there = there
        self._contracts = contracts
        self._problems: list[str] = []
        self._accounts: dict[str, AccountSettings] = {}
        self._tokens: dict[tuple[str, str], bytes] = {}
        self._trunks: dict[str, Trunk] = {}
        self._numbers: dict[str, Number] = {}
        self._removed_tokens: list[tuple[str, str]] = []
        self._removed_trunks: list[str] = []
        self._removed_numbers: list[str] = []
        self.changes: list[Change] = []
        self._known_accounts = {*there.tokens, *(account.name for account in file.accounts)}
        self._read_accounts()
        self._read_trunks()
        self._read_numbers()
        if self._problems:
            raise ApplyError("\n".join(self._problems))

    def update(self) -> DirectoryUpdate:
        """What to write."""
        return DirectoryUpdate(
            accounts=tuple(self._accounts.values()),
            tokens=tuple((account, name, digest) for (account, name), digest in self._tokens.items()),
            trunks=tuple(self._trunks.values()),
            numbers=tuple(self._numbers.values()),
            remove_tokens=tuple(self._removed_tokens),
            remove_trunks=tuple(self._removed_trunks),
            remove_numbers=tuple(self._removed_numbers),
        )

    def _read_accounts(self) -> None:
        owners = {digest: (account, name) for account, names in self._there.tokens.items() for name, digest in names.items()}
        keys = {known.veevo.management_key: known.name for known in self._there.accounts.values() if known.veevo}
        seen: set[str] = set()
        for index, account in enumerate(self._file.accounts):
            if self._again(account.name, seen, f"accounts[{index}].name"):
                continue
            self._read_settings(account, keys, f"accounts[{index}]")
            self._read_tokens(account, owners, f"accounts[{index}]")

    def _read_settings(self, entry: AccountEntry, keys: dict[str | None, str], where: str) -> None:
        old = self._there.accounts.get(entry.name)
        new = entry.settings(old or AccountSettings(entry.name))
        key = new.veevo.management_key if new.veevo else None
        if key is not None and keys.setdefault(key, entry.name) != entry.name:
            self._problems.append(f"{where}.veevo.management_key: is that of the account {keys[key]} already; make another one")
        if old != new:
            self._accounts[new.name] = new
        details = differences(_account_values(old), _account_values(new)) if old else ()
        self.changes.append(Change(_action(old, new), f"account {entry.name}", tuple(details)))

    def _read_tokens(self, account: AccountEntry, owners: dict[bytes, tuple[str, str]], where: str) -> None:
        names: set[str] = set()
        for position, token in enumerate(account.tokens):
            place = f"{where}.tokens[{position}]"
            if self._again(token.name, names, f"{place}.name"):
                continue
            key = (account.name, token.name)
            if token.remove or token.value is None:
                self._remove(self._removed_tokens, key, self._token(key) is not None, f"token {'/'.join(key)}")
            else:
                self._read_token(key, token_digest(token.value), owners, place)

    def _read_token(self, key: tuple[str, str], digest: bytes, owners: dict[bytes, tuple[str, str]], where: str) -> None:
        owner = owners.setdefault(digest, key)
        if owner != key and owner not in self._removed_tokens:
            self._problems.append(f"{where}.value: is the token {'/'.join(owner)} already; make another one")
            return
        old = self._token(key)
        if old != digest:
            self._tokens[key] = digest
        detail = ("value: changed (not shown)",) if old not in (None, digest) else ()
        self.changes.append(Change(_action(old, digest), f"token {'/'.join(key)}", detail))

    def _token(self, key: tuple[str, str]) -> bytes | None:
        return self._there.tokens.get(key[0], {}).get(key[1])

    def _read_trunks(self) -> None:
        seen: set[str] = set()
        for index, entry in enumerate(self._file.trunks):
            where = f"trunks[{index}]"
            if self._again(entry.name, seen, f"{where}.name"):
                continue
            old = self._there.trunks.get(entry.name)
            if entry.remove:
                self._remove(self._removed_trunks, entry.name, old is not None, f"trunk {entry.name}")
            elif self._account_is_known(entry.account, where):
                new = entry.trunk()
                if old != new:
                    self._trunks[new.name] = new
                details = differences(_trunk_values(old), _trunk_values(new)) if old else ()
                self.changes.append(Change(_action(old, new), f"trunk {new.name}", tuple(details)))

    def _read_numbers(self) -> None:
        seen: set[str] = set()
        for index, entry in enumerate(self._file.numbers):
            where = f"numbers[{index}]"
            if self._again(entry.number, seen, f"{where}.number"):
                continue
            old = self._there.numbers.get(entry.number)
            if entry.remove:
                self._remove(self._removed_numbers, entry.number, old is not None, f"number {entry.number}")
                continue
            new = self._number(entry, where)
            if new is not None:
                if old != new:
                    self._numbers[new.number] = new
                details = differences(_number_values(old), _number_values(new)) if old else ()
                self.changes.append(Change(_action(old, new), f"number {new.number}", tuple(details)))

    def _number(self, entry: NumberEntry, where: str) -> Number | None:
        known = self._account_is_known(entry.account, where)
        contract = self._contracts.get(entry.contract or "")
        if contract is None:
            names = ", ".join(sorted(self._contracts))
            self._problems.append(f"{where}.contract: there is no contract {entry.contract}; known: {names}")
            return None
        try:
            settings = contract.read_number_settings(entry.contract_settings)
        except ApplyError as error:
            self._problems.append(f"{where} ({entry.number}): {error}")
            return None
        # As the store gives it back, so that it compares equal.
        stored = msgspec.json.decode(msgspec.json.encode(settings))
        return Number(entry.number, entry.account or "", contract.name, stored) if known else None

    def _account_is_known(self, account: str | None, where: str) -> bool:
        if account in self._known_accounts:
            return True
        self._problems.append(f"{where}.account: there is no account {account}; add it under accounts:")
        return False

    def _again(self, name: str, seen: set[str], where: str) -> bool:
        if name in seen:
            self._problems.append(f"{where}: {name} is in the file twice; keep one")
            return True
        seen.add(name)
        return False

    def _remove(self, removed: list[Any], key: Any, there: bool, what: str) -> None:
        if there:
            removed.append(key)
        self.changes.append(Change(Action.REMOVED if there else Action.UNCHANGED, what if there else f"{what} (is not there)"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`path: old → new` for each leaf that differs. Under a name that says secret, and in a URL's query, values are not shown."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    lines = []
    for path in sorted({*before, *after}):
        was, is_now = before.get(path, _ABSENT), after.get(path, _ABSENT)
        if was == is_now:
            continue
        shown, shown_now = _shown(path, was), _shown(path, is_now)
        lines.append(f"{path}: changed (not shown)" if shown == shown_now else f"{path}: {shown} → {shown_now}")
    return lines


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, member in value.items():
        path = f"{prefix}{key}"
        if isinstance(member, Mapping):
            yield from _leaves(member, f"{path}.")
        else:
            yield path, member


def _shown(path: str, value: object) -> str:
    if value is _ABSENT:
        return "(none)"
    if any(word in path.lower() for word in _SECRET_WORDS) and value is not None:
        return "(not shown)"
    if isinstance(value, str) and "://" in value:
        return _without_secrets(value)
    return "(none)" if value is None else str(value)


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not shown)"
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def _action(old: object, new: object) -> Action:
    if old is None:
        return Action.ADDED
    return Action.UNCHANGED if old == new else Action.CHANGED


def _account_values(account: AccountSettings) -> dict[str, Any]:
    values = {name: value for name, value in asdict(account).items() if value is not None}
    return {**values, "dialling": _flat(values["dialling"])}


def _trunk_values(trunk: Trunk) -> dict[str, Any]:
    return _flat(asdict(trunk))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as people write them, choices by their word."""
    shown = {name: ", ".join(value) or None if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: value.value if isinstance(value, Enum) else value for name, value in shown.items()}


def _number_values(number: Number) -> dict[str, Any]:
    return {"account": number.account, "contract": number.contract, **number.settings}

"""A customer adds a number of its account, or gives it other webhooks, without the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from switchhook.domain.contract import Contract
from switchhook.domain.errors import ApplyError, DirectoryChanged
from switchhook.domain.model import Number
from switchhook.domain.records import DirectoryUpdate
from switchhook.usecases.repositories import DirectoryStore

TRIES = 5
"""While others change the configuration under us."""


class Registration(Enum):
    """What became of a number."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class NotRegistered:
    """The number stays as it is; the message is for the customer."""

    taken: bool
    """It is somebody else's, or another contract's; else the settings are at fault."""
    message: str


class NumberDesk:
    """Registers numbers under one contract. `refresh` is awaited after a change, so that a running server takes it up."""

    def __init__(self, directory: DirectoryStore, contract: Contract, refresh: Callable[[], Awaitable[None]]) -> None:
        self._directory = directory
        self._contract = contract
        self._refresh = refresh
        # Two accounts may ask for one free number at one time; of several servers the directory tells the first from the others.
        self._one_at_a_time = asyncio.Lock()

    async def register(self, account: str, number: str, settings: Mapping[str, Any]) -> Registration | NotRegistered:
        """Lay `settings` over what the number has; `number` is E.164. Asked again it changes nothing.

        Raises StoreUnavailable, DirectoryChanged when others changed the configuration each time.
        """
        async with self._one_at_a_time:
            for _ in range(TRIES - 1):
                with suppress(DirectoryChanged):
                    return await self._register(account, number, settings)
            return await self._register(account, number, settings)

    async def _register(self, account: str, number: str, settings: Mapping[str, Any]) -> Registration | NotRegistered:
        version = await self._directory.version()
        known = await self._directory.read()
        there = known.numbers.get(number)
        if there is not None and (there.account, there.contract) != (account, self._contract.name):
            whose = "runs another contract" if there.account == account else "cannot be registered"
            return NotRegistered(True, f"{number} {whose}")
        kept = there.settings if there is not None else {}
        try:
            checked = self._contract.read_number_settings({**kept, **settings})
        except ApplyError as error:
            return NotRegistered(False, str(error))
        # As the store gives it back, so that it compares equal.
        new = Number(number, account, self._contract.name, msgspec.json.decode(msgspec.json.encode(checked)))
        if new == there:
            return Registration.UNCHANGED
        await self._directory.write(DirectoryUpdate(numbers=(new,), based_on=version))
        await self._refresh()
        return Registration.ADDED if there is None else Registration.CHANGED

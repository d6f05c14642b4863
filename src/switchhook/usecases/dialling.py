"""The dialling policy of all accounts while the server runs: who has dialled how much, and whether one call more may be placed.

Rate and concurrency are counted in this process. What a day has cost is kept in the database: a call's longest duration is
reserved before it is dialled, and what it did not use is given back afterwards. So a server that dies leaves a sum that is too
high, never one that is too low.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from switchhook.domain.dialling import DiallingRules, DialPermit, DialPurpose, DialRefused
from switchhook.domain.model import Number, Trunk
from switchhook.domain.ports import Clock
from switchhook.domain.records import AccountSettings, Directory, Reservation
from switchhook.usecases.dialling_extensions import Extensions
from switchhook.usecases.dialling_policy import (
    NO_EXTENSIONS,
    RULES,
    Usage,
    cost_microdollars,
    judge,
    longest_seconds,
    reservation,
    spend_refusal,
)
from switchhook.usecases.numbering import country_of
from switchhook.usecases.repositories import SpendStore

logger = logging.getLogger(__name__)

RESERVE_S = 2.0
"""Patience with the database before a call of an account with max_spend_per_day is refused."""
SETTLE_EVERY_S = 1.0
LAST_SETTLE_S = 5.0
"""How long a stopping server waits for the costs to be written down."""
UNAVAILABLE = "unavailable"
_FAILED = DialRefused(UNAVAILABLE, "the dialling policy could not judge the call; try again later")
_PREFIX_CHARS = 9
"""So much of a number with its plus sign tells its country in every numbering plan…"""
_AREA_CODE_CHARS = 5
"""…and so much in the North American one: a big account has thousands of numbers and a few area codes."""


@dataclass(slots=True)
class _Account:
    """What is known of an account, and what it uses."""

    rules: DiallingRules
    numbers: tuple[str, ...]
    extensions: Extensions = NO_EXTENSIONS
    countries: frozenset[str] | None = None
    """Of its numbers; found when first asked for."""
    live: set[int] = field(default_factory=set)
    """Tokens of the permits that are out."""
    calls_ready: float = 0.0
    counted_at: float = float("-inf")
    """When `calls_ready` was true, monotonic."""

    def own_countries(self) -> frozenset[str]:
        """The countries of its numbers."""
        if self.countries is None:
            self.countries = own_countries(self.numbers)
        return self.countries

    def usage(self, now: float) -> Usage:
        """The state of the limits; the rate fills up to one second's calls."""
        rate = self.rules.calls_per_second
        self.calls_ready = min(max(1.0, rate), self.calls_ready + (now - self.counted_at) * rate)
        self.counted_at = now
        return Usage(len(self.live), self.calls_ready)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a permit holds."""

    account: str
    rules: DiallingRules
    day: date
    reserved_microdollars: int = 0


class AccountDialling:
    """Admits calls and counts them (`domain.ports.DiallingGate`). `replace` names the accounts; `run` writes the costs down."""

    def __init__(self, spend: SpendStore, clock: Clock, own_hosts: Collection[str] = ()) -> None:
        """`own_hosts`: what peers call this server, for the SIP addresses of extensions."""
        self._spend = spend
        self._clock = clock
        self._own_hosts = own_hosts
        self._accounts: dict[str, _Account] = {}
        self._claims: dict[int, _Claim] = {}
        self._tokens = 0
        self._unsettled: Counter[tuple[str, date]] = Counter()
        self._released = asyncio.Event()
        self._settling = asyncio.Lock()
        self.refused: Counter[str] = Counter(dict.fromkeys((*RULES, UNAVAILABLE), 0))
        """Refusals by rule."""

    @property
    def live(self) -> int:
        """Permits that are out."""
        return len(self._claims)

    def replace(self, accounts: Mapping[str, AccountSettings], numbers: Iterable[Number], trunks: Iterable[Trunk] = ()) -> None:
        """Put these rules in force. What an account uses goes on being counted; calls under way are left alone."""
        owned: dict[str, list[str]] = {}
        for number in numbers:
            owned.setdefault(number.account, []).append(number.number)
        lines: dict[str, list[Trunk]] = {}
        for trunk in trunks:
            lines.setdefault(trunk.account, []).append(trunk)
        before, self._accounts = self._accounts, {}
        for name, settings in accounts.items():
            rules = settings.dialling
            account = before.get(name) or _Account(rules, ())
            found = tuple(owned.get(name, ()))
            if found != account.numbers:
                account.numbers, account.countries = found, None
            account.rules = rules
            account.extensions = Extensions(lines.get(name, ()), self._own_hosts)
            self._accounts[name] = account
        for token, claim in self._claims.items():
            if claim.account in self._accounts:
                self._accounts[claim.account].live.add(token)

    # -- DiallingGate -----------------------------------------------------------------------------

    async def admit(self, account: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        """Judge a number as anybody wrote it, and count the call. Never raises but for cancellation."""
        try:
            decision = await self._admit(account, number, purpose)
        except Exception:
            logger.exception("the dialling policy failed", extra={"account": account})
            decision = _FAILED
        if isinstance(decision, DialRefused):
            self.refused[decision.rule] += 1
            told = {"account": account, "rule": decision.rule, "purpose": purpose.value, "refusal": decision.message}
            logger.warning("dialling refused", extra=told)
        return decision

    def review(self, name: str, number: str) -> DialPermit | DialRefused:
        """Judge whom a call that was admitted may be redirected to: by every rule but those that count calls and money.
        Never raises."""
        try:
            decision = self._review(name, number)
        except Exception:
            logger.exception("the dialling policy failed", extra={"account": name})
            decision = _FAILED
        if isinstance(decision, DialRefused):
            self.refused[decision.rule] += 1
        return decision

    def _review(self, name: str, number: str) -> DialPermit | DialRefused:
        account = self._accounts.get(name)
        if account is None:
            return _unknown(name)
        rules = replace(account.rules, concurrent=1, calls_per_second=1.0, max_spend_per_day=None)
        return judge(rules, account.own_countries(), number, Usage(), self._clock.utc(), account.extensions).decision

    def release(self, permit: DialPermit, seconds: float) -> None:
        """The call is over; it was connected for so long. Idempotent."""
        claim = self._claims.pop(permit.token, None)
        if claim is None:
            return
        account = self._accounts.get(claim.account)
        if account is not None:
            account.live.discard(permit.token)
        owed = cost_microdollars(claim.rules, max(0.0, seconds)) - claim.reserved_microdollars
        if owed:
            self._unsettled[claim.account, claim.day] += owed
            self._released.set()

    async def _admit(self, name: str, number: str, purpose: DialPurpose) -> DialPermit | DialRefused:
        account = self._accounts.get(name)
        if account is None:
            return _unknown(name)
        rules, extensions, now_utc = account.rules, account.extensions, self._clock.utc()
        if purpose is DialPurpose.MESSAGE:
            rules, extensions = replace(rules, max_spend_per_day=None, price_per_minute=None), NO_EXTENSIONS
        usage = account.usage(self._clock.now())
        decision = judge(rules, account.own_countries(), number, usage, now_utc, extensions).decision
        if isinstance(decision, DialRefused):
            return decision
        self._tokens += 1
        permit = replace(decision, token=self._tokens)
        self._claims[permit.token] = _Claim(name, rules, now_utc.date())
        account.live.add(permit.token)
        account.calls_ready -= 1
        wanted = reservation(rules)
        return permit if wanted is None else await self._reserve(permit, wanted)

    async def _reserve(self, permit: DialPermit, wanted: Reservation) -> DialPermit | DialRefused:
        claim = self._claims[permit.token]
        amount = None
        try:
            async with asyncio.timeout(RESERVE_S):
                amount = await self._spend.reserve(claim.account, claim.day, wanted)
        except TimeoutError:
            return DialRefused(UNAVAILABLE, "the day's spend could not be read from the database; try again later")
        finally:
            if amount is None:
                self.release(permit, 0)
        if amount is None:
            return spend_refusal(claim.rules)
        self._claims[permit.token] = replace(claim, reserved_microdollars=amount)
        return replace(permit, max_seconds=longest_seconds(claim.rules, amount))

    # -- costs -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down what calls cost, until cancelled."""
        while True:
            await self._released.wait()
            await self.settle()
            await asyncio.sleep(SETTLE_EVERY_S)

    async def close(self) -> None:
        """Write the last costs down. To be awaited when every permit is back and before `run` is cancelled."""
        try:
            async with asyncio.timeout(LAST_SETTLE_S):
                await self.settle()
        except TimeoutError:
            logger.warning("the cost of the last calls was not written down; their longest durations stay counted")

    async def settle(self) -> None:
        """Write down what the calls that are over cost. What the database refuses is kept for the next time."""
        async with self._settling:
            self._released.clear()
            amounts, self._unsettled = self._unsettled, Counter()
            if not amounts:
                return
            try:
                await self._spend.add(dict(amounts))
            except Exception:
                logger.exception("the cost of calls could not be written down; it is tried again")
                # After a cancellation nothing is taken back: it may be written, and to give back twice would lift the limit.
                for key, amount in amounts.items():
                    self._unsettled[key] += amount
                self._released.set()


def _unknown(account: str) -> DialRefused:
    return DialRefused(UNAVAILABLE, f"there is no account {account}; add it under accounts: in the apply file")


def own_countries(numbers: Iterable[str]) -> frozenset[str]:
    """The countries of E.164 numbers."""
    one_of_each = {number[: _AREA_CODE_CHARS if number.startswith("+1") else _PREFIX_CHARS]: number for number in numbers}
    return frozenset(found for number in one_of_each.values() if (found := country_of(number)) is not None)


async def explain(
    directory: Directory,
    account: str | None,
    number_text: str,
    spend: SpendStore,
    now_utc: datetime,
    own_hosts: Collection[str] = (),
) -> tuple[list[str], bool]:
    """What the policy says of a number now, for a terminal, and whether it would be dialled; None: the only account.

    Rate and concurrency are a running server's: they count as free. `own_hosts` as for `AccountDialling`.
    """
    name = next(iter(directory.accounts)) if account is None and len(directory.accounts) == 1 else account
    settings = directory.accounts.get(name or "")
    if settings is None:
        known = ", ".join(sorted(directory.accounts)) or "none; add one with switchhook apply"
        return [f"there is no account {name}" if name else "name an account with --account", f"accounts: {known}"], False
    rules = settings.dialling
    spent = 0 if rules.max_spend_per_day is None else await spend.spent(settings.name, now_utc.date())
    numbers = [number.number for number in directory.numbers.values() if number.account == settings.name]
    extensions = Extensions((trunk for trunk in directory.trunks.values() if trunk.account == settings.name), own_hosts)
    usage = Usage(spent_microdollars=spent)
    judgement = judge(rules, own_countries(numbers), number_text, usage, now_utc, extensions)
    return [f"account {settings.name}", *judgement.lines(now_utc)], judgement.allowed

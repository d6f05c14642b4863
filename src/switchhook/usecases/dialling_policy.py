"""Whether an account may dial a number now. Pure: it is given the rules, the state and the time, and keeps nothing.

The rules are asked in a fixed order and the first that refuses decides; docs/dialling.md lists them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from switchhook.domain.dialling import DiallingRules, DialPermit, DialRefused
from switchhook.domain.records import Reservation
from switchhook.usecases.dialling_extensions import Extensions, could_be_extension
from switchhook.usecases.numbering import NO_COUNTRY, DialledNumber, NumberRefused, read_number, zone_of

RULES = (
    "number",
    "do-not-call",
    "deny-prefix",
    "country",
    "allow-prefix",
    "premium",
    "hours",
    "rate",
    "concurrency",
    "spend",
)
"""In the order of asking."""
MICRODOLLARS = 1_000_000
LEAST_SECONDS = 60.0
"""A call that the rest of the day's money pays no such time for is not placed."""
_SHOWN_ZONES = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account uses at this moment."""

    live: int = 0
    """Permits that are out."""
    calls_ready: float = 1.0
    """How many calls the rate allows at once; below 1: none."""
    spent_microdollars: int = 0
    """Since midnight UTC; live calls count by their longest duration."""


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule says."""

    rule: str
    passed: bool
    text: str
    """For people. Of a refusal: what was refused and which key changes it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What all rules say, in the order of asking."""

    number: DialledNumber | None
    verdicts: tuple[RuleVerdict, ...]
    decision: DialPermit | DialRefused

    @property
    def allowed(self) -> bool:
        """Whether the call would be placed."""
        return isinstance(self.decision, DialPermit)

    def lines(self, now_utc: datetime) -> list[str]:
        """For a terminal."""
        if isinstance(self.decision, DialPermit):
            first = f"allowed: {self.decision.called} for {self.decision.max_seconds:g} seconds at most"
        else:
            first = f"refused by the rule {self.decision.rule}: {self.decision.message}"
        facts = _facts(self.number, now_utc) if self.number else []
        return [first, *facts, *(f"  {'ok ' if said.passed else 'NO '} {said.rule:<13} {said.text}" for said in self.verdicts)]


NO_EXTENSIONS = Extensions()


def judge(
    rules: DiallingRules,
    own_countries: Collection[str],
    number_text: str,
    usage: Usage,
    now_utc: datetime,
    extensions: Extensions = NO_EXTENSIONS,
) -> Judgement:
    """Ask every rule. After a number that cannot be read no other rule is asked; of an extension only the limits are.

    `own_countries`: those of the account's own numbers; `extensions`: those of its trunks. The permit has no token yet.
    """
    # A phone system may stand in any of them.
    countries = (rules.default_country, *own_countries)
    extension = extensions.find(number_text, countries)
    if extension is not None:
        known = RuleVerdict("number", True, f"{extension.name} is in extensions of the trunk {extension.trunk}")
        return _judgement(rules, usage, None, extension.uri, (known, *_limits(rules, usage)))
    number = read_number(number_text, rules.default_country)
    if isinstance(number, NumberRefused):
        message = number.message
        if could_be_extension(number_text, countries):
            message += "; an extension of your own phone system is dialled when extensions of its trunk names it"
        return Judgement(None, (RuleVerdict("number", False, message),), DialRefused("number", message))
    return _judgement(rules, usage, number, number.e164, tuple(_verdicts(rules, own_countries, number, usage, now_utc)))


def _judgement(
    rules: DiallingRules, usage: Usage, number: DialledNumber | None, called: str, verdicts: tuple[RuleVerdict, ...]
) -> Judgement:
    for verdict in verdicts:
        if not verdict.passed:
            return Judgement(number, verdicts, DialRefused(verdict.rule, verdict.text))
    wanted = reservation(rules)
    seconds = longest_seconds(rules, wanted.limit - usage.spent_microdollars) if wanted else rules.max_seconds
    return Judgement(number, verdicts, DialPermit(called, seconds))


def decide(
    rules: DiallingRules, own_countries: Collection[str], number_text: str, usage: Usage, now_utc: datetime
) -> DialPermit | DialRefused:
    """The decision alone."""
    return judge(rules, own_countries, number_text, usage, now_utc).decision


def cost_microdollars(rules: DiallingRules, seconds: float) -> int:
    """What a call of so many seconds costs by the account's own estimate."""
    return round(seconds / 60 * (rules.price_per_minute or 0.0) * MICRODOLLARS)


def longest_seconds(rules: DiallingRules, microdollars: int) -> float:
    """How long a call may be that has so much to spend."""
    whole = cost_microdollars(rules, rules.max_seconds)
    return rules.max_seconds if microdollars >= whole else rules.max_seconds * microdollars / whole


def reservation(rules: DiallingRules) -> Reservation | None:
    """What a call of an account with a spend limit reserves."""
    if rules.max_spend_per_day is None:
        return None
    most = cost_microdollars(rules, rules.max_seconds)
    least = min(most, cost_microdollars(rules, LEAST_SECONDS))
    return Reservation(most, least, round(rules.max_spend_per_day * MICRODOLLARS))


def spend_refusal(rules: DiallingRules) -> DialRefused:
    """The day's money is used up."""
    return DialRefused(
        "spend",
        f"less than a minute is left of the day's {rules.max_spend_per_day:g} US dollars (live calls count by their longest "
        "duration); raise max_spend_per_day, or wait for midnight UTC",
    )


def _verdicts(
    rules: DiallingRules, own_countries: Collection[str], number: DialledNumber, usage: Usage, now_utc: datetime
) -> Iterator[RuleVerdict]:
    yield RuleVerdict("number", True, f"{number.e164} is a telephone number")
    yield _do_not_call(rules, number)
    yield _denied(rules, number)
    yield _country(rules, own_countries, number)
    yield _allowed(rules, number)
    yield _premium(rules, number)
    yield _hours(rules, number, now_utc)
    yield from _limits(rules, usage)


def _do_not_call(rules: DiallingRules, number: DialledNumber) -> RuleVerdict:
    if number.e164 in rules.do_not_call:
        return RuleVerdict("do-not-call", False, f"{number.e164} is in do_not_call")
    return RuleVerdict("do-not-call", True, "not in do_not_call")


def _denied(rules: DiallingRules, number: DialledNumber) -> RuleVerdict:
    for prefix in rules.deny_prefixes:
        if number.e164.startswith(prefix):
            return RuleVerdict("deny-prefix", False, f"{number.e164} begins with {prefix}, which is in deny_prefixes")
    return RuleVerdict("deny-prefix", True, "begins with none of deny_prefixes")


def _country(rules: DiallingRules, own_countries: Collection[str], number: DialledNumber) -> RuleVerdict:
    if number.country == NO_COUNTRY:
        return RuleVerdict("country", True, "belongs to no country; the premium rule decides")
    allowed = own_countries if rules.countries is None else rules.countries
    names = ", ".join(sorted(allowed)) or "none"
    whose = "those of its own numbers" if rules.countries is None else "countries"
    if number.country is None:
        return RuleVerdict("country", False, f"{number.e164} belongs to no country that is known; no key allows it")
    if number.country not in allowed:
        cure = f"add {number.country} to countries"
        return RuleVerdict(
            "country", False, f"{number.e164} belongs to {number.country}; the account may dial {names} ({whose}): {cure}"
        )
    return RuleVerdict("country", True, f"{number.country} is one of {names} ({whose})")


def _allowed(rules: DiallingRules, number: DialledNumber) -> RuleVerdict:
    if not rules.allow_prefixes:
        return RuleVerdict("allow-prefix", True, "allow_prefixes is not set")
    for prefix in rules.allow_prefixes:
        if number.e164.startswith(prefix):
            return RuleVerdict("allow-prefix", True, f"begins with {prefix} of allow_prefixes")
    return RuleVerdict("allow-prefix", False, f"{number.e164} begins with none of allow_prefixes; add its prefix there")


def _premium(rules: DiallingRules, number: DialledNumber) -> RuleVerdict:
    if not number.premium:
        return RuleVerdict("premium", True, f"{number.kind}: no premium range")
    if rules.allow_premium:
        return RuleVerdict("premium", True, f"{number.kind}: may be a premium range, and allow_premium is set")
    return RuleVerdict(
        "premium",
        False,
        f"{number.e164} is in a premium, shared-cost, personal or satellite range, or in one the numbering plan does not know "
        f"({number.kind}); set allow_premium: true to dial such numbers",
    )


def _hours(rules: DiallingRules, number: DialledNumber, now_utc: datetime) -> RuleVerdict:
    if rules.calling_hours is None:
        return RuleVerdict("hours", True, "calling_hours is not set")
    begin, end = rules.calling_hours
    zones = {name: zone_of(name) for name in number.zones}
    if not zones or None in zones.values():
        return RuleVerdict("hours", False, f"the callee's time zone is not known, and calling_hours is set ({begin} to {end})")
    for name, zone in zones.items():
        local = f"{now_utc.astimezone(zone):%H:%M}"
        if not begin <= local < end:
            return RuleVerdict("hours", False, f"it is {local} in {name}; calling_hours allows {begin} to {end}")
    return RuleVerdict("hours", True, f"between {begin} and {end} wherever the callee may be")


def _limits(rules: DiallingRules, usage: Usage) -> Iterator[RuleVerdict]:
    rate = f"calls_per_second allows {rules.calls_per_second:g}"
    yield RuleVerdict("rate", usage.calls_ready >= 1, rate if usage.calls_ready >= 1 else f"{rate}; wait, or raise it")
    live = f"{usage.live} calls are out, concurrent allows {rules.concurrent}"
    room = usage.live < rules.concurrent
    yield RuleVerdict("concurrency", room, live if room else f"{live}; wait for one to end, or raise it")
    wanted = reservation(rules)
    if wanted is None:
        yield RuleVerdict("spend", True, "max_spend_per_day is not set")
    elif wanted.limit - usage.spent_microdollars < wanted.least:
        yield RuleVerdict("spend", False, spend_refusal(rules).message)
    else:
        spent = usage.spent_microdollars / MICRODOLLARS
        yield RuleVerdict("spend", True, f"{spent:.2f} of the day's {rules.max_spend_per_day:g} US dollars are spent")


def _facts(number: DialledNumber, now_utc: datetime) -> list[str]:
    country = "none (international network)" if number.country == NO_COUNTRY else number.country or "unknown"
    times = [f"{name} {now_utc.astimezone(zone):%a %H:%M}" for name in number.zones if (zone := zone_of(name))]
    more = f" and {len(times) - _SHOWN_ZONES} more" if len(times) > _SHOWN_ZONES else ""
    return [
        f"number {number.e164}, country {country}, type {number.kind}",
        f"local time: {', '.join(times[:_SHOWN_ZONES]) or 'unknown'}{more}",
    ]

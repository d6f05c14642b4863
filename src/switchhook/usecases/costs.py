"""What a finished call cost: its model's tokens and its carrier's minutes, priced by the table (contract §2.6).

What a transfer's second line and the transcription of the caller cost is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

from switchhook.domain.money import CallCosts, PriceTable, carrier_cost, plain, token_costs
from switchhook.domain.plan import CallPlan
from switchhook.domain.report import CallReport
from switchhook.usecases.model_names import conversations, plan_model

_TOLD_APART = {
    "input": ("input_text", "input_audio", "input_image"),
    "cached": ("cached_text", "cached_audio", "cached_image"),
    "output": ("output_text", "output_audio"),
}
_NO_AGENT = dict.fromkeys(("input_text", "input_audio", "input_image", "output_text", "output_audio"), Decimal(0))


def call_costs(report: CallReport, plan: CallPlan, prices: PriceTable) -> CallCosts:
    """The costs of a call that ran under `plan`; unrounded seconds from answer to end are the carrier's."""
    day = report.attempt.started_at.date()
    tokens: dict[str, Decimal | None] = dict(_NO_AGENT)
    if any(conversations(plan.flow)):
        tokens = token_costs(report.usage, prices.model(plan_model(plan), day))
        tokens |= dict.fromkeys(tokens.keys() & _unpriced(report.usage))
    return CallCosts({**tokens, "carrier": _carrier(report, plan, prices, day)})


def untold(usage: Mapping[str, int]) -> frozenset[str]:
    """Parts whose tokens nobody knows: the model counted more, in, out or cached, than it said what they were of."""
    sides = (side for side, parts in _TOLD_APART.items() if usage.get(side, 0) > sum(usage.get(part, 0) for part in parts))
    return frozenset(part for side in sides for part in _TOLD_APART[side])


def connected_seconds(report: CallReport) -> Decimal:
    """From answer to end, to the microsecond; 0 when nobody answered."""
    if report.connected_at is None:
        return Decimal(0)
    connected = max(report.ended_at - report.connected_at, timedelta(0))
    return Decimal(connected // timedelta(microseconds=1)) / 1_000_000


def as_record(costs: CallCosts | None) -> Mapping[str, str]:
    """For the call's record: amounts as exact text, with their `total`; what is unknown is left out."""
    if costs is None:
        return {}
    amounts = {**costs.parts, "total": costs.total}
    return {name: plain(amount) for name, amount in amounts.items() if amount is not None}


def _unpriced(usage: Mapping[str, int]) -> frozenset[str]:
    """Parts without a price: to price what the model did say, or the rest as if it were text, would be a guess."""
    unknown = untold(usage)
    # Cached tokens are cheaper ones that came in, but of which kind?
    return unknown if unknown.isdisjoint(_TOLD_APART["cached"]) else unknown.union(_TOLD_APART["input"])


def _carrier(report: CallReport, plan: CallPlan, prices: PriceTable, day: date) -> Decimal | None:
    rate = plan.carrier_usd_per_minute
    if rate is None:
        price = prices.carrier(plan.carrier or report.attempt.line, day)
        rate = price.usd_per_minute if price is not None else None
    return None if rate is None else carrier_cost(connected_seconds(report), rate)

"""What calls cost, in US dollars and exactly: prices as they were published, and the parts of one call. No float comes near."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from typing import Protocol, TypeVar

MICRO = Decimal("0.000001")
"""Every part is rounded to this, half up (contract §2.6)."""
_MILLION = Decimal(1_000_000)
_MINUTE_S = Decimal(60)


class TokenKind(Enum):
    """What tokens are of, as price lists tell them apart. Cached tokens are a part of those that go in."""

    TEXT_IN = "text_in"
    TEXT_CACHED = "text_cached"
    TEXT_OUT = "text_out"
    AUDIO_IN = "audio_in"
    AUDIO_CACHED = "audio_cached"
    AUDIO_OUT = "audio_out"
    IMAGE_IN = "image_in"
    IMAGE_CACHED = "image_cached"


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What a model's tokens cost while the price held."""

    names: tuple[str, ...]
    usd_per_million: Mapping[TokenKind, Decimal]
    since: date | None = None
    """First day; None: since the model is there."""
    until: date | None = None
    """First day on which it holds no more."""
    shut_down: date | None = None
    """The vendor announced that the model ends on this day."""
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class CarrierPrice:
    """What a minute costs with whoever carries the call."""

    names: tuple[str, ...]
    """`twilio`, or the kind of another line: `sip`."""
    usd_per_minute: Decimal
    since: date | None = None
    until: date | None = None


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All prices that are known. Of several that hold on a day the youngest counts."""

    models: tuple[ModelPrices, ...] = ()
    carriers: tuple[CarrierPrice, ...] = ()

    def model(self, name: str | None, day: date) -> ModelPrices | None:
        """The prices of a model on a day, or None when nobody knows them."""
        return _youngest(self.models, name, day)

    def carrier(self, name: str, day: date) -> CarrierPrice | None:
        """The price of a carrier's minute on a day, or None when nobody knows it."""
        return _youngest(self.carriers, name, day)


@dataclass(frozen=True, slots=True)
class CallCosts:
    """The parts of one call's costs. A part whose price nobody knows is None, and so is the sum."""

    parts: Mapping[str, Decimal | None] = field(default_factory=dict)
    """`input_text`, `input_audio`, `input_image`, `output_text`, `output_audio`, `carrier`."""

    @property
    def total(self) -> Decimal | None:
        """The exact sum of the parts."""
        return total(self.parts.values())


def total(parts: Iterable[Decimal | None]) -> Decimal | None:
    """The exact sum, or None when one of them is unknown."""
    known = list(parts)
    return None if any(part is None for part in known) else sum((part for part in known if part is not None), Decimal(0))


def token_costs(usage: Mapping[str, int], prices: ModelPrices | None) -> dict[str, Decimal | None]:
    """The parts that a model's tokens make, as far as it said what they were of; `usage` has the keys of `CallReport.usage`."""
    return {
        "input_text": _input(usage, prices, "text", TokenKind.TEXT_IN, TokenKind.TEXT_CACHED),
        "input_audio": _input(usage, prices, "audio", TokenKind.AUDIO_IN, TokenKind.AUDIO_CACHED),
        "input_image": _input(usage, prices, "image", TokenKind.IMAGE_IN, TokenKind.IMAGE_CACHED),
        "output_text": _output(usage, prices, "text", TokenKind.TEXT_OUT),
        "output_audio": _output(usage, prices, "audio", TokenKind.AUDIO_OUT),
    }


def carrier_cost(seconds: Decimal, usd_per_minute: Decimal) -> Decimal:
    """Unrounded seconds at a price for the minute."""
    return _rounded(seconds * usd_per_minute / _MINUTE_S)


def plain(amount: Decimal) -> str:
    """The amount as people and JSON write it: `0.00146`, `12`, `0`."""
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _input(usage: Mapping[str, int], prices: ModelPrices | None, what: str, full: TokenKind, cached: TokenKind) -> Decimal | None:
    count = usage.get(f"input_{what}", 0)
    remembered = min(usage.get(f"cached_{what}", 0), count)
    return _priced(prices, ((count - remembered, full), (remembered, cached)))


def _output(usage: Mapping[str, int], prices: ModelPrices | None, what: str, kind: TokenKind) -> Decimal | None:
    return _priced(prices, ((usage.get(f"output_{what}", 0), kind),))


def _priced(prices: ModelPrices | None, counted: Iterable[tuple[int, TokenKind]]) -> Decimal | None:
    if prices is None:
        return None
    dollars = Decimal(0)
    for count, kind in counted:
        price = prices.usd_per_million.get(kind)
        if count and price is None:
            return None
        dollars += count * (price or Decimal(0)) / _MILLION
    return _rounded(dollars)


def _rounded(dollars: Decimal) -> Decimal:
    return dollars.quantize(MICRO, ROUND_HALF_UP)


class _Dated(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def since(self) -> date | None: ...

    @property
    def until(self) -> date | None: ...


_Row = TypeVar("_Row", bound=_Dated)


def _youngest(rows: Iterable[_Row], name: str | None, day: date) -> _Row | None:
    holding = [row for row in rows if name in row.names and _holds(row, day)]
    return max(holding, key=lambda row: row.since or date.min, default=None)


def _holds(row: _Dated, day: date) -> bool:
    return (row.since is None or row.since <= day) and (row.until is None or day < row.until)

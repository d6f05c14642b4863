"""Reads the price table: the one that comes with the program, and the operator's own laid over it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from switchhook.domain.errors import SettingError
from switchhook.domain.money import CarrierPrice, ModelPrices, PriceTable, TokenKind

SHIPPED = Path(__file__).with_name("prices.yaml")


def _exact(value: object) -> object:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError('put the amount in quotes: "0.0085"')
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError('is no amount; write US dollars such as "0.0085"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("must be an amount of US dollars, 0 or more")
    return amount


Amount = Annotated[Decimal, BeforeValidator(_exact)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    names: list[str] = Field(min_length=1)
    source: str = Field(min_length=1)
    since: date | None = None
    until: date | None = None


class _ModelRow(_Row):
    usd_per_million: dict[TokenKind, Amount]
    shut_down: date | None = None
    replaced_by: str | None = None


class _CarrierRow(_Row):
    usd_per_minute: Amount


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[_ModelRow] = []
    carriers: list[_CarrierRow] = []


def load_prices(own: Path | None = None) -> PriceTable:
    """The shipped prices; the operator's rows replace those of the same name. Raises SettingError naming file and place."""
    shipped = _read(SHIPPED)
    if own is None:
        return shipped
    mine = _read(own)
    models = {name for row in mine.models for name in row.names}
    carriers = {name for row in mine.carriers for name in row.names}
    return PriceTable(
        (*mine.models, *(kept for row in shipped.models if (kept := _without(row, models)).names)),
        (*mine.carriers, *(row for row in shipped.carriers if not carriers & set(row.names))),
    )


def _without(row: ModelPrices, names: set[str]) -> ModelPrices:
    kept = tuple(name for name in row.names if name not in names)
    return ModelPrices(kept, row.usd_per_million, row.since, row.until, row.shut_down, row.replaced_by)


def _read(path: Path) -> PriceTable:
    try:
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingError(f"prices: {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError):
        raise SettingError(f"prices: {path} is not YAML") from None
    try:
        file = _File.model_validate(content or {})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise SettingError(f"prices: {path}: {place}: {problem['msg'].removeprefix('Value error, ')}") from None
    return PriceTable(
        tuple(
            ModelPrices(tuple(row.names), row.usd_per_million, row.since, row.until, row.shut_down, row.replaced_by)
            for row in file.models
        ),
        tuple(CarrierPrice(tuple(row.names), row.usd_per_minute, row.since, row.until) for row in file.carriers),
    )

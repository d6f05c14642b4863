"""The price table: what is shipped, what the operator lays over it, what is wrong with a file."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from switchhook.domain.errors import SettingError
from switchhook.domain.money import PriceTable, TokenKind
from switchhook.usecases.model_names import read_aliases
from switchhook.usecases.prices import load_prices

DAY = date(2026, 11, 21)


def audio_out(table: PriceTable, model: str) -> Decimal | None:
    prices = table.model(model, DAY)
    return None if prices is None else prices.usd_per_million[TokenKind.AUDIO_OUT]


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("gpt-realtime", "64"),
        ("gpt-realtime-2025-08-28", "64"),
        ("gpt-realtime-mini", "20"),
        ("gpt-realtime-1.5", "64"),
        ("gpt-realtime-2.1", "64"),
        ("gpt-4o-realtime-preview", "80"),
    ],
)
def test_the_shipped_table(model: str, usd: str) -> None:
    assert audio_out(load_prices(), model) == Decimal(usd)


def test_what_is_not_listed_is_unknown() -> None:
    table = load_prices()
    assert table.model("gpt-realtime-3", DAY) is None
    assert table.model(None, DAY) is None
    assert table.carrier("sip", DAY) is None
    twilio = table.carrier("twilio", DAY)
    assert twilio is not None
    assert twilio.usd_per_minute == Decimal("0.0085")


def test_the_operators_rows_replace_those_of_the_same_name(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(
        """
models:
  - {names: [gpt-realtime, mine], source: contract, usd_per_million: {audio_out: "50.10"}}
carriers:
  - {names: [sip], source: trunk, usd_per_minute: "0.003", since: 2026-01-01}
"""
    )
    table = load_prices(own)
    assert audio_out(table, "gpt-realtime") == Decimal("50.10")
    assert audio_out(table, "mine") == Decimal("50.10")
    assert audio_out(table, "gpt-realtime-2025-08-28") == Decimal(64)
    sip = table.carrier("sip", DAY)
    assert sip is not None
    assert sip.usd_per_minute == Decimal("0.003")
    assert table.carrier("twilio", DAY) is not None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("carriers: [{names: [sip], source: x, usd_per_minute: 0.003}]", "put the amount in quotes"),
        ('carriers: [{names: [sip], source: x, usd_per_minute: "cheap"}]', "is no amount"),
        ('carriers: [{names: [sip], source: x, usd_per_minute: "-1"}]', "0 or more"),
        ('carriers: [{names: [sip], usd_per_minute: "1"}]', "carriers.0.source"),
        ('models: [{names: [m], source: x, usd_per_million: {smell_out: "1"}}]', "models.0.usd_per_million"),
        ("nonsense: 1", "nonsense"),
        ("[", "is not YAML"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, text: str, complaint: str) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_prices(own)
    assert str(own) in str(caught.value)
    assert complaint in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        load_prices(tmp_path / "none.yaml")


def test_aliases() -> None:
    table = load_prices()
    assert read_aliases(None, table) == {}
    assert read_aliases("a=b, c = d", table) == {"a": "b", "c": "d"}
    retired = read_aliases("retired,gpt-realtime=mine", table)
    assert retired["gpt-realtime"] == "mine"
    assert retired["gpt-realtime-mini"] == "gpt-realtime-2.1-mini"
    with pytest.raises(SettingError, match="OLD=NEW"):
        read_aliases("gpt-realtime", table)

"""Money: exact, never a guess."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.money import (
    CallCosts,
    CarrierPrice,
    ModelPrices,
    PriceTable,
    TokenKind,
    carrier_cost,
    plain,
    token_costs,
)

DAY = date(2026, 11, 21)
AMOUNTS = st.decimals(0, 1000, places=4)
PRICES = st.builds(ModelPrices, st.just(("m",)), st.fixed_dictionaries({kind: AMOUNTS for kind in TokenKind}))
USAGE = st.dictionaries(
    st.sampled_from(
        ["input_text", "input_audio", "input_image", "cached_text", "cached_audio", "cached_image", "output_text", "output_audio"]
    ),
    st.integers(0, 10**9),
)


@given(USAGE, PRICES, st.decimals(0, 10**5, places=6), AMOUNTS)
def test_the_parts_make_the_total_and_none_is_a_float(
    usage: dict[str, int], prices: ModelPrices, seconds: Decimal, rate: Decimal
) -> None:
    costs = CallCosts({**token_costs(usage, prices), "carrier": carrier_cost(seconds, rate)})
    parts = list(costs.parts.values())
    assert all(isinstance(part, Decimal) and part >= 0 for part in parts)
    assert costs.total == sum(Decimal(part) for part in parts if part is not None)
    assert all(Decimal(plain(part)) == part and "E" not in plain(part) for part in parts if part is not None)


@given(USAGE)
def test_without_prices_every_part_of_the_model_is_unknown(usage: dict[str, int]) -> None:
    assert set(token_costs(usage, None).values()) == {None}
    assert CallCosts({**token_costs(usage, None), "carrier": Decimal(1)}).total is None


def test_a_kind_of_token_without_a_price_is_unknown_only_when_it_was_used() -> None:
    prices = ModelPrices(("m",), {TokenKind.TEXT_IN: Decimal(4)})
    costs = token_costs({"input_text": 10, "output_audio": 1}, prices)
    assert (costs["input_text"], costs["output_audio"], costs["output_text"]) == (Decimal("0.00004"), None, Decimal(0))


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0.001460", "0.00146"), ("12", "12"), ("0", "0"), ("0.000000", "0"), ("1E+2", "100"), ("100", "100"), ("10.50", "10.5")],
)
def test_amounts_are_written_plainly(amount: str, text: str) -> None:
    assert plain(Decimal(amount)) == text


def test_half_a_millionth_is_rounded_up() -> None:
    assert carrier_cost(Decimal(60), Decimal("0.0000005")) == Decimal("0.000001")
    assert carrier_cost(Decimal("46.92"), Decimal("0.0085")) == Decimal("0.006647")


def test_the_price_of_the_day_counts() -> None:
    table = PriceTable(
        carriers=(
            CarrierPrice(("twilio",), Decimal(1)),
            CarrierPrice(("twilio",), Decimal(2), since=date(2026, 6, 1)),
            CarrierPrice(("twilio",), Decimal(9), since=date(2026, 7, 1), until=date(2026, 8, 1)),
            CarrierPrice(("sip",), Decimal(7), since=date(2027, 1, 1)),
        )
    )
    for day, usd in ((date(2026, 5, 31), 1), (date(2026, 6, 1), 2), (date(2026, 7, 31), 9), (DAY, 2)):
        price = table.carrier("twilio", day)
        assert price is not None
        assert price.usd_per_minute == usd
    assert table.carrier("sip", DAY) is None

"""What a call cost, as the customer is told and as its record keeps it: names, prices of the day, exact amounts."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.server.house import House, ear_has, open_house
from tests.server.listening import speech
from tests.server.model import Model
from tests.server.twilio_exchange import open_exchange_over_twilio
from tests.server.veevo_house import USAGE, VeevoHouse, VeevoTalk, dated_prices, greeted
from tests.server.veevo_house import house as open_veevo

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKENS = {"inputTextTokens": 365, "inputAudioTokens": 90, "outputTextTokens": 45, "outputAudioTokens": 109}
AI = ("costInputText", "costInputAudio", "costOutputText", "costOutputAudio")
MILLIONTH = Decimal("0.000001")


async def _short_call(veevo: VeevoHouse, model: str | None = None) -> tuple[VeevoTalk, dict[str, Any]]:
    """A call of one response with the documented tokens; gives it and its costBreakdown."""
    if model is not None:
        veevo.backend.start_reply["model"] = model
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        await talk.call.hang_up()
    end = await veevo.end_of(talk.sid)
    return talk, json.loads(end.body, parse_float=Decimal)["costBreakdown"]


def _ai(costs: dict[str, Any]) -> list[str]:
    return [str(costs[name]) for name in AI]


@pytest.mark.parametrize(
    ("asked", "used", "costs"),
    [
        ("gpt-realtime", "gpt-realtime-2.1", ["0.00146", "0.00288", "0.00108", "0.006976"]),
        ("gpt-realtime-mini", "gpt-realtime-2.1-mini", ["0.000219", "0.0009", "0.000108", "0.00218"]),
        ("gpt-of-old", "gpt-realtime-2.1-mini", ["0.000219", "0.0009", "0.000108", "0.00218"]),
        ("gpt-realtime-1.5", "gpt-realtime-1.5", ["0.00146", "0.00288", "0.00072", "0.006976"]),
    ],
)
async def test_a_retired_name_is_replaced_and_its_successor_is_paid(
    veevo: VeevoHouse, asked: str, used: str, costs: list[str]
) -> None:
    talk, told = await _short_call(veevo, asked)
    assert talk.session.model_name == used
    [update] = talk.session.sent("session.update")
    assert update["session"]["model"] == used
    assert _ai(told) == costs
    assert told["totalCost"] == sum(told[name] for name in (*AI, "costTwilio"))


async def test_without_the_setting_no_name_is_replaced(tmp_path: Path) -> None:
    async with open_veevo(tmp_path) as home:
        talk, told = await _short_call(home, "gpt-realtime")
        assert talk.session.model_name == "gpt-realtime"
        assert _ai(told)[2] == "0.00072"
        await _short_call(home, "gpt-realtime")
    warned = [line for line in home.server.log.read_text().splitlines() if "2027-01-20" in line]
    assert len(warned) == 1, "its end is announced once, in the log"
    assert "SWITCHHOOK_MODEL_ALIASES" in warned[0]


async def test_a_model_that_nobody_knows_costs_nobody_knows_what(veevo: VeevoHouse) -> None:
    talk, told = await _short_call(veevo, "gpt-unheard-of")
    assert talk.session.model_name == "gpt-unheard-of"
    assert [told[name] for name in (*AI, "totalCost")] == [None] * 5
    assert told["costTwilio"] > 0
    assert {name: told[name] for name in TOKENS} == TOKENS
    (kept,) = await veevo.row("costs", talk.caller)
    assert list(json.loads(kept)) == ["carrier"]


@pytest.mark.parametrize(("model", "dollars"), [("gpt-dearer", 3), ("gpt-cheap", 1), ("gpt-to-come", None)])
async def test_the_price_is_that_of_the_calls_day(veevo: VeevoHouse, model: str, dollars: int | None) -> None:
    """One was raised yesterday, one will be, one has no price yet."""
    _, told = await _short_call(veevo, model)
    counted = [Decimal(tokens) for tokens in TOKENS.values()]
    assert [told[name] for name in AI] == [dollars and tokens * dollars / 1_000_000 for tokens in counted]
    assert (told["totalCost"] is None) is (dollars is None)


async def test_every_response_counts_and_cached_tokens_cost_less(veevo: VeevoHouse) -> None:
    """Interrupted ones, too."""
    cached = {"cached_tokens": 150, "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 50}}
    later = {**USAGE, "input_token_details": {"text_tokens": 365, "audio_tokens": 90, **cached}}
    async with veevo.talk() as talk:
        await greeted(talk.session, talk.call)
        item = talk.session.begins(speech(3000, turn=1))
        await ear_has(talk.call, 10, turn=1)
        talk.session.end_speech(item, "A long story.")
        talk.session.finish("cancelled", "turn_detected", later)
        talk.session.calls_tool("call_1", "check_availability", {})
        await talk.session.output_of("call_1")  # so all before it was read
        await talk.call.hang_up()
    told = json.loads((await veevo.end_of(talk.sid)).body, parse_float=Decimal)["costBreakdown"]
    assert {name: told[name] for name in TOKENS} == {name: 2 * count for name, count in TOKENS.items()}
    assert (told["cachedInputTextTokens"], told["cachedInputAudioTokens"]) == (100, 50)
    assert _ai(told) == ["0.00256", "0.00418", "0.00144", "0.013952"]


async def test_the_line_is_charged_by_unrounded_seconds(veevo: VeevoHouse) -> None:
    """The figures agree with each other, and with the record."""
    talk, told = await _short_call(veevo)
    connected, ended, kept = await veevo.row("connected_at, ended_at, costs", talk.caller)
    seconds = Decimal((datetime.fromisoformat(ended) - datetime.fromisoformat(connected)).total_seconds()).quantize(MILLIONTH)
    assert seconds != seconds.to_integral_value()
    charged = (seconds / 60 * Decimal("0.0085")).quantize(MILLIONTH, ROUND_HALF_UP)
    assert told["costTwilio"] == charged
    assert told["totalCost"] == Decimal("0.012036") + charged
    end = (await veevo.end_of(talk.sid)).json
    assert end["durationSeconds"] == int(seconds.quantize(Decimal(1), ROUND_HALF_UP))
    record = {name: Decimal(amount) for name, amount in json.loads(kept).items()}
    assert (record["carrier"], record["total"]) == (told["costTwilio"], told["totalCost"])


async def test_a_vns_call_has_its_costs_in_its_record(tmp_path: Path) -> None:
    """By the model of its `aiUrl`, or by the one that took its place, and at the operator's price of a SIP minute."""
    prices = dated_prices(tmp_path)
    async with (
        open_house(tmp_path, SWITCHHOOK_PRICES=prices, SWITCHHOOK_MODEL_ALIASES="retired") as house,
        Model() as model,
    ):
        for asked, used, output_text in (
            ("gpt-realtime-1.5", "gpt-realtime-1.5", "0.00072"),
            ("gpt-realtime", "gpt-realtime-2.1", "0.00108"),
            ("gpt-unheard-of", "gpt-unheard-of", None),
        ):
            kept = await _vns_costs(house, model, asked, used)
            parts = {"input_text": "0.00146", "input_audio": "0.00288", "input_image": "0", "output_audio": "0.006976"}
            carrier = Decimal(kept.pop("carrier"))
            total = Decimal(kept.pop("total")) if "total" in kept else None
            assert 0 < carrier < Decimal("0.0042")
            assert kept == ({} if output_text is None else {**parts, "output_text": output_text})
            assert total == (None if output_text is None else sum(map(Decimal, kept.values())) + carrier)


async def test_a_vns_call_over_twilio_costs_what_twilio_asks(tmp_path: Path) -> None:
    """The same tokens, at the price of a Twilio minute."""
    async with open_exchange_over_twilio(tmp_path) as house, Model() as model:
        kept = await _vns_costs(house, model, "gpt-realtime-1.5", "gpt-realtime-1.5")
    over_twilio, total = Decimal(kept.pop("carrier")), Decimal(kept.pop("total"))
    assert 0 < over_twilio < Decimal("0.0085")
    assert (kept["output_text"], total) == ("0.00072", sum(map(Decimal, kept.values())) + over_twilio)


async def _vns_costs(house: House, model: Model, asked: str, used: str) -> dict[str, str]:
    told = house.answer_with(model)["VoiceElements_Instructions"]
    told["aiUrl"]["url"] = model.url.replace("model=stub", f"model={asked}")
    caller = house.new_caller()
    async with house.talk(model, caller) as talk:
        assert talk.session.model_name == used
        await greeted(talk.session, talk.call)
        await talk.call.hang_up()
    await house.end_of(talk.guid)
    await house.record_of(caller)
    [(costs,)] = house._asked("SELECT costs FROM calls WHERE caller = ?", caller)
    kept: dict[str, str] = json.loads(str(costs))
    return kept

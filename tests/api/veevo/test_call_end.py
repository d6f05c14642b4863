"""onCallEnd: exact fields and exact money."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.contract import HttpFailure, HttpReply
from switchhook.domain.model import Speaker, Utterance
from switchhook.domain.report import CallReport
from switchhook.usecases.costs import call_costs
from switchhook.usecases.prices import load_prices
from tests.api.veevo.cases import ANSWERED, SAID, STARTED, VEEVO, configuration, number, plan_of, recorded, report

PRICES = load_prices()


def priced(account: CallReport, **fields: Any) -> CallReport:
    plan = plan_of(configuration(**fields), account.number)
    return replace(account, costs=call_costs(account, plan, PRICES))


def told(account: CallReport, said: tuple[Utterance, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VEEVO.end_body(account, (), said), parse_float=Decimal)
    return found


def test_the_body_is_the_documented_one_byte_for_byte() -> None:
    """The four AI figures and the Twilio figure of 46.92 unrounded seconds; `totalCost` is the true sum."""
    account = priced(report(number=number(dialect="2026-04")))
    assert VEEVO.end_body(account, (), SAID) == recorded("on_call_end_request.json")


@pytest.mark.parametrize(
    ("dialect", "more"),
    [("2026-04", []), ("newer", ["callerNumber", "calledNumber"]), ("both", ["callerNumber", "callerPhone", "calledNumber"])],
)
def test_the_parties_are_told_as_the_documents_of_their_generation_do(dialect: str, more: list[str]) -> None:
    body = told(priced(report(number=number(dialect=dialect))))
    assert list(body)[-1 - len(more) :] == ["timestamp", *more]
    assert ("cachedInputTextTokens" in body["costBreakdown"]) is (dialect == "both")


def test_the_newest_default_adds_to_the_documented_body_and_changes_nothing() -> None:
    body, documented = told(priced(report()), SAID), json.loads(recorded("on_call_end_request.json"), parse_float=Decimal)
    costs = body.pop("costBreakdown")
    assert documented.pop("costBreakdown").items() <= costs.items()
    assert documented.items() <= body.items()


def test_cached_tokens_cost_their_own_price() -> None:
    usage = {"input_text": 1000, "cached_text": 400, "input_audio": 100, "cached_audio": 500}
    costs = told(priced(report(usage=usage)))["costBreakdown"]
    assert (costs["inputTextTokens"], costs["cachedInputTextTokens"], costs["inputAudioTokens"]) == (1000, 400, 100)
    assert costs["costInputText"] == Decimal("0.00256")
    assert costs["costInputAudio"] == Decimal("0.00004")  # never more cached than there were


def test_an_unknown_model_costs_nobody_knows_what() -> None:
    costs = told(priced(report(), model="gpt-unheard-of"))["costBreakdown"]
    ai = [costs[name] for name in ("costInputText", "costInputAudio", "costOutputText", "costOutputAudio", "totalCost")]
    assert ai == [None] * 5
    assert (costs["inputTextTokens"], costs["costTwilio"]) == (365, Decimal("0.006647"))


def test_tokens_that_were_not_told_apart_have_no_price() -> None:
    costs = told(priced(report(usage={"input": 400, "output_text": 5, "output": 5})))["costBreakdown"]
    assert costs["costInputText"] is None
    assert costs["costOutputText"] == Decimal("0.00008")
    assert (costs["inputTextTokens"], costs["outputTextTokens"], costs["totalCost"]) == (None, 5, None)


def test_cached_tokens_of_an_unknown_kind_take_the_price_away_and_no_known_count() -> None:
    usage = {"input": 455, "input_text": 365, "input_audio": 90, "cached": 40}
    costs = told(priced(report(usage=usage)))["costBreakdown"]
    assert (costs["inputTextTokens"], costs["inputAudioTokens"]) == (365, 90)
    assert (costs["cachedInputTextTokens"], costs["cachedInputAudioTokens"]) == (None, None)
    assert (costs["costInputText"], costs["costInputAudio"], costs["costOutputText"]) == (None, None, 0)


def test_a_number_may_have_another_price_for_its_minutes() -> None:
    costs = told(priced(report(number=number(twilio_usd_per_minute="0.01"))))["costBreakdown"]
    assert costs["costTwilio"] == Decimal("0.00782")
    assert told(priced(report(number=number(twilio_usd_per_minute=0))))["costBreakdown"]["costTwilio"] == 0


def test_a_call_that_nobody_answered_cost_nothing() -> None:
    body = told(report(connected_at=None, usage={}))
    assert body["durationSeconds"] == 0
    assert set(body["costBreakdown"].values()) == {0}


def test_of_a_call_whose_process_died_the_costs_are_unknown() -> None:
    body = told(report(usage={}))
    assert set(body["costBreakdown"].values()) == {None}
    assert body["durationSeconds"] == 47
    assert body["metadata"] == {"customerId": "cust_123"}


@pytest.mark.parametrize(
    ("kept", "echoed"),
    [
        (None, None),
        ("null", {"metadata": None}),
        ('{"n":1.0}', {"metadata": {"n": 1}}),
        ("[1,", None),
        ('"é"', {"metadata": "é"}),
    ],
)
def test_metadata_is_echoed(kept: str | None, echoed: dict[str, Any] | None) -> None:
    body = told(report(customer_call_id=kept))
    assert ("metadata" in body) is (echoed is not None)
    assert echoed is None or echoed.items() <= body.items()


def test_the_plan_keeps_the_metadata_with_the_calls_record() -> None:
    assert plan_of(configuration(metadata={"a": [1, None]})).customer_call_id == '{"a": [1, null]}'
    assert plan_of(configuration(metadata=None)).customer_call_id == "null"
    assert plan_of(configuration()).customer_call_id is None


def test_the_transcript_is_in_the_order_of_the_conversation_in_unix_seconds() -> None:
    late = Utterance(Speaker.CALLER, "half \ud800 a pair", 3, STARTED)
    body = told(report(), (late, *reversed(SAID)))
    assert [line["timestamp"] for line in body["transcript"]] == [1711900000, 1711900005, int(STARTED.timestamp())]
    assert body["transcript"][2]["content"] == "half ? a pair"


@pytest.mark.parametrize(("seconds", "shown"), [(46.92, 47), (0.4, 0), (0.5, 1), (59.5, 60)])
def test_the_duration_is_rounded_and_the_minutes_are_not(seconds: float, shown: int) -> None:
    assert told(report(ended_at=ANSWERED + timedelta(seconds=seconds)))["durationSeconds"] == shown


def test_the_end_request_is_signed_around_the_stored_bytes() -> None:
    request = VEEVO.end_request(number(), b"stored")
    assert (request.url, request.body, request.timeout_s) == ("https://backend.example/calls/end", b"stored", 10)
    assert request.sign is not None
    assert VEEVO.acknowledges(HttpReply(204, b""))
    assert not VEEVO.acknowledges(HttpReply(500, b""))
    assert not VEEVO.acknowledges(HttpFailure("timeout", ""))


COUNT = st.integers(0, 10**7)


@given(st.fixed_dictionaries({name: COUNT for name in ("input_text", "input_audio", "output_text", "output_audio")}))
def test_the_total_is_the_sum_of_the_parts_as_they_are_printed(usage: dict[str, int]) -> None:
    costs = told(priced(report(usage=usage)))["costBreakdown"]
    parts = [value for name, value in costs.items() if name.startswith("cost")]
    assert sum(Decimal(part) for part in parts) == Decimal(costs["totalCost"])
    assert all(isinstance(part, int | Decimal) for part in parts)

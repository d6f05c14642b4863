"""Which model an agent talks through, and retired names replaced."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.plan import AgentSpec, Answer, CallPlan, Converse, HangUp
from switchhook.usecases.model_names import ModelNames, model_of, plan_model
from switchhook.usecases.prices import load_prices
from tests.usecases.fakes import plan

DAY = date(2026, 11, 21)
SESSION = b'{"type":"session.update","event_id":"start_1","session":{"temperature":1.0,"model":"gpt-realtime","x":1e400}}'


def talk(*specs: AgentSpec) -> CallPlan:
    return replace(plan(), flow=(Answer(), *(Converse(spec) for spec in specs), HangUp()))


def spec_of(found: CallPlan) -> AgentSpec:
    return next(action.agent for action in found.flow if isinstance(action, Converse))


def test_the_address_says_it_before_the_session_does() -> None:
    assert model_of(AgentSpec("wss://ai/rt?a=1&model=in%20url", session_update=SESSION)) == "in url"
    assert model_of(AgentSpec("wss://ai/rt", session_update=SESSION)) == "gpt-realtime"
    assert model_of(AgentSpec("wss://ai/rt")) is None
    assert model_of(AgentSpec("wss://ai/rt", session_update=b"garbage")) is None


def test_a_plan_of_two_models_has_none_to_price_by() -> None:
    one, other = AgentSpec("wss://ai/?model=a"), AgentSpec("wss://ai/?model=b")
    assert plan_model(talk(one, one)) == "a"
    assert plan_model(talk(one, other)) is None
    assert plan_model(talk()) is None


def test_nothing_is_replaced_that_nobody_opted_in_to() -> None:
    found = talk(AgentSpec("wss://ai/?model=gpt-realtime", session_update=SESSION))
    assert ModelNames({}, load_prices()).current(found, DAY) is found
    assert ModelNames({"other": "x"}, load_prices()).current(found, DAY) is found


def test_an_alias_replaces_the_name_in_both_places_and_nothing_else() -> None:
    old = AgentSpec("wss://ai/rt?key=a%2Bb&model=gpt-realtime&z=", session_update=SESSION)
    new = spec_of(ModelNames({"gpt-realtime": "gpt-realtime-2.1"}, load_prices()).current(talk(old), DAY))
    assert new.url == "wss://ai/rt?key=a%2Bb&model=gpt-realtime-2.1&z="
    assert new.session_update == SESSION.replace(b'"gpt-realtime"', b'"gpt-realtime-2.1"')


def test_failure_branches_are_renamed_too() -> None:
    old = AgentSpec("wss://ai/?model=old")
    found = replace(plan(), flow=(Converse(AgentSpec("wss://ai/?model=new"), (Converse(old), HangUp())),))
    (outer,) = ModelNames({"old": "newer"}, load_prices()).current(found, DAY).flow
    assert isinstance(outer, Converse)
    assert isinstance(outer.on_failure[0], Converse)
    assert outer.on_failure[0].agent.url == "wss://ai/?model=newer"


def test_a_name_that_will_end_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    names = ModelNames({}, load_prices())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            names.current(talk(AgentSpec("wss://ai/?model=gpt-realtime")), DAY)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "2027-01-20" in warning
    assert "SWITCHHOOK_MODEL_ALIASES=retired" in warning


@given(st.text(), st.binary())
def test_any_address_and_session_are_read(url: str, session: bytes) -> None:
    spec = AgentSpec(url, session_update=session)
    model = model_of(spec)
    assert model is None or isinstance(model, str)
    renamed = ModelNames({model or "x": "y"}, load_prices()).current(talk(spec), DAY)
    assert isinstance(renamed, CallPlan)


@given(st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_the_rest_of_a_session_keeps_its_text(members: dict[str, object]) -> None:
    update = json.dumps({"type": "session.update", "session": {**members, "model": "old"}}).encode()
    new = spec_of(ModelNames({"old": "new"}, load_prices()).current(talk(AgentSpec("wss://ai/", session_update=update)), DAY))
    assert json.loads(new.session_update)["session"] == {**members, "model": "new"}

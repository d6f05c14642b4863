"""A script that cannot be used is refused with the place and the cure."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from switchhook.agents.embedded.reader import read_script, script_of
from switchhook.agents.embedded.script import ScriptInvalid

GOOD: dict[str, Any] = {"start": "a", "states": {"a": {"say": "Hi", "listen": [{"phrases": "b", "goto": "a"}]}}}


def changed(**state: Any) -> dict[str, Any]:
    return {"start": "a", "states": {"a": state}}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ([], "the script: give a mapping"),
        ({"start": "a"}, "states: give a mapping"),
        ({"states": {"a": {"end": True}}}, "`start` is missing"),
        ({**GOOD, "start": "z"}, "start: there is no state `z`"),
        ({**GOOD, "stat": 1}, "unknown key `stat`"),
        (changed(say="x"), "states.a: say what happens"),
        (changed(say=7, end=True), "states.a.say: give a text"),
        (changed(end=True, listen=[]), "one of `listen`, `tool` and `end: true`"),
        (changed(tool="t"), "states.a: a state with a `tool` needs `goto`"),
        (changed(goto="b"), "states.a.goto: there is no state `b`"),
        (changed(listen=[{"phrases": "x"}]), "states.a.listen[0]: say where it leads"),
        (changed(listen=[{"phrases": "x", "goto": "q"}]), "states.a.listen[0].goto: there is no state `q`"),
        (changed(listen=[{"goto": "a"}]), "give `phrases`, `keys` or both"),
        (changed(listen=[{"phrases": "(x", "goto": "a"}]), "states.a.listen[0].phrases: `(` is not closed"),
        (changed(listen=[{"phrases": [yaml.safe_load("yes")], "goto": "a"}]), "put quotation marks around `True`"),
        (changed(listen=[{"phrases": "{when}", "goto": "a"}]), "there is no slot `when`; the slots are day,"),
        (changed(listen=[{"keys": "{when}", "goto": "a"}]), "states.a.listen[0].keys: there is no slot"),
        (changed(listen=[], tries=0), "states.a.tries: give a number from 1 to 20"),
        (changed(end=True, tries=2), "`tries` needs `listen`"),
        (changed(listen=[], needs="day"), "a state with `needs` needs `goto`"),
        (changed(tool="t", goto="a", results=[{"when": {"x": 1}}]), "states.a.results[0]: `goto` is missing"),
        ({**GOOD, "slots": {"x": {}}}, "slots.x.words: give a mapping"),
        ({**GOOD, "slots": {"x": {"digits": "9-3"}}}, "slots.x.digits: give a count or a range"),
        ({**GOOD, "slots": {"x": {"words": {"a": "{day}"}}}}, "a slot's words hold no slot"),
        ({**GOOD, "slots": {"X y": {"digits": 3}}}, "`X y` is no name"),
    ],
)
def test_the_complaint_names_the_place(data: Any, complaint: str) -> None:
    with pytest.raises(ScriptInvalid) as refused:
        script_of(data)
    assert complaint in str(refused.value)


def test_yaml_that_is_none_is_refused_with_its_line() -> None:
    with pytest.raises(ScriptInvalid, match="not YAML in line 2"):
        read_script("start: a\n  states: [")
    with pytest.raises(ScriptInvalid, match="more than"):
        read_script("#" * 200_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(["say", "goto", "end", "listen", "tool", "needs", "tries", "results", "arguments", "failed", "phrases"])


@given(st.dictionaries(KEYS, JSON), JSON, JSON)
def test_any_data_is_read_or_refused(state: dict[str, Any], slots: Any, always: Any) -> None:
    for data in ({"start": "a", "states": {"a": state}, "slots": slots, "always": always}, {**GOOD, "slots": slots}, slots):
        try:
            script_of(data)
        except ScriptInvalid as refused:
            assert str(refused)


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(ScriptInvalid):
        read_script(text)

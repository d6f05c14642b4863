"""A number's settings in an apply file: strict, normalised, with errors that name the field and the cure."""

from __future__ import annotations

from typing import Any

import pytest

from switchhook.domain.errors import ApplyError
from tests.api.vns.cases import VNS, WEBHOOKS

FULL = {
    **WEBHOOKS,
    "fallback": {"number": "720 555 1212", "message": "Please call again later."},
    "tool_timeout_s": 12,
    "max_seconds_cap": 600,
    "number_format": "e164",
    "ai_speaks_first": False,
    "log_timezone": "America/Denver",
    "null_placeholder": "-",
}


def test_defaults() -> None:
    read = VNS.read_number_settings(WEBHOOKS)
    assert read["tool_timeout_s"] == 30
    assert read["number_format"] == "national"
    assert read["ai_speaks_first"] is True
    assert read["log_timezone"] == "UTC"
    assert read["fallback"] == {"number": None, "message": None}


def test_reading_again_changes_nothing() -> None:
    once = VNS.read_number_settings(FULL)
    assert VNS.read_number_settings(once) == once
    assert once["fallback"]["number"] == "+17205551212"


@pytest.mark.parametrize(
    ("preset", "header"),
    [
        ({"basic": {"username": "user", "password": "pass"}}, "Basic dXNlcjpwYXNz"),
        ({"bearer": "abc"}, "Bearer abc"),
        ({"headers": {"Authorization": "Custom x"}}, "Custom x"),
    ],
)
def test_presets_become_an_authorization_header(preset: dict[str, Any], header: str) -> None:
    webhook = {"url": "https://b.example/", **preset}
    read = VNS.read_number_settings({"call_start": webhook, "call_end": webhook})
    for name in ("call_start", "call_end"):
        assert read[name] == {"url": "https://b.example/", "headers": {"Authorization": header}}
    assert VNS.read_number_settings(read) == read


def test_a_number_as_header_value_is_text() -> None:
    read = VNS.read_number_settings({**WEBHOOKS, "call_start": {"url": "http://127.0.0.1:9000/x", "headers": {"Token": 123}}})
    assert read["call_start"]["headers"] == {"Token": "123"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"call_start": None}, r"call_start: .*write \{url: https"),
        ({"call_start": {}}, r"call_start\.url: is missing; write an http or https address"),
        ({"call_start": {"url": "canary"}}, r"call_start\.url: is no web address; write an http or https"),
        ({"call_end": {"url": "ftp://canary/"}}, r"call_end\.url: is no web address"),
        (
            {"call_start": {"url": "https://b.example/", "headers": {"X": "canary\nEvil: 1"}}},
            r"call_start\.headers: cannot send 'X'",
        ),
        (
            {"call_start": {"url": "https://b.example/", "headers": {"X": ["canary"]}}},
            r"call_start\.headers\.X: .*write \{Name: value\}",
        ),
        (
            {"call_start": {"url": "https://b.example/", "header": {"X": "canary"}}},
            r"call_start\.header: is no setting .*known here: basic, bearer, headers, url",
        ),
        (
            {"call_start": {"url": "https://b.example/", "bearer": "canary", "basic": {"username": "u", "password": "canary"}}},
            "call_start: authenticates in two ways",
        ),
        (
            {"call_start": {"url": "https://b.example/", "bearer": "canary", "headers": {"authorization": "canary"}}},
            "call_start: authenticates in two ways",
        ),
        (
            {"call_start": {"url": "https://b.example/", "bearer": "canary\r\n"}},
            "call_start: has a bearer token that HTTP cannot carry",
        ),
        (
            {"call_start": {"url": "https://b.example/", "basic": {"username": "u"}}},
            r"call_start\.basic\.password: is missing; write the password",
        ),
        ({"fallback": {"number": "canary"}}, r"fallback\.number: is no telephone number; write a telephone number such as"),
        ({"tool_timeout_s": 0.5}, r"tool_timeout_s: .*write seconds from 1 to 120"),
        ({"tool_timeout_s": 121}, r"tool_timeout_s: .*write seconds from 1 to 120"),
        ({"number_format": "canary"}, r"number_format: .*write national, e164 or raw"),
        ({"log_timezone": "Mars/Canary"}, r"log_timezone: is no time zone"),
        ({"max_seconds_cap": 0}, r"max_seconds_cap: .*write the longest call"),
        ({"ai_speaks_first": "canary"}, r"ai_speaks_first: .*write true or false"),
        (
            {"colour": "canary"},
            r"colour: is no setting of the vns contract; known here: ai_speaks_first, answer_detection, call_end",
        ),
    ],
)
def test_errors_name_the_field_and_the_cure_and_no_value(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ApplyError, match=expected) as caught:
        VNS.read_number_settings({**WEBHOOKS, **change})
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_error_is_told_at_once() -> None:
    with pytest.raises(ApplyError, match=r"call_start: is missing.*; call_end: is missing.*; tool_timeout_s: "):
        VNS.read_number_settings({"tool_timeout_s": 0})

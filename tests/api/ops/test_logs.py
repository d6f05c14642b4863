"""Logs are JSON lines with the call's id and without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from switchhook.api.ops.logs import set_up_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_json_with_its_call_and_masked_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "json", lambda: "call-1")
    logging.getLogger("switchhook.x").info("hello", extra={"status": 200, "api_key": "hunter2", "headers": {"Token": "hunter2"}})
    text = capsys.readouterr().err
    line = json.loads(text)
    assert (line["message"], line["call_id"], line["status"], line["level"]) == ("hello", "call-1", 200, "info")
    assert "hunter2" not in text


def test_exceptions_stay_on_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "json", lambda: "")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("switchhook.x").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "ValueError: broken" in json.loads(lines[0])["exception"]
    assert "call_id" not in json.loads(lines[0])


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_error_that_is_only_a_class_is_named(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """As uvloop tells of a peer that went away in the midst of a TLS handshake."""
    set_up_logging("info", form, lambda: "")
    error: Any = ConnectionResetError
    logging.getLogger("asyncio").error("SSL handshake failed", exc_info=(error, error, error.__traceback__))
    told = capsys.readouterr().err
    assert "ConnectionResetError" in told
    assert "Logging error" not in told


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("warning", "text", lambda: "call-1")
    logging.getLogger("switchhook.x").info("not shown")
    logging.getLogger("switchhook.x").warning("look", extra={"count": 3})
    assert capsys.readouterr().err.rstrip().endswith("look call_id=call-1 count=3")


def test_a_line_that_names_its_call_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "json", lambda: "")
    logging.getLogger("switchhook.x").info("delivered", extra={"call_id": "call-2"})
    assert json.loads(capsys.readouterr().err)["call_id"] == "call-2"

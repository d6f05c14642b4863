"""Structured logs: one JSON object a line (or plain text), each with the id of its call, none with a secret.

The rule that keeps secrets out: a log call has a fixed message and named attributes (`extra`), and attributes whose name says
secret are masked here whatever their value.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "call_id"}
_SECRET = ("password", "token", "secret", "authorization", "headers", "api_key")


def attributes(record: logging.LogRecord) -> dict[str, Any]:
    """The named attributes of a record, secrets masked."""
    return {
        name: "***" if any(word in name.lower() for word in _SECRET) else value
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:
        """The traceback. uvloop gives an error's class for the error when a peer goes away in the midst of a TLS handshake."""
        return ei[1].__name__ if isinstance(ei[1], type) else super().formatException(ei)


class JsonFormatter(_Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, `call_id` where a call is known, then the attributes."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if call_id := getattr(record, "call_id", ""):
            entry["call_id"] = call_id
        entry.update(attributes(record))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(_Formatter):
    """The same for human eyes."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        named = " ".join(f"{name}={value}" for name, value in attributes(record).items())
        call_id = getattr(record, "call_id", "")
        line = f"{time} {record.levelname:<7} {record.name}: {record.getMessage()}"
        parts = [line, *([f"call_id={call_id}"] if call_id else []), *([named] if named else [])]
        if record.exc_info:
            parts.append("\n" + self.formatException(record.exc_info))
        return " ".join(parts)


def set_up_logging(level: str, form: str, call_id: Callable[[], str]) -> None:
    """Send all logs to standard error. `call_id` gives the id of the call whose task is running, or an empty text."""

    def add_call_id(record: logging.LogRecord) -> bool:
        record.call_id = getattr(record, "call_id", "") or call_id()
        return True

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(add_call_id)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "picows"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

"""Frames of the Realtime protocol: server events as JSON, and the error that a bad client event is answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
Ids: TypeAlias = Callable[[str], str]
"""Prefix → a fresh id that begins with it."""

_encode = msgspec.json.Encoder().encode


class ClientError(Exception):
    """A client event that cannot be honoured; becomes an `error` event, the session goes on."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class Sender:
    """Writes server events, each with its own id."""

    def __init__(self, ids: Ids, send: Callable[[bytes], None]) -> None:
        self.ids = ids
        self._send = send

    def event(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        self._send(_encode({"type": kind, "event_id": self.ids("event"), **fields}))

    def error(self, error: ClientError, client_event_id: str | None) -> None:
        """Answer a bad client event."""
        self.event(
            "error",
            error={
                "type": "invalid_request_error",
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "event_id": client_event_id,
            },
        )


def parse(frame: bytes) -> Json:
    """Read a client event. Raises ClientError."""
    try:
        data = msgspec.json.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ClientError("The frame is not JSON text.", code="invalid_json") from error
    if not isinstance(data, dict):
        raise ClientError("A client event is a JSON object.", code="invalid_json")
    return data


def a_mapping(value: Any, param: str) -> Json:
    """Return the value when it is an object. Raises ClientError."""
    if not isinstance(value, dict):
        raise ClientError(f"Invalid type for '{param}': expected an object.", param, "invalid_type")
    return value


def a_list(value: Any, param: str) -> list[Any]:
    """Return the value when it is a list. Raises ClientError."""
    if not isinstance(value, list):
        raise ClientError(f"Invalid type for '{param}': expected an array.", param, "invalid_type")
    return value


def a_text(value: Any, param: str) -> str:
    """Return the value when it is a text. Raises ClientError."""
    if not isinstance(value, str):
        raise ClientError(f"Invalid type for '{param}': expected a string.", param, "invalid_type")
    return value


def an_integer(value: Any, param: str, least: int, most: int) -> int:
    """Return the value when it is a whole number in the range. Raises ClientError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ClientError(f"Invalid type for '{param}': expected an integer.", param, "invalid_type")
    if not least <= value <= most:
        raise ClientError(f"Invalid value for '{param}': expected {least} to {most}, got {value}.", param)
    return value


def only(data: Json, known: frozenset[str], prefix: str) -> None:
    """Refuse fields that the protocol does not have. Raises ClientError naming the first."""
    for key in data:
        if key not in known:
            raise ClientError(f"Unknown parameter: '{prefix}{key}'.", f"{prefix}{key}"[:200], "unknown_parameter")

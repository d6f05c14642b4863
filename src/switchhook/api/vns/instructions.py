"""`VoiceElements_Instructions` of a CallStart reply, read leniently.

Only `aiUrl.url` is needed. A wrong JSON type is coerced, an unknown key ignored, a hopeless value replaced by the default; each
such thing is a finding. Findings name fields and never values, for values may be secrets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchhook.api.vns import profile
from switchhook.api.vns.forms import json_text
from switchhook.api.vns.schema import header_fits
from switchhook.domain.model import Webhook
from switchhook.domain.web_address import address_fits
from switchhook.usecases.webhook_trial import Findings, Judgement


class InvalidReply(ValueError):
    """The CallStart reply cannot be used; the message says why, without its content."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """The fields, typed. Names are the contract's, in our spelling."""

    ai: Webhook
    max_seconds: float
    customer_call_id: str | None = None
    tools: Webhook | None = None
    tools_adapter: str | None = None
    route_on_failure: str | None = None
    message_on_failure: str | None = None
    log_tool_requests: bool = False
    log_tool_replies: bool = False
    log_transcription: bool = False
    record: bool = False
    record_format: str = profile.RECORDING_FORMAT
    record_password: str | None = field(default=None, repr=False)
    transcription_tool: str | None = None


FIELDS = (
    "aiUrl",
    "maxSeconds",
    "customerCallId",
    "defaultToolsUrlBase",
    "defaultToolsUrlAdapter",
    "routeToNumberOnFailure",
    "messageToPlayOnFailure",
    "logToolCallRequests",
    "logToolCallReplies",
    "logTranscription",
    "recordCall",
    "recordCallFormat",
    "recordCallPassword",
    "transcriptionToolName",
)


def read_instructions(value: object, findings: Findings) -> Instructions:
    """Read the object. Raises InvalidReply when there is no usable `aiUrl.url`."""
    if not isinstance(value, Mapping):
        raise InvalidReply("VoiceElements_Instructions is missing or no object")
    reader = _Reader(_known_names(value, FIELDS, "", findings), findings)
    ai = reader.target("aiUrl", ("ws", "wss"))
    if ai is None:
        raise InvalidReply("aiUrl.url is missing or no ws:// or wss:// address")
    instructions = Instructions(
        ai=ai,
        max_seconds=reader.seconds("maxSeconds"),
        customer_call_id=reader.text("customerCallId"),
        tools=reader.target("defaultToolsUrlBase", ("http", "https")),
        tools_adapter=reader.text("defaultToolsUrlAdapter") or None,
        route_on_failure=reader.text("routeToNumberOnFailure") or None,
        message_on_failure=reader.text("messageToPlayOnFailure") or None,
        log_tool_requests=reader.flag("logToolCallRequests"),
        log_tool_replies=reader.flag("logToolCallReplies"),
        log_transcription=reader.flag("logTranscription"),
        record=reader.flag("recordCall"),
        record_format=reader.choice("recordCallFormat", profile.RECORDING_FORMATS, profile.RECORDING_FORMAT),
        record_password=reader.text("recordCallPassword") or None,
        transcription_tool=reader.text("transcriptionToolName") or None,
    )
    reader.note_the_rest()
    return instructions


def _known_names(value: Mapping[str, Any], known: tuple[str, ...], prefix: str, findings: Findings) -> dict[str, Any]:
    """The known fields; a name in other letter case is taken (the vendor's platform does so), an unknown one noted."""
    folded = {name.lower(): name for name in known}
    found: dict[str, Any] = {}
    for name, content in value.items():
        if name in known:
            found[name] = content
        elif (meant := folded.get(name.lower())) is None:
            findings.add(prefix + name, Judgement.IGNORED, "unknown key")
        elif meant not in value:
            found[meant] = content
            findings.add(prefix + name, Judgement.COERCED, f"read as {meant}")
    return found


class _Reader:
    """Takes fields out of an object and notes what it had to do."""

    def __init__(self, fields: Mapping[str, Any], findings: Findings) -> None:
        self._fields = fields
        self._findings = findings
        self._touched: set[str] = set()

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            self._coerced(name, "written as text")
            return json_text(value)
        self._hopeless(name, "text is needed")
        return None

    def flag(self, name: str) -> bool:
        value = self._fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        word = str(value).strip().lower() if isinstance(value, str | int) else ""
        if word in ("true", "false", "1", "0"):
            self._coerced(name, "read as true or false")
            return word in ("true", "1")
        self._hopeless(name, "true or false is needed; false is assumed")
        return False

    def seconds(self, name: str) -> float:
        value = self._fields.get(name)
        if value is None:
            return profile.MAX_SECONDS
        number = _number(value)
        if number is None or number <= 0:
            self._hopeless(name, f"a number above 0 is needed; {profile.MAX_SECONDS} is assumed")
            return profile.MAX_SECONDS
        if isinstance(value, str):
            self._coerced(name, "read as a number")
        return number

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(name)
        if not value:
            return default
        word = value.strip().lower()
        if word in choices:
            return word
        self._hopeless(name, f"one of {', '.join(choices)} is needed; {default} is assumed")
        return default

    def target(self, name: str, schemes: tuple[str, str]) -> Webhook | None:
        """An object {url, headers}; a bare text counts as its url. `schemes` are the plain and the TLS one."""
        value = self._fields.get(name)
        if isinstance(value, str):
            self._coerced(name, "read as its url")
            value = {"url": value}
        if not isinstance(value, Mapping):
            if value is not None:
                self._hopeless(name, "an object with url and headers is needed")
            return None
        inner = _Reader(_known_names(value, ("url", "headers"), f"{name}.", self._findings), self._findings)
        url = self._address(name, inner.text("url"), schemes)
        return None if url is None else Webhook(url, self._headers(name, inner._fields.get("headers")))

    def note_the_rest(self) -> None:
        """Every field that was there and needed no note was understood."""
        for name in self._fields:
            if name not in self._touched:
                self._findings.add(name, Judgement.UNDERSTOOD)

    def _address(self, name: str, url: str | None, schemes: tuple[str, str]) -> str | None:
        if url is None or not url.strip():
            return None
        url = url.strip()
        other = ("http", "https") if schemes == ("ws", "wss") else ("ws", "wss")
        scheme, mark, rest = url.partition("://")
        if mark and scheme.lower() in other:
            self._coerced(f"{name}.url", "its scheme was replaced")
            url = f"{schemes[other.index(scheme.lower())]}://{rest}"
        if address_fits(url, schemes):
            return url
        self._hopeless(f"{name}.url", f"an address that begins with {schemes[0]}:// or {schemes[1]}:// is needed")
        return None

    def _headers(self, name: str, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._hopeless(f"{name}.headers", "an object is needed")
            return {}
        headers: dict[str, str] = {}
        for header, content in value.items():
            where = f"{name}.headers.{header}"
            if isinstance(content, bool | int | float):
                self._coerced(where, "written as text")
                content = json_text(content)
            if isinstance(content, str) and header_fits(header, content):
                headers[header] = content
            elif content is not None:
                self._hopeless(where, "HTTP cannot carry it")
        return headers

    def _coerced(self, name: str, detail: str) -> None:
        self._touched.add(name)
        self._findings.add(name, Judgement.COERCED, detail)

    def _hopeless(self, name: str, detail: str) -> None:
        self._touched.add(name)
        self._findings.add(name, Judgement.IGNORED, detail)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

"""The reply to onCallStart, read: a configuration with every default, or a rejection (contract §2.3).

A missing required field makes the reply unusable. Anything else is read leniently: a wrong type is coerced or replaced by the
default, and each such thing is a finding. Findings name fields and never values, for values may be secrets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from switchhook.api.veevo import profile
from switchhook.domain.plan import CarrierCredentials
from switchhook.domain.web_address import address_fits
from switchhook.usecases.webhook_trial import Finding, Findings, Judgement

Members = Mapping[str, msgspec.Raw]
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What reading foreign JSON may raise."""

REQUIRED = ("twilioAccountSid", "twilioAuthToken", "openaiApiKey", "systemPrompt", "onToolCallUrl")
OPTIONAL = (
    "voice",
    "model",
    "vadEagerness",
    "noiseReduction",
    "inactivityTimeoutMs",
    "greetingUrl",
    "tools",
    "metadata",
)
_HEADER_WORD = re.compile(r"[\x21-\x7e]+")


class InvalidReply(ValueError):
    """The reply cannot be used; the message says why, without its content."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """How a call is to be run."""

    twilio: CarrierCredentials = field(repr=False)
    openai_key: str = field(repr=False)
    system_prompt: str = field(repr=False)
    tool_url: str = field(repr=False)
    voice: str = profile.VOICE
    model: str = profile.MODEL
    eagerness: str = profile.EAGERNESS
    noise_reduction: str = profile.NOISE_REDUCTION
    inactivity_ms: int = profile.INACTIVITY_TIMEOUT_MS
    """0: the call is not ended by silence."""
    greeting_url: str | None = field(default=None, repr=False)
    tools: tuple[Mapping[str, Any], ...] = ()
    """In the flat form of the Realtime API; members keep the text they were sent as."""
    metadata: str | None = field(default=None, repr=False)
    """The JSON text as it was sent; None when there was none."""
    findings: tuple[Finding, ...] = ()

    @property
    def tool_names(self) -> tuple[str, ...]:
        """Of the listed functions."""
        return tuple(msgspec.json.decode(tool["name"]) for tool in self.tools if "name" in tool)


@dataclass(frozen=True, slots=True)
class Rejection:
    """The customer does not take the call."""

    busy: bool = False
    message: str | None = None
    """Said to the caller before the line is hung up; None: the call is not answered."""


def read_reply(body: bytes) -> Configuration | Rejection:
    """Read the body of a 2xx reply. Raises InvalidReply."""
    try:
        # As text: what is left raw is sent on as it is, and its decoder would not look inside (RFC 8259 §8.1).
        members = msgspec.json.decode(body.decode("utf-8-sig"), type=dict[str, msgspec.Raw])
    except UNREADABLE:
        raise InvalidReply("it is no JSON object") from None
    return _rejection(members) or _configuration(members)


def _rejection(members: Members) -> Rejection | None:
    """The shapes of contract §2.3; whatever else the reply holds does not count then."""
    flagged = any(_value(members, name) is True for name in profile.REJECTING_FLAGS)
    words = (_value(members, name) for name in ("action", "status"))
    if not flagged and not any(isinstance(word, str) and word.lower() in profile.REJECTING_ACTIONS for word in words):
        return None
    reason, message = _value(members, "reason"), _value(members, "message")
    return Rejection(
        isinstance(reason, str) and reason.strip().lower() == profile.BUSY_REASON,
        message.strip() if isinstance(message, str) and message.strip() else None,
    )


def _configuration(members: Members) -> Configuration:
    missing = [name for name in REQUIRED if not isinstance(_value(members, name), str)]
    if missing:
        raise InvalidReply(f"{' and '.join(missing)}: missing or no text")
    texts = {name: str(_value(members, name)) for name in REQUIRED}
    keys = {name: texts[name].strip() for name in REQUIRED[:3]}
    unsendable = [name for name, value in keys.items() if not _HEADER_WORD.fullmatch(value)]
    if unsendable:
        raise InvalidReply(f"{' and '.join(unsendable)}: empty, or with characters that no key has")
    if not address_fits(texts["onToolCallUrl"].strip(), ("http", "https")):
        raise InvalidReply("onToolCallUrl: no address that begins with http:// or https://")
    reader = _Reader(members)
    return Configuration(
        CarrierCredentials(keys["twilioAccountSid"], keys["twilioAuthToken"]),
        keys["openaiApiKey"],
        texts["systemPrompt"],
        texts["onToolCallUrl"].strip(),
        reader.name("voice", profile.VOICE),
        reader.name("model", profile.MODEL),
        reader.choice("vadEagerness", profile.EAGERNESSES, profile.EAGERNESS),
        reader.choice("noiseReduction", profile.NOISE_REDUCTIONS, profile.NOISE_REDUCTION),
        reader.milliseconds("inactivityTimeoutMs", profile.INACTIVITY_TIMEOUT_MS),
        reader.address("greetingUrl"),
        reader.tools("tools"),
        bytes(members["metadata"]).decode() if "metadata" in members else None,
        reader.findings(),
    )


class _Reader:
    """Takes optional fields out of a reply and notes what it had to do. A null counts as absent."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._findings = Findings()
        self._touched: set[str] = set()

    def name(self, name: str, default: str) -> str:
        """Any text: voices and models change, and the AI's server decides (contract §2.3)."""
        value = _value(self._members, name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if value not in (None, ""):
            self._note(name, Judgement.IGNORED, f"text is needed; {default} is assumed")
        return default

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = _value(self._members, name)
        if value is None:
            return default
        word = value.strip().lower() if isinstance(value, str) else ""
        if word in choices:
            return word
        self._note(name, Judgement.IGNORED, f"one of {', '.join(choices)} is needed; {default} is assumed")
        return default

    def milliseconds(self, name: str, default: int) -> int:
        value = _value(self._members, name)
        if value is None:
            return default
        number = _number(value)
        if number is None or number < 0:
            self._note(name, Judgement.IGNORED, f"a number of milliseconds is needed; {default} is assumed")
            return default
        if not isinstance(value, int):
            self._note(name, Judgement.COERCED, "read as a whole number")
        return int(number)

    def address(self, name: str) -> str | None:
        value = _value(self._members, name)
        if value in (None, ""):
            return None
        if isinstance(value, str) and address_fits(value.strip(), ("http", "https")):
            return value.strip()
        self._note(name, Judgement.IGNORED, "an address that begins with http:// or https:// is needed")
        return None

    def tools(self, name: str) -> tuple[Mapping[str, Any], ...]:
        raw = self._members.get(name)
        if raw is None or bytes(raw) == b"null":
            return ()
        try:
            listed = msgspec.json.decode(raw, type=list[msgspec.Raw])
        except UNREADABLE:
            self._note(name, Judgement.IGNORED, "a list is needed; no tools are assumed")
            return ()
        return tuple(tool for at, given in enumerate(listed) if (tool := self._tool(f"{name}[{at}]", given)) is not None)

    def findings(self) -> tuple[Finding, ...]:
        """All of them: of each field what became of it, of an unknown one that it was not used."""
        for name in self._members:
            if name not in (*REQUIRED, *OPTIONAL):
                self._note(name, Judgement.IGNORED, "unknown key")
            elif name not in self._touched:
                self._findings.add(name, Judgement.UNDERSTOOD)
        return tuple(self._findings.items)

    def _tool(self, where: str, given: msgspec.Raw) -> Mapping[str, Any] | None:
        """A flat tool; the nested form of Chat Completions, `{type, function: {…}}`, is flattened."""
        members = _object(given)
        if members is not None and "function" in members and "name" not in members:
            inner = _object(members["function"])
            members = {"type": msgspec.Raw(b'"function"'), **inner} if inner is not None else None
            self._note(where, Judgement.COERCED, "flattened")
        if members is not None and "type" not in members:
            members = {"type": msgspec.Raw(b'"function"'), **members}
        if members is None or (_value(members, "type") == "function" and not isinstance(_value(members, "name"), str)):
            self._note(where, Judgement.IGNORED, "an object with a name is needed")
            return None
        return members

    def _note(self, name: str, judgement: Judgement, detail: str) -> None:
        self._touched.add(name.partition("[")[0])
        self._findings.add(name, judgement, detail)


def _object(raw: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return None


def _value(members: Members, name: str) -> Any:
    raw = members.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except UNREADABLE:
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number < 2**53 else None

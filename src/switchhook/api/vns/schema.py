"""What an apply file says about a number under the VNS contract.

An unknown key or a bad value is an error that names the field and the cure. No error repeats a value, for values may be secrets.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from switchhook.api.settings_cache import SettingsCache
from switchhook.api.vns import profile
from switchhook.api.vns.profile import NumberFormat
from switchhook.api.web_address import WebAddress
from switchhook.domain import phone
from switchhook.domain.errors import ApplyError
from switchhook.domain.model import JsonObject

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def header_fits(name: str, value: str) -> bool:
    """Whether HTTP can carry this header (RFC 9110 §5)."""
    return _HEADER_NAME.fullmatch(name) is not None and _CONTROL.search(value) is None


def _header_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not header_fits(name, value):
            raise ValueError(f"cannot send {name!r}: its name or value has a character that HTTP does not allow")
    return headers


def _zone(name: str) -> str:
    if name != "UTC":
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:  # an unknown zone is a KeyError
            raise ValueError("is no time zone that this machine knows") from error
    return name


def _dialable(number: str) -> str:
    found = phone.e164(number)
    if found is None:
        raise ValueError("is no telephone number")
    return found


HeaderText = Annotated[str, BeforeValidator(_header_text)]
Zone = Annotated[str, AfterValidator(_zone)]
Dialable = Annotated[str, BeforeValidator(_header_text), AfterValidator(_dialable)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BasicAuth(_Strict):
    """User name and password for `Authorization: Basic`."""

    username: str = Field(description="write the user name")
    password: HeaderText = Field(repr=False, description="write the password")


class WebhookSettings(_Strict):
    """A webhook of the customer. `basic` and `bearer` are presets: they become an Authorization header."""

    url: WebAddress = Field(repr=False, description="write an http or https address such as https://backend.example/callstart")
    headers: Annotated[dict[str, HeaderText], AfterValidator(_sendable)] = Field(
        default_factory=dict, repr=False, description="write {Name: value} pairs such as {Token: abc}"
    )
    basic: BasicAuth | None = Field(default=None, exclude=True, repr=False, description="write {username: …, password: …}")
    bearer: HeaderText | None = Field(default=None, exclude=True, repr=False, description="write the bare token")

    @model_validator(mode="after")
    def _presets_become_headers(self) -> WebhookSettings:
        presets = []
        if self.basic is not None:
            pair = f"{self.basic.username}:{self.basic.password}".encode()
            presets.append(f"Basic {b64encode(pair).decode()}")
        if self.bearer is not None:
            presets.append(f"Bearer {self.bearer}")
        if not presets:
            return self
        if len(presets) > 1 or any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("authenticates in two ways; keep one of basic, bearer and an Authorization header")
        if not header_fits("Authorization", presets[0]):
            raise ValueError("has a bearer token that HTTP cannot carry; write it without line breaks")
        self.headers["Authorization"] = presets[0]
        return self


class FallbackSettings(_Strict):
    """What the caller gets when CallStart gives no usable reply; neither: the unanswered call is refused."""

    number: Dialable | None = Field(default=None, description="write a telephone number such as +17205551212, or null")
    message: str | None = Field(default=None, description="write the text to speak, or null")


class AnswerDetectionSettings(_Strict):
    """Who answers an outbound call is found out, and this is done about a voicemail."""

    on_machine: Literal["hang_up", "leave_message", "tell_agent"] = Field(
        default="hang_up", description="write hang_up, leave_message or tell_agent"
    )
    message: str | None = Field(default=None, description="write the text to speak after the beep")

    @model_validator(mode="after")
    def _a_message_to_leave(self) -> AnswerDetectionSettings:
        if self.on_machine == "leave_message" and not (self.message or "").strip():
            raise ValueError("leaves a message and names none; write message: the text to speak after the beep")
        return self


class NumberSettings(_Strict):
    """What an apply file says about a number under the VNS contract."""

    call_start: WebhookSettings = Field(description="write {url: https://…, headers: {Token: …}}")
    call_end: WebhookSettings = Field(description="write {url: https://…, headers: {Token: …}}")
    fallback: FallbackSettings = Field(default=FallbackSettings(), description="write {number: …, message: …}")
    tool_timeout_s: float = Field(
        default=profile.TOOL_TIMEOUT_S,
        ge=profile.TOOL_TIMEOUT_RANGE_S[0],
        le=profile.TOOL_TIMEOUT_RANGE_S[1],
        description="write seconds from 1 to 120",
    )
    max_seconds_cap: float = Field(
        default=profile.MAX_SECONDS_CAP, gt=0, le=86_400, description="write the longest call in seconds, up to 86400"
    )
    number_format: NumberFormat = Field(default=profile.NUMBER_FORMAT, description="write national, e164 or raw")
    ai_speaks_first: bool = Field(default=profile.AI_SPEAKS_FIRST, description="write true or false")
    log_timezone: Zone = Field(default=profile.LOG_TIMEZONE, description="write a zone name such as UTC or America/Denver")
    answer_detection: AnswerDetectionSettings | None = Field(
        default=None, description="write {on_machine: hang_up}, {on_machine: leave_message, message: …}, or null"
    )
    ring_s: float = Field(default=profile.OUTBOUND_RING_S, gt=0, le=300, description="write seconds from 1 to 300")
    max_seconds_scope: Literal["ai", "call"] = Field(
        default="ai", description="write ai (the limit ends with the agent's part) or call (it covers transfers too)"
    )
    record_transfers: bool = Field(default=True, description="write false to stop recording when the caller is put through")
    pause_recording_on_digits: bool = Field(
        default=False, description="write true to record silence while the party types digits"
    )
    null_placeholder: str = Field(
        default=profile.NULL_PLACEHOLDER, description="write the text that stands for a null customerCallId"
    )


def read_number_settings(settings: JsonObject) -> JsonObject:
    """Validate and normalise; reading the result again gives the same. Raises ApplyError naming each field and its cure."""
    try:
        return NumberSettings.model_validate(dict(settings)).model_dump(mode="json")
    except ValidationError as error:
        # Of the error only types, places and our own messages are used: pydantic's text would repeat values.
        raise ApplyError(
            "; ".join(_complaint(e["loc"], e["type"], e["msg"]) for e in error.errors(include_input=False))
        ) from None


def _complaint(place: tuple[int | str, ...], kind: str, message: str) -> str:
    names = [str(part) for part in place if part != "[key]"]
    where = ".".join(names) or "the number"
    model, cure = _describe(names)
    if kind == "extra_forbidden":
        return f"{where}: is no setting of the vns contract; known here: {', '.join(sorted(model.model_fields))}"
    what = "is missing" if kind == "missing" else message.removeprefix("Value error, ")
    what = what[0].lower() + what[1:] if kind != "value_error" else what
    return f"{where}: {what}; {cure}" if cure else f"{where}: {what}"


def _describe(names: list[str]) -> tuple[type[BaseModel], str]:
    """The model that holds the last name that is a field, and that field's description, which is the cure."""
    model: type[BaseModel] = NumberSettings
    cure = ""
    inner: Mapping[str, type[BaseModel]] = {
        "call_start": WebhookSettings,
        "call_end": WebhookSettings,
        "fallback": FallbackSettings,
        "basic": BasicAuth,
        "answer_detection": AnswerDetectionSettings,
    }
    for position, name in enumerate(names):
        field = model.model_fields.get(name)
        if field is None:
            break
        cure = field.description or ""
        if position < len(names) - 1 and name in inner:
            model = inner[name]
    return model, cure


def zone_of(settings: NumberSettings | None) -> tzinfo:
    """The zone of log and transcript lines; UTC needs no zone files."""
    name = settings.log_timezone if settings else profile.LOG_TIMEZONE
    return UTC if name == "UTC" else ZoneInfo(name)


def webhook_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A customer's headers with our Content-Type, which a customer's own replaces."""
    ours = {} if any(name.lower() == "content-type" for name in headers) else {"Content-Type": "application/json"}
    return {**headers, **ours}


settings_of = SettingsCache(NumberSettings.model_validate)
"""Settings that were validated before."""

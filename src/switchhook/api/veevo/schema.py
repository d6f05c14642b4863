"""What an apply file says about a number under the Veevo contract.

An unknown key or a bad value is an error that names the field and the cure. No error repeats a value, for values may be secrets.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from switchhook.api.settings_cache import SettingsCache
from switchhook.api.veevo import profile
from switchhook.api.veevo.profile import Dialect
from switchhook.api.web_address import WebAddress
from switchhook.domain.errors import ApplyError
from switchhook.domain.model import JsonObject
from switchhook.domain.web_address import address_fits


def _model_address(url: str) -> str:
    scheme, mark, rest = url.strip().partition("://")
    url = f"{ {'http': 'ws', 'https': 'wss'}.get(scheme.lower(), scheme.lower()) }{mark}{rest}"
    if not address_fits(url, ("ws", "wss")):
        raise ValueError("is no WebSocket address")
    return url


def _exact_amount(value: object) -> object:
    """Kept as text, so that no float touches it."""
    if value is None:
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("is no amount") from None
    if isinstance(value, bool) or not amount.is_finite() or not 0 <= amount <= 1000:
        raise ValueError("is no amount")
    return str(amount)


def _bare_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CallbackSettings(_Strict):
    """A callback of the customer."""

    url: WebAddress = Field(repr=False, description="write an http or https address such as https://backend.example/calls/start")


Callback = Annotated[CallbackSettings, BeforeValidator(_bare_url)]


class NumberSettings(_Strict):
    """What an apply file says about a number under the Veevo contract."""

    on_call_start: Callback = Field(description="write {url: https://…}")
    on_call_end: Callback = Field(description="write {url: https://…}")
    openai_url: Annotated[str, AfterValidator(_model_address)] | None = Field(
        default=None, repr=False, description="write a wss:// address, or null for OpenAI's own"
    )
    dialect: Dialect = Field(default=profile.DIALECT, description="write both, 2026-04 or newer, in quotes")
    tool_call_sid: bool = Field(default=False, description="write true to send callSid with each tool call")
    transcription_model: Annotated[str, Field(min_length=1)] = Field(
        default=profile.TRANSCRIPTION_MODEL, description="write the name of a transcription model"
    )
    ai_speaks_first: bool = Field(default=profile.AI_SPEAKS_FIRST, description="write true or false")
    builtin_tools: tuple[Literal["end_call", "transfer_call"], ...] = Field(
        default=(), description="write a list of end_call and transfer_call, or leave it out"
    )
    max_seconds: float = Field(default=profile.MAX_SECONDS, gt=0, le=profile.MAX_SECONDS, description="write seconds up to 3540")
    apology: str | None = Field(
        default=profile.APOLOGY, description="write what is said when the AI cannot be reached, or null for silence"
    )
    twilio_usd_per_minute: Annotated[str | None, BeforeValidator(_exact_amount)] = Field(
        default=None, description='write US dollars in quotes such as "0.0085", or null for the price table\'s'
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


settings_of = SettingsCache(NumberSettings.model_validate)
"""Settings that were validated before."""


def _complaint(place: tuple[int | str, ...], kind: str, message: str) -> str:
    names = [str(part) for part in place]
    where = ".".join(names) or "the number"
    model: type[BaseModel] = CallbackSettings if len(names) > 1 and names[0].startswith("on_call") else NumberSettings
    if kind == "extra_forbidden":
        return f"{where}: is no setting of the veevo contract; known here: {', '.join(sorted(model.model_fields))}"
    field = model.model_fields.get(names[-1]) or NumberSettings.model_fields.get(names[0]) if names else None
    what = "is missing" if kind == "missing" else message.removeprefix("Value error, ")
    what = what[0].lower() + what[1:]
    return f"{where}: {what}; {field.description}" if field is not None and field.description else f"{where}: {what}"

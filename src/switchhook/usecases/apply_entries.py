"""The entries of an apply file, and what they are in the domain's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from switchhook.domain.dialling import DiallingRules
from switchhook.domain.model import Srtp, TransferMode, Trunk
from switchhook.domain.records import TWILIO_URL, AccountSettings, TwilioCredentials, VeevoCredentials
from switchhook.usecases.apply_values import (
    Block,
    CalleeNumber,
    Country,
    Entry,
    Extension,
    FilePath,
    HeaderText,
    Hours,
    HttpUrl,
    Listed,
    Name,
    PhoneNumber,
    Prefix,
    SipAddress,
    SrtpWord,
)


class TokenEntry(Entry):
    """An API token of an account."""

    name: Name
    value: HeaderText | None = Field(default=None, repr=False)
    remove: bool = False

    @model_validator(mode="after")
    def _complete(self) -> TokenEntry:
        if self.value is None and not self.remove:
            raise ValueError('needs a value; write value: "…", or remove: true')
        return self


class DiallingEntry(Entry):
    """What an account may dial; a key that is not there has its default."""

    countries: list[Country] | None = None
    deny_prefixes: Annotated[list[Prefix], Listed] = Field(default_factory=list)
    allow_prefixes: Annotated[list[Prefix], Listed] = Field(default_factory=list)
    allow_premium: bool = False
    calls_per_second: float = Field(default=5.0, gt=0, le=1000)
    concurrent: int = Field(default=100, ge=0, le=1_000_000)
    max_seconds: float = Field(default=3600.0, gt=0, le=86_400)
    max_spend_per_day: float | None = Field(default=None, ge=0, le=1_000_000_000)
    price_per_minute: float | None = Field(default=None, ge=0, le=1000)
    do_not_call: Annotated[list[CalleeNumber], Listed] = Field(default_factory=list)
    calling_hours: Hours = None
    default_country: Country = "US"

    @model_validator(mode="after")
    def _complete(self) -> DiallingEntry:
        if self.max_spend_per_day is not None and self.price_per_minute is None:
            raise ValueError("max_spend_per_day needs price_per_minute, which the spend is estimated by; write it beside it")
        return self

    def rules(self) -> DiallingRules:
        """In the domain's terms."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in self}
        return DiallingRules(**values)


class TwilioEntry(Entry):
    """Credentials at Twilio."""

    account_sid: HeaderText
    auth_token: HeaderText = Field(repr=False)
    rest_base_url: HttpUrl | None = None

    def credentials(self) -> TwilioCredentials:
        """In the domain's terms."""
        return TwilioCredentials(self.account_sid, self.auth_token, self.rest_base_url or TWILIO_URL)


class VeevoEntry(Entry):
    """What is shared with a Veevo backend."""

    webhook_secret: HeaderText = Field(repr=False)
    management_key: HeaderText | None = Field(default=None, repr=False)

    def credentials(self) -> VeevoCredentials:
        """In the domain's terms."""
        return VeevoCredentials(self.webhook_secret, self.management_key)


class AccountEntry(Entry):
    """A tenant. `dialling`, `twilio` and `veevo` stay as they are when they are not there; null puts the default back."""

    name: Name
    tokens: Annotated[list[TokenEntry], Listed] = Field(default_factory=list)
    dialling: DiallingEntry | None = None
    twilio: TwilioEntry | None = None
    veevo: VeevoEntry | None = None

    def settings(self, there: AccountSettings) -> AccountSettings:
        """The account's settings once this is applied."""
        dialling, twilio, veevo = there.dialling, there.twilio, there.veevo
        if "dialling" in self.model_fields_set:
            dialling = (self.dialling or DiallingEntry()).rules()
        if "twilio" in self.model_fields_set:
            twilio = self.twilio.credentials() if self.twilio else None
        if "veevo" in self.model_fields_set:
            veevo = self.veevo.credentials() if self.veevo else None
        return AccountSettings(self.name, dialling, twilio, veevo)


class TrunkEntry(Entry):
    """A SIP peer; a key that is not there has its default."""

    name: Name
    account: Name | None = None
    address: SipAddress | None = None
    allow_from: Annotated[list[Block], Listed] = Field(default_factory=list)
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    register_: bool = Field(default=False, alias="register")
    transport: Literal["udp", "tcp", "tls"] | None = None
    srtp: SrtpWord = "off"
    transfer: Literal["bridge", "refer"] = "bridge"
    priority: int = Field(default=100, ge=0, le=65_535)
    max_calls: int | None = Field(default=None, ge=0)
    calls_per_second: float | None = Field(default=None, gt=0)
    probe_s: float | None = Field(default=None, ge=1, le=86_400)
    number_form: Literal["e164", "plain", "national"] = "e164"
    caller_ids: Annotated[list[PhoneNumber], Listed] = Field(default_factory=list)
    default_caller_id: PhoneNumber | None = None
    extensions: Annotated[list[Extension], Listed] = Field(default_factory=list)
    follow_redirects: bool = False
    tls_ca: FilePath | None = None
    tls_verify: bool = True
    tls_certificate: FilePath | None = None
    tls_key: FilePath | None = None
    remove: bool = False

    @model_validator(mode="after")
    def _complete(self) -> TrunkEntry:
        if self.remove:
            return self
        if self.account is None or self.address is None:
            raise ValueError('needs an account and an address; write account: NAME and address: "sip:host:port"')
        if (self.username is None) != (self.password is None):
            raise ValueError("needs a username and a password together, or neither")
        if self.register_ and self.username is None:
            raise ValueError("can register only with a username and a password")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("needs tls_certificate and tls_key together, or neither")
        if (self.tls_ca or self.tls_certificate) and not self._over_tls():
            raise ValueError("has tls_… keys but does not use TLS; write transport: tls")
        return self

    def _over_tls(self) -> bool:
        address = (self.address or "").lower()
        return self.transport == "tls" or (self.transport is None and (address.startswith("sips:") or "transport=tls" in address))

    def trunk(self) -> Trunk:
        """In the domain's terms."""
        values = self.model_dump(exclude={"remove", "register_", "account", "address"})
        values |= {"srtp": Srtp(self.srtp), "transfer": TransferMode(self.transfer)}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Trunk(account=self.account or "", address=self.address or "", register=self.register_, **values)


class NumberEntry(BaseModel):
    """A telephone number; keys that are not listed here are the contract's."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, hide_input_in_errors=True)

    number: PhoneNumber
    account: Name | None = None
    contract: str | None = None
    remove: bool = False

    @property
    def contract_settings(self) -> Mapping[str, Any]:
        """What the contract's folder validates."""
        return self.model_extra or {}

    @model_validator(mode="after")
    def _complete(self) -> NumberEntry:
        if not self.remove and (self.account is None or self.contract is None):
            raise ValueError("needs an account and a contract; write account: NAME and contract: vns")
        return self

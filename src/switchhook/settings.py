"""Settings: from the environment (`SWITCHHOOK_*`), then `switchhook.toml`, then the defaults. The only reader of both.

A key of the file is the lower-case name of the variable without its prefix. Unknown keys are errors that name the key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from switchhook.domain.addresses import literal
from switchhook.domain.errors import SettingError
from switchhook.domain.web_address import address_fits

DNS_PORT = 53
PREFIX = "SWITCHHOOK_"
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
FOREIGN = ("SWITCHHOOK_REQUIRE_PEERS", "SWITCHHOOK_TEST_POSTGRES")
"""Variables with our prefix that belong to the tests."""


class Settings(BaseModel):
    """All settings of a server. Each field's description is its line in docs/settings.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    http_host: str = Field("127.0.0.1", description="Address the HTTP API listens on.")
    http_port: int = Field(8080, ge=0, le=65534, description="Port of the HTTP API.")
    public_url: str | None = Field(None, description="How the outside reaches the HTTP API, e.g. `https://voice.example.com`.")
    media_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the media WebSockets (`/v1/realtime`). Default: HTTP port + 1."
    )
    public_media_url: str | None = Field(
        None, description="How the outside reaches the media WebSockets, e.g. `wss://voice.example.com`."
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description="Comma-separated CIDR blocks of reverse proxies whose `X-Forwarded-Proto` and `X-Forwarded-Host` are "
        "believed when `public_url` is not set.",
    )
    twilio_rest_url: str = Field(
        "https://api.twilio.com", description="Twilio's REST API for calls whose credentials come with the call (Veevo)."
    )
    sip_host: str = Field("0.0.0.0", description="Address SIP listens on.")
    sip_port: int = Field(5060, ge=1, le=65535, description="Port of SIP over UDP and TCP.")
    sip_tls_port: int = Field(5061, ge=1, le=65535, description="Port of SIP over TLS.")
    sip_transports: tuple[Literal["udp", "tcp", "tls"], ...] = Field(
        ("udp", "tcp"), description="Comma-separated: `udp`, `tcp`, `tls`. `tls` needs `tls_certificate` and `tls_key`."
    )
    sip_advertised_host: str | None = Field(
        None,
        description="Address written into SIP and SDP; the public one behind NAT. Default: the one that reaches the peer.",
    )
    sip_dns_server: tuple[str, int] | None = Field(
        None,
        description="DNS server that is asked where trunks are, `ADDRESS` or `ADDRESS:PORT`. "
        "Default: the system's, hosts file included.",
    )
    sip_unknown_sources: Literal["silent", "403"] = Field(
        "silent", description="What a source gets that no trunk allows: no answer at all, or 403."
    )
    tls_certificate: Path | None = Field(None, description="PEM file with the certificate chain for SIP over TLS.")
    tls_key: Path | None = Field(None, description="PEM file with its private key.")
    sip_tls_client_ca: Path | None = Field(
        None,
        description="PEM file of authorities: who connects to SIP over TLS must show a certificate of one of them. "
        "Default: none is asked for.",
    )
    rtp_ports: tuple[int, int] = Field((20000, 29999), description="Range of UDP ports for RTP, `FIRST-LAST`; a call takes two.")
    media_timeout_s: int = Field(30, ge=5, description="Seconds without a packet from the caller after which the call ends.")
    ringback_country: str = Field(
        "US", pattern="^[A-Z]{2}$", description="Country (ISO 3166) whose ringback a caller hears while a transfer rings."
    )
    hold_sound: Path | None = Field(
        None,
        description="What a party on hold hears again and again: a WAV, FLAC, OGG or MP3 file, or raw µ-law ending in `.ulaw`. "
        "At most ten minutes of it are used. Default: a soft melody.",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL. Default: the SQLite file `switchhook.db` in the data directory."
    )
    data_dir: Path = Field(Path("data"), description="Directory of the database, the recordings and the server key.")
    secret_key: str | None = Field(
        None,
        description="Base64 of 32 bytes that encrypt secrets. Default: `server.key` in the data directory, made at first start.",
    )
    egress_allow: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Comma-separated CIDR blocks of private or loopback addresses that webhooks and agents may be at."
    )
    max_calls: int = Field(100, ge=1, description="Calls at one time; one more is refused with 503.")
    drain_s: int = Field(120, ge=0, description="Seconds that live calls get to finish after SIGTERM.")
    workers: int = Field(
        2, ge=1, le=64, description="Worker processes for encoding, local voices and speech recognition; started when needed."
    )
    prices: Path | None = Field(
        None, description="YAML file with your own prices of models and carriers, laid over the shipped ones. docs/costs.md."
    )
    model_aliases: str | None = Field(
        None,
        description="Comma-separated `OLD=NEW` names of AI models to replace, or `retired`: every name that its vendor replaced. "
        "Default: none is.",
    )
    recording_days: int = Field(
        7, ge=1, le=3650, description="Days that a recording is kept after its call; counts for those made from then on."
    )
    event_loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="Event loop implementation.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or plain text.")

    @field_validator("sip_transports", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return _listed(value)

    @field_validator("egress_allow", "trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        value = _listed(value)
        return [_block(part) if isinstance(part, str) else part for part in value] if isinstance(value, list) else value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        return _outside_url(value, ("https", "http"))

    @field_validator("public_media_url")
    @classmethod
    def _public_media_url(cls, value: str | None) -> str | None:
        return _outside_url(value, ("wss", "ws"))

    @field_validator("twilio_rest_url")
    @classmethod
    def _twilio_rest_url(cls, value: str) -> str:
        return _whole_address(value, ("https", "http"), "api.twilio.com")

    @field_validator("sip_advertised_host")
    @classmethod
    def _advertised(cls, value: str | None) -> str | None:
        if value is not None and literal(value) is None and not _HOST_NAME.fullmatch(value):
            raise ValueError("write an address or a host name alone, e.g. 203.0.113.5")
        return value

    @field_validator("rtp_ports", mode="before")
    @classmethod
    def _port_range(cls, value: object) -> object:
        if isinstance(value, str):
            first, dash, last = value.partition("-")
            if not dash or not first.strip().isdigit() or not last.strip().isdigit():
                raise ValueError("write it as FIRST-LAST, e.g. 20000-29999")
            return (int(first), int(last))
        return value

    @field_validator("sip_dns_server", mode="before")
    @classmethod
    def _dns_server(cls, value: object) -> object:
        if isinstance(value, str):
            return _address_and_port(value, DNS_PORT)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        first, last = self.rtp_ports
        if not 1024 <= first < last <= 65535:
            raise ValueError("rtp_ports: the range must lie within 1024-65535 and hold at least two ports")
        if "tls" in self.sip_transports and (self.tls_certificate is None or self.tls_key is None):
            raise ValueError("sip_transports: tls needs tls_certificate and tls_key")
        return self

    @property
    def media_listener_port(self) -> int:
        """The media port in force."""
        if self.media_port is not None:
            return self.media_port
        return self.http_port + 1 if self.http_port else 0

    @property
    def sqlalchemy_url(self) -> str:
        """The database in force."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'switchhook.db').absolute()}"


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _block(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no address block; write e.g. 10.0.0.0/8 or 192.0.2.7") from None


def _outside_url(text: str | None, schemes: tuple[str, str]) -> str | None:
    return None if text is None else _whole_address(text, schemes, "voice.example.com")


def _whole_address(text: str, schemes: tuple[str, str], example: str) -> str:
    if not address_fits(text, schemes) or "?" in text or "#" in text:
        raise ValueError(f"write the whole address, e.g. {schemes[0]}://{example}")
    return text


def _address_and_port(text: str, default_port: int) -> tuple[str, int]:
    """Read `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`. Raises ValueError with what to write."""
    host, port = text.strip(), str(default_port)
    if literal(host) is None:
        host, _, port = host.rpartition(":")
    if literal(host) is None or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("write a numeric address, with or without a port, e.g. 192.0.2.53 or 192.0.2.53:5353")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load_settings(environ: Mapping[str, str], file: Path | None) -> Settings:
    """Read the settings. `file` None: `switchhook.toml` in the working directory, when it is there.

    Raises SettingError naming the key and what to write instead.
    """
    values = _from_file(file)
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in FOREIGN:
            continue
        key = name.removeprefix(PREFIX).lower()
        _check_known(key, name)
        values[key] = text
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingError(_first_problem(error)) from None


def _from_file(file: Path | None) -> dict[str, Any]:
    path = file or Path("switchhook.toml")
    if not path.exists():
        if file is not None:
            raise SettingError(f"{file}: there is no such file")
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: {error}") from None
    for key in values:
        _check_known(key, f"{path}: {key}")
    return values


def _check_known(key: str, shown: str) -> None:
    if key in Settings.model_fields:
        return
    near = get_close_matches(key, Settings.model_fields, n=1)
    hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else "; docs/settings.md lists all settings"
    raise SettingError(f"{shown}: there is no such setting{hint}")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    key = str(problem["loc"][0])
    return f"{PREFIX}{key.upper()} ({key} in switchhook.toml): {message}"

"""What an apply file may say: the door between YAML and the use case.

Every problem names its place and the cure; no value is repeated, for values may be secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from switchhook.domain.errors import ApplyError
from switchhook.domain.phone import e164
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.uri import SipUri


def _sip_address(text: str) -> str:
    try:
        SipUri.parse(text)
    except GrammarError:
        raise ValueError('is no SIP address; write "sip:host:port"') from None
    return text


def _block(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError('is no address block; write "203.0.113.0/24" or a single address') from None


def _quoted(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError('put the number in quotes: "+17205551212" (YAML takes the plus sign of a bare number away)')
    return value


def _list(value: object) -> object:
    """A key with nothing under it."""
    return [] if value is None else value


def _number(text: str) -> str:
    number = e164(text)
    if number is None:
        raise ValueError('is no telephone number; write it with its country code: "+17205551212"')
    return number


def _token(value: str) -> str:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("cannot be sent in an HTTP header; use printable ASCII without a blank at either end")
    return value


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
TokenValue = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_token)]


# What the loader raises over a date or number that is none (2026-13-01, an empty !!int), and over endless nesting.
_LOADER_FAULTS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class TokenEntry(_Entry):
    """An API token of an account."""

    name: Name
    value: TokenValue | None = Field(default=None, repr=False)
    remove: bool = False

    @model_validator(mode="after")
    def _complete(self) -> TokenEntry:
        if self.value is None and not self.remove:
            raise ValueError('needs a value; write value: "…", or remove: true')
        return self


class AccountEntry(_Entry):
    """A tenant."""

    name: Name
    tokens: Annotated[list[TokenEntry], BeforeValidator(_list)] = []


class TrunkEntry(_Entry):
    """A SIP peer."""

    name: Name
    account: Name | None = None
    address: Annotated[str, AfterValidator(_sip_address)] | None = None
    allow_from: Annotated[list[Annotated[str, AfterValidator(_block)]], BeforeValidator(_list)] = []
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    register_: bool = Field(default=False, alias="register")
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
        return self


class NumberEntry(BaseModel):
    """A telephone number; keys that are not listed here are the contract's."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, hide_input_in_errors=True)

    number: Annotated[str, BeforeValidator(_quoted), AfterValidator(_number)]
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


class ApplyFile(_Entry):
    """The whole file. What it does not name is left alone."""

    accounts: Annotated[list[AccountEntry], BeforeValidator(_list)] = []
    trunks: Annotated[list[TrunkEntry], BeforeValidator(_list)] = []
    numbers: Annotated[list[NumberEntry], BeforeValidator(_list)] = []


def read_file(text: str) -> ApplyFile:
    """Read an apply file. Raises ApplyError with every problem, each on a line of its own."""
    try:
        # A safe loader: it makes plain values only.
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ApplyError(f"the file is not YAML: {_where(error)}") from None
    except _LOADER_FAULTS:
        raise ApplyError("the file is not YAML: it holds a date or a number that is none; put such text in quotes") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ApplyError("the file must hold accounts:, trunks: or numbers: with a list under each")
    try:
        return ApplyFile.model_validate(content)
    except ValidationError as error:
        raise ApplyError("\n".join(_problem(e["loc"], e["type"], e["msg"]) for e in error.errors(include_input=False))) from None


class _StrictLoader(yaml.SafeLoader):
    """YAML lets the second of two equal keys win in silence."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key_node.value} is there twice", key_node.start_mark)
        seen.add(getattr(key_node, "value", None) if isinstance(key_node, yaml.ScalarNode) else None)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


def place(path: Sequence[int | str]) -> str:
    """`numbers[0].call_start.url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _problem(path: tuple[int | str, ...], kind: str, message: str) -> str:
    where = place(path)
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = get_close_matches(str(path[-1]), known, n=1)
        cure = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{where}: there is no such key; {cure}"
    if kind == "missing":
        return f"{where}: is missing; write it"
    if kind == "string_pattern_mismatch":
        return f"{where}: write letters, digits, dots, hyphens and underscores only, beginning with a letter or digit"
    if kind == "string_type":
        return f"{where}: must be text; put it in quotes"
    if kind == "model_type":
        return f"{where}: must be an object with keys, as in the example of the documentation"
    return f"{where}: {message.removeprefix('Value error, ')}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    models: dict[tuple[str, ...], type[BaseModel]] = {
        (): ApplyFile,
        ("accounts",): AccountEntry,
        ("accounts", "tokens"): TokenEntry,
        ("trunks",): TrunkEntry,
    }
    model = models[tuple(part for part in path if isinstance(part, str))]
    return sorted(field.alias or name for name, field in model.model_fields.items())

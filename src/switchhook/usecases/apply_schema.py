"""What an apply file may say: the door between YAML and the use case.

Every problem names its place and the cure; no value is repeated, for values may be secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from switchhook.domain.errors import ApplyError
from switchhook.usecases.apply_entries import (
    AccountEntry,
    DiallingEntry,
    NumberEntry,
    TokenEntry,
    TrunkEntry,
    TwilioEntry,
    VeevoEntry,
)
from switchhook.usecases.apply_values import Entry, Listed

# What the loader raises over a date or number that is none (2026-13-01, an empty !!int), and over endless nesting.
_LOADER_FAULTS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class ApplyFile(Entry):
    """The whole file. What it does not name is left alone."""

    accounts: Annotated[list[AccountEntry], Listed] = Field(default_factory=list)
    trunks: Annotated[list[TrunkEntry], Listed] = Field(default_factory=list)
    numbers: Annotated[list[NumberEntry], Listed] = Field(default_factory=list)


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
    if kind == "list_type":
        return f"{where}: must be a list: [a, b]"
    if kind == "model_type":
        return f"{where}: must be an object with keys, as in the example of the documentation"
    if kind == "literal_error":
        return f"{where}: {message.replace('Input should be', 'write')}"
    return f"{where}: {message.removeprefix('Value error, ').replace('Input should be', 'must be')}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    models: dict[tuple[str, ...], type[BaseModel]] = {
        (): ApplyFile,
        ("accounts",): AccountEntry,
        ("accounts", "tokens"): TokenEntry,
        ("accounts", "dialling"): DiallingEntry,
        ("accounts", "twilio"): TwilioEntry,
        ("accounts", "veevo"): VeevoEntry,
        ("trunks",): TrunkEntry,
    }
    model = models[tuple(part for part in path if isinstance(part, str))]
    return sorted(field.alias or name for name, field in model.model_fields.items())

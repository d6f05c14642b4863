"""Keeps the customer's keys out of what is written down."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from switchhook.domain.plan import AgentSpec

SECRET_CHARS = 8
"""A shorter word of a header is no key."""


def without_secrets(text: str, spec: AgentSpec) -> str:
    """The text without the agent's keys: words of its headers, values of its address's query. Servers quote a key they refuse."""
    for secret in _secrets(spec):
        text = text.replace(secret, "***")
    return text


def _secrets(spec: AgentSpec) -> Iterator[str]:
    for value in spec.headers.values():
        yield from (word for word in value.split() if len(word) >= SECRET_CHARS)
    for name, value in parse_qsl(urlsplit(spec.url).query):
        if name.lower() != "model" and len(value) >= SECRET_CHARS:
            yield value

"""A number's settings as a contract's model, read once for as long as they are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

ModelT = TypeVar("ModelT")

MOST = 10_000
"""Numbers whose settings are remembered; a call reads them several times."""


class SettingsCache(Generic[ModelT]):
    """Call it with settings that were validated before. It knows them by identity: the directory hands out the same object for
    each call of a number, and a new one after a change."""

    def __init__(self, read: Callable[[Mapping[str, Any]], ModelT]) -> None:
        self._read = read
        self._known: dict[int, tuple[Mapping[str, Any], ModelT]] = {}

    def __call__(self, settings: Mapping[str, Any]) -> ModelT:
        """The model of these settings. Raises what reading them raises."""
        known = self._known.get(id(settings))
        if known is not None and known[0] is settings:
            return known[1]
        model = self._read(settings)
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[id(settings)] = (settings, model)
        return model

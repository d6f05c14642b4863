"""Settings are read once for each object that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from switchhook.api import settings_cache
from switchhook.api.settings_cache import SettingsCache


def test_the_same_settings_are_read_once_and_others_anew() -> None:
    read: list[Mapping[str, Any]] = []

    def model(settings: Mapping[str, Any]) -> str:
        read.append(settings)
        return str(settings["name"])

    cache = SettingsCache(model)
    first, changed = {"name": "one"}, {"name": "two"}
    assert [cache(first), cache(first), cache(changed), cache(first)] == ["one", "one", "two", "one"]
    assert read == [first, changed]


def test_what_cannot_be_read_is_not_remembered() -> None:
    cache = SettingsCache(lambda settings: settings["name"])
    settings: dict[str, Any] = {}
    with pytest.raises(KeyError):
        cache(settings)
    settings["name"] = "late"
    assert cache(settings) == "late"


def test_no_more_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_cache, "MOST", 2)
    cache = SettingsCache(dict)
    kept = [{"n": n} for n in range(5)]
    assert [cache(settings) for settings in kept] == kept
    again = cache(kept[4])
    assert cache(kept[4]) is again

"""One suite, two legs: the tests of a contract, collected once more by a module whose fixtures bring callers in another way."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType


def both_legs(one_leg: Mapping[str, str], *modules: ModuleType) -> dict[str, object]:
    """The tests of `modules` for another module's globals: all but those of `one_leg` (test → why it knows its leg)."""
    found = [(name, test) for module in modules for name, test in vars(module).items() if name.startswith("test_")]
    tests = dict(found)
    assert len(found) == len(tests), "two tests have one name"
    return {name: test for name, test in tests.items() if name not in one_leg}


def left_out_in_vain(one_leg: Mapping[str, str], *modules: ModuleType) -> set[str]:
    """Names of `one_leg` that no test has."""
    return set(one_leg) - {name for module in modules for name in vars(module)}

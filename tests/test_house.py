"""The budgets of the house: size of functions and modules, names, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(p for folder in ("src", "bench") for p in (ROOT / folder).rglob("*.py") if "egg-info" not in str(p))
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "base"}
FUNCTION_LINES = 40
MODULE_LINES = 800


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    start = node.lineno
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        start += (first.end_lineno or first.lineno) - first.lineno + 1
    return (node.end_lineno or node.lineno) - start + 1


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_the_budgets(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MODULE_LINES, "split the module by noun"
    assert path.stem not in FORBIDDEN_NAMES, "name the noun"
    assert ast.get_docstring(tree), "say what the module is for"
    long = [f"{f.name} ({code_lines(f)} lines)" for f in functions(tree) if code_lines(f) > FUNCTION_LINES]
    assert not long, f"functions over {FUNCTION_LINES} lines: {long}"


HALLWAY = {"cli"}
"""Of the hallway's six, what is a folder."""


def test_rooms_are_nine() -> None:
    rooms = {p.parent.name for p in (ROOT / "src/switchhook").glob("*/__init__.py")} - HALLWAY
    assert rooms == {"domain", "media", "telephony", "agents", "flows", "calls", "usecases", "store", "api"}


def test_nothing_names_this_machine_or_an_index() -> None:
    for path in [*ROOT.glob("requirements/*"), *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]:
        if path.is_file():
            text = path.read_text()
            assert "--index-url" not in text, path
            assert "--find-links" not in text, path

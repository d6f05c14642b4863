"""Writes docs/settings.md, docs/errors.md and docs/cli.md from the source. A test fails when they are out of date."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import switchhook.bootstrap  # noqa: F401 - loads every room, so that every error is known
from switchhook.cli import build_parser
from switchhook.domain import errors
from switchhook.settings import PREFIX, Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return "`" + ("-" if all(isinstance(part, int) for part in value) else ",").join(map(str, value)) + "`"
    return f"`{value}`"


def settings_page() -> str:
    """A table of all settings."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | `{name}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    head = [
        "# Settings",
        "",
        "From the environment, then `switchhook.toml` in the working directory (or `--config FILE`), then the default.",
        "An unknown key is an error.",
        "",
        "| variable | key in switchhook.toml | default | meaning |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _below(kind: type[errors.SwitchhookError]) -> list[type[errors.SwitchhookError]]:
    """Every error of the loaded program; the composition root loads all of it."""
    children = kind.__subclasses__()
    return [*children, *(below for child in children for below in _below(child))]


def errors_page() -> str:
    """A table of all errors."""
    rows = [
        f"| `{c.code}` | {'yes' if c.retryable else 'no'} | {' '.join((c.__doc__ or '').split())} |"
        for c in sorted(_below(errors.SwitchhookError), key=lambda c: c.code)
    ]
    head = ["# Errors", "", "| code | trying again can help | meaning |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _commands(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
    found = [(name, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                found += _commands(child, f"{name} {word}")
    return found


def cli_page() -> str:
    """The help of every command."""
    parts = ["# Command line", ""]
    for name, parser in _commands(build_parser(), "switchhook"):
        parser.prog = name
        parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=110)
        parts += [f"## {name}", "", "```", parser.format_help().rstrip(), "```", ""]
    return "\n".join(parts)


PAGES = {"settings.md": settings_page, "errors.md": errors_page, "cli.md": cli_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()

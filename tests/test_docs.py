"""The reference pages say what the source says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
assert SPEC is not None
assert SPEC.loader is not None
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_reference_is_current(name: str) -> None:
    if name == "cli.md" and sys.version_info >= (3, 12):
        pytest.skip("argparse words its help differently from Python to Python; the page is made with 3.11")
    assert (ROOT / "docs" / name).read_text() == reference.PAGES[name](), "run scripts/reference.py"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for word in text.replace("(", " ").replace(")", " ").replace("`", " ").split():
        if word.startswith("docs/") and word.rstrip(".,;:").endswith(".md"):
            assert (ROOT / word.rstrip(".,;:")).exists(), f"{page} names {word}"

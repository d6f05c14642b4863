"""Rules for every test: outside programs are skipped with a reason when absent, and demanded in CI."""

from __future__ import annotations

import glob
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is told by the machine's load, not by the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

PEERS = {
    "sipp": "sipp",
    "baresip": "baresip",
    "flite": "flite",
    "espeak-ng": "espeak-ng",
    "ffmpeg": "ffmpeg",
    "sox": "sox",
    "node": "node",
}


def _present(peer: str) -> bool:
    if peer == "postgresql":
        return bool(os.environ.get("SWITCHHOOK_TEST_POSTGRES") or glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    return shutil.which(PEERS[peer]) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose peer is absent, unless peers are required."""
    required = os.environ.get("SWITCHHOOK_REQUIRE_PEERS") == "1"
    for item in items:
        for mark in item.iter_markers("peer"):
            peer = str(mark.args[0])
            if not _present(peer) and not required:
                item.add_marker(pytest.mark.skip(reason=f"{peer} is not installed"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not change a result."""
    for name in list(os.environ):
        if name.startswith("SWITCHHOOK_") and name not in ("SWITCHHOOK_REQUIRE_PEERS", "SWITCHHOOK_TEST_POSTGRES"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

"""What `switchhook check` says of trunks that are unwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers.vns_backend import VnsBackend
from tests.server.house import house_config, open_house

pytestmark = pytest.mark.asyncio(loop_scope="session")


def with_srtp(backend: VnsBackend) -> dict[str, Any]:
    content = house_config(backend)
    [local] = content["trunks"]
    content["trunks"] += [{**local, "name": "exposed", "srtp": "offered"}, {**local, "name": "plain", "srtp": "off"}]
    return content


async def test_srtp_without_tls_is_warned_of(tmp_path: Path) -> None:
    async with open_house(tmp_path, with_srtp) as house:
        _, told = await house.server.run("check")
    warnings = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: trunk exposed: srtp: offered protects nothing here: its keys travel in the SIP messages, in the clear; "
        "set transport: tls"
    ]

"""What `switchhook check` says of trunks, over real loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from switchhook.domain.model import Srtp, Trunk
from switchhook.telephony import trunk_check
from switchhook.telephony.sip_targets import DnsLookup, SipTargets
from switchhook.telephony.trunk_check import certificate_problem, exposed_keys, trunk_state
from tests.peers.answering_machine import LOOPBACK, answering_machine
from tests.peers.certificates import Authority


async def state(trunk: Trunk) -> tuple[str, bool]:
    return await trunk_state(trunk, SipTargets(DnsLookup(), random.random, asyncio.get_running_loop().time), os.urandom)


@pytest.fixture
async def goodbyes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """After a test, every connection comes to its end before the loop does: over TLS its peer says goodbye first."""
    opened: list[asyncio.StreamWriter] = []
    connect = asyncio.open_connection

    async def watched(*where: Any, **how: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(*where, **how)
        opened.append(writer)
        return reader, writer

    monkeypatch.setattr(asyncio, "open_connection", watched)
    yield
    for writer in opened:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.usefixtures("goodbyes")
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_peer_that_answers_and_one_that_is_gone(transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_check, "PATIENCE_S", 20.0)
    authority = Authority(tmp_path)
    identity = authority.vouch_for("127.0.0.1")
    config = replace(
        LOOPBACK,
        transports=("udp", "tcp", "tls"),
        tls_port=0,
        tls_certificate=identity.certificate,
        tls_key=identity.key,
    )
    async with answering_machine(config) as machine:
        address = machine.server.address(transport)
        assert address is not None
        trunk = Trunk("t", "acme", f"sip:127.0.0.1:{address[1]};transport={transport}", tls_ca=authority.file)
        assert await state(trunk) == (f"{transport} 127.0.0.1:{address[1]} answers (200)", True)
        if transport == "tls":
            said, holds = await state(replace(trunk, tls_ca=None))
            assert "set tls_ca" in said
            assert not holds
            said, holds = await state(replace(trunk, address=f"sips:localhost:{address[1]}"))
            assert "is not for localhost but for 127.0.0.1" in said
            assert not holds
    said, holds = await state(trunk)
    assert "it cannot be reached" in said
    assert not holds


async def test_silence_is_told_and_is_no_certain_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_check, "PATIENCE_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        said, holds = await state(Trunk("t", "acme", f"sip:127.0.0.1:{deaf.getsockname()[1]}"))
    assert "does not answer OPTIONS" in said
    assert holds


async def test_a_name_that_cannot_be_found() -> None:
    said, holds = await state(Trunk("t", "acme", "sip:" + "a" * 70 + ".test:5060"))
    assert (said.partition(":")[0], holds) == ("cannot be found", False)


@pytest.mark.parametrize("srtp", [Srtp.OFFERED, Srtp.REQUIRED])
@pytest.mark.parametrize(
    ("address", "transport", "exposed"),
    [
        ("sip:h", None, True),
        ("sip:h", "udp", True),
        ("sip:h", "tcp", True),
        ("sips:h", "tcp", True),
        ("sip:h;transport=tcp", None, True),
        ("sip:h", "tls", False),
        ("sips:h", None, False),
        ("sip:h;transport=TLS", None, False),
    ],
)
def test_srtp_keys_in_the_clear_are_told(srtp: Srtp, address: str, transport: str | None, exposed: bool) -> None:
    trunk = Trunk("t", "acme", address, transport=transport, srtp=srtp)
    said = exposed_keys(trunk)
    assert (said is not None) is exposed
    assert said is None or (f"srtp: {srtp.value}" in said and "set transport: tls" in said)
    assert exposed_keys(replace(trunk, srtp=Srtp.OFF)) is None


def test_our_own_certificate(tmp_path: Path) -> None:
    identity = Authority(tmp_path).vouch_for("sip.example")
    assert certificate_problem(identity.certificate, identity.key) is None
    problem = certificate_problem(identity.certificate, str(tmp_path / "missing"))
    assert problem is not None
    assert "cannot be used" in problem

"""sipp as a carrier whose port is somebody else's: it is started again, and what it said is told when that does not help."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from tests.peers.outgoing_call import WAIT_S, carrier
from tests.server.waiting import eventually

pytestmark = pytest.mark.peer("sipp")


@pytest.mark.parametrize(("transport", "kind"), [("u1", socket.SOCK_DGRAM), ("t1", socket.SOCK_STREAM)])
async def test_a_taken_port_is_told_at_once(tmp_path: Path, transport: str, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(AssertionError, match=rf"(?s)port {port}:.*bind"):
            async with carrier("uas_busy", tmp_path, transport=transport, port=port):
                pass
    assert time.monotonic() - began < WAIT_S


async def test_a_port_that_is_given_back_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        async def complained() -> bool:
            return any(tmp_path.glob("*_errors.log"))

        async def let_go() -> None:
            await eventually(complained, "sipp says that the port is taken")
            other.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(let_go())
            async with carrier("uas_busy", tmp_path, port=port) as (taken, process):
                assert taken == port
                assert process.running

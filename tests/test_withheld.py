"""The plugin that reads connections late: late is not never, and only TCP is late."""

from __future__ import annotations

import asyncio
import selectors
import socket

from tests.peers.loopback import stream_server
from tests.withheld import WithholdingSelector


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)


async def _heard(count: int) -> bytes:
    heard = bytearray()
    async with stream_server(_echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(count):
            writer.write(bytes([number]))
            heard += await reader.readexactly(1)
        writer.close()
        await writer.wait_closed()
    return bytes(heard)


def test_everything_comes_in_order_though_each_reading_is_late() -> None:
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(WithholdingSelector(1.0, 0.02))) as runner:
        assert runner.run(_heard(20)) == bytes(range(20))


def test_datagrams_are_told_at_once() -> None:
    with WithholdingSelector(1.0, 60.0) as selector, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        selector.register(phone, selectors.EVENT_READ)
        phone.sendto(b"a", phone.getsockname())
        assert [key.fileobj for key, _ in selector.select(20)] == [phone]


def test_a_stream_is_not_told_before_its_time() -> None:
    with (
        WithholdingSelector(1.0, 1e9) as selector,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        selector.register(server, selectors.EVENT_READ)
        assert selector.select(0.05) == []

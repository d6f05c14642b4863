"""Ports for servers and telephones of tests: none is given twice at a time, whatever runs beside this process."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
from collections.abc import Iterator

_SLICES = range(10_000, 20_000, 250)
"""Below the ports that systems hand out by themselves, so that nobody takes one between the look and the server's start."""


def free_port() -> int:
    """A port that nobody has on any address of IPv4, neither over TCP nor over UDP, and that nobody else is given."""
    return free_row(1)


def free_row(count: int) -> int:
    """The first of so many such ports, one after the other; of two or more it is even, as RTP wants it."""
    numbers = _numbers()
    row: list[int] = []
    for _ in range(8 * _SLICES.step):
        port = next(numbers)
        fits = row and port == row[-1] + 1
        row = row if fits else []
        if (row or count == 1 or port % 2 == 0) and _is_free(port):
            row.append(port)
        else:
            row = []
        if len(row) == count:
            return row[0]
    raise AssertionError(f"no {count} ports in a row are free")


@functools.cache
def _numbers() -> Iterator[int]:
    """The ports of this process, again and again: one that nobody has taken comes back after some two hundred others."""
    ports = next((ports for first in random.sample(_SLICES, len(_SLICES)) if (ports := _claimed(first))), None)
    assert ports is not None, f"{len(_SLICES)} other processes have all ports of {_SLICES.start} to {_SLICES.stop}"

    def around() -> Iterator[int]:
        while True:
            yield from ports

    return around()


def _claimed(first: int) -> range | None:
    """Make a slice this process's own; None: another has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0switchhook-test-ports-{first}")  # a name without a file: the system forgets it with the process
    except OSError:
        claim.close()
        return None
    _claims.append(claim)
    return range(first, first + _SLICES.step)


_claims: list[socket.socket] = []
"""Held open until the process ends."""


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
        tcp.bind(("0.0.0.0", port))
        udp.bind(("0.0.0.0", port))
        return True
    return False

"""Ports for servers and telephones of tests: none is given twice at a time, whatever runs beside this process."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
from collections.abc import Iterator

_SLICES = range(10_000, 22_000, 500)
"""Below the ports that systems hand out by themselves, so that nobody takes one between the look and the server's start."""
_MOST_SLICES = 4
"""Of one process: others want theirs."""


def free_port() -> int:
    """A port that nobody has on any address of IPv4, neither over TCP nor over UDP, and that nobody else is given."""
    return free_row(1)


def free_row(count: int) -> int:
    """The first of so many such ports, one after the other; of two or more it is even, as RTP wants it."""
    numbers = _numbers()
    row: list[int] = []
    for _ in range(4 * _SLICES.step):
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
    """The ports of this process, each but once as long as that goes.

    A server that lives on may still be knocking at the closed port of an earlier test, and whoever had that next would hear it.
    """

    def ever_new() -> Iterator[int]:
        own: list[range] = []
        while True:
            if len(own) < _MOST_SLICES and (more := _another()) is not None:
                own.append(more)
                yield from more
            else:
                assert own, f"other processes have all ports of {_SLICES.start} to {_SLICES.stop}"
                for ports in own:
                    yield from ports

    return ever_new()


def _another() -> range | None:
    """A slice that nobody has, for this process; None: there is none."""
    return next((ports for first in random.sample(_SLICES, len(_SLICES)) if (ports := _claimed(first)) is not None), None)


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


def passing_row(count: int) -> tuple[int, int]:
    """The ends of a run of ports, the first of them even, that are free at this moment: for streams that look for free ones."""
    for _ in range(200):
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1] // 2 * 2
        if first + count < 65_536 and all(map(_is_free, range(first, first + count))):
            return first, first + count - 1
    raise AssertionError("no run of free ports was found")

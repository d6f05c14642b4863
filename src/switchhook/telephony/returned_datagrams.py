"""Datagrams that the network gives back: ICMP says that nobody is there (RFC 1122 §4.1.3.3, RFC 3261 §18.4).

An unconnected socket learns of that on Linux alone, and only when it asks (ip(7), ipv6(7): IP_RECVERR). What is given back is the
beginning of the datagram; whoever gets it must find something in it that nobody else can know, since ICMP can be forged.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import Callable

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_EXTENDED_ERROR = struct.Struct("=IBBB")
"""struct sock_extended_err: ee_errno, ee_origin, ee_type, ee_code; more follows."""
_UNREACHABLE = {2: 3, 3: 1}
"""SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6, each with its type of message "destination unreachable"."""
_NOBODY = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES})
"""EACCES is ICMPv6's "prohibited". Not EMSGSIZE, which is a type of "destination unreachable" too: then the datagram is sent in
smaller parts."""
_MAX_READ = 32
_DATAGRAM_BYTES, _ANCILLARY_BYTES = 2048, 512


def ask_for_returns(bound: socket.socket) -> None:
    """Let `returned` learn what becomes of the socket's datagrams.

    From then on a send may raise the error of an earlier datagram, once.
    """
    if sys.platform == "linux":
        ipv6 = bound.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
        bound.setsockopt(level, option, 1)


def returned(bound: socket.socket) -> list[bytes] | None:
    """The beginnings of datagrams that reached nobody; None: the socket has no errors to tell of."""
    if sys.platform != "linux":
        return None
    found: list[bytes] = []
    for count in range(_MAX_READ):
        try:
            data, ancillary, _, _ = bound.recvmsg(_DATAGRAM_BYTES, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
        except OSError:
            return found if count else None
        if any(_reached_nobody(content) for _, kind, content in ancillary if kind in (_IP_RECVERR, _IPV6_RECVERR)):
            found.append(data)
    return found


def watch_again(loop: asyncio.AbstractEventLoop, fd: int, reader: Callable[[], object]) -> None:
    """Let the loop call `reader` from here on; to be called by whoever took an error of the socket, in sending as in reading.

    libuv ceases to watch a socket that has an error (`uv__poll_io`), and uvloop begins again for a new reader only. An error that
    a send has taken is one of which the loop may have been told already.
    """
    loop.remove_reader(fd)
    loop.add_reader(fd, reader)


def _reached_nobody(error: bytes) -> bool:
    if len(error) < _EXTENDED_ERROR.size:
        return False
    number, origin, kind, _ = _EXTENDED_ERROR.unpack_from(error)
    return number in _NOBODY and _UNREACHABLE.get(origin) == kind

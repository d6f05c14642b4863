"""Leases RTP ports: an even port for RTP and the next for RTCP (RFC 3550 §11), both bound, out of one range."""

from __future__ import annotations

import ctypes
import errno
import logging
import socket
from collections import deque
from dataclasses import dataclass

from switchhook.domain.errors import PortsExhausted

_log = logging.getLogger(__name__)

_EXPEDITED_FORWARDING = 0xB8
"""DSCP EF (RFC 3246), the mark of voice."""


@dataclass(frozen=True, slots=True)
class PortLease:
    """Two bound non-blocking sockets; give them back with `RtpPorts.release`, which closes them."""

    port: int
    rtp: socket.socket
    rtcp: socket.socket


class RtpPorts:
    """Hands out the even ports of a range at one address; what was given back last is leased last.

    The range counts both ends. Ports that another program holds are passed over.
    """

    def __init__(self, host: str, first: int, last: int) -> None:
        first += first % 2
        self._free = deque(range(first, last, 2))
        if not self._free or not 0 < first <= last < 65_536:
            raise ValueError(f"the RTP port range {first}-{last} holds no even port with an odd one after it")
        self._leased: set[int] = set()
        self.host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET

    @property
    def leased(self) -> int:
        """How many pairs are out."""
        return len(self._leased)

    @property
    def free(self) -> int:
        """How many pairs can still be leased, as far as no other program holds them."""
        return len(self._free)

    def lease(self) -> PortLease:
        """Bind a pair. Raises PortsExhausted when every port is leased or held by another program, or no socket can be had."""
        for _ in range(len(self._free)):
            lease = self._bind(self._free[0])
            if lease is not None:
                self._leased.add(self._free.popleft())
                return lease
            self._free.rotate(-1)
        _log.warning("no RTP port is free: %d are leased, other programs hold %d of the range", self.leased, self.free)
        raise PortsExhausted()

    def release(self, lease: PortLease) -> None:
        """Close both sockets and take the port back; idempotent."""
        lease.rtp.close()
        lease.rtcp.close()
        if lease.port in self._leased:
            self._leased.remove(lease.port)
            self._free.append(lease.port)

    def _bind(self, port: int) -> PortLease | None:
        rtp = self._socket(port)
        if rtp is None:
            return None
        rtcp = None
        try:
            rtcp = self._socket(port + 1)
        finally:
            if rtcp is None:
                rtp.close()
        return None if rtcp is None else PortLease(port, rtp, rtcp)

    def _socket(self, port: int) -> socket.socket | None:
        """Return a bound socket, or None when the port is taken."""
        try:
            bound = socket.socket(self._family, socket.SOCK_DGRAM)
        except OSError as error:
            raise PortsExhausted(f"no socket for RTP: {error.strerror}") from error
        try:
            bound.setblocking(False)
            if self._family == socket.AF_INET:
                bound.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _EXPEDITED_FORWARDING)
            bound.bind((self.host, port))
        except OSError as error:
            bound.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise
        return bound


def disconnect(connected: socket.socket) -> None:
    """Part a datagram socket from its peer, so that it hears every address again; its port stays.

    The kernel does so for an address of no family (connect(2)), which Python's sockets cannot name.
    """
    ctypes.CDLL(None).connect(connected.fileno(), bytes(16), 16)

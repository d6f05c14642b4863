"""The sockets of one leg's media and where the peer is: the signalled address, or the one its packets come from (RFC 4961)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

from switchhook.telephony.returned_datagrams import watch_again
from switchhook.telephony.rtp_ports import PortLease, disconnect
from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.sdes import SrtpKeys

if TYPE_CHECKING:
    from switchhook.telephony.srtp import SrtpReceiver, SrtpSender

Address: TypeAlias = tuple[str, int]

DATAGRAM_BYTES = 2_048
_STRANGER_PACKETS = 5
"""So many packets in a row from an address that was not signalled, and none from the one that was, make the path follow it."""
SEEK_S = 3.0
"""A peer that was not heard for so long may have been given another port by its address translator."""
_MAX_EARLY_DATAGRAMS = 1_000
_LAST_PORT = 65_535


class RtpPath:
    """Sends to the peer and finds out where it is.

    Until the peer has shown its address the path listens to everyone. Once it has, the socket is connected to it: the kernel
    drops what third parties send, and packets cost less. `readable` is then called for each datagram that waits; it reads from
    `receive`. The datagrams that led there are given to `on_packet`, those on the RTCP port to `on_report`.

    A peer that falls silent is sought (`seek`), and followed to another address if it goes on with its stream there.

    With SRTP keys all that passes is RTP and RTCP still: `send` protects and `receive` opens, and the path follows nobody whose
    packets do not open.
    """

    __slots__ = (
        "_candidate",
        "_keys",
        "_loop",
        "_on_packet",
        "_on_report",
        "_opener",
        "_protector",
        "_readable",
        "_rejected_before",
        "_rtcp",
        "_rtcp_port",
        "_rtp",
        "_signalled",
        "_sought",
        "locked",
        "receive",
        "remote",
        "send",
    )

    def __init__(
        self,
        lease: PortLease,
        readable: Callable[[], None],
        on_packet: Callable[[bytes], None],
        on_report: Callable[[bytes], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._rtp = lease.rtp
        self._rtcp = lease.rtcp
        self._readable = readable
        self._on_packet = on_packet
        self._on_report = on_report
        self._signalled: Address | None = None
        self._rtcp_port: int | None = None
        self._candidate: tuple[Address, list[bytes]] | None = None
        self._sought: int | None = None
        self._keys: SrtpKeys | None = None
        self._protector: SrtpSender | None = None
        self._opener: SrtpReceiver | None = None
        self._rejected_before = 0
        self.locked = False
        self.remote: Address | None = None
        """Where sound goes; None: not known, and `send` does nothing."""
        self.receive: Callable[[int], bytes] = lease.rtp.recv
        """Read one datagram of the locked peer; `b""` for one that does not open. Raises OSError when none waits."""
        self.send: Callable[[bytes], object] = self._send_unlocked
        """Send one datagram. Raises OSError for a full buffer, or an ICMP error that an earlier one met."""

    def open(self) -> None:
        """Begin; what came before is thrown away."""
        for early in (self._rtp, self._rtcp):
            for _ in range(_MAX_EARLY_DATAGRAMS):
                try:
                    early.recv(DATAGRAM_BYTES)
                except BlockingIOError:
                    break
        self._loop.add_reader(self._rtcp.fileno(), self._rtcp_readable)

    def secure(self, keys: SrtpKeys | None) -> None:
        """Protect and open with these keys from here on; None: plain RTP. A key that stays keeps its counters."""
        if keys is not None:
            from switchhook.telephony.srtp import SrtpReceiver, SrtpSender  # 4.5 MiB that a server with plain trunks does without
        before, self._keys = self._keys, keys
        if before is None or keys is None or before.ours != keys.ours:
            self._protector = None if keys is None else SrtpSender(keys.ours)
        if before is None or keys is None or before.theirs != keys.theirs:
            self._rejected_before = self.rejected
            self._opener = None if keys is None else SrtpReceiver(keys.theirs)
        self._choose_ways()

    @property
    def rejected(self) -> int:
        """Packets that did not open: forged, repeated, or under another key."""
        return self._rejected_before + (self._opener.rejected if self._opener is not None else 0)

    def point(self, remote: Address | None, rtcp: Address | None) -> None:
        """Send to the signalled address, and listen to everyone until the peer has shown its own."""
        self._signalled = self.remote = remote if remote is not None and _is_address(remote[0]) else None
        self._rtcp_port = None if rtcp is None else rtcp[1]
        self._listen_to_all(None)

    def seek(self, ssrc: int | None, silent_s: float) -> None:
        """The locked peer was not heard for so long: after SEEK_S listen to everyone again, and send where it was meanwhile.

        Its old address locks at once. Another one has to go on with the peer's stream: whoever does not know the SSRC is not
        followed, so that a pause is no chance for a hijacker; only the signalled host may begin a new stream.
        """
        if self.locked and silent_s > SEEK_S:
            self._listen_to_all(ssrc)

    def listen_again(self) -> None:
        """To be called by whoever met an ICMP error, in sending as in reading (`watch_again`)."""
        self._listen(self._readable if self.locked else self._probe)

    def send_report(self, packet: bytes) -> None:
        """Send RTCP: to the signalled port, or to the one after RTP's if there is one."""
        if self.remote is None:
            return
        port = self._rtcp_port or self.remote[1] + 1
        if port > _LAST_PORT:  # an address translator may have given RTP the last port
            return
        try:
            if self._protector is not None:
                packet = self._protector.protect_rtcp(packet)
            self._rtcp.sendto(packet, (self.remote[0], port))
        except OSError:  # the peer may have no RTCP port: reports are a courtesy
            return

    def close(self) -> None:
        """Leave the loop; the sockets are the lease's."""
        self.locked = False
        self._loop.remove_reader(self._rtp.fileno())
        self._loop.remove_reader(self._rtcp.fileno())
        # The stream would otherwise hold itself through these, and wait for the garbage collector.
        self._readable = self._on_packet = self._on_report = self.send = _nothing

    def _choose_ways(self) -> None:
        """Fix how a datagram is sent and read, so that plain RTP over a locked path is the socket's own call."""
        send: Callable[[bytes], object] = self._rtp.send if self.locked else self._send_unlocked
        self.send = send if self._protector is None else self._protector.sending(send)
        self.receive = self._rtp.recv if self._opener is None else self._opener.receiving(self._rtp)

    def _send_unlocked(self, packet: bytes) -> None:
        if self.remote is not None:
            self._rtp.sendto(packet, self.remote)

    def _listen_to_all(self, sought: int | None) -> None:
        if self.locked:
            disconnect(self._rtp)
            self.locked = False
        self._candidate = None
        self._sought = sought
        self._choose_ways()
        self._listen(self._probe)

    def _listen(self, reader: Callable[[], None]) -> None:
        watch_again(self._loop, self._rtp.fileno(), reader)

    def _probe(self) -> None:
        """One datagram while the path is not locked: find out whose it is."""
        try:
            packet, source = self._rtp.recvfrom(DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.listen_again()
            return
        if self._opener is not None:
            packet = self._opener.unprotect(packet)
        parsed = rtp.parse(packet)
        if parsed is None or rtp.is_rtcp(packet):
            return
        address = (str(source[0]), int(source[1]))
        if address == self.remote:
            self._lock(source, [packet])
            return
        signalled = self._signalled is not None and address[0] == self._signalled[0]
        if self._sought not in (None, parsed.ssrc) and not signalled:
            return
        # Another port of the signalled host has to persist, too: carriers send many calls from one address, and the last packets
        # of the call that had our port before must not take this one's place.
        if self._candidate is None or self._candidate[0] != address:
            self._candidate = (address, [])
        packets = self._candidate[1]
        packets.append(packet)
        if len(packets) >= _STRANGER_PACKETS:
            self._lock(source, packets)

    def _lock(self, source: tuple[Any, ...], packets: list[bytes]) -> None:
        """Follow this source alone from here on."""
        self._candidate = None
        try:
            self._rtp.connect(source)
        except OSError:  # unreachable: it cannot be the peer
            return
        self.locked = True
        if self.remote is None or self.remote != source[:2]:
            # Behind an address translator the signalled RTCP port means nothing either.
            self._rtcp_port = None
        self.remote = (source[0], source[1])
        self._choose_ways()
        self._listen(self._readable)
        for packet in [*packets, *self._waiting_from(source)]:
            self._on_packet(packet)

    def _waiting_from(self, source: tuple[Any, ...]) -> list[bytes]:
        """What the peer sent before the socket was connected; what others sent in that time is thrown away."""
        packets: list[bytes] = []
        for _ in range(_MAX_EARLY_DATAGRAMS):
            try:
                packet, sender = self._rtp.recvfrom(DATAGRAM_BYTES)
            except OSError:
                break
            if sender == source:
                packets.append(packet if self._opener is None else self._opener.unprotect(packet))
        return packets

    def _rtcp_readable(self) -> None:
        try:
            packet, source = self._rtcp.recvfrom(DATAGRAM_BYTES)
        except OSError:
            return
        if self.remote is None or source[0] != self.remote[0]:
            return
        if self._opener is not None:
            packet = self._opener.unprotect_rtcp(packet)
        self._on_report(packet)


def _nothing(*_: object) -> None:
    """Nobody listens any more."""


def _is_address(host: str) -> bool:
    """Whether sound can be sent there: a name would make the socket ask the resolver and wait, 0.0.0.0 would be this machine."""
    try:
        return not ip_address(host).is_unspecified
    except ValueError:
        return False

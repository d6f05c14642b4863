"""SRTP and SRTCP (RFC 3711, RFC 7714) by libsrtp: packets protected with our key, and the peer's opened with its own.

A context holds what a key has been used for: the rollover counter of each SSRC and, on the way in, which packets have been seen
(RFC 3711 §3.2.3). It lives as long as its key; a new key begins a new one (RFC 4568 §7.1.4).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from pylibsrtp import Error, Policy, Session
from pylibsrtp._binding import ffi, lib  # type: ignore[import-not-found]  # a compiled module that says no types

from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.sdes import SrtpKey

_PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 10, 10),
    "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 4, 10),
    "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 0, 0),
    "AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 0, 0),
}
"""The library's name of each suite, and the bytes that follow the MKI in SRTP and SRTCP: the tag, which with GCM comes before it
(RFC 3711 §3.1 and §3.4, RFC 4568 §6.2.2, RFC 7714 §8.2 and §9.2)."""

_PACKET_BYTES = 2_048
"""The longest packet that `sending` and `receiving` take."""
_TRAILER_BYTES = 16 + 128
"""What protecting may add: the longest tag and the longest MKI of the library."""
_DATA = ffi.new("char[]", _PACKET_BYTES + _TRAILER_BYTES)
_LENGTH = ffi.new("int *")
_ROOM = ffi.buffer(_DATA, _PACKET_BYTES)
_WHOLE = ffi.buffer(_DATA)
"""Where the library works on a packet. One place for all streams, so that it stays in the processor's cache: that is a tenth of
what SRTP costs. Nothing in it is needed from one packet to the next, and all streams live on the one event loop."""


class SrtpSender:
    """One key of ours in use."""

    __slots__ = ("_session", "protect", "protect_rtcp")

    def __init__(self, key: SrtpKey) -> None:
        self._session = session = _session(key, Policy.SSRC_ANY_OUTBOUND)
        self.protect = session.protect
        """RTP packet to SRTP packet."""
        self.protect_rtcp = session.protect_rtcp

    def sending(self, send: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """`send` for RTP packets, each protected on its way: `protect` without its layers, which cost half as much as the cipher.

        Event loop only. Raises ValueError for a packet of more than 2,048 bytes, `Error` when the key may not be used any more.
        """
        session = self._session
        context, protect = session._srtp[0], lib.srtp_protect
        data, length, room, whole = _DATA, _LENGTH, _ROOM, _WHOLE

        def protected(packet: bytes, alive: Session = session) -> object:
            length[0] = size = len(packet)
            room[0:size] = packet
            if status := protect(context, data, length):
                raise Error(f"libsrtp gives status {status}")
            return send(whole[0 : length[0]])

        return protected


class SrtpReceiver:
    """One key of the peer in use. What is forged, repeated, too old or under another key opens to `b""` and is counted.

    A further SSRC under the same key, as after a restart of the peer, has its own counters.
    """

    __slots__ = ("_mki_bytes", "_rtcp_tail", "_rtp_tail", "_session", "_unprotect", "_unprotect_rtcp", "rejected")

    def __init__(self, key: SrtpKey) -> None:
        self._session = session = _session(key, Policy.SSRC_ANY_INBOUND)
        self._unprotect = session.unprotect
        self._unprotect_rtcp = session.unprotect_rtcp
        _, self._rtp_tail, self._rtcp_tail = _PROFILES[key.suite]
        self._mki_bytes = key.mki_bytes
        self.rejected = 0
        """Packets that did not open."""

    def unprotect(self, packet: bytes) -> bytes:
        """SRTP packet to RTP packet. Never raises. SRTCP on the RTP port (RFC 5761) is opened too."""
        try:
            return self._unprotect(self._without_mki(packet, self._rtp_tail) if self._mki_bytes else packet)
        except (Error, ValueError):
            return self._no_rtp(packet)

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """SRTCP packet to RTCP packet. Never raises."""
        try:
            return self._unprotect_rtcp(self._without_mki(packet, self._rtcp_tail) if self._mki_bytes else packet)
        except (Error, ValueError):
            self.rejected += 1
            return b""

    def receiving(self, source: socket.socket) -> Callable[[int], bytes]:
        """`recv` of the socket, each packet opened as `unprotect` opens it, without its layers.

        Event loop only. The size may be 2,048 bytes at most; raises OSError as the socket does.
        """
        if self._mki_bytes:
            unprotect_any, receive = self.unprotect, source.recv
            return lambda size: unprotect_any(receive(size))
        session, no_rtp = self._session, self._no_rtp
        context, unprotect, receive_into = session._srtp[0], lib.srtp_unprotect, source.recv_into
        data, length, room, whole = _DATA, _LENGTH, _ROOM, _WHOLE

        def opened(size: int, alive: Session = session) -> bytes:
            length[0] = size = receive_into(room, size)
            packet: bytes = room[0:size]  # what does not open may be changed in its place, and may be RTCP
            if unprotect(context, data, length):
                return no_rtp(packet)
            plain: bytes = whole[0 : length[0]]
            return plain

        return opened

    def _no_rtp(self, packet: bytes) -> bytes:
        """What did not open as RTP may be RTCP."""
        if rtp.is_rtcp(packet):
            return self.unprotect_rtcp(packet)
        self.rejected += 1
        return b""

    def _without_mki(self, packet: bytes, tail: int) -> bytes:
        """The MKI names the one key there is; the tag does not cover it (RFC 3711 §3.1)."""
        at = len(packet) - tail
        return packet[: max(0, at - self._mki_bytes)] + packet[at:]


def _session(key: SrtpKey, direction: int) -> Session:
    return Session(Policy(key.master, direction, 0, _PROFILES[key.suite][0]))

"""The load: many SIP callers in one process, one epoll loop, a socket each, sound paced in real time.

It stays cheap so that what is measured is the server: raw sockets, no task per call, arrival times taken by the kernel. It notes
how late it was itself, so that a run on a busy machine is recognised.
"""

from __future__ import annotations

import ctypes
import gc
import heapq
import os
import re
import select
import socket
import struct
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from pylibsrtp import Error

from bench import numbered, secure
from bench.cycle import CYCLE_FRAMES, FRAME_S, SETTLE_S, SPEAKS

SO_TIMESTAMPNS, SO_ATTACH_FILTER = 35, 26
TIMESPEC = struct.Struct("qq")
RTP = struct.Struct("!BBHII")
SEQUENCE_AND_TIME = struct.Struct("!HI")
T1_S = 0.5
CALL_NUMBER = re.compile(rb"\r\n(?:Call-ID|i) *: *b(\d+)-", re.IGNORECASE)
TO = re.compile(rb"\r\n(?:To|t) *: *([^\r\n]+)", re.IGNORECASE)
CONTACT = re.compile(rb"\r\n(?:Contact|m) *: *<([^>]+)>", re.IGNORECASE)
CSEQ = re.compile(rb"\r\nCSeq *: *(\d+) +(\w+)", re.IGNORECASE)
VIA = re.compile(rb"\r\n(?:Via|v) *: *[^\r\n]+", re.IGNORECASE)
COPIED = re.compile(rb"\r\n(?:Via|v|From|f|To|t|Call-ID|i|CSeq) *: *[^\r\n]+", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nRetry-After *: *(\d+)", re.IGNORECASE)
AUDIO_PORT = re.compile(rb"m=audio (\d+) ")


@dataclass(slots=True)
class Caller:
    """One simulated caller and what it noted. Times are CLOCK_MONOTONIC seconds."""

    number: int
    hold_s: float | None
    """Hang up this long after the answer; None: when told to."""
    media: socket.socket
    dialled_at: float
    buffer: bytearray = field(default_factory=lambda: bytearray(RTP.pack(0x80, 0, 0, 0, 0) + numbered.SILENCE))
    contact: bytes = b""
    to: bytes = b""
    answered_at: float | None = None
    ended_at: float | None = None
    status: int = 0
    retry_after: bool = False
    invites_sent: int = 0
    heard_provisional: bool = False
    ended_by_server: bool = False
    talking: bool = False
    silent_buffer: bool = True
    position: int = 0
    """20 ms frames since the cycle began; negative while the greeting plays."""
    sequence: int = 0
    spoken: int = 0
    sent_at: array[float] = field(default_factory=lambda: array("d"))
    """When voiced frame 0, 1, 2 … was sent."""
    heard_frame: array[int] = field(default_factory=lambda: array("q"))
    heard_at: array[float] = field(default_factory=lambda: array("d"))
    packets: int = 0
    damaged: int = 0
    damaged_sample: bytes = b""
    """The first packet that was damaged."""
    misrouted: int = 0
    key: bytes = b""
    """Its SRTP key, when it encrypts."""
    protect: Callable[[bytes], bytes] | None = None
    unprotect: Callable[[bytes], bytes] | None = None

    def record(self) -> dict[str, Any]:
        """What the evaluation needs."""
        return {name: getattr(self, name) for name in RECORDED}


# Classic BPF over UDP header and payload: load one byte of the RTP payload; when it is µ-law silence keep nothing, else all.
SILENCE_AT = 8 + RTP.size + 5
SILENCE_FILTER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, SILENCE_AT), (0x15, 0, 1, 0xFF), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF))
)


def drop_silence(media: socket.socket) -> None:
    """Have the kernel drop the silence that a server sends all the time, so that reading it does not cost the load a third."""
    program = ctypes.create_string_buffer(SILENCE_FILTER, len(SILENCE_FILTER))
    media.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(SILENCE_FILTER) // 8, ctypes.addressof(program)))


RECORDED = (
    *("number", "answered_at", "ended_at", "status", "retry_after", "ended_by_server", "dialled_at", "sent_at"),
    *("heard_frame", "heard_at", "packets", "damaged", "damaged_sample", "misrouted"),
)


class Load:
    """The loop over every caller; commands come over a pipe from the bench."""

    def __init__(self, pipe: Connection, server: tuple[str, int], called: str, srtp: bool) -> None:
        self._srtp = srtp
        self._pipe = pipe
        self._server = server
        self._called = called.encode()
        self._epoll = select.epoll()
        self._sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sip.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sip.bind(("127.0.0.1", 0))
        self._sip.setblocking(False)
        self._port = self._sip.getsockname()[1]
        self._run = os.urandom(3).hex().encode()
        self._callers: dict[int, Caller] = {}
        self._by_socket: dict[int, Caller] = {}
        self._pacing: list[tuple[float, int]] = []
        self._timers: list[tuple[float, int, str]] = []
        self._late = array("f")
        self._clock_offset = 0.0
        self._finished = False

    def run(self) -> None:
        """Serve commands until `finish`."""
        self._epoll.register(self._sip.fileno(), select.EPOLLIN)
        self._epoll.register(self._pipe.fileno(), select.EPOLLIN)
        gc.collect()
        gc.freeze()
        gc.disable()
        sip, pipe, by_socket = self._sip.fileno(), self._pipe.fileno(), self._by_socket
        next_offset = 0.0
        while not self._finished:
            now = time.monotonic()
            if now >= next_offset:
                # Kernel stamps are wall time; the difference is taken anew each second.
                self._clock_offset = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
                next_offset = now + 1.0
            due = self._send_due(now)
            for fd, _ in self._epoll.poll(max(0.0, due - time.monotonic()), 256):
                caller = by_socket.get(fd)
                if caller is not None:
                    self._hear(caller)
                elif fd == sip:
                    self._read_sip()
                elif fd == pipe:
                    self._command(self._pipe.recv())

    # Sound --------------------------------------------------------------------------------------------------------------

    def _send_due(self, now: float) -> float:
        """Send every frame and fire every timer whose time has come; returns when the next is due."""
        pacing = self._pacing
        while pacing and pacing[0][0] <= now:
            due, number = pacing[0]
            caller = self._callers[number]
            if not caller.talking:
                heapq.heappop(pacing)
                continue
            self._send_frame(caller)
            self._late.append(now - due)
            heapq.heapreplace(pacing, (due + FRAME_S, number))
            now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, number, kind = heapq.heappop(self._timers)
            self._on_timer(self._callers[number], kind, now)
        soonest = pacing[0][0] if pacing else now + 0.1
        return min(soonest, self._timers[0][0]) if self._timers else soonest

    def _send_frame(self, caller: Caller) -> None:
        buffer = caller.buffer
        position = caller.position
        caller.position = position + 1
        caller.sequence += 1
        SEQUENCE_AND_TIME.pack_into(buffer, 2, caller.sequence & 0xFFFF, caller.sequence * numbered.FRAME_BYTES & 0xFFFFFFFF)
        voiced = position >= 0 and caller.hold_s is None and SPEAKS[position % CYCLE_FRAMES]
        if voiced:
            buffer[12:] = numbered.encode(numbered.UP, caller.number, caller.spoken)
            caller.spoken += 1
            caller.silent_buffer = False
            caller.sent_at.append(time.monotonic())
        elif not caller.silent_buffer:
            buffer[12:] = numbered.SILENCE
            caller.silent_buffer = True
        try:
            caller.media.send(buffer if caller.protect is None else caller.protect(bytes(buffer)))
        except (BlockingIOError, ConnectionRefusedError):
            return  # shows as a lost piece

    def _hear(self, caller: Caller) -> None:
        try:
            data, ancillary, _, _ = caller.media.recvmsg(2048, 64)
        except (BlockingIOError, ConnectionRefusedError):
            return
        if 192 <= data[1] <= 223:
            return  # RTCP (RFC 5761 §4): a neighbour's report, whose port is the one after its sound's
        caller.packets += 1
        if caller.unprotect is not None:
            try:
                data = caller.unprotect(data)
            except Error:
                self._note_damage(caller, data)
                return
        frame = data[12:]
        if len(frame) != numbered.FRAME_BYTES or data[1] & 0x7F != 0:
            self._note_damage(caller, data)
        elif not numbered.is_silence(frame):
            found = numbered.decode(frame)
            if found is None:
                self._note_damage(caller, data)
            elif found[0] != numbered.DOWN or found[1] != caller.number:
                caller.misrouted += 1
            else:
                seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2][:16])
                caller.heard_frame.append(found[2])
                caller.heard_at.append(seconds + nanoseconds / 1e9 - self._clock_offset)

    def _note_damage(self, caller: Caller, packet: bytes) -> None:
        caller.damaged += 1
        caller.damaged_sample = caller.damaged_sample or packet

    # Signalling ---------------------------------------------------------------------------------------------------------

    def _dial(self, number: int, hold_s: float | None, at: float) -> None:
        media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        media.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if not self._srtp:  # encrypted silence looks like anything else
            drop_silence(media)
        media.bind(("127.0.0.1", 0))
        media.setblocking(False)
        caller = Caller(number, hold_s, media, at, key=secure.new_key() if self._srtp else b"")
        self._callers[number] = caller
        self._by_socket[media.fileno()] = caller
        self._epoll.register(media.fileno(), select.EPOLLIN)
        self._timer(at, caller, "dial")

    def _invite(self, caller: Caller, now: float) -> None:
        port = caller.media.getsockname()[1]
        profile = b"RTP/SAVP" if caller.key else b"RTP/AVP"
        sdp = (
            b"v=0\r\no=bench 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d %s 0 101\r\n"
            b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
        ) % (port, profile)
        self._send_request(caller, b"INVITE", 1, b"inv", sdp + (secure.offer_line(caller.key) if caller.key else b""))
        self._timer(now + T1_S * 2**caller.invites_sent, caller, "invite")
        caller.invites_sent += 1

    def _send_request(self, caller: Caller, method: bytes, cseq: int, branch: bytes, body: bytes = b"") -> None:
        n = caller.number
        uri = caller.contact if caller.contact and method in (b"ACK", b"BYE") else b"sip:%s@%s:%d" % (self._called, *self._host())
        kind = b"Content-Type: application/sdp\r\n" if body else b""
        lines = (
            b"%s %s SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK%s%d%s;rport\r\n"
            b'From: "Bench" <sip:+1720555%04d@127.0.0.1>;tag=c%d\r\nTo: %s\r\nCall-ID: b%d-%s@127.0.0.1\r\nCSeq: %d %s\r\n'
            b"Contact: <sip:bench%d@127.0.0.1:%d>\r\nMax-Forwards: 70\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE\r\n"
            b"User-Agent: switchhook-bench\r\n%sContent-Length: %d\r\n\r\n"
        ) % (
            *(method, uri, self._port, branch, n, self._run, n, n, caller.to or b"<sip:%s@127.0.0.1>" % self._called),
            *(n, self._run, cseq, b"INVITE" if method == b"INVITE" else method, n, self._port, kind, len(body)),
        )
        self._sip.sendto(lines + body, self._server)

    def _host(self) -> tuple[bytes, int]:
        return self._server[0].encode(), self._server[1]

    def _read_sip(self) -> None:
        for _ in range(64):
            try:
                data, source = self._sip.recvfrom(65535)
            except BlockingIOError:
                return
            match = CALL_NUMBER.search(data)
            caller = self._callers.get(int(match.group(1))) if match else None
            if caller is None:
                continue
            if data.startswith(b"SIP/2.0 "):
                self._on_response(caller, int(data[8:11]), data)
            elif not data.startswith(b"ACK"):
                self._on_request(caller, data, source)

    def _on_request(self, caller: Caller, data: bytes, source: tuple[str, int]) -> None:
        copied = b"".join(COPIED.findall(data))
        self._sip.sendto(b"SIP/2.0 200 OK%s\r\nContent-Length: 0\r\n\r\n" % copied, source)
        if data.startswith(b"BYE") and caller.ended_at is None:
            caller.ended_by_server = True
            self._close(caller, time.monotonic())

    def _on_response(self, caller: Caller, status: int, data: bytes) -> None:
        cseq = CSEQ.search(data)
        if cseq is None or cseq.group(2) != b"INVITE":
            if cseq is not None and cseq.group(2) == b"BYE" and status >= 200:
                self._close(caller, time.monotonic())
            return
        if status < 200:
            caller.heard_provisional = True
            return
        to, contact = TO.search(data), CONTACT.search(data)
        caller.to = to.group(1) if to else caller.to
        if status >= 300:
            self._send_request(caller, b"ACK", 1, b"inv")
            if not caller.status:
                caller.status, caller.retry_after = status, RETRY_AFTER.search(data) is not None
                self._close(caller, time.monotonic())
            return
        caller.contact = contact.group(1) if contact else caller.contact
        self._send_request(caller, b"ACK", 1, b"ack")
        if not caller.status:
            caller.status = status
            self._start_media(caller, data)

    def _start_media(self, caller: Caller, data: bytes) -> None:
        now = time.monotonic()
        port = AUDIO_PORT.search(data)
        if caller.key and (ways := secure.ways(caller.key, data)):
            caller.protect, caller.unprotect = ways
        caller.media.connect((self._server[0], int(port.group(1)) if port else 9))
        caller.answered_at = now
        caller.talking = True
        caller.position = -round(SETTLE_S / FRAME_S)
        # Numbers are spread over the 20 ms so that callers do not all send at once.
        heapq.heappush(self._pacing, (now + (caller.number * 0.618034 % 1.0) * FRAME_S, caller.number))
        if caller.hold_s is not None:
            self._timer(now + caller.hold_s, caller, "bye")

    def _timer(self, at: float, caller: Caller, kind: str) -> None:
        heapq.heappush(self._timers, (at, caller.number, kind))

    def _on_timer(self, caller: Caller, kind: str, now: float) -> None:
        if kind == "dial":
            self._invite(caller, now)
        elif kind == "invite" and not caller.status and not caller.heard_provisional:
            if caller.invites_sent < 7:
                self._invite(caller, now)
            else:
                caller.status = 408
                self._close(caller, now)
        elif kind == "bye" and caller.answered_at is not None and caller.ended_at is None:
            caller.talking = False
            self._send_request(caller, b"BYE", 2, b"bye")
            self._timer(now + 1.0, caller, "bye")

    def _close(self, caller: Caller, now: float) -> None:
        if caller.ended_at is None:
            caller.talking = False
            caller.ended_at = now
            self._by_socket.pop(caller.media.fileno(), None)
            self._epoll.unregister(caller.media.fileno())
            caller.media.close()

    # Commands -----------------------------------------------------------------------------------------------------------

    def _command(self, command: dict[str, Any]) -> None:
        """`dial` (numbers, so many a second), `hangup` (numbers), `state` and `finish`; each is answered."""
        now = time.monotonic()
        if command["do"] == "dial":
            for index, number in enumerate(command["numbers"]):
                self._dial(number, command.get("hold_s"), now + index / command["rate"])
            self._pipe.send({})
        elif command["do"] == "hangup":
            for number in command["numbers"]:
                self._timer(now, self._callers[number], "bye")
            self._pipe.send({})
        elif command["do"] == "state":
            self._pipe.send(self._state())
        else:
            self._finished = True
            self._pipe.send({"callers": [caller.record() for caller in self._callers.values()], "late": self._late})

    def _state(self) -> dict[str, Any]:
        callers = self._callers.values()
        return {
            "up": sum(c.answered_at is not None and c.ended_at is None for c in callers),
            "over": sum(c.ended_at is not None for c in callers),
            "refused": {c.number: c.status for c in callers if c.status >= 300},
            "dropped": sum(c.ended_by_server for c in callers),
            "late_p99_ms": sorted(self._late[-2000:])[int(len(self._late[-2000:]) * 0.99)] * 1000 if self._late else 0.0,
        }


def main(pipe: Connection, server: tuple[str, int], called: str, cores: list[int], srtp: bool = False) -> None:
    """The process's entry."""
    os.sched_setaffinity(0, cores)
    Load(pipe, server, called, srtp).run()

"""The other load: the same callers over a carrier with Twilio's interface. Each rings by webhook and talks over a Media Stream.

As the carrier does, it plays what it is sent in real time, tells by marks what was played, and obeys `clear`. A frame is heard
when it is played, not when it comes.
"""

from __future__ import annotations

import binascii
import heapq
import os
import re
import select
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, cast
from urllib.parse import urlencode

from bench import numbered
from bench.callers import RECORDED, SO_TIMESTAMPNS, TIMESPEC, Caller, Load
from bench.cycle import CYCLE_FRAMES, FRAME_S, SETTLE_S, SPEAKS
from switchhook.api.twilio.signature import SIGNATURE, signature_of

ACCOUNT_SID = "AC" + "0" * 31 + "b"
AUTH_TOKEN = "bench"
PUBLIC_URL, PUBLIC_MEDIA_URL = "https://bench.example", "wss://bench.example"
"""How the server believes to be reached; signatures are over these."""
STREAM = re.compile(rb'<Stream url="wss://[^/"]+([^"]*)"[^>]*>.*?<Parameter name="leg" value="([^"]+)"', re.DOTALL)
MEDIA = (
    b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%s"},'
    b'"streamSid":"MZ%032d"}'
)
SILENCE = binascii.b2a_base64(numbered.SILENCE, newline=False)
TEXT, CLOSE = 1, 8
BUSY, FORBIDDEN, BROKEN = 503, 403, 500


@dataclass(slots=True)
class StreamCaller(Caller):
    """A caller of the carrier's."""

    phase: str = "voice"
    """`voice` while the webhook is asked, `handshake`, then `stream`."""
    leg: bytes = b""
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    plays_to: float = 0.0
    marks: dict[bytes, None] = field(default_factory=dict)
    """Those whose sound is not played yet, in order."""
    cleared: list[tuple[float, float]] = field(default_factory=list)
    """When `clear` came, and how many ms of the frame under way were cut off by it."""

    def record(self) -> dict[str, Any]:
        """What the evaluation needs."""
        return {name: getattr(self, name) for name in (*RECORDED, "cleared")}


class StreamLoad(Load):
    """The loop over every caller; see `bench.callers`."""

    def __init__(self, pipe: Connection, http: tuple[str, int], media: tuple[str, int], called: str) -> None:
        super().__init__(pipe, http, called, srtp=False)
        self._http = http
        self._media = media

    # Sound --------------------------------------------------------------------------------------------------------------

    def _send_frame(self, caller: Caller) -> None:
        talker = cast(StreamCaller, caller)
        position = talker.position
        talker.position = position + 1
        talker.sequence += 1
        voiced = position >= 0 and talker.hold_s is None and SPEAKS[position % CYCLE_FRAMES]
        sound = SILENCE
        if voiced:
            sound = binascii.b2a_base64(numbered.encode(numbered.UP, talker.number, talker.spoken), newline=False)
            talker.spoken += 1
            talker.sent_at.append(time.monotonic())
        count = talker.sequence
        self._send(talker, MEDIA % (count + 2, count, 20 * count, sound, talker.number))

    def _send(self, caller: StreamCaller, text: bytes, opcode: int = TEXT) -> None:
        """One masked frame (RFC 6455 §5.2); a mask of zeros changes nothing, and costs the load nothing."""
        size = len(text).to_bytes(1, "big") if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
        self._write(caller, bytes((0x80 | opcode, 0x80 | size[0])) + size[1:] + b"\0\0\0\0" + text)

    def _write(self, caller: StreamCaller, data: bytes) -> None:
        if caller.unsent:
            caller.unsent += data
            data = bytes(caller.unsent)
            caller.unsent.clear()
        try:
            sent = caller.media.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            caller.unsent += data[sent:]

    def _hear(self, caller: Caller) -> None:
        talker = cast(StreamCaller, caller)
        ancillary: list[tuple[int, int, bytes]] = []
        try:
            data, ancillary, _, _ = talker.media.recvmsg(65536, 64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now = time.monotonic()
        if ancillary:  # the kernel's own stamp, so that a late load does not make the server look late
            seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2][:16])
            now = min(now, seconds + nanoseconds / 1e9 - self._clock_offset)
        talker.received += data
        if talker.phase == "voice":
            self._on_voice(talker, not data)
            return
        if talker.phase == "handshake" and b"\r\n\r\n" in talker.received:
            self._on_handshake(talker, now)
        elif talker.phase == "stream":
            self._on_frames(talker, now)
        if not data and talker.ended_at is None:
            talker.ended_by_server = True
            self._close(talker, now)

    def _on_frames(self, caller: StreamCaller, now: float) -> None:
        received, at = caller.received, 0
        while len(received) - at >= 2:
            size, head = received[at + 1] & 0x7F, 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if len(received) - at < head:
                    break
                size = int.from_bytes(received[at + 2 : at + head], "big")
            if len(received) - at < head + size:
                break
            if received[at] & 0x0F == TEXT:
                self._on_text(caller, bytes(received[at + head : at + head + size]), now)
            at += head + size
        del received[:at]

    def _on_text(self, caller: StreamCaller, text: bytes, now: float) -> None:
        if text.startswith(b'{"event":"media"'):
            start = text.index(b'"payload":"') + 11
            self._play(caller, binascii.a2b_base64(text[start : text.index(b'"', start)]), now)
        elif text.startswith(b'{"event":"mark"'):
            start = text.index(b'"name":"') + 8
            name = text[start : text.index(b'"', start)]
            if caller.plays_to <= now:
                self._echo(caller, name)
            else:
                caller.marks[name] = None
                heapq.heappush(self._timers, (caller.plays_to, caller.number, "mark " + name.decode()))
        elif text.startswith(b'{"event":"clear"'):
            self._clear(caller, now)

    def _play(self, caller: StreamCaller, sound: bytes, now: float) -> None:
        caller.packets += 1
        start = max(now, caller.plays_to)
        caller.plays_to = start + len(sound) / 8_000
        if len(sound) % numbered.FRAME_BYTES:
            self._note_damage(caller, sound[:64])
        for at in range(0, len(sound) - numbered.FRAME_BYTES + 1, numbered.FRAME_BYTES):
            found = numbered.decode(sound[at : at + numbered.FRAME_BYTES])
            if found is None:
                self._note_damage(caller, sound[at : at + numbered.FRAME_BYTES])
            elif found[0] != numbered.DOWN or found[1] != caller.number:
                caller.misrouted += 1
            else:
                caller.heard_frame.append(found[2])
                caller.heard_at.append(start + at / 8_000)

    def _clear(self, caller: StreamCaller, now: float) -> None:
        while caller.heard_at and caller.heard_at[-1] >= now:
            caller.heard_at.pop()
            caller.heard_frame.pop()
        cut_ms = 1000 * max(0.0, caller.heard_at[-1] + FRAME_S - now) if caller.heard_at else 0.0
        caller.cleared.append((now, cut_ms))
        caller.plays_to = now
        names, caller.marks = caller.marks, {}
        for name in names:
            self._echo(caller, name)

    def _echo(self, caller: StreamCaller, name: bytes) -> None:
        self._send(caller, b'{"event":"mark","sequenceNumber":"1","streamSid":"MZ1","mark":{"name":"%s"}}' % name)

    # Calls --------------------------------------------------------------------------------------------------------------

    def _dial(self, number: int, hold_s: float | None, at: float) -> None:
        self._callers[number] = StreamCaller(number, hold_s, socket.socket(), at)
        self._timer(at, self._callers[number], "dial")

    def _connect(self, caller: StreamCaller, target: tuple[str, int]) -> None:
        caller.media.close()
        caller.media = socket.create_connection(target, timeout=5)  # over loopback it takes no time
        caller.media.setblocking(False)
        caller.media.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller.media.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        caller.received.clear()
        self._by_socket[caller.media.fileno()] = caller
        self._epoll.register(caller.media.fileno(), select.EPOLLIN)

    def _part(self, caller: StreamCaller) -> None:
        if self._by_socket.pop(caller.media.fileno(), None) is not None:
            self._epoll.unregister(caller.media.fileno())

    def _ring(self, caller: StreamCaller) -> None:
        fields = {"CallSid": f"CA{caller.number:032d}", "AccountSid": ACCOUNT_SID, "ApiVersion": "2010-04-01"}
        fields |= {"From": f"+1720555{caller.number:04d}", "To": self._called.decode(), "CallStatus": "ringing"}
        fields |= {"Direction": "inbound"}
        body = urlencode(fields)
        signature = signature_of(AUTH_TOKEN, PUBLIC_URL + "/twilio/voice", fields.items())
        head = (
            f"POST /twilio/voice HTTP/1.1\r\nHost: bench.example\r\n{SIGNATURE}: {signature}\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._connect(caller, self._http)
        self._write(caller, (head + body).encode())

    def _on_voice(self, caller: StreamCaller, complete: bool) -> None:
        """The webhook's answer is whole when the connection ends."""
        if not complete:
            return
        answer = bytes(caller.received)
        stream = STREAM.search(answer)
        self._part(caller)
        if stream is None:
            caller.status = FORBIDDEN if b"HTTP/1.1 403" in answer else BUSY if b'reason="busy"' in answer else BROKEN
            caller.retry_after = caller.status == BUSY  # the carrier lets the caller hear that it is busy
            self._close(caller, time.monotonic())
            return
        path, caller.leg, caller.phase = stream.group(1).decode(), stream.group(2), "handshake"
        signature = signature_of(AUTH_TOKEN, PUBLIC_MEDIA_URL + path)
        self._connect(caller, self._media)
        head = (
            f"GET {path} HTTP/1.1\r\nHost: bench.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{SIGNATURE}: {signature}\r\n"
            "Sec-WebSocket-Key: YmVuY2hiZW5jaGJlbmNoIQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._write(caller, head.encode())

    def _on_handshake(self, caller: StreamCaller, now: float) -> None:
        head, _, rest = bytes(caller.received).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            caller.status = FORBIDDEN
            self._close(caller, now)
            return
        caller.received[:] = rest
        caller.phase, caller.status, caller.answered_at, caller.talking = "stream", 200, now, True
        caller.position = -round(SETTLE_S / FRAME_S)
        self._send(caller, b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = (
            b'{"event":"start","sequenceNumber":"1","start":{"accountSid":"%s","callSid":"CA%032d","streamSid":"MZ%032d",'
            b'"tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},'
            b'"customParameters":{"leg":"%s"}},"streamSid":"MZ%032d"}'
        )
        number = caller.number
        self._send(caller, start % (ACCOUNT_SID.encode(), number, number, caller.leg, number))
        heapq.heappush(self._pacing, (now + (number * 0.618034 % 1.0) * FRAME_S, number))
        if caller.hold_s is not None:
            self._timer(now + caller.hold_s, caller, "bye")
        self._on_frames(caller, now)

    def _on_timer(self, caller: Caller, kind: str, now: float) -> None:
        talker = cast(StreamCaller, caller)
        if kind == "dial":
            self._ring(talker)
        elif kind == "bye":
            if talker.ended_at is None and talker.phase == "stream":
                self._send(talker, b'{"event":"stop","stop":{"accountSid":"%s"}}' % ACCOUNT_SID.encode())
                self._send(talker, b"\x03\xe8", CLOSE)
                self._close(talker, now)
        else:
            name = kind.removeprefix("mark ").encode()
            if talker.ended_at is None and name in talker.marks:
                del talker.marks[name]
                self._echo(talker, name)

    def _close(self, caller: Caller, now: float) -> None:
        if caller.ended_at is None:
            caller.talking = False
            caller.ended_at = now
            self._part(cast(StreamCaller, caller))
            caller.media.close()


def main(pipe: Connection, http: tuple[str, int], media: tuple[str, int], called: str, cores: list[int]) -> None:
    """The process's entry."""
    os.sched_setaffinity(0, cores)
    StreamLoad(pipe, http, media, called).run()

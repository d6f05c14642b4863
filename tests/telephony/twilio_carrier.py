"""A carrier in miniature on the loop's clock: it plays what it is sent in real time, echoes marks and obeys `clear`."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any

from switchhook.domain.ports import LegEvent
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.twilio_leg import TwilioLeg

RATE = 8_000
Heard = list[tuple[float, bytes]]


@dataclass
class Orders:
    """What the leg asked of the HTTP side."""

    asked: list[str] = field(default_factory=list)

    def answer(self) -> None:
        self.asked.append("answer")

    def reject(self, reason: str) -> None:
        self.asked.append(f"reject {reason}")

    def complete(self) -> None:
        self.asked.append("complete")

    def redirect(self, target: str, ring_s: float) -> None:
        self.asked.append(f"redirect {target}")

    def recall(self) -> None:
        self.asked.append("recall")


class Stream:
    """One stream of the carrier. `delay_s` is the way of a frame, each way; `echoes` False: marks never come back."""

    def __init__(self, leg: TwilioLeg, delay_s: float = 0.0, echoes: bool = True) -> None:
        self.stream_sid = "MZ1"
        self.closed = False
        self.frames: list[tuple[float, dict[str, Any]]] = []
        self.clears = 0
        self._leg = leg
        self._delay_s = delay_s
        self._echoes = echoes
        self._loop = asyncio.get_running_loop()
        self._played: Heard = []
        self._ends = self._sent_to = self._echoed_to = 0.0
        self._marks: list[tuple[str, asyncio.TimerHandle]] = []

    def send(self, frame: bytes) -> None:
        assert not self.closed
        self._sent_to = self._in_turn(self._sent_to)
        self._loop.call_at(self._sent_to, self._arrive, json.loads(frame))

    def close(self) -> None:
        self.closed = True

    def heard(self, until: float | None = None) -> Heard:
        """Every piece that was really heard, and when it began."""
        now = self._loop.time() if until is None else until
        return [(at, sound[: max(0, round((now - at) * RATE))]) for at, sound in self._played if at < now]

    def heard_bytes(self, until: float | None = None) -> int:
        return sum(len(sound) for _, sound in self.heard(until))

    @property
    def ahead_s(self) -> float:
        """Sound that waits to be played."""
        return max(0.0, self._ends - self._loop.time())

    def say(self, payload: bytes, timestamp_ms: int) -> None:
        """The party says something."""
        chunk = base64.b64encode(payload).decode()
        media = {"track": "inbound", "chunk": "1", "timestamp": str(timestamp_ms), "payload": chunk}
        frame = {"event": "media", "sequenceNumber": "2", "media": media, "streamSid": self.stream_sid}
        self._leg.hear(payload, json.dumps(frame, separators=(",", ":")).encode())

    def _arrive(self, frame: dict[str, Any]) -> None:
        now = self._loop.time()
        self.frames.append((now, frame))
        assert frame["streamSid"] == self.stream_sid
        kind = frame["event"]
        if kind == "media":
            sound = base64.b64decode(frame["media"]["payload"])
            start = max(now, self._ends)
            self._played.append((start, sound))
            self._ends = start + len(sound) / RATE
        elif kind == "mark":
            name = frame["mark"]["name"]
            self._marks.append((name, self._loop.call_at(max(now, self._ends + len(self._marks) * 1e-7), self._echo, name)))
        else:
            assert kind == "clear"
            self._clear(now)

    def _clear(self, now: float) -> None:
        self.clears += 1
        self._played = self.heard(now)
        self._ends = now
        for name, timer in self._marks:
            timer.cancel()
            self._echo(name)

    def _echo(self, name: str) -> None:
        self._marks = [mark for mark in self._marks if mark[0] != name]
        if self._echoes:
            self._echoed_to = self._in_turn(self._echoed_to)
            self._loop.call_at(self._echoed_to, self._leg.on_mark, name)

    def _in_turn(self, last: float) -> float:
        """When the next frame of one direction arrives: a socket keeps the order, which equal timers do not."""
        return max(last + 1e-7, self._loop.time() + self._delay_s)


class Line:
    """A leg, what it asked and what it told."""

    def __init__(self, ring_s: float | None = None, media_timeout_s: float = 1e6) -> None:
        self.loop = asyncio.get_running_loop()
        self.pacer = Pacer(self.loop.time)
        self.orders = Orders()
        self.leg = TwilioLeg(self.orders, self.pacer, media_timeout_s, ring_s, "leg-1", "CA1")
        self.events: list[LegEvent] = []
        self.told_at: list[float] = []
        self.streams: list[Stream] = []
        self.leg.subscribe(self._on_event)

    def _on_event(self, event: LegEvent) -> None:
        self.events.append(event)
        self.told_at.append(self.loop.time())

    def open(self, delay_s: float = 0.0, echoes: bool = True) -> Stream:
        """A stream of the carrier's is opened for the leg."""
        stream = Stream(self.leg, delay_s, echoes)
        assert self.leg.open_stream(stream, encrypted=True)
        return stream

    async def talk(self, delay_s: float = 0.0, echoes: bool = True) -> Stream:
        """Answered, with its stream."""
        self.leg.answer()
        stream = self.open(delay_s, echoes)
        await asyncio.sleep(0.001)
        return stream

"""The carrier's side of a bidirectional Media Stream, towards a bot of the customer's (contract `vns-veevo` §4.3).

The bot hears the caller's frames as they come, and what it sends is queued for the caller; `mark` tells it what was heard,
`clear` empties the queue. When the bot closes the socket, or never takes it, the flow goes on.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from switchhook.agents.conversation import (
    AgentEffect,
    CloseModel,
    ConsultTool,
    ConversationOver,
    Logged,
    ModelLoss,
    OpenModel,
    SendToModel,
)
from switchhook.domain.model import Encoding
from switchhook.domain.plan import AgentSpec, StreamSpec
from switchhook.domain.ports import Playout
from switchhook.media import g711
from switchhook.media.playout import PlayoutOverflow

OPEN_S = 15.0
MOST_MARKS = 1000
"""That wait to be heard; the oldest is told early when more come."""
_GRACE_S = 0.02
_PCMU = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


class StreamBot:
    """Implements `agents.conversation.Agent`."""

    def __init__(self, spec: AgentSpec, stream: StreamSpec, playout: Playout, encoding: Encoding) -> None:
        self._spec = spec
        self._stream = stream
        self._playout = playout
        self._to_bot = g711.translation(encoding, Encoding.PCMU)
        self._from_bot = g711.translation(Encoding.PCMU, encoding)
        self._effects: list[AgentEffect] = []
        self._deadline: float | None = None
        self._began: float | None = None
        self._over = False
        self._paused = False
        self._sequence = 0
        self._chunk = 0
        self._epoch = 0
        self._queued_ms = 0
        self._marks: deque[tuple[str, int]] = deque()
        self._complained = False

    # -- what the driver needs ------------------------------------------------------------------

    @property
    def usage(self) -> Mapping[str, int]:
        """A bot's tokens are its own matter."""
        return {}

    @property
    def deadline(self) -> float | None:
        """The bot should have taken the socket, or the next mark should have been heard."""
        return self._deadline

    def take(self) -> list[AgentEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    def tick(self, now: float) -> None:
        """The deadline passed."""
        self._deadline = None
        if self._began is None:
            self._end("the bot did not take the stream in time")
        else:
            self._tell_marks(now)

    # -- the call -------------------------------------------------------------------------------

    def start(self, now: float, waiting: bool = False) -> None:
        """Open the stream; `waiting`: when the party is there."""
        if not waiting:
            self._deadline = now + OPEN_S
            self._effects.append(OpenModel(self._spec.url, self._spec.headers))

    def party_arrived(self, now: float) -> None:
        """The party that was being called has answered."""
        self.start(now)

    def speak_first(self, now: float) -> None:
        """A bot speaks when it likes."""

    def told(self, text: str, now: float) -> None:
        """There are no words for that in the protocol."""

    def tool_returned(self, call_id: str, output: str, now: float) -> None:
        """A bot runs its own tools."""

    def move(self, playout: Playout, now: float) -> None:
        """The party is heard through another line; what was queued is gone."""
        self._clear(now)
        self._playout = playout

    def pause(self, now: float) -> None:
        """The bot hears nothing, and is not heard."""
        self._paused = True

    def consult(self, playout: Playout, briefing: str, tools: Sequence[ConsultTool], now: float) -> None:
        """A bot cannot ask for transfers, so it is never consulted."""

    def resume(self, playout: Playout, now: float) -> None:
        """The bot talks with the caller again."""
        if playout is not self._playout:
            self.move(playout, now)
        self._paused = False

    def digit(self, digit: str, now: float) -> None:
        """The caller pressed a key."""
        if self._live:
            self._send("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})

    def drained(self, now: float) -> None:
        """All queued sound has been heard."""
        self._tell_marks(now)

    def stop(self, now: float) -> None:
        """The stream is over."""
        last = self._frame("stop", {"stop": self._names}) if self._live else None
        self._over = True
        self._deadline = None
        self._effects.append(CloseModel(last))

    def hear(self, payload: bytes, now: float) -> bytes | None:
        """A frame of the caller's, as the bot gets it."""
        if not self._live or self._paused or self._began is None:
            return None
        if self._to_bot is not None:
            payload = payload.translate(self._to_bot)
        self._sequence += 1
        self._chunk += 1
        return (
            b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%s"},'
            b'"streamSid":"%s"}'
        ) % (
            self._sequence,
            self._chunk,
            round((now - self._began) * 1000),
            b2a_base64(payload, newline=False),
            self._stream.stream_sid.encode(),
        )

    # -- the bot --------------------------------------------------------------------------------

    def model_opened(self, now: float) -> None:
        """The bot took the socket."""
        self._began, self._deadline = now, None
        self._effects.append(SendToModel(b'{"event":"connected","protocol":"Call","version":"1.0.0"}'))
        start = {
            **self._names,
            "streamSid": self._stream.stream_sid,
            "tracks": ["inbound"],
            "mediaFormat": _PCMU,
            "customParameters": dict(self._stream.parameters),
        }
        self._send("start", {"start": start})

    def model_lost(self, loss: ModelLoss, now: float) -> None:
        """The bot closed the socket, or could not be reached."""
        self._end("the bot closed the stream" if self._began is not None else f"the bot could not be reached: {loss.detail}")

    def model_frame(self, data: bytes, now: float) -> None:
        """A message of the bot's; what is not understood is passed over, as the protocol asks."""
        try:
            message = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            message = None
        if not isinstance(message, dict) or not self._live:
            return
        match message.get("event"):
            case "media":
                self._play(_member(message, "media", "payload"), now)
            case "mark":
                self._mark(_member(message, "mark", "name"), now)
            case "clear":
                self._clear(now)

    def _play(self, payload: str, now: float) -> None:
        try:
            sound = a2b_base64(payload.encode())
        except (Base64Error, ValueError):
            sound = b""
        if not sound or self._paused:
            return
        if self._from_bot is not None:
            sound = sound.translate(self._from_bot)
        try:
            self._playout.enqueue(self._key, sound, now)
        except PlayoutOverflow:
            if not self._complained:
                self._complained = True
                self._effects.append(Logged("Stream: the bot sent more than ten minutes ahead; the rest is dropped"))
            return
        self._queued_ms += len(sound) // 8

    def _mark(self, name: str, now: float) -> None:
        self._marks.append((name, self._queued_ms))
        if len(self._marks) > MOST_MARKS:
            self._tell_mark()
        self._tell_marks(now)

    def _clear(self, now: float) -> None:
        self._playout.interrupt(now)
        self._epoch += 1
        self._queued_ms = 0
        self._deadline = None
        while self._marks:
            self._tell_mark()

    def _tell_marks(self, now: float) -> None:
        """Those that were heard; a deadline for the next one."""
        heard_ms = self._queued_ms if self._playout.idle else self._playout.heard_ms(self._key, now)
        while self._marks and self._marks[0][1] <= heard_ms:
            self._tell_mark()
        if self._began is not None:
            self._deadline = now + (self._marks[0][1] - heard_ms) / 1000 + _GRACE_S if self._marks else None

    def _tell_mark(self) -> None:
        name, _ = self._marks.popleft()
        if self._live:
            self._send("mark", {"mark": {"name": name}})

    # -- in common ------------------------------------------------------------------------------

    @property
    def _live(self) -> bool:
        return self._began is not None and not self._over

    @property
    def _key(self) -> str:
        # A key that was interrupted would stay silent.
        return f"{self._stream.stream_sid} {self._epoch}"

    @property
    def _names(self) -> dict[str, str]:
        return {"accountSid": self._stream.account_sid, "callSid": self._stream.call_sid}

    def _end(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._deadline = None
            self._effects += [Logged(f"Stream: {why}"), ConversationOver("stream-ended")]

    def _send(self, event: str, members: Mapping[str, Any]) -> None:
        self._effects.append(SendToModel(self._frame(event, members)))

    def _frame(self, event: str, members: Mapping[str, Any]) -> bytes:
        self._sequence += 1
        frame = {"event": event, "sequenceNumber": str(self._sequence), **members, "streamSid": self._stream.stream_sid}
        return msgspec.json.encode(frame)


def _member(message: Mapping[str, Any], name: str, inner: str) -> str:
    """A text within an object, or an empty one: public samples send all sorts of things."""
    value = message.get(name)
    text = value.get(inner) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""

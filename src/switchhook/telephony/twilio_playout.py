"""What a party on a Media Stream hears: queue, epoch, heard-milliseconds and `Drained`, where the carrier itself holds a queue.

The carrier plays in real time what it was sent. We send ahead, but no more than `LEAD_S`, so that little is lost by `clear` and
nobody's memory grows. A mark behind each `MARK_BYTES` of sound, and behind the last, tells how far the party has really heard;
from one mark to the next the clock counts on. A mark before sound that meets a silent line tells when that sound began. So what
is said to be heard is never more than what was heard: an echo comes after the moment it stands for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from switchhook.domain.ports import Heard, SoundSource
from switchhook.media import g711
from switchhook.media.playout import MAX_QUEUED_BYTES, PlayoutOverflow
from switchhook.telephony.pacer import TICKS_PER_S, Pacer
from switchhook.telephony.wire.twilio_stream import StreamWriter

LEAD_S = 1.0
"""Most sound that the carrier is sent ahead of the ear."""
REFILL_S = 0.6
"""When no more than this is left, it is sent more: a few messages at a time."""
MARK_BYTES = 1_600
"""200 ms: the most sound in one message, and between two marks."""
DRY_S = 0.1
"""With less than this left ahead, the line may fall silent before what is sent now arrives there."""
MARK_PATIENCE_S = 2.0
"""A peer whose marks are this late is taken to have played what it was sent."""
_SOURCE_LEAD_S = 0.060
"""Frames of a source that come in a burst, after a stall, are played late by no more than this."""
_MAX_CHUNKS = 32_768
_MAX_TONE_BYTES = 10 * g711.RATE_HZ
_TONE_HEARD_BYTES = 320
"""A tone that was heard for 40 ms is a digit at the far end; one cut off sooner is played again."""
_REMEMBERED_UTTERANCES = 256
_MAX_MARK = 15
_EPSILON_S = 0.0005
"""Timers of the loop are whole milliseconds."""


class _Utterance:
    """What was queued and heard under one key, in bytes."""

    __slots__ = ("finished", "heard", "key", "queued", "spent")

    def __init__(self, key: str) -> None:
        self.key = key
        self.queued = 0
        self.heard = 0
        self.finished = False
        self.spent = False


class TwilioPlayout:
    """Implements `domain.ports.Playout` for one Media Streams leg, µ-law.

    `on_drained` is told once for each talkspurt, when the mark behind its last sample came back; an interrupted one ends the same
    way. `on_heard` is given what the party heard, piece by piece, with the monotonic time at which the piece began.
    Overflow policy: what would exceed ten minutes is not queued and raises PlayoutOverflow; while the socket is choked the frames
    of a source are dropped and queued sound waits.
    """

    __slots__ = (
        "_anchor",
        "_anchor_at",
        "_began_at",
        "_choked",
        "_chunk_heard",
        "_clock",
        "_closed",
        "_digits",
        "_due",
        "_flight",
        "_loop",
        "_marks",
        "_next_mark",
        "_pacer",
        "_plays_until",
        "_queued",
        "_send",
        "_sent",
        "_settled",
        "_slot",
        "_source",
        "_talking",
        "_timer",
        "_tone_bytes",
        "_unmarked",
        "_utterances",
        "_waiting",
        "_writer",
        "epoch",
        "messages",
        "on_drained",
        "on_heard",
    )

    def __init__(self, pacer: Pacer, on_drained: Callable[[], None] | None = None) -> None:
        self.epoch = 0
        self.messages = 0
        """Messages with sound that were sent."""
        self.on_drained = on_drained
        self.on_heard: Callable[[bytes, float], None] | None = None
        self._pacer = pacer
        self._clock = pacer.clock
        self._loop = asyncio.get_running_loop()
        self._writer: StreamWriter | None = None
        self._send: Callable[[bytes], None] = _nowhere
        self._source: SoundSource | None = None
        self._slot: int | None = None
        self._utterances: dict[str, _Utterance] = {}
        self._digits = _Utterance("")
        """Owner of tones; nobody asks what was heard of it."""
        self._tone_bytes = 0
        # Queued and not sent; sent and not known to be heard. Places on the stream are bytes sent since it opened.
        self._waiting: deque[tuple[bytes, _Utterance]] = deque()
        self._flight: deque[tuple[bytes, _Utterance]] = deque()
        self._chunk_heard = 0
        self._queued = self._sent = self._settled = self._unmarked = 0
        self._marks: deque[tuple[int, int, float | None]] = deque()
        """Marks that have not come back: name, place, and for one before sound that met a silent line when it was sent."""
        self._next_mark = 0
        # At `_anchor_at` at least `_anchor` bytes had been heard; sound that follows without a hole is heard from there on.
        self._anchor = 0
        self._anchor_at: float | None = None
        self._began_at = 0.0
        """When place 0 would have been heard, had the present talkspurt always been playing."""
        self._plays_until = 0.0
        """When what was sent will have been played, if the carrier plays it as it comes."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._talking = self._choked = self._closed = False

    # -- domain.ports.Playout -------------------------------------------------------------------

    def enqueue(self, key: str, payload: bytes, now: float) -> None:
        """Queue µ-law behind what is queued. Raises PlayoutOverflow, and queues nothing of it, beyond ten minutes."""
        utterance = self._utterances.get(key)
        if utterance is None:
            utterance = self._remember(key)
        if not payload or utterance.spent or self._closed:
            return
        if self._queued + len(payload) > MAX_QUEUED_BYTES or len(self._waiting) >= _MAX_CHUNKS:
            raise PlayoutOverflow()
        utterance.queued += len(payload)
        self._queued += len(payload)
        self._talking = True
        self._waiting.append((payload, utterance))
        self._pump(now)

    def finish(self, key: str, now: float) -> None:
        """No more sound comes under this key: the mark behind it need not wait."""
        utterance = self._utterances.get(key)
        if utterance is not None:
            utterance.finished = True
            if self._unmarked and not self._waiting and self._writer is not None:
                self._mark(self._writer)

    def interrupt(self, now: float) -> list[Heard]:
        """Drop what is queued here and at the carrier, and tell of each utterance that was not finished and wholly heard."""
        self.settle(now)
        if self._flight and self._writer is not None:
            self._send(self._writer.clear)
        cut = []
        for utterance in self._utterances.values():
            if not utterance.spent and (not utterance.finished or utterance.heard < utterance.queued):
                cut.append(Heard(utterance.key, utterance.heard // 8, utterance.queued // 8))
                utterance.spent = True
        self.epoch += 1
        tones = self._tones_left()
        self._forget_sent(now)
        self._waiting.clear()
        self._waiting.extend(tones)
        self._queued = sum(len(tone) for tone, _ in tones)
        self._end_talk()
        self._pump(now)
        return cut

    def play_from(self, source: SoundSource | None) -> None:
        """Ask this source for each frame that no queued sound fills; None: such frames are silence again."""
        self._source = source if not self._closed else None
        self._keep_beat()

    def heard_ms(self, key: str, now: float) -> int:
        """Milliseconds of the utterance that were surely heard by now; 0 for a key that is not known."""
        self.settle(now)
        utterance = self._utterances.get(key)
        return 0 if utterance is None else utterance.heard // 8

    @property
    def idle(self) -> bool:
        """True when nothing is queued, or at the carrier and unheard; what a source plays does not count."""
        return not self._talking

    @property
    def queued_ms(self) -> int:
        """Milliseconds that wait here."""
        return self._queued // 8

    # -- what the leg asks ----------------------------------------------------------------------

    def attach(self, stream_sid: str, send: Callable[[bytes], None], now: float) -> None:
        """A stream is open: what waits is played on it."""
        if self._closed:
            return
        self._writer, self._send, self._choked = StreamWriter(stream_sid), send, False
        self._keep_beat()
        self._pump(now)

    def detach(self, now: float) -> None:
        """The stream is gone, and with it what the carrier had not played; idempotent."""
        if self._writer is None:
            return
        self.settle(now)
        self._writer, self._send = None, _nowhere
        self._forget_sent(now)
        self._keep_beat()
        if not self._waiting:
            self._end_talk()

    def close(self) -> None:
        """Give the beat and the timer back; nothing is played or told any more."""
        self._closed = True
        self.on_drained = self.on_heard = None
        self._waiting.clear()
        self._queued = 0
        self.play_from(None)
        self.detach(self._clock())
        self._talking = False

    def mark(self, name: str, now: float) -> None:
        """A mark came back. One of an older epoch, or of nobody, says nothing."""
        number = int(name) if len(name) <= _MAX_MARK and name.isascii() and name.isdigit() else -1
        if not self._marks or not self._marks[0][0] <= number < self._next_mark:
            return
        while self._marks and self._marks[0][0] <= number:
            name_sent, place, began = self._marks.popleft()
            self._settle_to(place)
            if began is not None:  # one whose own echo did not come counts from when it was sent
                began = now if name_sent == number else began
                self._began_at = max(self._began_at, began - place / g711.RATE_HZ)
            self._anchor, self._anchor_at = place, now
        if not self._flight and not self._waiting:
            self._end_talk()

    def settle(self, now: float) -> None:
        """Count as heard what surely was heard by now, and show it to `on_heard`."""
        if self._anchor_at is None:
            return
        limit = self._marks[0][1] if self._marks else self._sent
        self._settle_to(min(limit, self._anchor + int((now - self._anchor_at) * g711.RATE_HZ + 1e-6)))

    def choke(self, choked: bool, now: float) -> None:
        """The socket takes no more for now, or takes it again."""
        self._choked = choked
        if not choked:
            self._pump(now)

    def play_tone(self, tone: bytes, now: float) -> None:
        """Play a tone before what waits. Raises ValueError when ten seconds of tones wait already."""
        waiting = sum(len(payload) for payload, owner in self._waiting if owner is self._digits)
        if waiting > _MAX_TONE_BYTES:
            raise ValueError("ten seconds of digits wait already")
        if self._closed:
            return
        first = sum(owner is self._digits for _, owner in self._waiting)
        self._waiting.insert(first, (tone, self._digits))
        self._queued += len(tone)
        self._talking = True
        self._pump(now)

    # -- the pacer ------------------------------------------------------------------------------

    def beat(self, tick: int) -> None:
        """A frame of the source is due."""
        source, writer = self._source, self._writer
        if source is None or writer is None:
            return
        now = self._clock()
        ahead = self._plays_until - now
        if self._waiting or ahead > _SOURCE_LEAD_S:
            if not self._flight:
                source.next_frame(tick / TICKS_PER_S)  # its moment has passed
            return
        frame = source.next_frame(tick / TICKS_PER_S)
        if frame is not None and not self._choked:
            self.messages += 1
            self._send(writer.media(frame))
            self._plays_until = max(self._plays_until, now) + len(frame) / g711.RATE_HZ
            if self.on_heard is not None:
                self.on_heard(frame, tick / TICKS_PER_S)

    def _keep_beat(self) -> None:
        """Beat while there is a source and a stream for it."""
        wanted = self._source is not None and self._writer is not None
        if wanted and self._slot is None:
            self._slot = self._pacer.tick()
            self._pacer.join(self, self._slot)
        elif not wanted and self._slot is not None:
            self._pacer.leave(self, self._slot)
            self._slot = None

    # -- sending ahead --------------------------------------------------------------------------

    def _pump(self, now: float) -> None:
        """Send what the lead allows, and wake again when there will be something to do."""
        writer = self._writer
        if writer is None:
            return
        while self._waiting and not self._choked and self._plays_until - now <= LEAD_S - MARK_BYTES / g711.RATE_HZ:
            self._send_piece(writer, now)
        if self._unmarked and self._last_is_finished():
            self._mark(writer)
        if self._waiting:
            if not self._choked:
                self._wake_at(self._plays_until - REFILL_S)
        elif self._unmarked:
            self._wake_at(self._plays_until)
        elif self._flight:
            self._wake_at(self._plays_until + MARK_PATIENCE_S)

    def _send_piece(self, writer: StreamWriter, now: float) -> None:
        if self._plays_until - now < DRY_S:
            self._mark(writer, now)
        sound = self._take()
        self._unmarked += len(sound)
        self._sent += len(sound)
        self._queued -= len(sound)
        self._plays_until = max(self._plays_until, now) + len(sound) / g711.RATE_HZ
        self.messages += 1
        self._send(writer.media(sound))
        if self._unmarked >= MARK_BYTES:
            self._mark(writer)

    def _take(self) -> bytes:
        """Up to `MARK_BYTES` of what waits, now in flight. A tone is never parted."""
        pieces: list[bytes] = []
        room = MARK_BYTES
        while self._waiting and room > 0:
            payload, owner = self._waiting.popleft()
            if len(payload) > room and owner is not self._digits:
                self._waiting.appendleft((payload[room:], owner))
                payload = payload[:room]
            room -= len(payload)
            pieces.append(payload)
            self._flight.append((payload, owner))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _mark(self, writer: StreamWriter, began: float | None = None) -> None:
        self._unmarked = 0
        self._marks.append((self._next_mark, self._sent, began))
        self._send(writer.mark(self._next_mark))
        self._next_mark += 1

    def _last_is_finished(self) -> bool:
        return not self._waiting and bool(self._flight) and (self._flight[-1][1].finished or self._flight[-1][1] is self._digits)

    def _wake_at(self, due: float) -> None:
        if self._timer is not None:
            if self._due <= due:
                return  # it looks again then
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.001, due - self._clock()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now, writer = self._clock(), self._writer
        if writer is None:
            return
        late = now - self._plays_until + _EPSILON_S
        if not self._waiting and late >= 0 and self._unmarked:
            self._mark(writer)
        elif not self._waiting and late >= MARK_PATIENCE_S and self._marks:
            self.mark(str(self._next_mark - 1), now)
        self._pump(now)

    # -- what was heard -------------------------------------------------------------------------

    def _settle_to(self, place: int) -> None:
        while self._settled < place and self._flight:
            payload, owner = self._flight[0]
            count = min(len(payload) - self._chunk_heard, place - self._settled)
            if self.on_heard is not None:
                heard = payload[self._chunk_heard : self._chunk_heard + count]
                self.on_heard(heard, self._began_at + self._settled / g711.RATE_HZ)
            owner.heard += count
            self._settled += count
            self._chunk_heard += count
            if self._chunk_heard == len(payload):
                self._flight.popleft()
                self._chunk_heard = 0

    def _tones_left(self) -> list[tuple[bytes, _Utterance]]:
        """Tones that no one heard: an interruption is of speech, not of keys that were pressed."""
        left = [entry for entry in (*self._flight, *self._waiting) if entry[1] is self._digits]
        cut_off = self._chunk_heard >= _TONE_HEARD_BYTES and self._flight[0][1] is self._digits
        return left[1:] if cut_off else left

    def _forget_sent(self, now: float) -> None:
        """What was sent is not played any more: dropped by `clear`, or with its stream."""
        self._flight.clear()
        self._marks.clear()
        self._chunk_heard = self._unmarked = 0
        self._settled = self._sent
        self._anchor_at, self._plays_until = None, now
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_talk(self) -> None:
        """The talkspurt is over, when one was."""
        talking, self._talking = self._talking, bool(self._waiting)
        if talking and not self._talking and self.on_drained is not None:
            self.on_drained()

    def _remember(self, key: str) -> _Utterance:
        """Keep a bounded number of utterances; the oldest that is over goes first."""
        if len(self._utterances) >= _REMEMBERED_UTTERANCES:
            for old in list(self._utterances.values()):
                if old.spent or old.heard == old.queued:
                    del self._utterances[old.key]
                    break
            else:
                raise PlayoutOverflow()
        utterance = self._utterances[key] = _Utterance(key)
        return utterance


def _nowhere(frame: bytes) -> None:
    """There is no stream."""

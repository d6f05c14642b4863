"""The one owner of what a party hears: queue, epoch, phase, heard-milliseconds and `Drained` of one leg.

An agent enqueues, finishes and interrupts; the line asks for a frame each 20 ms and sends what it gets. A frame that is given
out at t is heard from t to t + 20 ms. `next_frame` must be asked again 20 ms later: that call ends the frame before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Heard, SoundSource

FRAME_BYTES = 160
FRAME_S = 0.020
BYTES_PER_S = 8_000
MAX_QUEUED_BYTES = 10 * 60 * BYTES_PER_S
PARTIAL_WAIT_S = 0.040
"""How long a last partial frame waits for the rest of its utterance."""
_MAX_CHUNKS = 32_768
_REMEMBERED_UTTERANCES = 256


class PlayoutOverflow(SwitchhookError):
    """Ten minutes of sound are queued already; what would exceed them was not queued."""

    code = "playout-overflow"


class _Utterance:
    """What was queued and sent under one key, in bytes."""

    __slots__ = ("finished", "key", "queued", "sent", "spent")

    def __init__(self, key: str) -> None:
        self.key = key
        self.queued = 0
        self.sent = 0
        self.finished = False
        self.spent = False


_NOBODY = _Utterance("")
"""Owner of no sound; its counts stay zero."""


class Playout:
    """The queue of one G.711 leg; implements `domain.ports.Playout`.

    `on_talk` is called when sound is queued while idle, so that the line can send its first frame at once. `on_drained` is
    called once for each talkspurt, when its last sample has been heard; a talkspurt that was interrupted ends the same way.
    A key that was interrupted is spent: sound that still comes under it is dropped, and what was heard of it stands.

    A source plays whenever nothing is queued. It belongs to no utterance: it is neither heard-milliseconds nor a talkspurt.
    """

    __slots__ = (
        "_air_at",
        "_air_shares",
        "_air_utterance",
        "_changed_at",
        "_chunk",
        "_chunks",
        "_offset",
        "_queued",
        "_silence",
        "_source",
        "_talking",
        "_utterance",
        "_utterances",
        "epoch",
        "on_drained",
        "on_talk",
    )

    def __init__(
        self,
        encoding: Encoding = Encoding.PCMU,
        on_talk: Callable[[], None] | None = None,
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        self.epoch = 0
        self.on_talk = on_talk
        self.on_drained = on_drained
        self._silence = encoding.silence
        self._source: SoundSource | None = None
        self._chunks: deque[tuple[bytes, _Utterance]] = deque()
        self._chunk = b""  # The chunk being played and how far it is taken; the rest wait in _chunks.
        self._offset = 0
        self._utterance = _NOBODY
        self._utterances: dict[str, _Utterance] = {}
        self._queued = 0
        self._changed_at = 0.0
        self._talking = False
        # The frame in the air: when it began, and whose it is. A frame that several share, or that is padded, has _air_shares.
        self._air_at: float | None = None
        self._air_utterance: _Utterance | None = None
        self._air_shares: list[tuple[_Utterance, int, int]] | None = None

    def configure(self, encoding: Encoding) -> None:
        """Name the encoding of the leg once the line knows it; nothing may be queued before."""
        self._silence = encoding.silence

    def enqueue(self, key: str, payload: bytes, now: float) -> None:
        """Queue sound in the leg's encoding. Raises PlayoutOverflow, and queues nothing of it, beyond ten minutes."""
        utterance = self._utterances.get(key)
        if utterance is None:
            utterance = self._remember(key)
        if not payload or utterance.spent:
            return
        if self._queued + len(payload) > MAX_QUEUED_BYTES or len(self._chunks) >= _MAX_CHUNKS:
            raise PlayoutOverflow()
        utterance.queued += len(payload)
        self._queued += len(payload)
        self._chunks.append((payload, utterance))
        self._changed_at = now
        if not self._talking:
            self._talking = True
            if self.on_talk is not None:
                self.on_talk()

    def finish(self, key: str, now: float) -> None:
        """No more sound comes under this key: its last partial frame need not wait."""
        utterance = self._utterances.get(key)
        if utterance is not None:
            utterance.finished = True

    def interrupt(self, now: float) -> list[Heard]:
        """Drop what is queued, raise the epoch, and tell of each utterance that was not finished and wholly heard."""
        cut = []
        for utterance in self._utterances.values():
            if utterance.spent:
                continue
            heard = self._heard_bytes(utterance, now)
            if not utterance.finished or heard < utterance.queued:
                cut.append(Heard(utterance.key, heard // 8, utterance.queued // 8))
                utterance.sent = heard
                utterance.spent = True
        self.epoch += 1
        self._chunks.clear()
        self._chunk, self._offset, self._utterance = b"", 0, _NOBODY
        self._queued = 0
        self._air_utterance = self._air_shares = None
        return cut

    def play_from(self, source: SoundSource | None) -> None:
        """Ask this source for each frame that no queued sound fills; None: such frames are silence again."""
        self._source = source

    def heard_ms(self, key: str, now: float) -> int:
        """Milliseconds of the utterance that were heard by now; 0 for a key that is not known."""
        utterance = self._utterances.get(key)
        return 0 if utterance is None else self._heard_bytes(utterance, now) // 8

    @property
    def idle(self) -> bool:
        """True when nothing is queued or playing; what a source plays does not count."""
        return self._air_at is None and not self._queued

    @property
    def queued_ms(self) -> int:
        """Milliseconds that wait to be sent."""
        return self._queued // 8

    def next_frame(self, now: float) -> bytes | None:
        """Return the 160 bytes to be heard from now on, or None: silence. Ask 20 ms after the frame before."""
        start = self._offset
        end = start + FRAME_BYTES
        if end <= len(self._chunk):
            self._offset = end
            self._queued -= FRAME_BYTES
            utterance = self._utterance
            utterance.sent += FRAME_BYTES
            self._air_at = now
            self._air_utterance = utterance
            self._air_shares = None
            return self._chunk[start:end]
        if self._talking:
            return self._assembled(now)
        return None if self._source is None else self._source.next_frame(now)

    def rest(self, now: float) -> None:
        """The line cannot take a frame (hold, a DTMF digit): the frame in the air ends, what is queued waits."""
        self._end_frame()
        if self._queued:
            self._changed_at = now

    def _assembled(self, now: float) -> bytes | None:
        """The frame across the edges of chunks; the end of the talkspurt when there is none."""
        if not self._frame_ready(now):
            self._end_frame()
            if not self._frame_ready(now):
                return None if self._source is None else self._source.next_frame(now)
        pieces: list[bytes] = []
        shares: list[tuple[_Utterance, int, int]] = []
        filled = 0
        while filled < FRAME_BYTES and self._queued:
            if self._offset >= len(self._chunk):
                self._chunk, self._utterance = self._chunks.popleft()
                self._offset = 0
            piece = self._chunk[self._offset : self._offset + FRAME_BYTES - filled]
            utterance = self._utterance
            shares.append((utterance, filled, len(piece)))
            pieces.append(piece)
            filled += len(piece)
            self._offset += len(piece)
            self._queued -= len(piece)
            utterance.sent += len(piece)
        self._air_at, self._air_utterance, self._air_shares = now, None, shares
        pieces.append(self._silence * (FRAME_BYTES - filled))
        return b"".join(pieces)

    def _frame_ready(self, now: float) -> bool:
        """Whether a whole frame is queued, or a last partial one that need not wait."""
        if self._queued >= FRAME_BYTES or not self._queued:
            return self._queued > 0
        last = self._chunks[-1][1] if self._chunks else self._utterance
        # Half a millisecond of grace: deadlines are met on a grid of 20 ms frames.
        return last.finished or now - self._changed_at >= PARTIAL_WAIT_S - 0.0005

    def _end_frame(self) -> None:
        """The frame in the air has been heard; with nothing queued, so has the talkspurt."""
        self._air_at = self._air_utterance = self._air_shares = None
        if self._talking and not self._queued:
            self._chunk, self._offset, self._utterance = b"", 0, _NOBODY
            if self.on_drained is not None:
                self.on_drained()
            # What was queued meanwhile goes out on this very beat, so that on_talk is not called for it.
            self._talking = self._queued > 0

    def _heard_bytes(self, utterance: _Utterance, now: float) -> int:
        """Bytes of the utterance heard by now: what was sent, without the part of the frame in the air that is still to come."""
        if self._air_at is None or utterance.spent:
            return utterance.sent
        played = min(FRAME_BYTES, max(0, int((now - self._air_at) * BYTES_PER_S + 1e-6)))
        if utterance is self._air_utterance:
            return utterance.sent - FRAME_BYTES + played
        to_come = 0
        for sharer, start, count in self._air_shares or ():
            if sharer is utterance:
                to_come += count - min(count, max(0, played - start))
        return utterance.sent - to_come

    def _remember(self, key: str) -> _Utterance:
        """Keep a bounded number of utterances; the oldest without queued sound goes first."""
        if len(self._utterances) >= _REMEMBERED_UTTERANCES:
            for old in list(self._utterances.values()):
                if old.spent or old.sent == old.queued:
                    del self._utterances[old.key]
                    break
            else:
                raise PlayoutOverflow()
        utterance = self._utterances[key] = _Utterance(key)
        return utterance

"""The caller's sound that a model has yet to hear: while none listens, and what was under way when one was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

MOST_FRAMES = 3_000
"""A minute in 20 ms frames; past that the oldest is dropped."""
PIECE_MS = 200
LEAD_IN_FRAMES = 50
"""A second: a model tells of speech some time after it began."""
TURN_FRAMES = 500
"""Ten seconds of a turn under way; of a longer one the beginning is lost with its model."""


class KeptSound:
    """Frames in the line's encoding: those that wait for a model, and the last ones that went to it."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._frames: deque[bytes] = deque(maxlen=MOST_FRAMES)
        self._sent: deque[bytes] = deque(maxlen=LEAD_IN_FRAMES)
        self.sent = self._sent.append
        """Takes one frame that a model hears; called for each packet, so there is no frame of Python around it."""
        self._piece_bytes = PIECE_MS * bytes_per_ms
        self.dropped = False
        """Whether some was dropped since the last `pieces`."""

    def keep(self, payload: bytes) -> None:
        """One frame more that no model hears."""
        self.dropped = self.dropped or len(self._frames) == MOST_FRAMES
        self._frames.append(payload)

    def turn_began(self) -> None:
        """The caller speaks: what comes is kept until the turn is over."""
        self._remember(TURN_FRAMES)

    def turn_over(self) -> None:
        """The model has heard the turn."""
        self._remember(LEAD_IN_FRAMES)

    def _remember(self, frames: int) -> None:
        self._sent = deque(self._sent, maxlen=frames)
        self.sent = self._sent.append

    def session_gone(self, speaking: bool) -> None:
        """No model listens any more; the turn that it was in the midst of is for the next one to hear."""
        if speaking:
            self._frames.extendleft(reversed(self._sent))
        self._sent.clear()

    def pieces(self) -> Iterator[bytes]:
        """Give out all that waits, in pieces of at most 200 ms."""
        self._sent.extend(list(self._frames)[-TURN_FRAMES:])  # the next model may be lost in the same turn
        sound = b"".join(self._frames)
        self._frames.clear()
        self.dropped = False
        for start in range(0, len(sound), self._piece_bytes):
            yield sound[start : start + self._piece_bytes]

    def clear(self) -> None:
        """Forget it."""
        self._frames.clear()
        self._sent.clear()
        self.dropped = False

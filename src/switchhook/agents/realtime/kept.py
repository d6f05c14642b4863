"""The caller's sound while no model listens: kept in order, a minute of it at most."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

MOST_FRAMES = 3_000
"""A minute in 20 ms frames; past that the oldest is dropped."""
PIECE_MS = 200


class KeptSound:
    """Frames in the line's encoding."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._frames: deque[bytes] = deque(maxlen=MOST_FRAMES)
        self._piece_bytes = PIECE_MS * bytes_per_ms
        self.dropped = False
        """Whether some was dropped since the last `pieces`."""

    def keep(self, payload: bytes) -> None:
        """One frame more."""
        self.dropped = self.dropped or len(self._frames) == MOST_FRAMES
        self._frames.append(payload)

    def pieces(self) -> Iterator[bytes]:
        """Give out and forget all of it, in pieces of at most 200 ms."""
        sound = b"".join(self._frames)
        self.clear()
        for start in range(0, len(sound), self._piece_bytes):
            yield sound[start : start + self._piece_bytes]

    def clear(self) -> None:
        """Forget it."""
        self._frames.clear()
        self.dropped = False

"""Watches for a conversation in which nobody speaks any more."""

from __future__ import annotations


class SilenceWatch:
    """Counts from the moment at which both sides fell silent and nothing was owed; anything that happens starts it anew."""

    def __init__(self, limit_ms: int | None) -> None:
        """`limit_ms` None: silence is never too long."""
        self.limit_s = None if limit_ms is None else limit_ms / 1000
        self._since: float | None = None

    def look(self, busy: bool, now: float) -> float | None:
        """`busy`: somebody speaks, or a tool or the model is at work. Gives when the silence will have lasted too long."""
        if busy or self.limit_s is None:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        return self._since + self.limit_s

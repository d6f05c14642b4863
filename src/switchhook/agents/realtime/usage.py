"""Tokens that the model counted, summed over a conversation. Every field may be absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar


def _count(value: object, *path: str) -> int:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 else 0


class Usage:
    """Sums `response.usage` and the usage of transcriptions."""

    _RESPONSE: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "total": ("total_tokens",),
        "input": ("input_tokens",),
        "output": ("output_tokens",),
        "input_text": ("input_token_details", "text_tokens"),
        "input_audio": ("input_token_details", "audio_tokens"),
        "input_image": ("input_token_details", "image_tokens"),
        "cached": ("input_token_details", "cached_tokens"),
        "cached_text": ("input_token_details", "cached_tokens_details", "text_tokens"),
        "cached_audio": ("input_token_details", "cached_tokens_details", "audio_tokens"),
        "cached_image": ("input_token_details", "cached_tokens_details", "image_tokens"),
        "output_text": ("output_token_details", "text_tokens"),
        "output_audio": ("output_token_details", "audio_tokens"),
    }

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()

    @property
    def totals(self) -> Mapping[str, int]:
        """What was counted."""
        return dict(self._sums)

    def add_response(self, usage: object) -> None:
        """Of `response.done`."""
        for name, path in self._RESPONSE.items():
            if count := _count(usage, *path):
                self._sums[name] += count

    def add_transcription(self, usage: object) -> None:
        """Of a transcription of the caller."""
        if count := _count(usage, "total_tokens"):
            self._sums["transcription_tokens"] += count
        seconds = usage.get("seconds") if isinstance(usage, Mapping) else None
        if isinstance(seconds, int | float) and 0 < seconds < 86_400:
            self._sums["transcription_ms"] += round(seconds * 1000)

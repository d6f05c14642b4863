"""Tokens of a conversation, summed from what the model reports; every field may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchhook.agents.realtime.dialect import count_of, map_of


class Usage:
    """A running sum. Cached tokens are part of the input; transcription is billed apart from the responses.

    Keys: `input_text`, `input_audio`, `cached_text`, `cached_audio`, `output_text`, `output_audio`, `total`, and
    `transcription_input_text`, `transcription_input_audio`, `transcription_output`, `transcription_ms`; only what was reported.
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}

    def add_response(self, usage: Mapping[str, Any]) -> None:
        """Add the `usage` of a response."""
        given, made = map_of(usage, "input_token_details"), map_of(usage, "output_token_details")
        cached = map_of(given, "cached_tokens_details")
        self._add("input_text", count_of(given, "text_tokens"))
        self._add("input_audio", count_of(given, "audio_tokens"))
        self._add("cached_text", count_of(cached, "text_tokens"))
        self._add("cached_audio", count_of(cached, "audio_tokens"))
        self._add("output_text", count_of(made, "text_tokens"))
        self._add("output_audio", count_of(made, "audio_tokens"))
        self._add("total", count_of(usage, "total_tokens"))

    def add_transcription(self, usage: Mapping[str, Any]) -> None:
        """Add the `usage` of a transcription: tokens or seconds."""
        given = map_of(usage, "input_token_details")
        self._add("transcription_input_text", count_of(given, "text_tokens"))
        self._add("transcription_input_audio", count_of(given, "audio_tokens"))
        self._add("transcription_output", count_of(usage, "output_tokens"))
        seconds = usage.get("seconds")
        if isinstance(seconds, int | float) and 0 < seconds < 86_400:
            self._add("transcription_ms", round(seconds * 1000))

    def _add(self, name: str, count: int) -> None:
        if count:
            self.totals[name] = self.totals.get(name, 0) + count

"""Recognition of phrases that a grammar lists, one utterance at a time, in a worker process: menu-grade, English, no network.

What is not in the grammar is mostly refused; how, `grammar_decoder` tells.
"""

from __future__ import annotations

import importlib.util

from switchhook.agents.providers import grammar_decoder
from switchhook.agents.providers.grammar import Grammar
from switchhook.agents.providers.grammar_decoder import Recognition
from switchhook.domain.errors import MissingExtra
from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.workers import Workers

LONGEST_S = 30
"""Of a longer utterance the end is taken."""
SHORTEST_MS = 120
"""Less sound than this is no word."""


class GrammarRecognizer:
    """Understands an utterance against a grammar."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.missing: str | None = None
        """What is not installed, with the cure; while it is set, `recognize` raises MissingExtra."""
        absent = [package for package in ("pocketsphinx", "webrtcvad") if importlib.util.find_spec(package) is None]
        if absent:
            self.missing = f"the embedded engine needs {' and '.join(absent)}: install the extra `switchhook[embedded]`"

    async def warm_up(self) -> None:
        """Start a worker and load the acoustic model, so that the first caller does not wait for it (about half a second)."""
        await self._workers.run(grammar_decoder.warm_up)

    async def recognize(self, payload: bytes, encoding: Encoding, grammar: Grammar) -> Recognition:
        """Understand one utterance in G.711; the text is empty when nothing of the grammar was said.

        Raises GrammarInvalid when the grammar cannot be read, MissingExtra when the recogniser is not installed.
        """
        if self.missing is not None:
            raise MissingExtra(self.missing)
        if len(payload) < SHORTEST_MS * encoding.bytes_per_ms:
            return Recognition("", "too short")
        linear = g711.decode(payload[-LONGEST_S * g711.RATE_HZ :], encoding)
        return await self._workers.run(grammar_decoder.recognize, linear, grammar)

"""A local voice: flite or espeak-ng where installed, else the espeak-ng wheel. Every engine runs inside a worker process.

espeak-ng is GPL: as a program it is a separate process anyway, as the wheel's library it is loaded in the worker only.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections import OrderedDict
from collections.abc import Callable

from switchhook.agents.providers import voice_render
from switchhook.domain.errors import VoiceUnavailable
from switchhook.domain.model import Encoding
from switchhook.media.workers import Workers

_CACHE_BYTES = 4_000_000
"""Prompts repeat: about eight minutes of G.711."""
MAX_CHARACTERS = 2_000
"""Longer texts are cut at a word."""


class LocalVoice:
    """Speaks short English texts; implements `domain.ports.Voice`."""

    def __init__(self, workers: Workers, installed: Callable[[str], str | None] = shutil.which) -> None:
        self._workers = workers
        self._engine = choose_engine(installed)
        self._cache: OrderedDict[tuple[str, Encoding], bytes] = OrderedDict()
        self._cached_bytes = 0

    @property
    def engine(self) -> str | None:
        """What speaks: `flite`, `espeak-ng`, `espeak-wheel`, or None when nothing is installed."""
        return self._engine

    async def synthesize(self, text: str, encoding: Encoding) -> bytes:
        """Sound of the text, without the silence around it; empty for a text without words. Raises VoiceUnavailable."""
        words = speakable(text)
        if not words:
            return b""
        if self._engine is None:
            raise VoiceUnavailable()
        key = (words, encoding)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        try:
            sound = await self._workers.run(voice_render.render, self._engine, words, encoding)
        except voice_render.RenderFailed as error:
            raise VoiceUnavailable(f"the local voice {self._engine} failed: {error}") from error
        self._keep(key, sound)
        return sound

    def _keep(self, key: tuple[str, Encoding], sound: bytes) -> None:
        if len(sound) > _CACHE_BYTES // 4 or key in self._cache:
            return
        self._cache[key] = sound
        self._cached_bytes += len(sound)
        while self._cached_bytes > _CACHE_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= len(oldest)


def choose_engine(installed: Callable[[str], str | None]) -> str | None:
    """Return the best engine at hand: flite is by far the easier to understand."""
    for program in ("flite", "espeak-ng"):
        if installed(program):
            return program
    return "espeak-wheel" if importlib.util.find_spec("espeakng_loader") else None


def speakable(text: str) -> str:
    """Return the text with control characters as spaces, cut to what is spoken at most; empty when it has no letter or digit."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(words) > MAX_CHARACTERS:
        words = words[:MAX_CHARACTERS].rpartition(" ")[0] or words[:MAX_CHARACTERS]
    return words if any(c.isalnum() for c in words) else ""

"""Local voice."""

from __future__ import annotations

from switchhook.domain.errors import VoiceUnavailable
from switchhook.domain.model import Encoding
from switchhook.media.workers import Workers


class LocalVoice:
    """Local voice."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def synthesize(self, text: str, encoding: Encoding) -> bytes:
        """Local voice."""
        raise VoiceUnavailable

"""How the caller's sound goes to the model, and the model's to the line: transcoded only where the two differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from switchhook.agents.realtime import dialect
from switchhook.agents.realtime.dialect import Event
from switchhook.agents.realtime.playing import Playing
from switchhook.domain.model import Encoding
from switchhook.media.transcode import Transcoder, transcoder


class Formats:
    """What the session asked for, until the server says that it uses something else."""

    def __init__(self, session_update: bytes, line: Encoding, playing: Playing) -> None:
        self._line = line
        self._playing = playing
        self._heard, self._spoken = dialect.asked_formats(session_update)
        self.to_model: Transcoder | None = None
        """None: the model takes the line's own encoding."""
        self._adopt()

    def for_model(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Sound of the line as the model takes it; what the converter still holds comes with a later piece."""
        for piece in pieces:
            sound = piece if self.to_model is None else self.to_model(piece)
            if sound:
                yield sound

    def corrected_by(self, event: Event) -> bool:
        """Take what `session.updated` says; True when it differs from what was asked for."""
        heard, spoken = dialect.session_formats(event.get("session"))
        if (heard or self._heard, spoken or self._spoken) == (self._heard, self._spoken):
            return False
        self._heard, self._spoken = heard or self._heard, spoken or self._spoken
        self._adopt()
        return True

    def _adopt(self) -> None:
        self.to_model = transcoder(self._line, self._heard)
        self._playing.speak_as(self._spoken)

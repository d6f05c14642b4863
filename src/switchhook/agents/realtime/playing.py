"""What the agent's items have sent to the playout, and how much of each was heard."""

from __future__ import annotations

from dataclasses import dataclass

from switchhook.agents.realtime.dialect import retired
from switchhook.domain.model import Encoding
from switchhook.domain.ports import Playout
from switchhook.media.playout import PlayoutOverflow
from switchhook.media.transcode import Transcoder, transcoder


@dataclass(slots=True)
class Item:
    """One item's sound."""

    item_id: str
    content_index: int
    response_id: str
    received_bytes: int = 0
    """Of the model's sound."""
    done: bool = False
    known: bool = True
    """The model's session that made it is still there, and may be told what was heard."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How far an item came before the silence."""

    item: Item
    heard_ms: int
    received_ms: int
    whole: bool = False
    """It had been heard to its end."""

    @property
    def share(self) -> float:
        """Of the item's sound, how much was heard: 0 to 1."""
        return self.heard_ms / self.received_ms if self.received_ms else 0.0


class Playing:
    """Items in the playout by their keys. Sound is transcoded only where model and line differ."""

    def __init__(self, playout: Playout, line: Encoding) -> None:
        self._playout = playout
        self._line = line
        self._items: dict[str, Item] = {}
        self._session = ""
        """Ends the keys of the session's sound, so that it is not taken for that of an earlier one."""
        self._model = line
        self._transcode: Transcoder | None = None
        self._line_bytes_per_s = line.bytes_per_ms * 1000
        self.ends_at = 0.0
        """When all that was queued will have been heard, if the line takes it."""

    def speak_as(self, model: Encoding) -> None:
        """The model's sound has this encoding."""
        self._model = model
        self._transcode = transcoder(model, self._line)

    def move(self, playout: Playout) -> None:
        """What comes from here on is heard through `playout`, in the same encoding; nothing may be playing."""
        self._playout = playout

    @property
    def any(self) -> bool:
        """Whether some item's sound is not yet heard to its end."""
        return bool(self._items)

    def play(self, item_id: str, content_index: int, response_id: str, sound: bytes, now: float) -> float | None:
        """Queue sound; for the first of an item, tells when it will begin to be heard."""
        key = item_id + self._session if not content_index else f"{item_id}/{content_index}{self._session}"
        item = self._items.get(key)
        begins = None
        if self.ends_at < now:
            self.ends_at = now
        if item is None:
            item = self._items[key] = Item(item_id, content_index, response_id)
            begins = self.ends_at
        payload = sound if self._transcode is None else self._transcode(sound)
        try:
            self._playout.enqueue(key, payload, now)
        except PlayoutOverflow:
            return begins  # more than the playout ever holds: what is beyond it is not heard, and not counted as received
        item.received_bytes += len(sound)
        self.ends_at += len(payload) / self._line_bytes_per_s
        return begins

    def session_gone(self, now: float) -> None:
        """What is queued plays on; nothing more will come, and nobody wants to be told of it."""
        self.finish(now)
        for item in self._items.values():
            item.known, item.item_id = False, retired(item.item_id)
        self._session = retired(self._session)

    def finish(self, now: float, response_id: str | None = None, item_id: str | None = None) -> None:
        """No more sound will come for these items (None: any)."""
        for key, item in self._items.items():
            if not item.done and response_id in (None, item.response_id) and item_id in (None, item.item_id):
                item.done = True
                self._playout.finish(key, now)

    def drained(self) -> list[Item]:
        """The playout is empty: finished items were heard to their end."""
        heard = [key for key, item in self._items.items() if item.done]
        return [self._items.pop(key) for key in heard]

    def interrupt(self, now: float) -> list[Cut]:
        """Silence the agent; tells of each item that was playing what was heard."""
        cuts = []
        for heard in self._playout.interrupt(now):
            item = self._items.pop(heard.key, None)
            if item is not None:
                received_ms = item.received_bytes // self._model.bytes_per_ms
                cuts.append(Cut(item, min(heard.heard_ms, received_ms), received_ms))
        for item in self._items.values():
            received_ms = item.received_bytes // self._model.bytes_per_ms
            cuts.append(Cut(item, received_ms, received_ms, whole=item.done))
        self._items.clear()
        self.ends_at = now
        if self._transcode is not None:
            self._transcode.reset()
        return cuts

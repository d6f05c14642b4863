"""The transcript: what was really heard and said, in the order of the conversation.

Rules:
1. An agent's line is final when its sound was heard to the end, or when the caller cut it off: then it ends at the word nearest
   the share of its sound that was heard, and a line of which nothing was heard is no line.
2. A caller's line is final when its transcription came. Later lines wait for it, at most `HOLD_S`.
3. `order` follows the conversation's items, not the arrival of their texts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from switchhook.agents.realtime.dialect import retired
from switchhook.domain.model import Speaker, Utterance
from switchhook.domain.ports import Clock

HOLD_S = 3.0
REMEMBERED_LINES = 400


@dataclass(slots=True)
class _Line:
    speaker: Speaker
    at: float
    text: str = ""
    complete: bool = False
    """All of the text is known."""
    share: float | None = None
    """Of an agent's line: which share of its sound was heard; 1.0: all. None: it is still playing."""
    sounded: bool = False
    """Of an agent's line: some of its sound was played."""
    void: bool = False
    order: int | None = None
    gone: bool = False

    @property
    def final(self) -> bool:
        if self.speaker is Speaker.CALLER:
            return self.complete
        if self.share is None:
            return False
        return self.complete or (self.share < 1.0 and bool(self.text)) or self.share == 0.0

    @property
    def heard_text(self) -> str:
        """The words that were heard, as far as they are known."""
        return heard_words(self.text, 1.0 if self.share is None else self.share).strip()


def heard_words(text: str, share: float) -> str:
    """The beginning of the text, cut at the end of the word nearest to this share of its length."""
    if share >= 1.0:
        return text
    target = share * len(text)
    ends = [0, *(i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace()), len(text)]
    return text[: min(ends, key=lambda end: abs(end - target))]


class Transcript:
    """Lines by item id, released in order. Times go in as monotonic seconds and come out as UTC, from `begin` on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = 0.0
        self._began_utc = clock.utc()
        self._lines: dict[str, _Line] = {}
        self._sequence: list[str] = []
        self._next_order = 0
        self._held_since: float | None = None
        self._told: deque[tuple[Speaker, str]] = deque(maxlen=REMEMBERED_LINES)

    def begin(self, now: float) -> None:
        """The conversation begins."""
        self._began, self._began_utc = now, self._clock.utc()

    @property
    def deadline(self) -> float | None:
        """When a held line is released although an earlier one is still missing."""
        return None if self._held_since is None else self._held_since + HOLD_S

    def so_far(self) -> list[tuple[Speaker, str]]:
        """Speaker and text, for a model session that takes over: the last lines told, and those under way as far as they came."""
        lines = [line for line in map(self._lines.__getitem__, self._sequence) if not line.void]
        under_way = [(line.speaker, line.heard_text) for line in lines if line.speaker is Speaker.CALLER or line.sounded]
        return [*self._told, *((speaker, text) for speaker, text in under_way if text)]

    def place(self, item_id: str, previous_item_id: str | None, speaker: Speaker, now: float) -> None:
        """An item exists; it stands behind `previous_item_id` when that is known."""
        if item_id in self._lines:
            return
        self._lines[item_id] = _Line(speaker, now)
        before = self._lines.get(previous_item_id or "")
        if previous_item_id in self._sequence:
            self._sequence.insert(self._sequence.index(previous_item_id) + 1, item_id)
        elif before is not None and before.gone:
            self._sequence.insert(0, item_id)
        else:
            self._sequence.append(item_id)

    def began(self, item_id: str, now: float) -> None:
        """The agent's first sound of this item plays."""
        if (line := self._lines.get(item_id)) is not None:
            line.at, line.sounded = now, True

    def knows(self, item_id: str) -> bool:
        """Whether the item has its place."""
        return item_id in self._lines

    @property
    def awaits_caller(self) -> bool:
        """Whether the text of something the caller said may still come."""
        lines = map(self._lines.__getitem__, self._sequence)
        return any(line.speaker is Speaker.CALLER and not (line.complete or line.void or line.order) for line in lines)

    def session_gone(self) -> None:
        """No text comes any more of what the session heard and said, and the next may give the same ids to other items."""
        for line in map(self._lines.__getitem__, self._sequence):
            line.void = line.void or not (line.complete or line.sounded)
            line.complete = True
        self._lines = {retired(item_id): self._lines[item_id] for item_id in self._sequence}
        self._sequence = list(self._lines)

    def drop_unheard(self) -> None:
        """The agent was interrupted: its lines of which no sound was played will not be heard."""
        for item_id in self._sequence:
            line = self._lines[item_id]
            if line.speaker is Speaker.AGENT and not line.sounded:
                line.void = True

    def add_words(self, item_id: str, words: str) -> None:
        """A piece of the agent's text."""
        line = self._lines.get(item_id)
        if line is not None and not line.complete:
            line.text += words

    def complete(self, item_id: str, text: str) -> None:
        """All of the text. An interrupted line that was told already stays as it was."""
        line = self._lines.get(item_id)
        if line is not None and not line.complete:
            line.text, line.complete = text, True

    def drop(self, item_id: str) -> None:
        """The item will not be, as far as is known: if it comes after all, it has its place where it comes."""
        if item_id in self._sequence:
            self._sequence.remove(item_id)
            del self._lines[item_id]

    def rename(self, item_id: str, new_id: str) -> None:
        """The server gives an item, which keeps its time and place, another id."""
        if item_id in self._sequence and new_id not in self._lines:
            self._lines[new_id] = self._lines.pop(item_id)
            self._sequence[self._sequence.index(item_id)] = new_id

    def heard(self, item_id: str) -> None:
        """All of the agent's sound was heard."""
        line = self._lines.get(item_id)
        if line is not None and line.share is None:
            line.share = 1.0

    def cut(self, item_id: str, share: float) -> None:
        """The caller cut the agent off after this share of the sound."""
        line = self._lines.get(item_id)
        if line is not None and line.share is None:
            line.share = min(share, 0.999)

    def void(self, item_id: str) -> None:
        """No text will come for this item, or none was spoken."""
        if (line := self._lines.get(item_id)) is not None:
            line.void = True

    def say(self, item_id: str, speaker: Speaker, text: str, now: float) -> None:
        """A line that is complete at once (keys that were pressed)."""
        self.place(item_id, None, speaker, now)
        line = self._lines[item_id]
        line.text, line.complete, line.share = text, True, 1.0

    def release(self, now: float, all_of_them: bool = False) -> list[Utterance]:
        """Lines that are final by now, in order. `all_of_them`: the call is over, nothing more will come."""
        out: list[Utterance] = []
        waiting = False
        patience = all_of_them or (self._held_since is not None and now >= self._held_since + HOLD_S)
        blocked_final = False
        for item_id in list(self._sequence):
            line = self._lines[item_id]
            # Of a line that was heard more text may have been to come; what came of it was said.
            final = line.final or (all_of_them and line.share is not None)
            if line.void or (all_of_them and not final):
                self._forget(item_id, line)
            elif not final:
                # A line that was waited for in vain has its place and holds nobody up again.
                if patience and line.order is None:
                    line.order = self._take_order()
                waiting = waiting or line.order is None
            elif waiting and not patience and line.order is None:
                blocked_final = True
            else:
                out += self._utterance(item_id, line)
        if blocked_final:
            self._held_since = now if self._held_since is None else self._held_since
        else:
            self._held_since = None
        return out

    def _utterance(self, item_id: str, line: _Line) -> list[Utterance]:
        text = line.heard_text
        order = line.order if line.order is not None else self._take_order()
        self._forget(item_id, line)
        if not text:
            return []
        self._told.append((line.speaker, text))
        at = self._began_utc + timedelta(seconds=line.at - self._began)
        return [Utterance(line.speaker, text, order, at, interrupted=line.share is not None and line.share < 1.0)]

    def _take_order(self) -> int:
        self._next_order += 1
        return self._next_order

    def _forget(self, item_id: str, line: _Line) -> None:
        """The line is told; its id is kept so that late events for it change nothing."""
        line.gone = line.void = True
        self._sequence.remove(item_id)

"""When the agent talked with a transfer's destination, so that nobody takes the destination's words for the caller's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from switchhook.domain.model import Speaker, Utterance


@dataclass(slots=True)
class Consultations:
    """The consultations of one call, in order. Times are UTC.

    A line of the transcript may become final long after it was spoken, also after its consultation: what counts is when it began.
    """

    _spans: list[tuple[datetime, datetime | None]] = field(default_factory=list)

    def begin(self, at: datetime) -> None:
        """The agent talks with the destination."""
        self.end(at)
        self._spans.append((at, None))

    def end(self, at: datetime) -> None:
        """It does not any more; nothing when it did not."""
        if self._spans and self._spans[-1][1] is None:
            self._spans[-1] = (self._spans[-1][0], at)

    def attributed(self, utterance: Utterance) -> Utterance:
        """The line under the name of whoever spoke it; an agent cannot tell the two parties that it hears apart."""
        if utterance.speaker is not Speaker.CALLER or not any(
            began <= utterance.at and (ended is None or utterance.at < ended) for began, ended in self._spans
        ):
            return utterance
        return replace(utterance, speaker=Speaker.DESTINATION)

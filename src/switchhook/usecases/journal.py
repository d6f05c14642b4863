"""What is written down of one live call, kept in memory for its end webhook and handed to the store bit by bit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from switchhook.domain.model import CallId, Utterance
from switchhook.domain.plan import JournalSpec
from switchhook.domain.ports import ToolRunner
from switchhook.domain.records import CallLine, CallProgress, LineKind, utterance_line
from switchhook.usecases.live_transcript import LiveTranscript

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 4_000_000
FULL = "Logging stopped: the log of this call is full."


class Journal:
    """Implements `domain.ports.CallJournal`. Lines that the customer did not ask for are not kept."""

    tools: ToolRunner

    def __init__(self, call_id: CallId, spec: JournalSpec, customer_call_id: str | None) -> None:
        self._call_id = call_id
        self._spec = spec
        self._customer_call_id = customer_call_id
        self._connected_at: datetime | None = None
        self._live: LiveTranscript | None = None
        self._characters = 0
        self._written: CallProgress | None = None
        self._handed_over = 0
        self.lines: list[CallLine] = []

    def attach(self, tools: ToolRunner, live: LiveTranscript) -> None:
        """Give the call its tools and its live delivery, which write into this journal."""
        self.tools = tools
        self._live = live

    def detach(self) -> None:
        """The call is over: let go of what leads back here."""
        del self.tools
        self._live = None

    def answered(self, at: datetime) -> None:
        """The call was answered."""
        self._connected_at = at

    def utterance(self, utterance: Utterance) -> None:
        """A final line of the transcript: delivered live if that is asked for, kept if that is asked for."""
        if self._live is not None:
            try:
                self._live.put(utterance)
            except Exception:
                # A fault in a contract's folder must not end the talk.
                logger.exception("a transcript line could not be delivered", extra={"call_id": self._call_id})
        if self._spec.transcript:
            self._keep(utterance_line(self._call_id, len(self.lines), utterance))

    def log(self, text: str, at: datetime) -> None:
        """A line of the call's log."""
        if self._spec.logs:
            self._keep(CallLine(self._call_id, len(self.lines), LineKind.LOG, at, text))

    def take(self) -> tuple[CallProgress | None, list[CallLine]]:
        """What is not known to be written: the progress, if it changed, and lines. Given again until `handed_over`."""
        progress = CallProgress(self._call_id, self._spec, self._customer_call_id, self._connected_at)
        return progress if progress != self._written else None, self.lines[self._handed_over :]

    def handed_over(self, progress: CallProgress | None, lines: Sequence[CallLine]) -> None:
        """What `take` gave is written."""
        if progress is not None:
            self._written = progress
        if lines:
            self._handed_over = lines[-1].position + 1

    def _keep(self, line: CallLine) -> None:
        if self._characters > MAX_CHARACTERS:
            return
        self._characters += len(line.text)
        self.lines.append(line)
        if self._characters > MAX_CHARACTERS:
            self.lines.append(CallLine(self._call_id, len(self.lines), LineKind.LOG, line.at, FULL))

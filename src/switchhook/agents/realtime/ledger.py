"""The tool ledger: which calls the model made, which run, which were answered. Speech may be cancelled; the ledger never is.

Rules:
1. A call runs exactly once, when the model has finished writing it; what becomes of the response that held it does not matter.
2. Each call is answered exactly once, whatever the runner gives back and however often.
3. A new response is due when the response that held the calls is done and all its calls are answered.
4. A call outlives its model session: its answer is then given as text, because the new session does not know the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from switchhook.agents.conversation import RunTool
from switchhook.agents.realtime.dialect import retired, text_of
from switchhook.domain.model import ToolCall

MAX_RUNNING = 32
MAX_CALLS = 4096
"""Beyond these, a call is answered with an error at once; a call that loops must not exhaust the server."""
_REMEMBERED = 24
_REMEMBERED_CHARS = 4096
_REFUSAL = '{"error":"Too many tools are running."}'


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give a tool's output to the model."""

    call: ToolCall
    output: str
    as_text: bool
    """The session that made the call is gone."""


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """All calls of a response are answered: let the model go on."""


LedgerEffect: TypeAlias = RunTool | Deliver | CreateResponse


class _Batch:
    """The calls of one response."""

    __slots__ = ("done", "unanswered")

    def __init__(self) -> None:
        self.unanswered: set[str] = set()
        self.done = False


class ToolLedger:
    """Inputs are the model's finished items and the runner's results; `take` gives what is to be done."""

    def __init__(self) -> None:
        self._effects: list[LedgerEffect] = []
        self._running: dict[str, tuple[ToolCall, _Batch]] = {}
        """By the name that the runner knows; the call has the one that its session gave it."""
        self._seen: set[str] = set()
        self._batches: dict[str, _Batch] = {}
        self._foreign: set[str] = set()
        self._answers: list[tuple[ToolCall, str]] = []

    @property
    def idle(self) -> bool:
        """No tool runs."""
        return not self._running

    def take(self) -> list[LedgerEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    def item_done(self, response_id: str, item: Mapping[str, Any], response_completed: bool = False) -> None:
        """The model finished an item. A call without a status counts only when its whole response was completed."""
        if item.get("type") != "function_call":
            return
        status = item.get("status")
        if status != "completed" and not (status is None and response_completed):
            return
        call_id = text_of(item, "call_id") or text_of(item, "id")
        if not call_id or call_id in self._seen:
            return
        self._seen.add(call_id)
        call = ToolCall(call_id, text_of(item, "name"), text_of(item, "arguments"))
        batch = self._batches.setdefault(response_id, _Batch())
        while call_id in self._running:  # one of a session that is gone had the same name
            call_id = retired(call_id)
        batch.unanswered.add(call_id)
        self._running[call_id] = (call, batch)
        if len(self._seen) > MAX_CALLS or len(self._running) > MAX_RUNNING:
            self.returned(call_id, _REFUSAL)
            return
        self._effects.append(RunTool(ToolCall(call_id, call.name, call.arguments)))

    def response_done(self, response_id: str, items: Sequence[Mapping[str, Any]], completed: bool) -> None:
        """A response is over; calls among its items that were not seen yet run too."""
        for item in items:
            self.item_done(response_id, item, completed)
        batch = self._batches.pop(response_id, None)
        if batch is not None:
            batch.done = True
            self._go_on_if_answered(batch)

    def returned(self, call_id: str, output: str) -> None:
        """A tool gave its output."""
        call, batch = self._running.pop(call_id, (None, None))
        if call is None or batch is None:
            return
        self._effects.append(Deliver(call, output, call_id in self._foreign))
        self._foreign.discard(call_id)
        self._answers = [*self._answers[1 - _REMEMBERED :], (call, output)]
        batch.unanswered.discard(call_id)
        self._go_on_if_answered(batch)

    def renewed(self) -> bool:
        """The model session is gone, and with it the responses it was making. True: an answer of a tool was not yet spoken of."""
        self._foreign |= self._running.keys()
        self._seen.clear()  # the next session may count its calls from one again
        owed = any(not batch.unanswered for batch in self._batches.values())
        for batch in self._batches.values():
            batch.done = True
        self._batches.clear()
        return owed

    def recital(self) -> list[str]:
        """What the tools gave so far, as texts for a new session, which knows none of it."""
        return [as_text(call, _short(output)) for call, output in self._answers]

    def _go_on_if_answered(self, batch: _Batch) -> None:
        if batch.done and not batch.unanswered:
            self._effects.append(CreateResponse())


def as_text(call: ToolCall, output: str) -> str:
    """A result for a session that did not make the call."""
    return f"[Result of the tool {call.name}, called with {_short(call.arguments) or '{}'}] {output}"


def _short(text: str) -> str:
    return text if len(text) <= _REMEMBERED_CHARS else f"{text[:_REMEMBERED_CHARS]}…"

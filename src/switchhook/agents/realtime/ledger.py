"""The tool ledger: every function call runs once, is answered once, and is followed by one response.

Rules:
1. A call is known by the model's call id. It is started when first seen, whatever happens to its response afterwards.
2. Its output is handed over exactly once.
3. The calls of one response are a group: the model is asked to go on when all of the group are answered.
4. When the model's session is replaced, calls under way belong to a conversation that is gone: their outputs are told as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from switchhook.domain.model import ToolCall


@dataclass(slots=True)
class _Group:
    running: set[str] = field(default_factory=set)


class ToolLedger:
    """Started, finished, delivered."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._group_of: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._orphans: set[str] = set()

    @property
    def running(self) -> bool:
        """Whether any tool is under way."""
        return any(group.running for group in self._groups.values())

    def start(self, call: ToolCall, response_id: str) -> bool:
        """A function call was seen; True when it must run now, False when it was started before."""
        if call.call_id in self._group_of:
            return False
        self._group_of[call.call_id] = response_id
        self._names[call.call_id] = call.name
        self._groups.setdefault(response_id, _Group()).running.add(call.call_id)
        return True

    def finish(self, call_id: str) -> bool:
        """An output came; True when it must be handed over, False when that was done before or the call is unknown."""
        group = self._groups.get(self._group_of.get(call_id, ""))
        if group is None or call_id not in group.running:
            return False
        group.running.discard(call_id)
        return True

    def group_complete(self, call_id: str) -> bool:
        """Whether all calls of this call's response are answered."""
        group = self._groups.get(self._group_of.get(call_id, ""))
        return group is not None and not group.running

    def orphan_all(self) -> None:
        """The model's session is gone."""
        for group in self._groups.values():
            self._orphans |= group.running

    def is_orphan(self, call_id: str) -> bool:
        """Whether the conversation that asked for this call is gone."""
        return call_id in self._orphans

    def name(self, call_id: str) -> str:
        """The tool's name."""
        return self._names.get(call_id, "")
